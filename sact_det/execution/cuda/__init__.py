"""Execution "perforated" on an NVIDIA GPU: units behind a block's first, in inference and training, by Triton."""
