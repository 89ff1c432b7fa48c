"""`pseudo-label.json`: by which network and thresholds masks were made, how good they are, and what to go on with."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segkc_deploy import atomic
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import ConfigError
from segkc_deploy.labels import Labels
from segkc_deploy.training.pseudo_label.calibrate import Calibration
from segkc_deploy.training.pseudo_label.confidence import ClassQuality, Thresholds, overall

_FORMAT = "segkc-deploy-pseudo-label/1"
_NAME = "pseudo-label.json"


@dataclass(frozen=True)
class Settings:
    """What has to be the same for masks to go on in a folder, except for `run`, which `weights_sha256` identifies.

    Attributes:
        run: the run directory, for people: it may be named in another way, or be moved.
        role: `junior` or `senior`.
        weights_sha256: of the network's file.
        precision: what was asked of the kept pixels, 0 to 1; None with a given confidence.
        confidence: the given threshold, 0 to 1; None where thresholds were chosen.
        protocol: how the network sees an image, in words.
        validation_set: what `digest_of` says of the validation images that thresholds are chosen or measured on; None
            where the data spec is gone, or where an older version wrote the record.
    """

    run: str
    role: str
    weights_sha256: str
    precision: float | None
    confidence: float | None
    protocol: str
    validation_set: str | None = None


@dataclass(frozen=True)
class Record:
    """The settings, the classes, and the thresholds with their quality."""

    settings: Settings
    labels: Labels
    calibration: Calibration

    def write(self, out: Path, outcome: dict[str, Any] | None = None) -> None:
        """Write the record; without the `outcome` while masks are still being written."""
        thresholds = self.calibration.thresholds
        content = {
            "format": _FORMAT,
            "settings": asdict(self.settings),
            "classes": list(self.labels.names),
            "ignore_index": self.labels.ignore_index,
            "thresholds": [value if math.isfinite(value) else None for value in thresholds.values],
            "own_threshold": list(thresholds.own),
            "validation_images": self.calibration.images,
            "validation": _qualities(self.calibration.qualities),
            "validation_held_out": _qualities(self.calibration.held_out or ()),
            "outcome": outcome,
        }
        atomic.write_text(out / _NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def is_in(out: Path) -> bool:
        """Return whether an earlier call wrote into this folder."""
        return (out / _NAME).is_file()

    @staticmethod
    def calibration_of(out: Path, settings: Settings, labels: Labels) -> Calibration | None:
        """Return the thresholds that an earlier call chose in this folder, or None where there was none.

        Raises:
            ConfigError: that call was another one, or its record is damaged.
        """
        path = out / _NAME
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = Settings(**content["settings"])
            names = content["classes"]
            calibration = _calibration(content)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(f"{path}: damaged; start anew with --overwrite") from None
        different = [key for key, value in asdict(settings).items() if _differs(key, getattr(known, key), value)]
        different += ["classes"] if names != list(labels.names) else []
        if different:
            what = different[0].replace("_", " ")
            raise ConfigError(
                f"{path}: these masks were begun with another {what}; choose another --out, or add --overwrite"
            )
        return calibration


def digest_of(samples: Sequence[Sample]) -> str:
    """Return what tells images with masks from others, wherever they lie: a sha256 of their ids and sizes in bytes."""
    sizes = [[path.stat().st_size if path and path.exists() else None for path in (s.image, s.mask)] for s in samples]
    facts = [(sample.id, *size) for sample, size in zip(samples, sizes, strict=True)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _differs(key: str, known: object, wanted: object) -> bool:
    if key == "run" or (key == "validation_set" and None in (known, wanted)):
        return False
    return known != wanted


def _calibration(content: dict[str, Any]) -> Calibration:
    values = tuple(math.inf if value is None else float(value) for value in content["thresholds"])
    held_out = tuple(ClassQuality(**one) for one in content["validation_held_out"]["classes"])
    return Calibration(
        Thresholds(values, tuple(map(bool, content["own_threshold"]))),
        int(content["validation_images"]),
        tuple(ClassQuality(**one) for one in content["validation"]["classes"]),
        held_out or None,
    )


def _qualities(qualities: Sequence[ClassQuality]) -> dict[str, Any]:
    """Return pixel counts by class in the order of the ids, and the shares of all classes together."""
    together = overall(qualities)
    return {
        "precision": together.precision,
        "kept_share": together.kept_share,
        "classes": [asdict(one) for one in qualities],
    }
