"""Unmodified PEFT, fine-tuning and generating with the base model's weights in host memory."""
