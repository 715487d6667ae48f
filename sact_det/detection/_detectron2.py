"""Says how to get Detectron2 where it is missing."""

import importlib.util


def require_detectron2() -> None:
    """Raises ImportError, in one line, if Detectron2 cannot be imported."""
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(
            "the detection parts need Detectron2, which is not installed: run `make setup` in a clone of sact_det, "
            "or `pip install 'git+https://github.com/facebookresearch/detectron2.git'`"
        )
