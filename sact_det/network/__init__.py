"""The networks: norms, residual units, halting branches, blocks."""
