import sys
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def pysaliency(monkeypatch):
    """pysaliency, with the two names that its release 0.2.22 misses in current numpy and setuptools."""
    pytest.importorskip("numba", reason="needs pysaliency, which is not installed")
    if not hasattr(np, "trapz"):
        monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    try:
        import pkg_resources  # noqa: F401
    except ImportError:
        stand_in = ModuleType("pkg_resources")
        stand_in.resource_string = stand_in.resource_listdir = lambda *arguments: b""
        monkeypatch.setitem(sys.modules, "pkg_resources", stand_in)
    return pytest.importorskip("pysaliency", reason="needs pysaliency, which is not installed")
