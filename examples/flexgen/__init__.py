"""Unmodified FlexGen, with its weights in host memory, on the emulated confidential GPU."""
