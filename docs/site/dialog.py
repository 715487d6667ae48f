"""Gives the search dialog, which the theme leaves without one, a name for screen readers."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

SEARCH = 'data-md-component="search" role="dialog"'


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The page with the dialog named."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')
