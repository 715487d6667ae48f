"""A server of files on this machine, which can break off, refuse to go on, or change its mind about what it serves."""

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator, Optional


@dataclass
class FileServer:
    """What a server answers.

    Attributes:
        files: path, with its slash -> content.
        breaks_after: bytes of a body, after which the connection ends; None: it does not.
        ranges: whether it sends parts of files.
        validator: its ETag for all files; None: it has none.
        requests: (path, Range header) of each request so far.
        address: of the server, without a path.
    """

    files: dict[str, bytes]
    breaks_after: Optional[int] = None
    ranges: bool = True
    validator: Optional[str] = '"one"'
    requests: list[tuple[str, Optional[str]]] = field(default_factory=list)
    address: str = ""


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[FileServer]:
    """A running server, as long as the context lasts."""
    state = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            state.requests.append((self.path, asked))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if not state.ranges or self.headers["If-Range"] != state.validator:
                first = 0
            if first and first >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            if state.validator is not None:
                self.send_header("ETag", state.validator)
            body = content[first:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.breaks_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
