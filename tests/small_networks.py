"""Networks small enough to check by hand, with weights that make different positions halt at different units."""

from sact_det.benchmark.random_networks import noise as images
from sact_det.benchmark.random_networks import randomize

__all__ = ["images", "randomize"]
