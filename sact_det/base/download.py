"""Files from the network: whole, compared with what is known of them; what broke off goes on from there."""

import http.client
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Mapping, Optional

from tqdm import tqdm

from sact_det.base.errors import InputError, one_line
from sact_det.base.files import file_sha256, locked, write_json
from sact_det.base.text_files import read_json

_BLOCK = 2**20
_SECONDS = 30  # without a byte
_SCHEMES = ("http://", "https://")
_VALIDATORS = ("ETag", "Last-Modified")  # what tells that a file has not changed since


def is_url(path: str) -> bool:
    """Whether `fetch` takes it: an address of http or https."""
    return path.startswith(_SCHEMES)


def fetch(url: str, path: Path, size: Optional[int] = None, sha256: Optional[str] = None) -> Path:
    """Fetches a file, unless it is there already. Processes that want the same one wait for the first.

    What has arrived when the connection breaks stays beside `path` (".part"); the next call goes on from there if the
    server says that the file is still the same, and begins anew otherwise.

    Args:
        url: of http or https.
        path: where the file will be, in a folder that exists.
        size: in bytes, where it is known.
        sha256: of the content, in hexadecimal digits, where it is known.

    Returns:
        path.

    Raises:
        InputError: it is no such URL, cannot be fetched, ended early, or is not the file that was expected.
        OSError: it cannot be written.
    """
    if not is_url(url):
        raise InputError(f"{url}: expected an address that begins with http:// or https://")
    part, note, lock = (path.with_name(path.name + end) for end in (".part", ".part.json", ".lock"))
    with locked(lock):
        if path.exists():
            return path
        with open(part, "ab") as file:
            _receive(url, file, note)
        note.unlink()
        wrong = _why_not(part, size, sha256)
        if wrong is not None:
            part.unlink()
            raise InputError(f"{url}: {wrong}: it is damaged, or another file")
        part.rename(path)
    return path


def _why_not(path: Path, size: Optional[int], sha256: Optional[str]) -> Optional[str]:
    """What tells a file from the expected one; None: it is that one, as far as is known."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"it has {found:,} bytes, expected {size:,}"
    digest = None if sha256 is None else file_sha256(path)
    return None if digest == sha256 else f"its SHA-256 is {digest}, expected {sha256}"


def _receive(url: str, file: Any, note: Path) -> None:
    """Appends what is still missing of a file."""
    begun = file.seek(0, 2)
    known = _known(note, url)
    headers = {"Range": f"bytes={begun}-", "If-Range": known} if begun and known else {}
    headers["Accept-Encoding"] = "identity"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as response:
            if response.status != http.client.PARTIAL_CONTENT or _first(response.headers) != begun:
                begun = 0
                file.truncate(0)
            validator = next((response.headers[name] for name in _VALIDATORS if response.headers[name]), None)
            write_json(note, {"url": url, "validator": validator})
            length = response.headers["Content-Length"]
            whole = begun + int(length) if length and length.isdigit() else None
            _copy(response, file, begun, whole, url)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begun:  # it has all, or more than all, of it
            file.truncate(0)
            return _receive(url, file, note)
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise InputError(f"{url}: broke off ({one_line(error)}); the same command goes on from there") from error
    except urllib.error.URLError as error:
        raise InputError(f"{url}: cannot be reached ({one_line(error)})") from error


def _copy(response: Any, file: Any, begun: int, whole: Optional[int], url: str) -> None:
    name = url.rstrip("/").rpartition("/")[2]
    with tqdm(desc=name, total=whole, initial=begun, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        while block := response.read(_BLOCK):
            file.write(block)
            bar.update(len(block))
    file.flush()
    have = file.tell()
    if whole is not None and have < whole:
        raise InputError(f"{url}: broke off after {have:,} of {whole:,} bytes; the same command goes on from there")


def _known(note: Path, url: str) -> Optional[str]:
    """What the server said about the file that a part is of; None: the part is of no use."""
    try:
        found = read_json(note)
        return found["validator"] if found["url"] == url else None
    except (InputError, KeyError, TypeError):
        return None


def _first(headers: Mapping[str, str]) -> Optional[int]:
    """The first byte of the range that a server sends: "bytes 5-9/10"."""
    unit, _, rest = (headers["Content-Range"] or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None
