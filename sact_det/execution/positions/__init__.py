"""Execution "perforated" in PyTorch: runs that compute active positions, or images, only."""
