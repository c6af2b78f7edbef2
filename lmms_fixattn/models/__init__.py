"""The seam: what belongs to a family of models, checkpoints, prompts, and what transformers calls things."""

DEFAULT_CHECKPOINT = "llava-hf/llava-1.5-7b-hf"
"""What is run where no checkpoint is named."""
