"""FP32 graph → INT8 or FP8: calibrated on real images, chosen and corrected by measured mIoU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from segkc_deploy.export.precision.bias_correction import correct_biases, mean_shifts
from segkc_deploy.export.precision.calibration import METHODS, Histogram, collect
from segkc_deploy.export.precision.qdq import FP8, INT8, Format, Layer, find_layers, insert_qdq
from segkc_deploy.export.precision.sensitivity import changed_pixels, changed_shares
from segkc_deploy.manifest import FallbackNode
from segkc_deploy.progress import track

#: The loss of mIoU, in percentage points, within which a quantization stays unless another is asked for.
MIOU_BUDGET = 0.5

FORMATS: Mapping[str, Format] = {"int8": INT8, "fp8": FP8}

#: Images on which layers are compared with each other; enough to put them in order.
_IMAGES_FOR_SENSITIVITY = 4
#: Images from which biases are corrected, and on which these are compared with the original ones.
_IMAGES_FOR_BIASES = 16


@dataclass(frozen=True)
class Trial:
    """A candidate that was measured: calibration method, how many layers it leaves out, and its mIoU in percent.

    `corrected` says whether its biases take back what rounding shifts.
    """

    method: str
    left_out: int
    miou: float
    corrected: bool = False


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and how it came about.

    Attributes:
        model: the graph; same inputs and outputs as before.
        method: how activations were cut off: `max`, `percentile-99.999`, `percentile-99.99` or `entropy`.
        fallbacks: convolutions and products that were not quantized, and why.
        tried: everything that was measured on the way, in that order.
        layers, largest: what was quantized, and the largest absolute value that is kept of each activation.
        unquantized: the graph of which these layers are quantized in `model`: the one before, with corrected biases.
        miou_before: mIoU of the graph without quantization, in percent.
        miou: mIoU of `model`, in percent.
    """

    model: onnx.ModelProto
    method: str
    fallbacks: tuple[FallbackNode, ...]
    tried: tuple[Trial, ...]
    layers: tuple[Layer, ...]
    largest: Mapping[str, float]
    unquantized: onnx.ModelProto
    miou_before: float
    miou: float


def quantize(
    model: onnx.ModelProto,
    precision: Literal["int8", "fp8"],
    batches: Sequence[np.ndarray],
    miou: Callable[[onnx.ModelProto], float],
    budget: float = MIOU_BUDGET,
) -> Quantized:
    """Quantize the convolutions and matrix products of `model`.

    The calibration method with the highest mIoU wins. Biases then take back what rounding shifts, if fewer pixels
    change their class with that. Where it still loses more than `budget`, the layers that change the most pixels when
    they alone are quantized are left out, as few as it takes, but never more than half of them: if that does not
    suffice, the best candidate is returned, and the caller's limits decide.

    Args:
        model: opset 19 or later, uint8 NHWC `images` to float32 `logits` (N, C, h, w); attention taken apart.
        precision: `int8`, or `fp8` (E4M3).
        batches: calibration images, uint8 (n, H, W, 3) at the graph's size; unlabeled.
        miou: the mIoU in percent of a graph, on labeled images that are not used for anything else here.
        budget: the loss of mIoU in percent points that is allowed.

    Raises:
        VerificationError: the network is not finite on one of the images.
    """
    number_format = FORMATS[precision]
    layers, fallbacks = find_layers(model, number_format)
    assert layers, "there is nothing to quantize in this graph"
    histograms = collect(model, {layer.activation for layer in layers}, batches)
    before = miou(model)
    search = _Search(model, number_format, layers, histograms, miou)
    plain = search.best_method()
    best = search.corrected(plain, before - budget, _a_few(batches, _IMAGES_FOR_BIASES))
    if before - best.trial.miou > budget:
        few = _a_few(batches, _IMAGES_FOR_SENSITIVITY)
        shares = changed_pixels(model, layers, search.cuts(best.trial.method), number_format, few)
        best = search.leave_out(best, sorted(layers, key=lambda layer: -shares[layer]), before - budget)
        if best.trial.miou < before - budget:
            best = max(best, plain, key=_miou_of)
        fallbacks += [_fallback(layer, shares[layer], precision) for layer in best.left_out]
    return Quantized(
        model=best.model,
        method=best.trial.method,
        fallbacks=tuple(fallbacks),
        tried=tuple(search.tried),
        layers=tuple(layer for layer in layers if layer not in best.left_out),
        largest=search.cuts(best.trial.method),
        unquantized=best.unquantized,
        miou_before=before,
        miou=best.trial.miou,
    )


