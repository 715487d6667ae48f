"""A server of the live page on this machine.

It talks to nobody, keeps what it was sent in a private folder for as long as it runs, and hands out nothing but that.
"""

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Iterator, Optional

from sact_det.base.errors import InputError, one_line
from sact_det.viewer.look import Viewer
from sact_det.viewer.page import PageLimits, Watched, build_page, import_gradio

_LIMITS = PageLimits()
_STYLE = Path(__file__).with_name("page.css")


@contextlib.contextmanager
def _private_cache() -> Iterator[None]:
    """A folder of this user alone for what gradio keeps, removed at the end."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="sact_det-live-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextlib.contextmanager
def _without_proxy(host: str) -> Iterator[None]:
    """What this process asks its own server, as gradio does when it starts one, goes through no proxy."""
    before = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    own = ",".join(filter(None, (*before.values(), "localhost", "127.0.0.1", host)))
    os.environ.update(dict.fromkeys(before, own))
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _check_address(host: str, port: int) -> None:
    """Raises InputError if nothing can be bound there: gradio's server would say so in a thread of its own."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot be served there ({one_line(error)})") from error


@contextlib.contextmanager
def serving(
    viewer: Viewer,
    title: str,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: PageLimits = _LIMITS,
    first: Optional[Path] = None,
) -> Iterator[str]:
    """Serves the page as long as the context lasts; yields its address.

    Args:
        viewer: the network.
        title: of the page.
        host: the address to bind to. Whoever can reach it can use the page.
        port: to bind to.
        limits: of pictures.
        first: a picture to begin with.

    Raises:
        InputError: gradio is missing, `first` cannot be read, or nothing can be bound to host and port.
    """
    _check_address(host, port)
    with _private_cache():
        page = build_page(Watched(viewer, limits), title, first)
        gradio = import_gradio()
        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
        with _without_proxy(host):
            _, url, _ = page.queue(max_size=32, api_open=False).launch(
                server_name=host,
                server_port=port,
                share=False,
                allowed_paths=[],
                max_file_size=limits.bytes,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                ssr_mode=False,
                _frontend=False,  # else it gives up where its own page takes three seconds, as on a busy machine
                theme=gradio.themes.Base(**fonts).set(block_info_text_color="*neutral_600"),
                css=_STYLE.read_text(encoding="utf-8"),
            )
        try:
            yield url
        finally:
            page.close(verbose=False)
