"""Where weights come from: our weight files, and conversions from other programs."""

from sact_det.weights.sact_tf import load_sact_tf

__all__ = ["load_sact_tf"]
