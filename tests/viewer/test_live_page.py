"""The live page in a real browser, and what its server refuses; one server for all."""

import contextlib
import io
import json
import os
import socket
import stat
import tempfile
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import WIDTHS, Browser, browser  # noqa: F401  (a fixture)
from PIL import Image
from random_detector import write_random_detector

from sact_det.base.errors import InputError
from sact_det.pictures.colors import colorize
from sact_det.tasks import load_config
from sact_det.viewer.look import viewer_of
from sact_det.viewer.page import PageLimits
from sact_det.viewer.server import serving

pytest.importorskip("gradio", reason="gradio (the extra live) is not installed")

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/tests/tiny.yaml")
READY = "return document.querySelector('#facts dd') && document.querySelector('#found img')?.naturalWidth > 1"
PERCENT = "return document.querySelector('#facts dd')?.textContent"
EXTRACTOR = "return document.querySelectorAll('#facts dd')[2]?.textContent"
ANOTHER = "const now = document.querySelector('#found img')?.src; return now !== arguments[0] && now"
FOUND = "return document.querySelector('#facts .found')?.textContent"


class Counting:
    """A viewer that counts how often its network ran."""

    def __init__(self, viewer):
        self._viewer, self.runs = viewer, 0
        self.model, self.limits = viewer.model, viewer.limits

    def __call__(self, image):
        self.runs += 1
        return self._viewer(image)


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def photograph(height=120, width=160, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    cv2.imwrite(str(folder / "photo.png"), photograph())
    cv2.imwrite(str(folder / "other.png"), photograph(140, 120, 1))
    cv2.imwrite(str(folder / "wide.png"), np.zeros((500, 1200, 3), np.uint8))
    (folder / "broken.png").write_bytes(b"no picture <script>")
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def viewer(folder):
    weights = write_random_detector(folder / "model.pth", TINY)
    return Counting(viewer_of(load_config(TINY, ["MODEL.WEIGHTS", weights])))


@pytest.fixture(scope="module")
def page(viewer, folder):
    """Its address; a picture has at most 200 kB and 500 000 pixels."""
    limits = PageLimits(bytes=200_000, pixels=500_000)
    with serving(viewer, "SACT: tiny", port=free_port(), limits=limits, first=folder / "photo.png") as url:
        yield url


@pytest.fixture
def opened(browser: Browser, page):  # noqa: F811
    browser.open(page)
    browser.wait(READY)
    yield browser
    assert errors(browser) == []


def errors(browser):  # noqa: F811
    """What the console was told since the last call, but for warnings, of which gradio has some of its own."""
    return [line["message"] for line in browser.driver.get_log("browser") if line["level"] == "SEVERE"]


def drop(opened, *files):
    """As a user who drops files on the field of the picture."""
    if opened.run("return !document.querySelector('input[type=file]')"):
        opened.find("button[aria-label='Clear'], button[aria-label='Remove Image']").click()
        opened.wait("return document.querySelector('input[type=file]')")
    opened.find("input[type='file']").send_keys("\n".join(map(str, files)))


def source(opened, selector):
    return opened.run("return document.querySelector(arguments[0])?.src", selector)


def pixels(opened, selector):
    with urllib.request.urlopen(source(opened, selector)) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))


