"""Sizes as they are written on the command line."""

import typer


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Return (height, width) of `518` or `360x480` (height x width).

    Raises:
        typer.BadParameter: it is neither.
    """
    height, _, width = text.lower().partition("x")
    if not height.isdecimal() or not (width or height).isdecimal():
        raise typer.BadParameter(f"{text!r}: write 518 or 360x480 (height x width)", param_hint=option)
    return int(height), int(width or height)
