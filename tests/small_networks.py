"""Networks small enough to check by hand, with weights that make different positions halt at different units."""

from sact_det.benchmark.lively import enliven
from sact_det.benchmark.lively import noise as images

__all__ = ["enliven", "images"]
