"""Execution "perforated" on a CPU: inference and training of whole blocks by C++ kernels."""
