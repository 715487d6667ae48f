"""What every other part may need: errors in one line, files, command lines, small tensors."""
