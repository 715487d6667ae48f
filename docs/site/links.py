"""Makes the repository's own pages a site: README.md is its first page, and links to source files lead to copies.

Pages keep the relative links by which they are read in a checkout or on a forge. Where such a link leaves docs/, its
target joins the site: a page of the top level as a page, a source file or a folder as a page that shows it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LINK = re.compile(r"(\]\(|src=\")([^)\s#\"]+)(?=[)#\"])")  # of text and of images, up to an anchor
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".sh": "bash",
    ".sbatch": "bash",
    ".cpp": "cpp",
    ".h": "cpp",
    ".json": "json",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the top level, what they and all others link outside docs/, and the assets of the site."""
    for asset in sorted((ROOT / "docs/site/assets").iterdir()):
        files.append(File.generated(config, f"assets/{asset.name}", abs_src_path=str(asset)))
    for name, page in TOP.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    pages = {in_repository(file.src_uri): file.content_string for file in files.documentation_pages()}
    for origin, text in pages.items():
        for target in {outside_docs(origin, link) for _, link in LINK.findall(text)} - {None}:
            if target not in TOP and files.get_file_from_path(in_site(target)) is None:
                files.append(File.generated(config, in_site(target), content=source_page(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they go in the site."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def moved(match: re.Match) -> str:
        origin, link = in_repository(here), match[2]
        target = resolved(origin, link) if origin in TOP else outside_docs(origin, link)
        return (
            match[0]
            if target is None
            else match[1] + posixpath.relpath(in_site(target), posixpath.dirname(here) or ".")
        )

    return LINK.sub(moved, markdown)


def in_repository(page: str) -> str:
    """The path in the repository of a page of the site."""
    return next((name for name, of_site in TOP.items() if of_site == page), f"docs/{page}")


def in_site(path: str) -> str:
    """The path in the site of a file, folder or page of the repository."""
    page = path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"
    return TOP.get(path) or re.sub(r"\.ipynb$", ".md", page)


def resolved(origin: str, link: str) -> str | None:
    """What a link on page `origin` means in the repository; None where that is nothing of it."""
    if "://" in link or link.startswith("mailto:"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def outside_docs(origin: str, link: str) -> str | None:
    """The same, for links out of docs/ alone."""
    path = resolved(origin, link)
    return None if path is None or path.startswith("docs/") else path


def source_page(path: str) -> str:
    """A page that shows a text file, or lists a folder."""
    head = f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {path}\n\n"
    source = ROOT / path
    if source.is_dir():
        return head + "".join(f"- `{entry.name}`\n" for entry in sorted(source.iterdir()) if entry.name[0] not in "._")
    fence = "`" * 6
    return f"{head}{fence}{LANGUAGES.get(source.suffix, 'text')}\n{source.read_text(encoding='utf-8')}\n{fence}\n"
