"""The page in a real browser: what moves, what is drawn, what the keyboard reaches, at both widths, light and dark."""

import base64
import io

import numpy as np
import pytest
from browser import WIDTHS, Browser, browser  # noqa: F401  (a fixture)
from PIL import Image
from report_page import CLASSES, block_maps, make_gallery, make_page, repeated

from sact_det.pictures.style import resize_nearest

SIZE = (120, 160)  # (height, width) of the images
UNDRAWN = 300  # pixels: the width of a canvas on which nothing has been drawn
SHOWN = (
    "document.querySelector('.gallery').scrollIntoView();"
    "return [...document.querySelectorAll('.tile')].some("
    f"tile => ![undefined, {UNDRAWN}].includes(tile.querySelector('canvas')?.width))"
)
NAMES = "return [...document.querySelectorAll('.tile .name')].map(name => name.textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("page") / "report.html", make_gallery(size=SIZE))


@pytest.fixture
def opened(browser: Browser, page):  # noqa: F811
    browser.open(page, height=2000)
    browser.wait(SHOWN)
    browser.said()
    yield browser
    assert browser.said() == []


def set_field(opened, name, value):
    """As a user who moves a slider or chooses from a list."""
    opened.run(
        "const field = document.querySelector(`[name='${arguments[0]}']`);"
        "field.value = arguments[1]; field.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        str(value),
    )


def pixels(opened, selector):
    """What is seen of an element: uint8 RGB."""
    return np.asarray(Image.open(io.BytesIO(opened.find(selector).screenshot_as_png)).convert("RGB"))


def canvas(opened, selector):
    """The colours of a canvas, uint8 RGB."""
    address = opened.run("return document.querySelector(arguments[0]).toDataURL()", selector)
    png = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def open_first(opened):
    opened.find(".tile").click()
    drawn = f"![undefined, {UNDRAWN}].includes(document.querySelector('.large canvas')?.width)"
    opened.wait(f"return document.querySelector('dialog').open && {drawn}")


def cost(number, y, x, budget=None, blocks=(0, 1)):
    """What the rule of PonderRecord.map says of a pixel."""
    maps = block_maps(number, budget)
    return sum(resize_nearest(maps[block], SIZE)[y, x] for block in blocks)


def test_images_come_in_the_order_of_their_cost_and_the_other_way_round(opened):
    assert opened.run(NAMES) == [f"photo {number}.jpg" for number in reversed(range(6))]
    opened.find("[name='descending']").click()
    assert opened.run(NAMES) == [f"photo {number}.jpg" for number in range(6)]


def test_the_search_the_class_and_the_cost_choose_images(opened):
    opened.find("[name='search']").send_keys("3")
    assert opened.run(NAMES) == ["photo 3.jpg"]
    assert opened.find(".count").text == "1 of 6 images"
    opened.run("document.querySelector('[name=search]').value = ''")
    set_field(opened, "score", 20)
    set_field(opened, "class", CLASSES.index("dog"))
    assert opened.run(NAMES) == ["photo 4.jpg", "photo 1.jpg"]
    set_field(opened, "score", 21)  # image 1's dog has 0.2
    assert opened.run(NAMES) == ["photo 4.jpg"]
    set_field(opened, "class", "")
    set_field(opened, "network", "SACT")
    set_field(opened, "high", 10)  # of 0.4 to 20, over all views
    assert opened.run(NAMES) == ["photo 1.jpg", "photo 0.jpg"]


def test_the_opacity_of_the_map_goes_from_the_photograph_to_the_map_alone(opened):
    set_field(opened, "opacity", 0)
    set_field(opened, "score", 100)
    photograph = pixels(opened, ".tile .stage")
    set_field(opened, "opacity", 60)
    both = pixels(opened, ".tile .stage")
    set_field(opened, "opacity", 100)
    alone = pixels(opened, ".tile .stage")
    assert (photograph != both).mean() > 0.5 and (both != alone).mean() > 0.5
    grey = np.abs(both.astype(int) - 0.6 * alone)  # the photograph under the map is grey
    assert np.abs(grey - grey.mean(-1, keepdims=True))[10:-10, 10:-10].mean() < 4


def test_a_map_is_drawn_by_the_rule_and_on_the_scale_of_the_set(opened):
    limits, colours = opened.run(
        "const about = JSON.parse(document.querySelector('.about').textContent);"
        "return [about.layers[0].limits, JSON.parse(document.querySelector('#colours').textContent)]"
    )
    drawn = canvas(opened, ".tile canvas")  # the costliest image, number 5
    assert drawn.shape[:2] == SIZE
    low, high = limits
    expected = sum(resize_nearest(one, SIZE) for one in block_maps(5, None))
    bins = np.clip(np.floor(np.clip((expected - low) / (high - low), 0, 1) * 256), 0, 255).astype(int)
    table = np.array([[int(colour[at : at + 2], 16) for at in (0, 2, 4)] for colour in colours])
    assert np.abs(drawn.astype(int) - table[bins]).max() <= 4  # stored to a thousandth of a unit


