"""Pages that open from disk and fetch nothing: styles, scripts, libraries and data are all inside one file."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from segkc_deploy.benchmarks.report import formatting
from segkc_deploy.machine import cpu_text

_FOLDER = Path(__file__).with_name("page")
_FILTERS = (
    "significant", "percent", "percent_range", "signed_percent", "agreement", "difference", "quantity", "mebibytes",
)  # fmt: skip


def render_page(template: str, title: str, data: Any, refresh_s: int | None = None, **values: Any) -> str:
    """Return a whole page.

    Args:
        template: a file in `benchmarks/report/page` that extends `base.html` by its blocks `content`, `script`
            (JavaScript), `conditions` (the line under the title) and `style`.
        title: the page's title and heading.
        data: what the page's scripts find as `Page.data`; JSON values, without NaN.
        refresh_s: seconds after which a browser loads the page again; None for a page that stays as it is.
        values: what the template shows.
    """
    page = _environment().get_template(template)
    return page.render(title=title, data_json=embedded_json(data), refresh_s=refresh_s, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formatting, name) for name in _FILTERS}
    environment.globals |= {"text_of": _text_of, "cpu_text": cpu_text, "missing": formatting.MISSING}
    return environment


def embedded_json(data: Any) -> Markup:
    """Return `data` as JSON that may stand in a script element: nothing in it can end the element.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":  # they occur in strings alone, where JSON may write them so
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # escaped above


@cache
def _text_of(name: str) -> Markup:
    """Return a file of `benchmarks/report/page` as it is, to stand in a style or script element."""
    text = (_FOLDER / name).read_text("utf-8").strip()
    assert "</s" not in text.lower(), name
    assert "<!--" not in text, name
    return Markup(text)  # a file of the package
