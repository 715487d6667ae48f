"""How fast adaptive networks are beside the fastest dense ones: candidates, masks, timing (tools/benchmark.py)."""
