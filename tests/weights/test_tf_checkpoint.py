"""Which checkpoint a folder, a prefix or an index names."""

from pathlib import Path

import pytest
from test_tf_bundle import REAL, copied

from sact_det.base.errors import InputError
from sact_det.weights.tf_bundle import resolve_checkpoint


@pytest.mark.parametrize("given", [REAL.parent, REAL, f"{REAL}.index", str(REAL)])
def test_a_folder_a_prefix_and_an_index_name_the_same_checkpoint(given: object):
    assert resolve_checkpoint(given) == str(REAL)


@pytest.mark.parametrize(
    "line",
    [
        'model_checkpoint_path: "{folder}/model-0"',
        'model_checkpoint_path: "/home/someone/logs/model-0"',
        'model_checkpoint_path: "logs/train/model-0"',
        'model_checkpoint_path: "C:\\\\logs\\\\model-0"',
        'all_model_checkpoint_paths: "other"\n  model_checkpoint_path : "mod\\145l-0"',
    ],
    ids=["absolute", "moved", "relative and moved", "moved from Windows", "escaped"],
)
def test_a_moved_folder_still_names_its_checkpoint(tmp_path: Path, line: str):
    prefix = copied(tmp_path)
    (tmp_path / "checkpoint").write_text(line.replace("{folder}", str(tmp_path)) + "\n")
    assert Path(resolve_checkpoint(tmp_path)) == Path(prefix)


def test_an_absolute_path_that_exists_wins_over_the_folder(tmp_path: Path):
    copied(tmp_path)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{REAL}"\n')
    assert resolve_checkpoint(tmp_path) == str(REAL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "checkpoint: no such file"),
        (b"", "checkpoint: names no checkpoint"),
        (b"\xff\xfe\x00", "checkpoint: names no checkpoint"),
        (b'model_checkpoint_path: ""', "checkpoint: names no checkpoint"),
        (b'model_checkpoint_path: "a\\000b"', "checkpoint: names no checkpoint"),
        (b'model_checkpoint_path: "gone-1"', "names 'gone-1', but there is no "),
        (b'model_checkpoint_path: "{0}%s"', "names '{0}%s', but there is no "),
    ],
)
def test_a_folder_that_names_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(InputError) as error:
        resolve_checkpoint(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["model-9", "model-9.index"])
def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=rf"^{tmp_path}/model-9.index: no such file"):
        resolve_checkpoint(tmp_path / name)
