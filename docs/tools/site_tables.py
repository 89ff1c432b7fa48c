"""MkDocs hook: cells of tables with much text get the class `wide`, which `site.css` keeps from becoming slivers.

A browser shares the width among columns; where others hold code, which does not break, a sentence would have a word a
line. How much a cell holds is nothing that CSS can ask for.
"""

import html
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

#: Cells with more characters are wide.
_NARROW = 50

_CELL = re.compile(r"<td(?P<attributes>[^>]*)>(?P<content>.*?)</td>", re.S)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page's HTML with the class on its wide cells."""
    return _CELL.sub(_marked, content)


def _marked(match: re.Match[str]) -> str:
    text = html.unescape(re.sub(r"<[^>]*>", "", match["content"]))
    return match[0].replace("<td", '<td class="wide"', 1) if len(text) > _NARROW else match[0]
