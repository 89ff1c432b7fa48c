"""Markdown tables."""

from collections.abc import Sequence


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], right_from: int) -> str:
    """Return a Markdown table; columns from `right_from` on are aligned to the right. `|` is escaped."""
    alignment = [":--"] * right_from + ["--:"] * (len(header) - right_from)
    first, *escaped = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in (header, *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [first, alignment, *escaped])
