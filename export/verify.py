"""The gate that every artifact passes before it gets its name: does it give the masks that its network gives?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.export.deploy_graph import OUTPUT_NAME
from segkc_deploy.export.to_onnx import with_logits
from segkc_deploy.export.torch_runner import TorchRunner
from segkc_deploy.manifest import Verification
from segkc_deploy.metrics import ConfusionMatrix
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import track


def verify(
    artifact: Predictor, reference: TorchRunner, path: Path, sets: ImageSets, images: int, required: float
) -> Verification:
    """Compare an artifact with its network on validation images.

    Args:
        artifact: the built artifact, in a predictor.
        reference: the PyTorch network for the same input size.
        path: the ONNX file, to read its logits.
        sets: where the validation images are.
        images: how many of them to use at most, spread evenly over the set.
        required: the share of equal pixels (0-1) that passes; written down, judged by the caller.
    """
    labels = sets.labels
    scores = {name: ConfusionMatrix(labels.num_classes, labels.ignore_index) for name in ("network", "artifact")}
    equal = pixels = 0
    largest_difference = 0.0
    session = _logits_session(path)
    chosen = spread(sets.val, images)
    for sample in track(chosen, "verifying the artifact on validation images"):
        image, truth = read_sample(sample, sets)
        assert truth is not None
        batch = artifact.preprocess([image])
        expected, got = reference.infer(batch), artifact.infer(batch)
        equal += int((expected[OUTPUT_NAME] == got[OUTPUT_NAME]).sum())
        pixels += expected[OUTPUT_NAME].size
        difference = np.abs(reference.infer_logits(batch) - session(batch)).max()
        largest_difference = float(np.fmax(largest_difference, difference) if np.isfinite(difference) else np.inf)
        size = [(image.shape[0], image.shape[1])]
        scores["network"].update(truth, artifact.postprocess(expected, size)[0])
        scores["artifact"].update(truth, artifact.postprocess(got, size)[0])
    if scores["network"].scores().pixels == 0:
        raise DataError(
            f"{chosen[0].mask}: like every validation mask it holds ignored pixels alone; nothing to verify"
        )
    return Verification(
        images=len(chosen),
        agreement=equal / pixels,
        required_agreement=required,
        max_logit_difference=largest_difference,
        miou_network=scores["network"].scores().miou,
        miou_artifact=scores["artifact"].scores().miou,
    )


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return at most `count` samples, evenly spaced."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[index] for index in chosen]


def _logits_session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from a batch to the logits that the artifact's own graph computes for it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(with_logits(path), options, providers=["CPUExecutionProvider"])
    logits, source = session.get_outputs()[-1].name, session.get_inputs()[0].name

    def infer(batch: np.ndarray) -> np.ndarray:
        values: np.ndarray = session.run([logits], {source: batch})[0]
        return values

    return infer
