"""What needs a GPU, ready to run in one go (tools/gpu_check.py): stages in order of worth, each in its own process."""
