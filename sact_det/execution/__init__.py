"""How a block skips work: residual units evaluated at the active positions only."""
