"""What the site's pages say of links to source files, and of the values of options."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed")
ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    """A hook of the site; it is not part of the package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/tools/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_text(markdown: str, repo_url: str) -> str:
    """What the hook makes of a line of `docs/method.md`, on a site that has no other page."""
    page = SimpleNamespace(file=SimpleNamespace(src_uri="method.md", generated_by=None))
    files = SimpleNamespace(get_file_from_path=lambda path: None)
    config = SimpleNamespace(repo_url=repo_url)
    rewritten: str = tool("site_links").on_page_markdown(markdown, page, config, files)
    return rewritten


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[losses.py](../training/terms/losses.py)", "`training/terms/losses.py`"),
        ("[`training/methods`](../training/methods)", "`training/methods`"),
        (
            "see [its rows](../benchmarks/results/camvid-methods.json).",
            "see its rows (`benchmarks/results/camvid-methods.json`).",
        ),
    ],
)
def test_a_link_to_a_source_file_names_the_file(link: str, expected: str) -> None:
    assert page_text(link, "") == expected


def test_a_link_to_a_source_file_leads_to_the_repository_where_there_is_one() -> None:
    link = page_text("[losses.py](../training/terms/losses.py)", "https://example.org/x/")
    assert link == "[losses.py](https://example.org/x/blob/main/training/terms/losses.py)"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("--out <path>", "--out PATH"),
        ("-o, --override <list[str]>", "-o, --override TEXT"),
        ("--benchmark <list[Path]>", "--benchmark PATH"),
        ("--rounds <int range>", "--rounds N"),
        ("--role <junior|senior>", "--role junior|senior"),
        ("--also <list[rle|polygons]>", "--also rle|polygons"),
        ("--images FOLDER", "--images FOLDER"),
        ("--tile", "--tile"),
        ("runs... <list[Path]>", "runs..."),
        ("[NAME] <str>", "[NAME]"),
    ],
)
def test_the_values_of_options_need_no_python(names: str, expected: str) -> None:
    assert tool("site_commands")._with_plain_value(names) == expected


def test_the_page_of_commands_shows_no_type_of_python() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="commands.md"))
    text = tool("site_commands").on_page_markdown("", page, None, None)
    assert "`--out PATH`" in text
    assert not [line for line in text.splitlines() if line.startswith("| `") and "<" in line.split("` |")[0]]


def test_cells_with_much_text_are_wide() -> None:
    row = f'<tr><td style="text-align: left;"><code>a.b</code></td><td>{"word " * 12}</td></tr>'
    marked = tool("site_tables").on_page_content(row, None, None, None)
    assert marked == row.replace("<td>word", '<td class="wide">word')
