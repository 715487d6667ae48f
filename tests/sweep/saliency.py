"""Fixations, lists of images and maps that cannot be used."""

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
from cat2000_folder import SHAPE
from scipy.io import savemat

from sweep.harness import SALIENCY, Case, file, output

CENTER = (*SALIENCY, "--center-only", "--no-sheet")
SETTINGS = ("--output", output, "--processes", "1", "--center-only", "--no-sheet")
LOCATIONS = np.eye(*SHAPE, dtype=np.uint8)


def mat(**variables):
    """A MATLAB file."""
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


def image(pixels, suffix=".png"):
    """An image file."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def array(values):
    """A .npy, pickled where it must be."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=True)
    return buffer.getvalue()


def matlab_7_3():
    """The start of a file that MATLAB writes with -v7.3, which is HDF5."""
    return b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF\r\n\x1a\n"


def fixations(name="001.mat", content=None, remove=(), folder="FIXATIONLOCS"):
    """The word for the good data set, with one file more and some less, in category Action."""

    def write(place):
        root = Path(shutil.copytree(place.good.fixations, place.folder / "set"))
        for path in remove:
            (root / path).unlink()
        if content is not None:
            (root / folder / "Action" / name).write_bytes(content)
        return str(root)

    return write


IN_MAT = {
    "empty": (b"", r"001\.mat: not a MATLAB file that can be read"),
    "text": (b"x" * 300, r"001\.mat: not a MATLAB file that can be read"),
    "cut": (mat(fixLocs=LOCATIONS)[:150], r"001\.mat: not a MATLAB file that can be read"),
    "7.3": (matlab_7_3(), r"001\.mat: not a MATLAB file that can be read"),
    "other": (mat(fixations=LOCATIONS), r"001\.mat: has no variable 'fixLocs'; it holds: fixations"),
    "none": (mat(), r"001\.mat: has no variable 'fixLocs'; it holds: none"),
    "complex": (mat(fixLocs=LOCATIONS * 1j), r"fixLocs: a fixation map must be numbers \[H, W\]; got complex128"),
    "words": (mat(fixLocs="here"), r"a fixation map must be numbers \[H, W\]"),
    "cell": (mat(fixLocs=np.array([[LOCATIONS]], object)), r"fixLocs: a cell array of 2304 cells; expected one"),
    "struct": (mat(fixLocs={"map": LOCATIONS}), r"fixLocs: a struct with map; expected a fixation map"),
    "three": (mat(fixLocs=np.ones((2, 3, 4))), r"a fixation map must be numbers .* \[2, 3, 4\]"),
    "nan": (mat(fixLocs=np.full(SHAPE, np.nan)), r"a fixation map must be finite"),
    "size": (mat(fixLocs=np.eye(9)), r"a fixation map of 9x9 pixels; the image .*001\.jpg has 64x36"),
    "zeros": (mat(fixLocs=np.zeros(SHAPE)), r"001\.mat: no fixations"),
}
GREY = np.full((*SHAPE, 3), 90, np.uint8)
JET = cv2.applyColorMap(np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.uint8), cv2.COLORMAP_JET)
ALPHA = np.dstack([GREY, LOCATIONS * 255])
INSTEAD = {
    "001.png": [
        (b"", r"001\.png: the image cannot be read: cannot identify image file"),
        (image(JET), r"001\.png: the image cannot be read: is in colours"),
        (image(ALPHA), r"001\.png: the image cannot be read: is partly transparent"),
        (image(LOCATIONS)[:60], r"001\.png: the image cannot be read: .*(truncated|broken)"),
        (image(LOCATIONS[:9]), r"001\.png: a fixation map of 64x9 pixels"),
        (image(LOCATIONS * 0), r"001\.png: no fixations"),
    ],
    "001.jpg": [(image(JET, ".jpg"), r"001\.jpg: the image cannot be read: is in colours")],
    "001.npy": [
        (b"", r"001\.npy: not an array that can be read"),
        (array([[{}]]), r"001\.npy: not an array that can be read: .*allow_pickle"),
        (array(np.full(SHAPE, np.inf)), r"001\.npy: a map must be finite numbers"),
        (array(np.zeros(5)), r"001\.npy: a map must be finite numbers \[H, W\]; got float64 \[5\]"),
    ],
}
MAT = "FIXATIONLOCS/Action/001.mat"
IMAGE = "Stimuli/Action/001.jpg"


