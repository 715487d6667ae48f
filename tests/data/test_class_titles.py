import pytest
from labelled_folders import write_class_folders

from sact_det.base.errors import InputError
from sact_det.data.class_titles import imagenet_titles, synset_titles
from sact_det.data.image_sources import open_images

IMAGENETTE = {  # as its authors call them
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def titles(folder, text=None, beside=False):
    if not (folder / "train").exists():
        write_class_folders(folder / "train", per_class=1)
    if text is not None:
        (folder / ("classes.txt" if beside else "train/classes.txt")).write_text(text)
    return open_images(folder / "train").titles


def test_synsets_of_imagenet_have_the_names_that_people_use():
    assert synset_titles(list(IMAGENETTE)) == list(IMAGENETTE.values())
    assert imagenet_titles()[289] == "snow leopard" and len(imagenet_titles()) == 1000


def test_other_folders_are_called_as_they_are():
    assert synset_titles(["n01440764", "apple"]) == ["n01440764", "apple"]
    assert synset_titles(["n99999999"]) == ["n99999999"]


@pytest.mark.parametrize("beside", [False, True])
def test_a_file_in_the_folder_or_beside_it_says_names(tmp_path, beside):
    text = "apple an apple, red\nelsewhere not here\n\nsky\tthe sky\n".replace("sky\t", "sky ")
    assert titles(tmp_path, text, beside) == ["an apple, red", "leaf", "the sky"]
    (tmp_path / "train/classes.txt").write_text("leaf\ta leaf")  # the nearer one
    assert titles(tmp_path) == ["apple", "a leaf", "sky"]


def test_without_a_file_folders_are_called_as_they_are(tmp_path):
    assert titles(tmp_path) == ["apple", "leaf", "sky"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("apple\n", "line 1: expected a class folder and its name; got 'apple'"), ("pear a pear\n", "names none of the")],
)
def test_a_file_that_says_nothing_is_one_error_line(tmp_path, text, said):
    with pytest.raises(InputError, match=f"classes.txt: {said}"):
        titles(tmp_path, text)
