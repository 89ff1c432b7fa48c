"""Ranges of numbers as they are written on the command line."""

import typer


def parse_range(text: str, option: str) -> tuple[int, int, int]:
    """Return (smallest, usual, largest) of `4`, `1:8` (usual: the smallest) or `1:4:8`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    parts = text.split(":")
    if not all(part.isdecimal() for part in parts) or len(parts) > 3:
        raise typer.BadParameter(f"{text!r}: write 4, 1:8 or 1:4:8 (smallest:usual:largest)", param_hint=option)
    numbers = [int(part) for part in parts]
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    return numbers[0], numbers[0], numbers[-1]
