"""Turns a `benchmark.json` of format 1 into one of the present format: some fields have other names today."""

from typing import Any

OLD_FORMAT = "segkc-deploy-benchmark/1"

_OLD_NOTE = (": floors of its rows are those of fp32", "; its rows are compared with the peak in fp32")


def upgrade(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a result of `OLD_FORMAT` under the present names; `stored` is left as it is."""
    result = _renamed(stored, {"in_turn": "interleaved"})
    if result.get("interleaved"):
        result["interleaved"] = _renamed(result["interleaved"], {"ways": "contenders"})
    result["rows"] = [_row(row) for row in result.get("rows", ())]
    result["comparisons"] = [_renamed(one, {"cells": "pictures"}) for one in result.get("comparisons", ())]
    result["notes"] = [note.replace(*_OLD_NOTE) for note in result.get("notes", ())]
    return result


def _row(row: dict[str, Any]) -> dict[str, Any]:
    row = _renamed(row, {"floor": "roofline"})
    if row.get("roofline"):
        row["roofline"] = _renamed(row["roofline"], {"share": "efficiency"})
    if "not_measured" in row:
        row["not_measured"] = _renamed(row["not_measured"], {"floor": "roofline"})
    if "state" in row:
        readings = row["state"].get("readings", ())
        load = {"other_load": "background_load"}
        row["state"] = row["state"] | {"readings": [_renamed(reading, load) for reading in readings]}
    return row


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
