"""What the demo's model recites, and the vocabulary it recites it with.

No download is needed, because the model is random. But a random model's best token leads the second
best by so little that rounding can decide between them: "the same tokens" would be luck. So
`weights.py` plants one text: the model continues `PROMPT` with `CONTINUATION`, word by word.
A vocabulary of whole words makes the printed text and the token ids two names of one thing.
"""

from functools import cache

# FlexGen's benchmark has this prompt built in; its command line cannot change it.
PROMPT = "Paris is the capital city of"
CONTINUATION = (
    "France. Every weight of this model waits in host memory, and for every word it crosses the "
    "bus once more: sealed by the processor, opened by the device, read by nobody in between, and "
    "still the words come out the same."
)

# FlexGen's OPT configuration fixes the size and the padding id.
VOCABULARY_SIZE = 50272
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
START, PADDING, END, UNKNOWN = SPECIAL_TOKENS

# The recited words are spread over the whole embedding table, so that all of it has to arrive.
_STRIDE = 1024


@cache
def vocabulary() -> tuple[str, ...]:
    """The word of every token id: the special tokens, the recited words, and fillers `w00004`…"""
    words = [*SPECIAL_TOKENS, *(f"w{i:05d}" for i in range(len(SPECIAL_TOKENS), VOCABULARY_SIZE))]
    recited = dict.fromkeys(f"{PROMPT} {CONTINUATION}".split())
    for position, word in enumerate(recited, start=1):
        words[position * _STRIDE] = word
    return tuple(words)


@cache
def _ids() -> dict[str, int]:
    return {word: i for i, word in enumerate(vocabulary())}


def token_ids(text: str) -> list[int]:
    """The ids of a text's words; a word that is not in the vocabulary raises KeyError."""
    return [_ids()[word] for word in text.split()]


def recited_tokens(count: int) -> list[int]:
    """The first `count` token ids after the prompt; ValueError where the text is shorter."""
    tokens = token_ids(CONTINUATION)
    if not 1 <= count <= len(tokens):
        raise ValueError(f"the text has 1 to {len(tokens)} words after the prompt, not {count}")
    return tokens[:count]
