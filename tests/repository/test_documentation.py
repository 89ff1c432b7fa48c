"""The Markdown files: every relative link and anchor leads somewhere, and the generated tables are current."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks/results").rglob("*.md")])

CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown file, without counting repeated headings."""
    headings = HEADING.findall(CODE_BLOCK.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """The relative links of a Markdown file that lead nowhere."""
    broken = []
    for match in LINK.finditer(CODE_BLOCK.sub("", path.read_text(encoding="utf-8"))):
        target, anchor = match["target"], match["anchor"]
        if re.match(r"[a-z]+:", target):
            continue
        linked = (path.parent / target) if target else path
        if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in anchors_of(linked)):
            broken.append(match[0])
    return broken


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# The *Heading*, again\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#the-heading-again) [b](other.md#no) [c](gone.md) [d](https://example.org) [e](#none)\n"
        "```\n[f](in-code.md)\n```\n"
    )
    assert broken_links(page) == ["](other.md#no)", "](gone.md)", "](#none)"]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """The tool that writes the tables; it is not part of the package."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs/tools/tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_tables_are_current(tables: ModuleType) -> None:
    outdated = [path.relative_to(ROOT).as_posix() for path in tables.outdated()]
    assert outdated == [], "`make tables` writes them"


def test_every_table_stands_somewhere(tables: ModuleType) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in tables.markdown_files())
    assert set(re.findall(r"<!-- table: ([\w-]+) -->", text)) == set(tables.TABLES)


def test_a_changed_table_is_written_anew(tables: ModuleType) -> None:
    text = "before\n<!-- table: methods -->\n| typed |\n<!-- end of table -->\nafter\n"
    written = tables.with_tables(text)
    assert written.startswith("before\n") and written.endswith("after\n")
    assert "typed" not in written and "| `segkc` | 3 |" in written
    assert tables.with_tables(written) == written


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900
