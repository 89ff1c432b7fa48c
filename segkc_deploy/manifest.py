"""The JSON file beside every artifact: what it takes and gives, where it came from, and how well it agrees."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from segkc_deploy import atomic
from segkc_deploy.errors import ArtifactError
from segkc_deploy.labels import Labels
from segkc_deploy.pixel_format import MAX_BANDS, PixelFormat

#: Counts up when a reader of the older format could misread a newer manifest. Format 1 is read too.
FORMAT = "segkc-deploy-artifact/2"
_FORMAT_1 = "segkc-deploy-artifact/1"

#: The key of a manifest's own sha256; manifests without it are read too.
_DIGEST = "digest"

#: What tells a companion's name from the artifact's: `.bin`. It cannot lead to another folder.
_Suffix = Annotated[str, StringConstraints(pattern=r"^(\.[A-Za-z0-9_-]+)+$", max_length=64)]

_CHUNK = 1 << 20

#: Endings that an artifact's name has while it is not verified and after it failed.
_STATES = (".unverified", ".rejected")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorContract(_Part):
    """One input or output: its name in the graph, element type and layout (`NHWC`, `NHW`).

    The input is `images`. Outputs are `masks` (uint8 NHW, class ids at the input's size), `confidence` (float32 NHW,
    softmax probability of the mask's class, 0-1) and `logits` (float32 NHWC, at the decoder's own, lower resolution).
    """

    name: str
    dtype: str
    layout: str


class Contract(_Part):
    """What the artifact takes and gives. Normalization, upsampling and argmax are inside the graph.

    `size` is the input's (height, width) in pixels; `batch` is -1 where any batch size is accepted, and `max_batch`
    the largest one where there is a largest. Images of another size are resized (`resize`: to `size`, ignoring the
    aspect ratio) before and masks after.

    `interpolation` says how images are resized, by `segkc_deploy.preprocess.resize_image` and in the validation of the
    trained network: bilinear with pixel centers aligned (half-pixel, not antialiased), and averaged by area where a
    side shrinks by more than 2.

    Where `size_multiple` is given, height and width are free: any multiple of it from `min_size` to `max_size`, and
    each image is resized to the multiple closest to its own size. `align_corners` says how `logits` are upsampled
    (bilinear with corners aligned, or with pixel centers aligned).

    The input has `bands` channels, RGB by default; with `color` `bands` they are those of the training's files.
    """

    input: TensorContract
    outputs: tuple[TensorContract, ...]
    size: tuple[int, int]
    batch: int = -1
    max_batch: int | None = None
    size_multiple: int | None = None
    min_size: tuple[int, int] | None = None
    max_size: tuple[int, int] | None = None
    align_corners: bool = False
    color: Literal["RGB", "bands"] = "RGB"
    bands: int = Field(default=3, ge=1, le=MAX_BANDS)
    resize: Literal["stretch"] = "stretch"

    @property
    def pixels(self) -> PixelFormat:
        """What images the artifact takes."""
        return PixelFormat(self.bands, 16 if self.input.dtype == "uint16" else 8)

    interpolation: Literal["bilinear-or-area"] = "bilinear-or-area"


class Normalization(_Part):
    """(image / largest value - mean) / std per band; applied inside the graph, kept here for the record."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Source(_Part):
    """Where the weights came from: the run directory, the weights' sha256 and what the run says of itself."""

    run: str
    weights_sha256: str
    recipe: str
    method: str
    step: int
    backbone: str
    decoder: str


class Build(_Part):
    """What built an engine, from what and for which machine; compared with the machine before the engine is loaded.

    `builder` is the library (`tensorrt`, `tensorrt-rtx`, `openvino`, `torch`) and `version` its version. `flags` are
    names, never numbers; `options` holds what else was chosen (profile, builder level, workspace).
    """

    builder: str
    version: str
    onnx_sha256: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    flags: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, description="how long the build took")