def beside_images(content, suffix):
    """The word for a list beside the good images."""

    def write(place):
        shutil.copytree(place.good.fixations, place.folder, dirs_exist_ok=True)
        return file(f"list{suffix}", content)(place)

    return write


ENTRY = {"image": IMAGE, "fixations": [[1, 2]]}
LISTS = [
    ("", ".json", r"list\.json: .*not a readable json file"),
    ("[" * 100_000, ".json", r"list\.json: "),
    (b"\xff\xfe[\0]\0", ".json", r"list\.json: .*UTF-16"),
    ("{}", ".json", r"expected a list of objects"),
    ("[]", ".json", r"the list is empty"),
    ([1], ".json", r"entry 1 has no 'image'"),
    ([{**ENTRY, "image": 5}], ".json", r"entry 1 has no 'image'"),
    ([{**ENTRY, "image": ""}], ".json", r"entry 1 has no 'image'"),
    ([{"image": IMAGE}], ".json", r"entry 1 has no 'fixations'"),
    ([{**ENTRY, "name": [1]}], ".json", r"entry 1: 'name' must be a string; got list"),
    ([{**ENTRY, "image": "nowhere.jpg"}], ".json", r"nowhere\.jpg: no such image"),
    ([{**ENTRY, "image": "../"}], ".json", r"cannot be read \(it is a folder\); expected a regular image file"),
    ([{**ENTRY, "image": "a\0b"}], ".json", r"cannot be read \(embedded null byte\)"),
    ([{**ENTRY, "image": MAT}], ".json", r"001\.mat: the image cannot be read: cannot identify image file"),
    ([{**ENTRY, "fixations": "nowhere.mat"}], ".json", r"nowhere\.mat: no such fixation file"),
    ([{**ENTRY, "fixations": []}], ".json", r"001\.jpg: no fixations"),
    ([{**ENTRY, "fixations": [[1, 2], [3]]}], ".json", r"001\.jpg: fixations must be points .*got \[\[1, 2\], \[3\]\]"),
    ([{**ENTRY, "fixations": [1, 2, 3]}], ".json", r"fixations must be points"),
    ([{**ENTRY, "fixations": [["left", "up"]]}], ".json", r"fixations must be points"),
    ([{**ENTRY, "fixations": [[{}, []]]}], ".json", r"fixations must be points"),
    ([{**ENTRY, "fixations": [[1, 2, 3]]}], ".json", r"fixations must be points"),
    ([{**ENTRY, "fixations": [[None, 2]]}], ".json", r"NaN or infinity|must be points"),
    ([{**ENTRY, "fixations": [[1e300, 2]]}], ".json", r"1 of 1 fixations lie outside the image of 64x36"),
    ([{**ENTRY, "fixations": [[10**400, 2]]}], ".json", r"fixations must be points|list\.json: .*digits"),
    ([{**ENTRY, "fixations": [[64, 2], [1, 1]]}], ".json", r"1 of 2 fixations lie outside .* at x=64, y=2"),
    ([{**ENTRY, "fixations": [[-1, 2]]}], ".json", r"1 of 1 fixations lie outside"),
    ([ENTRY, ENTRY], ".json", r"two images are called 'Stimuli/Action/001'"),
    ([ENTRY], ".json", r"the only image of category '': it has no halves"),
    ("", ".csv", r"expected a header with the columns"),
    ("a,b\n1,2\n", ".csv", r"expected a header with the columns"),
    ("image,x\na,1\n", ".csv", r"expected a header with the columns"),
    ("image,x,y,y\na,1,2,3\n", ".csv", r"the header has a column twice"),
    ("image,x,y\n", ".csv", r"the list is empty"),
    (b"image,x,y\n\xe9.jpg,1,2\n", ".csv", r"byte 0xe9 in line 2 is not UTF-8"),
    (b"image,x,y\na\0,1,2\n", ".csv", r"list\.csv: .*binary"),
    (f"image,x,y\n{IMAGE},1\n", ".csv", r"line 2: x and y must be numbers; got '1', None"),
    (f"image,x,y\n{IMAGE},1,2\n{IMAGE},1;2\n", ".csv", r"line 3: x and y must be numbers"),
    (f"image,x,y\n{IMAGE},1,2,3\n", ".csv", r"line 2 has 4 cells; expected 3"),
    (f"image,fixations\n{IMAGE},{MAT},1\n", ".csv", r"line 2 has 3 cells; expected 2"),
    ("image,fixations\na.jpg,\n", ".csv", r"line 2 has no image or no fixations"),
    ("image,x,y\n,1,2\n", ".csv", r"line 2 has no image"),
    (f"image,x,y\n{IMAGE},nan,2\n", ".csv", r"NaN or infinity"),
    (f"image,x,y,name\n{IMAGE},1,2,a\n{IMAGE},1,2,b\n", ".csv", r"line 3: name 'b' of .*, which has 'a' in line 2"),
    (f'image,x,y\n"{"a" * 200_000}",1,2\n', ".csv", r"not a list that can be read: field larger"),
]


