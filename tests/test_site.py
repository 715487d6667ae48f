"""The documentation site: it builds without a warning, holds what it shows, and opens as files."""

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import WIDTHS, Browser, browser  # noqa: F401  (a fixture)
from detectron2.config import get_cfg

from sact_det.engine.config_checks import defaults, leaves

ROOT = Path(__file__).parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src"}
NO_REQUEST = {"next", "prev", "canonical"}  # kinds of <link> that name a page and load nothing


class Assets(HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        address = attributes.get(LOADED.get(tag, ""))
        if address and not (tag == "link" and attributes.get("rel") in NO_REQUEST):
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site. Building raises where anything is warned of."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    try:
        config = load_config(str(ROOT / "docs/site/mkdocs.yml"), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    finally:
        logger.removeHandler(handler)
        assert not warnings
    return folder


def test_every_page_of_docs_and_of_the_top_is_in_the_site(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 20
    for page in [*pages, Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md")]:
        name = page.with_name("index" if page.name == "README.md" else page.stem)
        assert (site / f"{name}.html").exists(), page


def test_pages_load_nothing_that_is_not_in_the_site(site):
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        if page.name == "404.html":  # for servers: its addresses start at their root
            continue
        assets = Assets()
        assets.feed(page.read_text())
        assert assets.found
        for address in assets.found:
            assert (page.parent / re.sub(r"[?#].*", "", address)).exists(), f"{page.name} loads {address}"


def test_styles_load_nothing_from_elsewhere(site):
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text()), style.name


def test_a_link_to_a_source_file_shows_the_file(site):
    page = (site / "source/configs/COCO/sact_R_101_C4_tau_0.005.yaml.html").read_text()
    assert "configs/COCO/sact_R_101_C4_tau_0.005.yaml" in page and "MODEL" in page
    assert 'href="source/configs/COCO/sact_R_101_C4_tau_0.005.yaml.html"' in (site / "MODEL_ZOO.html").read_text()


@pytest.mark.parametrize(
    "page, name, text",
    [
        ("python", "sact_det.build_classifier", "residual units per block"),
        ("saliency", "saliency.metrics.auc_judd", "Area under the ROC curve"),
        ("detection", "sact_det.detection.predictor.Predictor", "BGR"),
    ],
)
def test_docstrings_are_pages(site, page, name, text):
    html = (site / f"api/{page}.html").read_text()
    assert f'id="{name}"' in html and text in html


def test_every_config_key_is_listed_with_what_it_does(site):
    known = dict(leaves(get_cfg()))
    added = [key for key, _ in leaves(defaults()) if key not in known]
    html = (site / "api/config.html").read_text()
    assert len(added) > 40 and not [key for key in added if f'id="{key}"' not in html]
    assert "the price of one unit of ponder cost" in html


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_its_window_and_loads_without_a_word(browser: Browser, site, width, dark):  # noqa: F811
    browser.open(site / "index.html", width, dark=dark)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    scheme = browser.run("return document.body.dataset.mdColorScheme")
    assert scheme == ("slate" if dark else "default")
    assert browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)") == []  # no requests
    assert browser.said() == []


def test_the_search_works_in_files(browser: Browser, site):  # noqa: F811
    browser.open(site / "index.html")
    browser.run("document.querySelector('.md-search__input').focus()")
    browser.press("remainder")
    results = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    assert any(
        address.startswith(site.as_uri())
        for address in browser.wait(f"const a = (() => {{{results}}})(); return a.length && a")
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_have_no_serious_accessibility_fault(browser: Browser, site, dark):  # noqa: F811
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python (the extra dev) is not installed")
    for page in ("index", "api/python", "tutorial"):
        browser.open(site / f"{page}.html", dark=dark)
        faults = axe.Axe().run(browser.driver)["violations"]
        serious = [fault for fault in faults if fault["impact"] in ("serious", "critical")]
        assert not [(fault["id"], fault["nodes"][0]["html"]) for fault in serious], page
