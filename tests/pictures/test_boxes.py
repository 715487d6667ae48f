"""Boxes are seen on any ground, and no label covers another."""

import numpy as np
import pytest

from sact_det.pictures.boxes import Mark, draw_marks
from sact_det.pictures.contact_sheet import ContactSheet

RED, BLUE = (255, 40, 40), (0, 150, 255)


def ground(value, height=240, width=320):
    return np.full((height, width, 3), value, np.uint8)


def of_color(image, color):
    return (image == color).all(-1)


@pytest.mark.parametrize("value", [0, 40, 128, 255])
def test_a_box_is_bright_between_dark_edges_on_any_ground(value):
    drawn = draw_marks(ground(value), [Mark((40, 60, 200, 180), RED)])
    across = drawn[120]  # a row that crosses the left edge at 40
    bright, dark = of_color(across[None], RED)[0], of_color(across[None], (0, 0, 0))[0]
    assert 2 <= bright[30:50].sum() <= 5 and bright[40]
    first, last = np.flatnonzero(bright[30:50])[[0, -1]] + 30
    assert dark[first - 1] and dark[last + 1]
    assert (drawn[120, 80:160] == value).all()


def test_no_label_covers_another():
    def drawn(*marks):
        return draw_marks(ground(90, 320, 480), marks)

    marks = [
        Mark((100 + 4 * n, 80 + 3 * n, 220 - 5 * n, 200 - 4 * n), (255, 0, 10 * n), "person 90%") for n in range(6)
    ]
    together = drawn(*marks)
    first = marks[0]
    label = of_color(drawn(first), first.color).sum() - of_color(drawn(first._replace(label="")), first.color).sum()
    for mark in marks:  # every label is there as a whole, whatever is left of the lines
        assert of_color(together, mark.color).sum() > 0.9 * label


def test_a_label_without_a_place_is_left_out_and_the_first_is_kept():
    small = ground(90, 24, 90)
    first, second = Mark((1, 1, 88, 22), RED, "abcdefg"), Mark((2, 2, 87, 21), BLUE, "abcdefg")
    both = draw_marks(small, [first, second])
    assert of_color(both, RED).sum() > of_color(draw_marks(small, [first, second], font=0), RED).sum() + 100
    assert of_color(both, BLUE).sum() <= of_color(draw_marks(small, [first, second], font=0), BLUE).sum()


@pytest.mark.parametrize("box", [(-50, -50, 1000, 1000), (0, 0, 0, 0), (315, 235, 400, 400), (-30, 100, -10, 120)])
def test_boxes_beyond_the_image_can_be_drawn(box):
    assert draw_marks(ground(90), [Mark(box, RED, "a label")]).shape == (240, 320, 3)


def test_the_image_itself_stays_as_it_is():
    image = ground(90)
    draw_marks(image, [Mark((40, 60, 200, 180), RED, "a")])
    assert (image == 90).all()


@pytest.mark.parametrize("photographs", [True, False])
def test_boxes_are_on_the_contact_sheet_where_they_are_in_the_image(photographs):
    image, ponder_map = ground(128, 480, 640), np.random.default_rng(0).uniform(2, 3, (480, 640))
    pages = []
    for marks in ([], [Mark((64, 48, 320, 240), RED, "cat 90%")]):
        sheet = ContactSheet()
        sheet.add("a.jpg", image if photographs else None, ponder_map, 2.5, marks)
        pages += sheet.pages()
    plain, marked = pages
    changed = np.argwhere((plain != marked).any(-1))
    (top, left), (bottom, right) = changed.min(0), changed.max(0)
    assert abs((right - left) - 256) < 12 and 192 < bottom - top < 230  # the label stands above
    assert of_color(marked, RED).sum() > 1000


@pytest.mark.parametrize(
    "sizes",
    [
        [(480, 640)],
        [(480, 640), (640, 480)],
        [(300, 900), (640, 480), (480, 640)],
        *([(480, 640)] * n for n in (3, 5, 7)),
    ],
)
def test_few_images_fill_their_sheet(sizes):
    sheet = ContactSheet()
    for number, size in enumerate(sizes):
        sheet.add(str(number), ground(40, *size), np.random.default_rng(number).uniform(2, 3, size), number)
    (page,) = sheet.pages()
    assert (page == 255).all(-1).mean() < 0.4
    assert page.shape[1] > 1000
