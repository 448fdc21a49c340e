"""A program that knows nothing of PipeLLM: a few users talk to vLLM, in turns.

    python -m examples.vllm.generate MODEL

There is room on the device for about a third of what they say, so requests are preempted and
resumed; and when a user speaks again, most of the conversation has to come back. It prints one JSON
object per line: what each user had said so far and was answered, then what it all took.
"""

import argparse
import json
import random
import time

from examples.vllm.model import PERIOD, POSITIONS, VOCABULARY
from vllm import LLM, SamplingParams

USERS = 8


def words(rng: random.Random, count: int) -> list[int]:
    """Token ids, none of them special."""
    return [rng.randrange(4, VOCABULARY) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument(
        "--turns", type=int, default=3, help="of each user, at most 5 (%(default)s)"
    )
    parser.add_argument("--blocks", type=int, default=20, help="on the device (%(default)s)")
    arguments = parser.parse_args()
    # As vLLM comes, but for a small device and for the count of preemptions.
    llm = LLM(arguments.model, num_gpu_blocks_override=arguments.blocks, disable_log_stats=False)
    rng = random.Random(0)
    said: list[list[int]] = [[] for _ in range(USERS)]
    longest = POSITIONS // arguments.turns // 2  # what is said, and what is answered
    tokens = 0
    seconds = 0.0
    for _ in range(arguments.turns):
        for conversation in said:
            conversation += words(rng, rng.randrange(PERIOD, longest))
        sampling = [
            SamplingParams(max_tokens=rng.randrange(PERIOD, longest), temperature=0) for _ in said
        ]
        began = time.perf_counter()
        outputs = llm.generate(
            [{"prompt_token_ids": conversation} for conversation in said], sampling, use_tqdm=False
        )
        seconds += time.perf_counter() - began
        for user, output in enumerate(outputs):
            answer = list(output.outputs[0].token_ids)
            print(json.dumps({"user": user, "said": said[user], "answer": answer}), flush=True)
            tokens += len(answer)
            said[user] += answer
    preempted = sum(
        metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"
    )
    print(json.dumps({"tokens": tokens, "seconds": seconds, "preemptions": preempted}), flush=True)


if __name__ == "__main__":
    main()
