"""Archives of strangers are unpacked into their folder or refused."""

import io
import tarfile

import pytest

from sact_det.base.archives import is_tar, unpack_tar
from sact_det.base.errors import InputError


def write_tar(path, members, mode="w:gz"):
    """members: (name, content or kind of tarfile, what a link leads to)."""
    with tarfile.open(path, mode) as archive:
        for name, content, *link in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes) and not link:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, link[0]
                archive.addfile(member)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_files_lie_where_the_archive_has_them(tmp_path, folder, mode):
    path = write_tar(tmp_path / "a.tar", [("./model/checkpoint", b"one"), ("model/deep/er", b"two")], mode)
    assert is_tar(path)
    unpack_tar(path, folder)
    assert (folder / "model/checkpoint").read_bytes() == b"one" and (folder / "model/deep/er").read_bytes() == b"two"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../outside", b"x"), "'../outside' would lie outside the folder"),
        (("a/../../outside", b"x"), "would lie outside the folder"),
        (("/tmp/sact_det_outside", b"x"), "would lie outside the folder"),
        (("link", tarfile.SYMTYPE, "../outside"), "'link' is neither a file nor a folder"),
        (("hard", tarfile.LNKTYPE, "/etc/passwd"), "'hard' is neither a file nor a folder"),
        (("pipe", tarfile.FIFOTYPE, ""), "'pipe' is neither a file nor a folder"),
    ],
)
def test_what_leads_out_of_the_folder_is_refused(tmp_path, folder, member, message):
    path = write_tar(tmp_path / "a.tar.gz", [member])
    with pytest.raises(InputError, match=message):
        unpack_tar(path, folder)
    assert list(folder.iterdir()) == [] and not (tmp_path / "outside").exists()


def test_an_archive_that_is_small_only_because_it_is_compressed_is_refused_before_it_fills_the_disk(tmp_path, folder):
    path = write_tar(tmp_path / "bomb.tar.gz", [("one", bytes(2**20)), ("two", bytes(2**22))])
    assert path.stat().st_size < 2**14
    with pytest.raises(InputError, match="holds more than 3,000,000 bytes; expected weights"):
        unpack_tar(path, folder, most=3_000_000)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3_000_000


def test_a_damaged_archive_is_one_line(tmp_path, folder):
    whole = write_tar(tmp_path / "a.tar.gz", [("one", bytes(range(256)) * 4000)]).read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("crc", whole[:-6] + b"\0\0\0\0" + whole[-2:])):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged, or no tar") as error:
            unpack_tar(path, folder)
        assert "\n" not in str(error.value) and str(path) in str(error.value)