def maps(content=None, suffix=".png", names=None):
    """The word for a folder of maps of all good images, that of Action/001 being another."""

    def write(place):
        root = Path(place.good.fixations) / "Stimuli"
        folder = place.folder / "maps"
        for path in sorted(root.glob("*/*.jpg")):
            target = folder / path.parent.name / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image(GREY[..., 0]))
        (folder / "Action/001.png").unlink()
        for name in names or (["Action/001"] if content is not None else []):
            (folder / f"{name}{suffix}").write_bytes(content)
        return str(folder)

    return write


MAPS = [
    ("nowhere", r"nowhere: no such folder of maps"),
    (maps(), r"maps/Action/001: no such map"),
    (maps(b"x", names=["Action/._001"]), r"maps/Action/001: no such map"),
    (maps(b"", ".png"), r"001\.png: the image cannot be read: cannot identify"),
    (maps(image(JET)), r"001\.png: the image cannot be read: is in colours"),
    (maps(image(JET, ".jpg"), ".jpg"), r"001\.jpg: the image cannot be read: is in colours"),
    (maps(image(ALPHA)), r"001\.png: the image cannot be read: is partly transparent"),
    (maps(image(np.full(SHAPE, np.nan, np.float32), ".tif"), ".tif"), r"001\.tif: .*a map must be finite"),
    (maps(b"x", ".npy"), r"001\.npy: not an array that can be read"),
    (maps(array([[{}]]), ".npy"), r"001\.npy: not an array that can be read: .*allow_pickle"),
    (maps(array([1.0]), ".npy"), r"001\.npy: a map must be finite numbers \[H, W\]; got float64 \[1\]"),
    (maps(array([[1j]]), ".npy"), r"001\.npy: a map must be finite numbers"),
    (maps(array(np.zeros((0, 3))), ".npy"), r"001\.npy: a map must be finite numbers"),
    (maps(array([[np.inf]]), ".npy"), r"001\.npy: a map must be finite numbers"),
    (lambda place: str(Path(place.good.fixations) / "Stimuli"), r"001\.jpg: no map, but the image itself"),
]


CASES = [
    *(
        Case("evaluate_saliency", says, "--dataset", fixations("001.mat", content), *SETTINGS)
        for content, says in IN_MAT.values()
    ),
    *(
        Case("evaluate_saliency", says, "--dataset", fixations(name, content, remove=[MAT]), *SETTINGS)
        for name, contents in INSTEAD.items()
        for content, says in contents
    ),
    *(
        Case("evaluate_saliency", says, "--dataset", word, *SETTINGS)
        for word, says in (
            ("nowhere", r"nowhere: no such folder"),
            (fixations(remove=[MAT]), r"001\.mat: no such fixation file, for .*001\.jpg"),
            (fixations(remove=[IMAGE]), r"001\.mat: there is no image of this name in "),
            (fixations("001.png", image(LOCATIONS)), r"001\.mat: also 001\.png: which of them are the fixations\?"),
            (fixations("001.png", image(GREY), folder="Stimuli"), r"two images are called 'Action/001'"),
            (fixations("001.jpg", b"", folder="Stimuli"), r"001\.jpg: the image cannot be read: cannot identify"),
            (fixations("001.jpg", image(GREY[:9]), folder="Stimuli"), r"the image .*001\.jpg has 64x9"),
            (file("list.txt", "x"), r"not in CAT2000's layout|no such folder"),
        )
    ),
    Case("evaluate_saliency", r"has no variable 'x'; it holds: fixLocs", *CENTER, "--variable", "x"),
    *(
        Case("evaluate_saliency", says, "--dataset", beside_images(content, suffix), *SETTINGS)
        for content, suffix, says in LISTS
    ),
    *(Case("evaluate_saliency", says, *SALIENCY, "--no-sheet", "--maps", "theirs", word) for word, says in MAPS),
]
