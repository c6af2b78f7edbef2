"""From a caption to the COCO objects that it mentions."""