@dataclass(frozen=True)
class _Candidate:
    model: onnx.ModelProto
    unquantized: onnx.ModelProto
    left_out: Sequence[Layer]
    trial: Trial


class _Search:
    """Makes candidates and measures them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        number_format: Format,
        layers: Sequence[Layer],
        histograms: Mapping[str, Histogram],
        miou: Callable[[onnx.ModelProto], float],
    ) -> None:
        self.tried: list[Trial] = []
        self._model = model
        self._format = number_format
        self._layers = layers
        self._histograms = histograms
        self._miou = miou
        self._cuts: dict[str, dict[str, float]] = {}
        self._shifts: dict[str, np.ndarray] | None = None

    def cuts(self, method: str) -> dict[str, float]:
        """Return the largest absolute value that `method` keeps of each activation."""
        if method not in self._cuts:
            self._cuts[method] = {name: METHODS[method](histogram) for name, histogram in self._histograms.items()}
        return self._cuts[method]

    def best_method(self) -> _Candidate:
        """Return the candidate with the highest mIoU among those that quantize every layer."""
        # The entropy method asks what evenly spaced levels tell; those of a floating-point format are not.
        methods = [method for method in METHODS if self._format.uniform or method != "entropy"]
        candidates = [self._measure(method, ()) for method in track(methods, "comparing calibration methods")]
        return max(candidates, key=_miou_of)

    def corrected(self, plain: _Candidate, required: float, images: Sequence[np.ndarray]) -> _Candidate:
        """Return `plain`, which quantizes every layer, or the same with corrected biases, where fewer pixels change.

        A candidate that reaches the mIoU `required` comes before one that does not. Later candidates have corrected
        biases too, if the one that is returned has.
        """
        method = plain.trial.method
        self._shifts = mean_shifts(self._model, self._layers, self.cuts(method), self._format, images)
        candidate = self._measure(method, ())
        spoils = candidate.trial.miou < required <= plain.trial.miou
        if not spoils:
            changed, changed_before = changed_shares(self._model, [candidate.model, plain.model], images)
            if changed <= changed_before:
                return candidate
        self._shifts = None
        return plain

    def leave_out(self, start: _Candidate, order: Sequence[Layer], required: float) -> _Candidate:
        """Return a candidate that leaves out as few of the first layers of `order` as reach the mIoU `required`.

        Doubles the number until it suffices or half of the layers are left out, then halves the interval: a few dozen
        layers take about ten measurements. If no number suffices, the best candidate of all comes back.
        """
        too_few, most = 0, len(order) // 2
        found: _Candidate | None = None
        seen = [start]
        while found is None and too_few < most:
            count = min(max(1, 2 * too_few), most)
            seen.append(self._measure(start.trial.method, order[:count]))
            if seen[-1].trial.miou >= required:
                found = seen[-1]
            else:
                too_few = count
        if found is None:
            return max(seen, key=_miou_of)
        while len(found.left_out) - too_few > 1:
            middle = (len(found.left_out) + too_few) // 2
            candidate = self._measure(start.trial.method, order[:middle])
            if candidate.trial.miou >= required:
                found = candidate
            else:
                too_few = middle
        return found

    def _measure(self, method: str, left_out: Sequence[Layer]) -> _Candidate:
        layers = [layer for layer in self._layers if layer not in left_out]
        shifts = self._shifts
        unquantized = self._model if shifts is None else correct_biases(self._model, layers, shifts)
        model = insert_qdq(unquantized, layers, self.cuts(method), self._format)
        trial = Trial(method, len(left_out), self._miou(model), corrected=shifts is not None)
        self.tried.append(trial)
        return _Candidate(model, unquantized, left_out, trial)


def _miou_of(candidate: _Candidate) -> float:
    return candidate.trial.miou


def _a_few(batches: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Return at most `count` single images, evenly spaced over all calibration images."""
    images = [batch[index : index + 1] for batch in batches for index in range(len(batch))]
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[index] for index in chosen]


def _fallback(layer: Layer, share: float, precision: str) -> FallbackNode:
    reason = (
        f"quantized to {precision} alone, it changes {share:.2%} of the pixels' classes; left out for the mIoU budget"
    )
    return FallbackNode(name=layer.name, op_type=layer.op_type, precision=layer.precision, reason=reason)
