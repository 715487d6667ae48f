import dataclasses

import pytest
import torch


@pytest.fixture(scope="module")
def no_overflow_checks():
    """They take half of the interpreter's time, and here every map is small."""
    if torch.cuda.is_available():
        yield
        return
    from triton.runtime.interpreter import interpreter_builder

    options = interpreter_builder.options
    interpreter_builder.options = dataclasses.replace(options, sanitize_overflow=False)
    yield
    interpreter_builder.options = options
