"""Inference on a CPU in float32: whole blocks in rows, by kernels of our own."""
