"""Published weights by name, as our weight files: fetched once, converted once, then read from the cache folder."""

import contextlib
import hashlib
import logging
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Iterator

from sact_det.base.archives import is_tar, unpack_tar
from sact_det.base.cache_folder import private_cache_folder
from sact_det.base.download import fetch, is_url
from sact_det.base.errors import InputError, naming, one_line
from sact_det.base.files import file_sha256, locked
from sact_det.weights.conversion import CONVERSIONS
from sact_det.weights.published import SCHEME, Published, find_published
from sact_det.weights.weight_file import save_weights

_FOLDER = "weights"
_FILE = "file://"

logger = logging.getLogger(__name__)


def weights_named(name: str) -> Path:
    """The weight file of published weights, in the cache folder, where the publisher's file lies beside it.

    Without network it is what an earlier call has left there.

    Args:
        name: of find_published (published.py).

    Raises:
        InputError: there are no such weights, or they cannot be fetched or converted.
        OSError: the cache folder cannot be written.
    """
    published = find_published(name)
    folder = _folder(name)
    # A publisher's file does not change. Ours does with the package, and its digest with it.
    path = folder / f"{folder.name}{f'-{published.sha256[:8]}' if published.sha256 else ''}.pth"
    with locked(folder / ".lock"):
        if not path.exists():
            source = _fetched(published, folder)
            logger.info("%s%s: converting %s", SCHEME, name, source)
            with naming(f"{SCHEME}{name}", InputError):
                _convert(published, source, path)
    return path


def _fetched(published: Published, folder: Path) -> Path:
    """The publisher's file, or that of this package."""
    if not is_url(published.url):
        return Path(published.url)
    source = folder / published.url.rpartition("/")[2]
    try:
        fetch(published.url, source, published.size, published.sha256)
    except InputError as error:
        raise InputError(
            f"{SCHEME}{published.name}: {one_line(error)}; without network, save {published.url} as {source}"
        ) from error
    if published.sha256 is None:
        logger.info("%s: SHA-256 %s, which cannot be compared: none is known", source, file_sha256(source))
    return source


def _convert(published: Published, source: Path, path: Path) -> None:
    with local_source(str(source)) as local:
        converted = CONVERSIONS[published.conversion](local)
    place = published.url if is_url(published.url) else source.name
    origin = f"{converted.metadata.get('source', published.what)}, from {place}, sha256 {file_sha256(source)}"
    save_weights(path, converted.state_dict, {**converted.metadata, "source": origin})


@contextlib.contextmanager
def local_source(source: str) -> Iterator[Path]:
    """A file or folder that a conversion (conversion.py) reads, as long as the context lasts.

    Args:
        source: of a file or folder, or its file://, http:// or https:// address, or a name behind "sact://"; if it is a
            tar, the checkpoint in it. What is fetched stays in the cache folder.

    Raises:
        InputError: it cannot be fetched or unpacked, or does not hold one checkpoint.
        OSError: the cache folder cannot be written.
    """
    path = _local(source)
    if path.is_file() and is_tar(path):
        with tempfile.TemporaryDirectory() as folder:
            unpack_tar(path, Path(folder))
            yield find_checkpoint(Path(folder), path)
    else:
        yield path


def _local(source: str) -> Path:
    if source.startswith(SCHEME):
        published = find_published(source.removeprefix(SCHEME))
        return _fetched(published, _folder(published.name))
    if is_url(source):
        path = PurePosixPath(urllib.parse.urlsplit(source).path)
        folder = _folder(f"url-{hashlib.sha256(source.encode()).hexdigest()[:16]}")
        return fetch(source, folder / (path.name or "file"))
    if source.startswith(_FILE):
        return Path(urllib.request.url2pathname(source.removeprefix(_FILE)))
    return Path(source)


def _folder(name: str) -> Path:
    """That of a publication's files in the cache folder; made if missing."""
    folder = private_cache_folder() / _FOLDER / name.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def find_checkpoint(folder: Path, archive: Path) -> Path:
    """The one checkpoint of TensorFlow in the folder of an archive, as open_checkpoint takes it.

    Raises:
        InputError: there is none, or more than one.
    """
    found = next((paths for paths in _checkpoints(folder) if paths), [])
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:3]) or "none"
        raise InputError(f"{archive}: expected one checkpoint of TensorFlow; found {names}")
    return found[0]


def _checkpoints(folder: Path) -> Iterator[list[Path]]:
    """What may be one, the surest first: folders with a file `checkpoint`, indices, files of a V1 checkpoint."""
    yield [path.parent for path in sorted(folder.rglob("checkpoint"))]
    for suffix in (".index", ".ckpt"):
        yield sorted(folder.rglob(f"*{suffix}"))
