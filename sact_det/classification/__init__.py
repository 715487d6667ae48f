"""Image classification with adaptive computation."""
