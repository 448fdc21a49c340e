"""vLLM 0.31: its KV cache's blocks swapped between device and host through the secure channel.

plugin.py     the entry points by which vLLM finds all this
platform.py   vLLM's CPU platform, with offloading switched on by default
spec.py       the offloading spec: puts the two halves below together
chunks.py     what the halves tell each other about chunks of host memory
foresight.py  the scheduler's half: which request's chunks come back next
worker.py     the worker's half: jobs, in pieces, over the link
pages.py      where a block's bytes lie in the layers' tensors, gathered and scattered on the device
"""