def test_boxes_below_the_score_go(opened):
    count = "return document.querySelectorAll('.tile .line').length"
    set_field(opened, "score", 0)
    assert opened.run(count) == 12
    set_field(opened, "score", 50)
    assert opened.run(count) == 8  # images 4 and 5 have a second one, of 0.5 and 0.6
    set_field(opened, "score", 96)
    assert opened.run(count) == 0
    opened.find("[name='truth']").click()
    assert opened.run(count) == 6


def test_the_budget_changes_map_numbers_and_boxes(opened):
    before = opened.run("return document.querySelector('.tile canvas').toDataURL()")
    slider = opened.find("[name='budget']")
    assert opened.find("[name='budget-said']").text == "as trained"
    slider.send_keys("\ue012")  # left
    assert opened.find("[name='budget-said']").text == "50% of the FLOPs"
    opened.wait("return document.querySelector('.tile .said').textContent === 'ponder cost 2.40'")
    opened.wait("return document.querySelectorAll('.tile .line').length === 6")
    opened.wait("return document.querySelector('.tile canvas').toDataURL() !== arguments[0]", before)


def test_a_plain_network_has_neither_map_nor_budgets(opened):
    set_field(opened, "network", "plain")
    assert opened.find("[name='truth']").is_displayed()
    assert not opened.find("[name='budget']").is_displayed()
    opened.wait("return document.querySelector('.tile canvas').hidden")


def test_the_cost_under_the_pointer_is_the_ponder_cost_in_units(opened):
    from selenium.webdriver import ActionChains

    open_first(opened)
    large = opened.find(".large")
    ActionChains(opened.driver).move_to_element_with_offset(large, 40, -30).perform()
    text = opened.wait(
        "const text = document.querySelector('.under').textContent; return text.includes('units') && text"
    )
    place, value = text.removeprefix("all blocks at (").removesuffix(" units").split("): ")
    x, y = map(int, place.split(","))
    assert x > SIZE[1] / 2 and y < SIZE[0] / 2
    assert float(value) == pytest.approx(cost(5, y, x), abs=0.006)


def test_every_block_has_a_map_that_can_be_laid_over_the_image(opened):
    open_first(opened)
    before = canvas(opened, ".large canvas")
    assert opened.run("return document.querySelectorAll('.layer').length") == 3
    opened.driver.find_elements("css selector", ".layer")[2].click()
    opened.wait("return document.querySelectorAll('.layer')[2].ariaPressed === 'true'")
    assert (canvas(opened, ".large canvas") != before).any()
    opened.find(".large").send_keys("\ue014")  # right
    text = opened.find(".under").text
    x, y = map(int, text.split("(")[1].split(")")[0].split(","))
    assert float(text.split(": ")[1].split()[0]) == pytest.approx(cost(5, y, x, blocks=(1,)), abs=0.006)


def test_no_label_covers_another_and_none_leaves_the_image(opened):
    set_field(opened, "score", 0)
    opened.find("[name='truth']").click()  # of almost the place of the first box
    open_first(opened)
    labels = opened.run(
        "return [...document.querySelectorAll('.large text')].map(text => ["
        "text.textContent, ...['x', 'y', 'width', 'height'].map(side => text.getBBox()[side])])"
    )
    assert sorted(label for label, *_ in labels) == ["bird 60%", "cat", "cat 95%"]
    for number, (_, x, y, width, height) in enumerate(labels):
        assert x >= 0 and y >= -height / 4 and x + width <= SIZE[1] and y + height <= 1.02 * SIZE[0]
        for _, other_x, other_y, other_width, other_height in labels[:number]:
            beside = x + width <= other_x or other_x + other_width <= x
            assert beside or y + 0.9 * height <= other_y or other_y + 0.9 * other_height <= y


def test_rows_of_images_of_any_aspect_are_filled_and_of_one_height(browser: Browser, tmp_path):  # noqa: F811
    gallery = make_gallery(12, SIZE)
    for number, item in enumerate(gallery.about["items"]):
        item["size"] = [60 + 37 * number % 180, 120]
    browser.open(make_page(tmp_path / "aspects.html", gallery), width=900, height=2000)
    browser.wait(SHOWN)
    places = browser.run(
        "const edges = (one) => { const { left, right, top, height } = one.getBoundingClientRect();"
        " return [left, right, top, height] };"
        "return [edges(document.querySelector('.tiles')), ...[...document.querySelectorAll('.tile .stage')].map(edges)]"
    )
    (left, right, *_), *tiles = places
    rows = {}
    for one in tiles:
        rows.setdefault(round(one[2]), []).append(one)
    assert len(rows) > 2
    for row in list(rows.values())[:-1]:
        assert row[0][0] == pytest.approx(left, abs=1) and row[-1][1] == pytest.approx(right, abs=1)
    for row in rows.values():
        assert [one[3] for one in row] == pytest.approx([row[0][3]] * len(row), abs=1)