def serious_faults(browser):  # noqa: F811
    """What axe finds of the page as it is now, in words; of all its rules, none is left out."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python (the extra dev) is not installed")
    found = [one for one in axe.Axe().run(browser.driver)["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], node["target"]) for one in found for node in one["nodes"]]


def slide(opened, name, value):
    """As a user who types a value beside a slider."""
    field = opened.find(f"#{name} input[type='number']")
    opened.run(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        field,
        str(value),
    )


def test_a_picture_that_is_dropped_gets_boxes_a_map_and_its_price(opened, viewer, folder):
    before, runs = source(opened, "#found img"), viewer.runs
    slide(opened, "score", 0.2)
    drop(opened, folder / "other.png")
    opened.wait(ANOTHER, before)
    opened.wait("return document.querySelector('#found img').naturalHeight === 420")  # 140 enlarged thrice
    opened.wait("return document.querySelector('#ponder img')?.naturalHeight === 420")
    assert viewer.runs == runs + 1
    look = viewer(photograph(140, 120, 1)[:, :, ::-1])
    assert opened.run(PERCENT) == f"{look.flops_percent:.1f}%"
    assert opened.run(FOUND) == look.title(0.2)
    assert np.abs(pixels(opened, "#found img").astype(int) - look.draw(0.2, 3)).mean() < 15  # as JPEG
    assert np.array_equal(pixels(opened, "#ponder img"), colorize(look.ponder_map((420, 360)), viewer.limits))


def test_the_score_slider_changes_boxes_without_the_network(opened, viewer):
    slide(opened, "score", 0)
    opened.wait(f"{FOUND} !== '0 detections'")
    all_boxes, runs = opened.run(FOUND), viewer.runs
    slide(opened, "score", 1)
    opened.wait("return document.querySelector('#facts .found').textContent === '0 detections'")
    assert all_boxes != "0 detections" and viewer.runs == runs


def test_the_dial_runs_the_network_again_and_changes_flops_and_map(opened, viewer):
    percent, extractor, shown = opened.run(PERCENT), opened.run(EXTRACTOR), source(opened, "#ponder img")
    runs = viewer.runs
    slide(opened, "dial", 4)
    opened.wait(f"return (() => {{ {EXTRACTOR} }})() !== arguments[0]", extractor)
    assert float(opened.run(EXTRACTOR)[:-1]) < float(extractor[:-1]) and opened.run(PERCENT) != percent
    assert viewer.runs > runs
    opened.wait("return document.querySelector('#ponder img').src !== arguments[0]", shown)
    slide(opened, "dial", 0)
    opened.wait(f"return (() => {{ {EXTRACTOR} }})() === arguments[0]", extractor)
    assert opened.run(PERCENT) == percent


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken.png", "broken.png: the image cannot be read: cannot identify image file"),
        ("wide.png", "wide.png: 1200x500 pixels are more than 0.5 millions"),
    ],
)
def test_a_bad_picture_is_one_line_in_the_page_and_the_next_one_is_seen(opened, folder, name, says):
    drop(opened, folder / name)
    assert opened.wait("return document.querySelector('#facts .fault')?.textContent") == says
    errors(opened)  # the browser itself cannot show a broken picture
    drop(opened, folder / "photo.png")
    opened.wait(READY)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_and_nothing_is_fetched_from_elsewhere(browser: Browser, page, width, dark):  # noqa: F811
    errors(browser)
    browser.open(page, width=width, dark=dark)
    browser.wait(READY)
    assert browser.run("const page = document.documentElement; return page.scrollWidth <= page.clientWidth")
    fetched = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert fetched and [name for name in fetched if not name.startswith((page.rstrip("/"), "data:", "blob:"))] == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
    assert serious_faults(browser) == []
    assert errors(browser) == []


@pytest.fixture
def page_of_a_camera(browser: Browser, viewer, folder):  # noqa: F811
    """Whose pictures are larger than those of the other page may be."""
    with serving(viewer, "camera", port=free_port(), first=folder / "photo.png") as url:
        browser.open(url)
        browser.wait(READY)
        yield browser
        assert errors(browser) == []


def test_a_camera_is_seen_frame_by_frame_until_it_is_stopped(page_of_a_camera, viewer):
    opened = page_of_a_camera
    visible = "return [...document.querySelectorAll(arguments[0])].find(one => one.checkVisibility())"
    tab = next(one for one in opened.driver.find_elements("css selector", "[role='tab']") if one.text == "Live camera")
    before, runs = source(opened, "#found img"), viewer.runs
    tab.click()
    opened.wait(visible, "[title='grant webcam access'] button").click()
    opened.wait(f"{visible}?.videoWidth", "video")
    assert viewer.runs == runs and serious_faults(opened) == []
    opened.wait(visible, "[aria-label='capture photo']").click()
    first = opened.wait(ANOTHER, before)
    red, green, blue = pixels(opened, "#found img").reshape(-1, 3).mean(0)
    opened.wait(ANOTHER, first)
    assert green > 2 * max(red, blue)  # chromium's own camera: a wheel that turns on green
    opened.wait(visible, "[title='stop recording']").click()
    opened.wait(visible, "[title='start recording']")
    assert viewer.runs >= runs + 2 and serious_faults(opened) == []


def status(request):
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def upload(page, content):
    border = uuid.uuid4().hex
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    return urllib.request.Request(f"{page}gradio_api/upload", body, kind)


def test_files_outside_of_its_folder_are_refused(page, folder):
    inside = Path(tempfile.gettempdir()) / "inside"
    for path in (folder / "secret.txt", folder / "photo.png", "/etc/passwd", ROOT / "setup.py", "setup.py", inside):
        for prefix in ("", "/", "%2e%2e/" * 12, "../" * 12):
            assert status(f"{page}gradio_api/file={prefix}{path}") in (400, 403, 404), path
    for place in ("config.yaml", "static/../../setup.py", "assets/%2e%2e/%2e%2e/%2e%2e/__init__.py"):
        assert status(f"{page}{place}") in (400, 403, 404)


def test_an_upload_that_is_too_large_is_refused(page, folder):
    kept = Path(os.environ["GRADIO_TEMP_DIR"])
    assert status(upload(page, (folder / "photo.png").read_bytes())) == 200
    before = sorted(kept.rglob("*"))
    assert status(upload(page, bytes(300_000))) == 413
    assert [path for path in kept.rglob("*") if path.is_file() and path.stat().st_size > 200_000] == []
    assert before


def test_what_is_kept_is_private(page):
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_picture_is_not_fetched_for_a_sender(page, viewer):
    with urllib.request.urlopen(f"{page}config") as answer:
        config = json.loads(answer.read())
    number = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == 4)
    runs = viewer.runs
    data = {"path": f"{page}logo.png", "url": f"{page}logo.png", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [data, None, 0, 0.5], "fn_index": number, "session_hash": "a"}
    request = urllib.request.Request(
        f"{page}gradio_api/run/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    assert status(request) >= 400 and viewer.runs == runs


def test_the_folder_goes_with_the_page(viewer):
    before = os.environ.get("GRADIO_TEMP_DIR")
    port = free_port()
    with serving(viewer, "again", port=port) as url:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir() and url == f"http://127.0.0.1:{port}/"
        with pytest.raises(InputError, match=f"--port {port}: cannot be served there"), serving(viewer, "", port=port):
            pass
    assert not folder.exists() and os.environ.get("GRADIO_TEMP_DIR") == before


def test_it_starts_behind_a_proxy_and_on_a_machine_that_is_slow_to_answer(viewer, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")  # nobody is there
    monkeypatch.setenv("http_proxy", os.environ["HTTP_PROXY"])
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)  # what gradio finds after three seconds
    with serving(viewer, "again", port=free_port()) as url:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert opener.open(url).status == 200
    assert os.environ["no_proxy"] == "intranet" and "NO_PROXY" not in os.environ
