"""An artifact that the service runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkc_deploy.errors import ArtifactError, ConfigError
from segkc_deploy.predictor import Predictor
from segkc_deploy.preprocess import network_size
from segkc_deploy.serve.api_models import Class, Model
from segkc_deploy.serve.batcher import Batcher, Outputs
from segkc_deploy.serve.limits import Limits


@dataclass(frozen=True)
class ServedModel:
    """A loaded artifact, the name by which requests choose it, and the queue before it."""

    name: str
    path: Path
    predictor: Predictor
    batcher: Batcher
    max_batch: int

    def network_input(self, image: np.ndarray) -> np.ndarray:
        """Return `image`, uint8 (H, W, 3), at the network's size."""
        resized: np.ndarray = self.predictor.preprocess([image])[0]
        return resized

    def mask(self, outputs: Outputs, size: tuple[int, int]) -> np.ndarray:
        """Return the mask, uint8 (height, width), from one image's outputs."""
        return self.predictor.postprocess(_as_batch(outputs), [size])[0]

    def confidence(self, outputs: Outputs, size: tuple[int, int]) -> np.ndarray | None:
        """Return the confidence, float32 (height, width), or None where the artifact gives none."""
        return self.predictor.confidences(_as_batch(outputs), [size])[0] if "confidence" in outputs else None

    def waiting(self) -> int:
        """Return how many images wait for the network."""
        return self.batcher.waiting

    def warm_up(self) -> None:
        """Run the network once, so that the first request is as fast as later ones.

        Raises:
            ArtifactError: the engine cannot run the artifact.
        """
        pixels = self.predictor.contract.pixels
        if not pixels.is_rgb:
            raise ArtifactError(f"{self.name}: takes {pixels}, and the service decodes RGB; predict files instead")
        height, width = network_size(self.predictor.contract, self.predictor.contract.size)
        self.predictor.infer(np.zeros((1, height, width, 3), np.uint8))

    def describe(self) -> Model:
        """Return what the service tells about it."""
        predictor, manifest = self.predictor, self.predictor.manifest
        assert manifest is not None
        labels, (height, width) = predictor.labels, predictor.contract.size
        return Model(
            name=self.name,
            artifact=manifest.artifact,
            precision=manifest.precision,
            runs_on=predictor.description,
            height=height,
            width=width,
            any_size=predictor.contract.size_multiple is not None,
            max_batch=self.max_batch,
            parameters=manifest.parameters,
            sha256=manifest.sha256,
            confidence=predictor.gives_confidence,
            classes=[
                Class(id=index, name=name, color=color)
                for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True))
            ],
        )


def served_models(
    predictors: Sequence[tuple[Path, Predictor]], batch: int, limits: Limits, batch_delay_s: float = 0.0
) -> list[ServedModel]:
    """Return the models of the service; one is named by its file's stem, or by its file where two stems are equal.

    Args:
        predictors: artifacts and what runs them.
        batch: most images of a batch, where the artifact leaves that open.
        limits: what the service accepts.
        batch_delay_s: how long an image waits for others to share its batch.

    Raises:
        ConfigError: two files have one name.
    """
    stems = Counter(path.stem for path, _ in predictors)
    names = [path.stem if stems[path.stem] == 1 else path.name for path, _ in predictors]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"{twice[0]}: two artifacts have this name; rename one of them")
    models = []
    for name, (path, predictor) in zip(names, predictors, strict=True):
        largest = predictor.batch_size(batch)
        # Of a fixed batch all images come at once.
        most_waiting = max(limits.waiting, predictor.contract.batch)
        batcher = Batcher(predictor.infer, largest, most_waiting, batch_delay_s)
        models.append(ServedModel(name, path, predictor, batcher, largest))
    return models


def _as_batch(outputs: Outputs) -> Outputs:
    return {name: value[None] for name, value in outputs.items()}
