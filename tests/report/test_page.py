import json
import re
from html.parser import HTMLParser

import pytest
from report_page import make_gallery, make_page

from sact_det.base.errors import InputError
from sact_det.report.gallery import PackedGallery
from sact_det.report.page import Page, Section, Table, as_json
from sact_det.report.plots import Plot, Series

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_nothing_on_the_page_is_fetched_from_anywhere(tmp_path):
    text = make_page(tmp_path / "page.html", make_gallery(2)).read_text()
    for tag, attributes in Tags(text).found:
        for key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attributes.get(key, "#").startswith(("#", "data:,")), (tag, attributes)
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_names_that_are_programs_stay_names(tmp_path):
    gallery = make_gallery(1, title=HOSTILE, note=HOSTILE)
    gallery.about["items"][0]["name"] = HOSTILE
    plot = Plot(HOSTILE, HOSTILE, HOSTILE, [Series(HOSTILE, [1], [1], dots=True, labels=[HOSTILE])])
    table = Table(HOSTILE, [HOSTILE], [[HOSTILE]], HOSTILE)
    path = tmp_path / "page.html"
    Page(HOSTILE, [Section(HOSTILE, HOSTILE, [table, plot, gallery])], [(HOSTILE, HOSTILE)], [HOSTILE]).write(path)
    harmless = make_page(tmp_path / "other.html", make_gallery(1)).read_text()
    scripts = [sum(tag == "script" for tag, _ in Tags(text).found) for text in (path.read_text(), harmless)]
    assert scripts[0] == scripts[1] and "<img" not in path.read_text()
    about = re.search(r'class="about">(.*?)</script>', path.read_text()).group(1)
    assert json.loads(about)["items"][0]["name"] == HOSTILE


def test_what_json_does_not_know_is_null():
    assert json.loads(as_json({"a": float("nan"), "b": [float("inf"), 1.5]})) == {"a": None, "b": [None, 1.5]}


def test_a_gallery_comes_back_from_its_file(tmp_path):
    gallery = make_gallery(2, title="a", note="b", what="kind")
    gallery.write(tmp_path / "gallery.json")
    back = PackedGallery.read(tmp_path / "gallery.json")
    assert as_json(back.about) == as_json(gallery.about) and as_json(back.payloads) == as_json(gallery.payloads)
    assert (back.title, back.note, back.what) == ("a", "b", "kind")
    assert back.networks == ["SACT", "plain"] and back.has_budgets and back.has_truth


@pytest.mark.parametrize(
    "content", ["[]", '{"title": "a"}', '{"title": 1, "note": "", "what": "", "about": {}, "payloads": []}']
)
def test_a_file_of_something_else_is_no_gallery(tmp_path, content):
    (tmp_path / "gallery.json").write_text(content)
    with pytest.raises(InputError, match=r"gallery.json: no file of a gallery; expected an object with title"):
        PackedGallery.read(tmp_path / "gallery.json")


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path, full_disk):
    path = make_page(tmp_path / "page.html", make_gallery(1))
    before = path.read_bytes()
    with full_disk(1000), pytest.raises(OSError):
        make_page(path, make_gallery(2))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
