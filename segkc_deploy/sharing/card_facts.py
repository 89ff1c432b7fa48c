"""What a model card says: of the network, its data, its scores and its latency."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.invocation import suggested_command
from segkc_deploy.labels import Labels
from segkc_deploy.manifest import Verification, read_manifest


@dataclass(frozen=True)
class NetworkFacts:
    """The network that a card is about.

    Attributes:
        kind: `artifact` or `run`.
        file: the artifact's name, or that of the run's folder.
        labels: the classes.
        backbone, decoder: of the network.
        parameters: how many it has.
        input_size: (height, width) in pixels.
        method, recipe, step: of its training.
        form: engine and precision of an artifact, or `PyTorch weights`.
        weights_sha256: of the file that training wrote of the network.
        verification: how an artifact agrees with its network.
        has_senior: whether a run has a senior too.
    """

    kind: str
    file: str
    labels: Labels
    backbone: str
    decoder: str
    parameters: int
    input_size: tuple[int, int]
    method: str
    recipe: str
    step: int
    form: str
    weights_sha256: str
    verification: Verification | None = None
    has_senior: bool = False


@dataclass(frozen=True)
class DataFacts:
    """How many images a network was trained and scored on."""

    labeled: int
    unlabeled: int
    val: int


class Scores(BaseModel):
    """The scores of one network on one validation set, as `segkc-deploy eval --json` writes them.

    `weights_sha256` is that of `NetworkFacts`; older files have none.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    target: str
    role: str = "junior"
    images: int
    miou: float
    miou_interval: tuple[float, float] | None = None
    pixel_accuracy: float | None = None
    iou: dict[str, float | None]
    protocol: str
    ran_on: str
    rule: str = ""
    weights_sha256: str | None = None


@dataclass(frozen=True)
class LatencyFacts:
    """The latency of one image from a decoded image to its mask, in milliseconds, and the machine."""

    p50: float
    p90: float
    p99: float
    size: tuple[int, int]
    machine: str


def artifact_facts(artifact: Path) -> NetworkFacts:
    """Return the facts in an artifact's manifest.

    Raises:
        ArtifactError: the artifact or its manifest is missing or damaged.
    """
    manifest = read_manifest(artifact)
    return NetworkFacts(
        kind="artifact",
        file=artifact.name,
        labels=manifest.labels,
        backbone=manifest.source.backbone,
        decoder=manifest.source.decoder,
        parameters=manifest.parameters,
        input_size=manifest.contract.size,
        method=manifest.source.method,
        recipe=manifest.source.recipe,
        step=manifest.source.step,
        form=f"{manifest.engine}, {manifest.precision}",
        weights_sha256=manifest.source.weights_sha256,
        verification=manifest.verification,
    )


def data_facts(spec: Path, labels: Labels) -> DataFacts:
    """Count the images of a data spec.

    Raises:
        ConfigError: the spec cannot be used.
        DataError: its classes are not the network's.
    """
    sets = load_data_spec(spec).resolve(allow_missing_masks=True)
    if sets.labels.names != labels.names:
        raise DataError(f"{spec}: has other classes than the network; give the data spec it was trained with")
    return DataFacts(len(sets.labeled), len(sets.unlabeled), len(sets.val))


def read_scores(path: Path, network: NetworkFacts) -> Scores:
    """Read what `segkc-deploy eval --json` wrote of a network.

    Raises:
        ConfigError: the file is missing, is something else, or is of the senior or another network.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        scores = Scores.model_validate(content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise ConfigError(f"{path}: no scores of `segkc-deploy eval --json`: {key} is missing or wrong") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON; `{_scoring('TARGET', path)}` writes it") from None
    if tuple(scores.iou) != network.labels.names:
        raise ConfigError(f"{path}: has other classes than the network; score this network")
    if scores.role != "junior":
        raise ConfigError(f"{path}: scores of the {scores.role}; the card is of the junior: score it by `eval`")
    if scores.weights_sha256 not in (None, network.weights_sha256):
        raise ConfigError(f"{path}: scores of another network ({scores.target}); run `{_scoring(network.file, path)}`")
    return scores


def _scoring(target: str, path: Path) -> str:
    return suggested_command("eval", target, "--data", "data.yaml", "--json", path)
