"""Execution "perforated" on an NVIDIA GPU: inference of the units behind a block's first by Triton kernels."""
