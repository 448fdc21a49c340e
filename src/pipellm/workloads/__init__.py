"""LLM programs as the link sees them: what they copy, what they compute, when they wait."""
