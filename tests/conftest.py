import contextlib
import logging
import os
import resource
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before anything reads it: threads wait more than they work here

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels run on the CPU

torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; programs leave it so
    signal.signal(signal.SIGINT, signal.default_int_handler)

NOBODY = 65534


def pytest_configure(config):
    """What tests and their processes leave in the folder for temporary files goes with the run."""
    if hasattr(config, "workerinput"):
        return  # the process that shares out the tests has done it
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays, for a look at it
    folder = tempfile.TemporaryDirectory(prefix="sact_det_tests_", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    Path(folder.name).chmod(0o1777)  # some tests are another user for a while
    os.environ["TMPDIR"] = tempfile.tempdir = folder.name


def pytest_make_parametrize_id(val, argname):
    """Processes that share the tests must give them the same names: bytes may hold the time, as gzip's do."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture
def full_disk():
    """A context in which no file grows beyond so many bytes: what does not fit fails as on a full disk."""

    @contextlib.contextmanager
    def limit(free_bytes):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def locked_folder():
    """A folder that this process may read but not write, not even as root."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "locked"
        folder.mkdir()
        folder.chmod(0o555)
        Path(root).chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """The folder for what can be made again, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SACT_DET_CACHE", str(folder))
    return folder


@pytest.fixture
def own_loggers():
    """Closes the log files and streams that a command opens, so that the next one opens its own."""
    yield
    from detectron2.utils.logger import setup_logger

    for name in ("detectron2", "fvcore", "sact_det"):
        for handler in logging.getLogger(name).handlers[:]:
            logging.getLogger(name).removeHandler(handler)
            handler.close()
    setup_logger.cache_clear()


@pytest.fixture(autouse=True)
def no_code_from_torch_compile(monkeypatch):
    """Execution "compile" makes graphs in tests, not code for them: that takes minutes."""
    monkeypatch.setattr("sact_det.execution.compiled.BACKEND", "eager")