class FallbackNode(_Part):
    """A node of the graph that has a higher precision than the artifact, and why."""

    name: str
    op_type: str
    precision: str
    reason: str


class LayerPrecision(_Part):
    """The precision that layers really have.

    `source` says how it is known: `graph` (the types in the ONNX graph) or `inspector` (the built engine's own).
    `layers` counts: precision to operator to number of layers, such as
    `{"fp16": {"Conv": 53}}`.
    `fallbacks` lists the nodes that have a higher precision than the artifact, and `calibration` says
    how the ranges of a quantization were cut off.
    """

    source: Literal["graph", "inspector"]
    calibration: str = ""
    layers: dict[str, dict[str, int]]
    fallbacks: tuple[FallbackNode, ...] = ()


class ShapeCheck(_Part):
    """A batch of another shape, (N, height, width), and the share of its pixels that agree with the network's (0-1)."""

    shape: tuple[int, int, int]
    agreement: float


class Verification(_Part):
    """The artifact against the PyTorch junior on real images.

    Attributes:
        subject: what was run: the `artifact` itself, or, where this machine cannot run the engine, the ONNX `graph`
            from which it was built. An engine of which only the graph was verified is to be evaluated on its device.
        ran_on: what ran it, such as `onnxruntime 1.31.1 CPUExecutionProvider`.
        images: how many images were compared.
        agreement: share of pixels with the same class (0-1), at each image's own size.
        graph_agreement: the same of the ONNX graph in its final precision, rounded at each tensor as its types say, at
            the decoder's resolution; None where the engine is not made from it. Hardware that computes in a higher
            precision than the artifact's hides what other hardware will show; this does not.
        graph_images: on how many of the images the graph was compared; None for older artifacts, which did it on all.
        shapes: other batch sizes, heights and widths that were tried.
        required_agreement: the least agreement that passes, if any was required.
        finite: whether every logit, of graph and artifact, was a finite number; None where none could be seen.
        max_logit_difference: largest absolute difference of a logit at the decoder's resolution, of the graph and,
            where they are an output, of the artifact; None where none could be seen, and where they were not finite.
        confidence_difference: mean absolute difference of the confidence; None where it is no output.
        miou_network, miou_artifact: mIoU in percent at each image's own size; None without masks.
        max_miou_loss: the largest loss in mIoU that passes, if one was set.
        iou_network, iou_artifact: IoU of each class in percent; None for a class that does not occur.
    """

    subject: Literal["artifact", "graph"] = "artifact"
    ran_on: str = ""
    images: int
    agreement: float
    graph_agreement: float | None = None
    graph_images: int | None = None
    shapes: tuple[ShapeCheck, ...] = ()
    required_agreement: float | None = None
    finite: bool | None = None
    max_logit_difference: float | None = None
    confidence_difference: float | None = None
    miou_network: float | None = None
    miou_artifact: float | None = None
    max_miou_loss: float | None = None
    iou_network: tuple[float | None, ...] = ()
    iou_artifact: tuple[float | None, ...] = ()


class Manifest(_Part):
    """Everything that is known about an artifact; stored as `<artifact>.json`.

    The file also holds `digest`, the sha256 of everything else in it, so that a damaged manifest is noticed.

    `bytes` is the size of the artifact with all its files. `companions` holds the sha256 of every further file that
    belongs to it, by the suffix that tells it from the artifact: with `{".bin": …}`, `junior.xml` is complete with
    `junior.bin` beside it.
    """

    format: str = FORMAT
    artifact: str
    sha256: str
    bytes: int
    companions: dict[_Suffix, str] = Field(default_factory=dict)
    engine: str
    precision: str
    contract: Contract
    labels: Labels
    normalization: Normalization
    parameters: int
    flops: int = Field(description="floating-point operations for one image, two for each multiply-add")
    activation_peak_bytes: int | None = Field(
        default=None,
        description="the most that the intermediate tensors of one image take at once, by the graph before an engine"
        " fuses its layers; older manifests do not have it",
    )
    source: Source
    layer_precision: LayerPrecision | None = None
    build: Build | None = None
    verification: Verification | None = None
    machine: dict[str, Any] = Field(default_factory=dict)
    command: str = ""
    created: str = ""


