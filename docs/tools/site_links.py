"""MkDocs hook: the links of the Markdown files work on the site as they do in the repository.

Pages link to files outside `docs/` by relative paths. Markdown files among them become pages of the site. Links to
source files lead to the repository's own site if `repo_url` is set; otherwise the file's path follows the text. A link
to a file that does not exist is a warning, which `mkdocs build --strict` turns into a failure.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger("mkdocs.hooks.site_links")

#: Markdown files outside `docs/` that are pages of the site, as patterns below the repository's root.
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/results/**/*.md")

#: A fenced code block, which is left alone, or a link with its text, target and anchor.
LINK = re.compile(
    r"^```.*?^```|(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", re.M | re.S
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the Markdown files outside `docs/` to the site, each at its path in the repository."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page's text with its links rewritten from paths in the repository to paths on the site."""
    name = page.file.src_uri
    source = name if page.file.generated_by else f"docs/{name}"

    def rewritten(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            log.warning("%s links to %s, which does not exist", source, path)
            return match[0]
        on_site = path.removeprefix("docs/")
        if files.get_file_from_path(on_site):
            relative = posixpath.relpath(on_site, posixpath.dirname(name) or ".")
            return f"{match['image']}[{match['text']}]({relative}{match['anchor'] or ''})"
        if config.repo_url:
            return f"[{match['text']}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return _text_and_path(match["text"], path)

    return LINK.sub(rewritten, markdown)


def _text_and_path(text: str, path: str) -> str:
    """Return what a link says and the path that it leads to, or the path alone where the text is the end of it."""
    return f"`{path}`" if f"/{path}".endswith(f"/{text.strip('`')}") else f"{text} (`{path}`)"
