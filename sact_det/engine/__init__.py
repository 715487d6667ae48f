"""What detection and classification share of Detectron2's machinery. Importing it imports Detectron2, quietly."""

import importlib.util
import logging
import warnings


def import_detectron2() -> None:
    """Imports Detectron2 without the deprecation warnings that its own code raises under recent PyTorch.

    Raises:
        ImportError: it is not installed; the message, one line, says how to get it.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ImportError(
            "this part of sact_det needs Detectron2, which is not installed: run `make setup` in a clone of sact_det, "
            "or `pip install 'git+https://github.com/facebookresearch/detectron2.git'`"
        )
    # It asks torch.fx whether it is being traced, which torch answers with a note about newer functions, every run.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    # Where CUDA's compiler is and no GPU, which nobody asked about.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script is deprecated
        import detectron2.modeling  # noqa: F401


import_detectron2()
