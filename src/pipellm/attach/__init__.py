"""Getting under a program that knows nothing of PipeLLM."""
