"""Lists the keys of sact_det/config.py with their comments where a page has a line `<!-- config keys -->`."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

SOURCE = Path(__file__).parents[2] / "sact_det/config.py"
MARKER = "<!-- config keys -->"
KEY = re.compile(r"^((?: {4}# .*\n)*) {4}cfg\.([A-Z][\w.]*) = (?!node\(\))(.+)\n", re.MULTILINE)


def keys() -> list[tuple[str, str, str]]:
    """(key, default as it is written, comment) of every key."""
    return [
        (name, value.split("  # ")[0], " ".join(re.findall(r"# (.*)", comment)))
        for comment, name, value in KEY.findall(SOURCE.read_text(encoding="utf-8"))
    ]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with the keys in the place of the marker."""
    if MARKER not in markdown:
        return markdown
    listed = (f"## `{name}` {{ #{name} }}\n\n{comment}\n\nDefault: `{value}`" for name, value, comment in keys())
    return markdown.replace(MARKER, "\n\n".join(listed))
