"""Write the data spec that was guessed for a folder, its guesses as comments."""

import os
from fractions import Fraction
from pathlib import Path

import yaml

from segkc_deploy import atomic
from segkc_deploy.data.files import existing_folder
from segkc_deploy.data.guess import guess_spec
from segkc_deploy.data.list_file import write_list
from segkc_deploy.data.pools import draw_fraction
from segkc_deploy.data.spec import data_spec
from segkc_deploy.errors import ConfigError
from segkc_deploy.validation import load_yaml

_VAL_FRACTION = Fraction(1, 5)
_FIRST_LINE = "# Written by `segkc-deploy init`; guessed:"


def write_spec(folder: Path, path: Path, overwrite: bool) -> list[str]:
    """Guess the data spec of `folder`, write it to `path` and return the remarks on what was guessed.

    Where no folder holds validation images, every fifth labeled image, drawn by its name, is written into the list
    `val.txt` beside the spec and the others into `labeled.txt`; where others wrote such a file, the lists are called
    after the spec, too.

    Raises:
        ConfigError: there is no such folder, or a file to write exists and `overwrite` is not set.
        DataError: nothing to train on was found.
    """
    existing_folder(folder, "init")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: exists; choose another --out, or add --overwrite")
    guess = guess_spec(folder)
    path.parent.mkdir(parents=True, exist_ok=True)  # paths lead out of it
    if path.parent.resolve() != folder.resolve():
        guess.spec = {"root": os.path.relpath(folder.resolve(), path.parent.resolve()), **guess.spec}
    sets = data_spec(guess.spec, path).resolve(allow_missing_masks=True)
    masked = tuple(sample for sample in sets.labeled if sample.mask is not None)
    if not sets.val and len(masked) > 1 and "labeled" in guess.spec:
        val = draw_fraction(masked, _VAL_FRACTION, seed=0)
        drawn = {sample.id for sample in val}
        lists = _list_files(path, overwrite)
        for key, ids in (
            ("labeled", [one.id for one in masked if one.id not in drawn]),
            ("val", [one.id for one in val]),
        ):
            write_list(lists[key], ids)
        guess.spec["val"] = dict(guess.spec["labeled"]) | {"ids": lists["val"].name}
        guess.spec["labeled"] = dict(guess.spec["labeled"]) | {"ids": lists["labeled"].name}
        guess.remarks.append(
            f"val: no folder of its own, so {len(val)} of {len(masked)} labeled images, in {lists['val'].name}"
        )
    comments = "".join(f"# {remark}\n" for remark in guess.remarks)
    text = yaml.safe_dump(guess.spec, sort_keys=False, allow_unicode=True, default_flow_style=None)
    atomic.write_text(path, f"{_FIRST_LINE}\n{comments}{text}")
    return guess.remarks


def _list_files(path: Path, overwrite: bool) -> dict[str, Path]:
    """Return where the lists go: no file is replaced but the lists of the spec that is overwritten."""
    earlier = _earlier_lists(path) if overwrite else frozenset()
    for prefix in ("", f"{path.stem}-"):
        files = {key: path.parent / f"{prefix}{key}.txt" for key in ("labeled", "val")}
        if all(file.name in earlier or not file.exists() for file in files.values()):
            return files
    raise ConfigError(
        f"{path.parent}: holds {files['labeled'].name} or {files['val'].name}, which this spec does not name; choose"
        " another --out"
    )


def _earlier_lists(path: Path) -> frozenset[str]:
    """Return the lists that `init` wrote beside an earlier spec; none where that is damaged."""
    try:
        content = load_yaml(path)
    except ConfigError:
        return frozenset()
    if not path.read_text(encoding="utf-8").startswith(f"{_FIRST_LINE}\n"):
        return frozenset()
    sections = [content.get(key) for key in ("labeled", "val")]
    return frozenset(str(section["ids"]) for section in sections if isinstance(section, dict) and "ids" in section)
