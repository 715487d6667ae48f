"""Inference on an NVIDIA GPU: the units behind a block's first in rows, by Triton kernels."""
