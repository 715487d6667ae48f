"""The paper on tensors, without layers: halting, padding, FLOPs, what was spent."""
