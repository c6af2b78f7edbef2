"""What belongs to a model family: its checkpoint, prompts, images and vision attention."""
