"""Data sets: COCO-format registration, the training stream, the built-in demo set."""
