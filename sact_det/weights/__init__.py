"""Where weights come from: our weight files and conversions from other programs."""
