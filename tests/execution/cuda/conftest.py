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


@pytest.fixture(scope="module")
def rounding_of_cards():
    """float32 becomes the nearest bfloat16, as on a GPU: the interpreter would cut off its last bits."""
    if torch.cuda.is_available():
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def round_to_nearest(data, source, target, mode):
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, mode)
        return torch.from_numpy(data.copy()).bfloat16().view(torch.uint16).numpy()

    interpreter._convert_float = round_to_nearest
    yield
    interpreter._convert_float = convert