def sha256_of(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def manifest_path(artifact: str | Path) -> Path:
    """Return the path of the manifest that belongs to `artifact`: the same name with `.json` appended."""
    artifact = Path(artifact)
    return artifact.with_name(artifact.name + ".json")


def companion_path(artifact: str | Path, suffix: str) -> Path:
    """Return the path of the file that belongs to `artifact` and ends in `suffix`.

    `junior.xml` and `.bin` give `junior.bin`; `junior.xml.rejected` gives `junior.bin.rejected`.
    """
    artifact = Path(artifact)
    state = artifact.suffix if artifact.suffix in _STATES else ""
    return artifact.with_name(Path(artifact.name.removesuffix(state)).stem + suffix + state)


def write_manifest(artifact: str | Path, manifest: Manifest) -> Path:
    """Write `manifest` beside `artifact` and return its path."""
    path = manifest_path(artifact)
    content = json.loads(manifest.model_dump_json())
    atomic.write_text(path, json.dumps(content | {_DIGEST: _digest(content)}, indent=2, ensure_ascii=False) + "\n")
    return path


def read_manifest(artifact: str | Path) -> Manifest:
    """Read and check the manifest beside `artifact`, and the artifact's bytes against it.

    Raises:
        ArtifactError: the artifact, a file that belongs to it or its manifest is missing or unreadable, or the bytes
            of one of them are not the ones that were exported. Nothing of the artifact is executed before this check.
    """
    artifact = Path(artifact)
    path = manifest_path(artifact)
    if not (artifact.is_file() and path.is_file()):
        from segkc_deploy.no_artifact import why_no_artifact  # it loads OpenCV and Pillow, for the names of image files

        raise ArtifactError(f"{artifact}: {why_no_artifact(artifact)}")
    try:
        manifest = Manifest.model_validate_json(json.dumps(_read_content(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ArtifactError(f"{path}: not a manifest of this version: {where}: {first['msg']}; export again") from None
    _check_hash(artifact, manifest.sha256)
    for suffix, sha256 in manifest.companions.items():
        companion = companion_path(artifact, suffix)
        if not companion.is_file():
            raise ArtifactError(f"{artifact}: the file {companion.name}, a part of it, is missing; copy it beside it")
        _check_hash(companion, sha256)
    return manifest


def _check_hash(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        raise ArtifactError(
            f"{path}: the file's sha256 differs from its manifest's: it is damaged or was changed after export;"
            " copy it again or export again"
        )


def _read_content(path: Path) -> dict[str, Any]:
    """Return a manifest's JSON in the current format; another format is refused by its name, not by its fields."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: not a manifest; it is damaged: copy it again or export again")
    if _DIGEST in content and content.pop(_DIGEST) != _digest(content):
        raise ArtifactError(
            f"{path}: its content differs from its digest: it is damaged or was changed after export;"
            " copy it again or export again"
        )
    found = content.get("format")
    if found == _FORMAT_1:
        return _from_format_1(content)
    if found != FORMAT:
        raise ArtifactError(f"{path}: format {found!r}, but this version reads {FORMAT!r}; export again")
    return content


def _digest(content: dict[str, Any]) -> str:
    """Return the sha256 of a manifest's JSON without `digest`, keys sorted, without spaces, non-ASCII escaped."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of format 1 under the names of format 2: `fallbacks` was `kept`, `--upsampling` `--tail`."""
    upgraded = content | {"format": FORMAT}
    precision = content.get("layer_precision")
    if isinstance(precision, dict) and "kept" in precision:
        upgraded["layer_precision"] = {("fallbacks" if key == "kept" else key): precision[key] for key in precision}
    if isinstance(content.get("command"), str):
        upgraded["command"] = content["command"].replace(" --tail ", " --upsampling ")
    return upgraded
