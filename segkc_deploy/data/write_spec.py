"""Write the data spec that was guessed for a folder, its guesses as comments."""

import os
from fractions import Fraction
from pathlib import Path

import yaml

from segkc_deploy import atomic
from segkc_deploy.data.files import existing_folder
from segkc_deploy.data.guess import guess_spec
from segkc_deploy.data.pools import draw_fraction
from segkc_deploy.data.spec import data_spec
from segkc_deploy.errors import ConfigError

_VAL_FRACTION = Fraction(1, 5)


def write_spec(folder: Path, path: Path, overwrite: bool) -> list[str]:
    """Guess the data spec of `folder`, write it to `path` and return the remarks on what was guessed.

    Where no folder holds validation images, every fifth labeled image, drawn by its name, is written into the list
    `val.txt` beside the spec and the others into `labeled.txt`.

    Raises:
        ConfigError: there is no such folder, or `path` exists and `overwrite` is not set.
        DataError: nothing to train on was found.
    """
    existing_folder(folder, "init")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: exists; choose another --out, or add --overwrite")
    guess = guess_spec(folder)
    if path.parent.resolve() != folder.resolve():
        guess.spec = {"root": os.path.relpath(folder.resolve(), path.parent.resolve()), **guess.spec}
    sets = data_spec(guess.spec, path).resolve(allow_missing_masks=True)
    masked = tuple(sample for sample in sets.labeled if sample.mask is not None)
    if not sets.val and len(masked) > 1 and "labeled" in guess.spec:
        val = draw_fraction(masked, _VAL_FRACTION, seed=0)
        rest = [sample for sample in masked if sample not in val]
        for name, samples in (("labeled", rest), ("val", val)):
            atomic.write_text(path.parent / f"{name}.txt", "".join(f"{sample.id}\n" for sample in samples))
        guess.spec["val"] = dict(guess.spec["labeled"]) | {"ids": "val.txt"}
        guess.spec["labeled"] = dict(guess.spec["labeled"]) | {"ids": "labeled.txt"}
        guess.remarks.append(f"val: no folder of its own, so {len(val)} of {len(masked)} labeled images, in val.txt")
    comments = "".join(f"# {remark}\n" for remark in guess.remarks)
    text = yaml.safe_dump(guess.spec, sort_keys=False, allow_unicode=True, default_flow_style=None)
    atomic.write_text(path, f"# Written by `segkc-deploy init`; guessed:\n{comments}{text}")
    return guess.remarks