def test_the_keyboard_is_enough(opened):
    tab, enter, escape, right, left = "\ue004", "\ue007", "\ue00c", "\ue014", "\ue012"
    opened.run("document.querySelector('.count').closest('form').querySelector('[name=high]').focus()")
    opened.press(tab)
    assert opened.run("return document.activeElement.className") == "tile"
    opened.press(enter)
    opened.wait("return document.querySelector('dialog').open")
    title = "return document.querySelector('dialog h4').textContent"
    assert opened.run(title) == "photo 5.jpg"
    opened.press(right)
    opened.wait("return document.querySelector('dialog h4').textContent === 'photo 4.jpg'")
    opened.press(left, left)
    opened.wait("return document.querySelector('dialog h4').textContent === 'photo 0.jpg'")
    opened.run("document.querySelector('[name=opacity]').focus()")
    opened.press(left)  # moves the slider, not the image
    assert opened.run(title) == "photo 0.jpg" and opened.find("[name='opacity-said']").text == "50%"
    opened.press(escape)
    opened.wait("return !document.querySelector('dialog').open")
    opened.wait("return document.querySelector('form .look [name=opacity]')?.value === '50'")
    assert opened.run("return document.activeElement.className") == "tile"


@pytest.mark.parametrize("width", WIDTHS)
def test_where_the_page_is_narrow_images_come_before_what_finds_them(browser: Browser, page, width):  # noqa: F811
    browser.open(page, width=width)
    browser.wait(SHOWN)
    search, narrow = browser.find("[name='search']"), width == WIDTHS[0]
    assert search.is_displayed() != narrow and browser.find(".count").text == "6 of 6 images"
    browser.find(".find summary").click()
    assert search.is_displayed() == narrow
    if narrow:
        search.send_keys("3")
        browser.wait("return document.querySelectorAll('.tile').length === 1")
        assert browser.find(".count").text == "1 of 6 images"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_and_axe_finds_no_serious_fault(browser: Browser, page, width, dark):  # noqa: F811
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python (the extra dev) is not installed")
    browser.open(page, width=width, dark=dark)
    browser.wait(SHOWN)
    for look in (lambda: None, lambda: open_first(browser)):
        look()
        assert browser.run("const page = document.documentElement; return page.scrollWidth <= page.clientWidth")
        faults = axe.Axe().run(browser.driver)["violations"]
        assert [fault["id"] for fault in faults if fault["impact"] in ("serious", "critical")] == []
    luminance = pixels(browser, "dialog .bar").mean()
    assert luminance < 80 if dark else luminance > 170
    assert browser.said() == []


def test_two_hundred_images_take_less_than_25_megabytes_and_are_decoded_when_they_are_near(browser: Browser, tmp_path):  # noqa: F811
    page = make_page(tmp_path / "large.html", repeated(make_gallery(8, (480, 640), (120, 160), expected=200), 25))
    assert page.stat().st_size < 25e6
    browser.open(page)
    browser.wait(SHOWN)
    assert browser.run("return performance.now()") < 10_000
    browser.run("for (let page = 0; page < 9; page++) document.querySelector('.more').click()")
    count = "return document.querySelectorAll('.tile').length"
    assert browser.run(count) == 200 and not browser.find(".more").is_displayed()
    decoded = "return document.querySelectorAll('.tile img').length"
    assert 4 <= browser.run(decoded) < 60
    browser.run("window.scrollTo(0, document.body.scrollHeight)")
    browser.wait(
        f"return ![undefined, {UNDRAWN}].includes(document.querySelector('.tiles li:last-child canvas')?.width)"
    )
    assert browser.run(decoded) < 60 and browser.run("return !document.querySelector('.tile').querySelector('img')")
    assert browser.said() == []


@pytest.fixture(scope="module")
def shaped_page(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("shapes") / "report.html", make_gallery(size=SIZE, shaped=True))


def test_masks_and_keypoints_lie_where_they_were_found_and_go_with_their_boxes(browser: Browser, shaped_page):  # noqa: F811
    browser.open(shaped_page, height=2000)
    browser.wait(SHOWN)
    count = "return document.querySelectorAll(`.tile ${arguments[0]}`).length"
    set_field(browser, "score", 0)
    assert [browser.run(count, name) for name in (".mask", ".point", "line.line")] == [12, 12, 6]
    set_field(browser, "score", 50)
    assert browser.run(count, ".mask") == 8
    set_field(browser, "opacity", 0)
    with_mask = pixels(browser, ".tile .stage").astype(int)
    browser.find("[name='shapes']").click()
    assert browser.run(count, ".mask") == browser.run(count, ".point") == 0
    without = pixels(browser, ".tile .stage").astype(int)
    height, width = without.shape[:2]
    y, x = (round(at * side / whole) for at, side, whole in ((60, height, SIZE[0]), (115, width, SIZE[1])))
    assert np.abs(with_mask - without)[y, x].max() > 25  # within the second mask, away from its box
    assert np.abs(with_mask - without)[round(0.9 * height), round(0.5 * width)].max() < 3  # outside
    browser.find("[name='shapes']").click()
    set_field(browser, "network", "plain")  # found none
    browser.wait("return document.querySelectorAll('.tile .mask').length === 0")
    assert browser.said() == []


def test_a_gallery_without_masks_does_not_offer_them(opened):
    assert not opened.find("[name='shapes']").is_displayed()
