"""Unmodified vLLM, its KV cache swapped to host memory, on the emulated confidential GPU."""
