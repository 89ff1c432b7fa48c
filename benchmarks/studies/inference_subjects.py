"""The networks of the study of inference speed, with the artifacts that it compares."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.data.images import read_image
from segkc_deploy.export.export_run import SharedWork, export_run
from segkc_deploy.export.random_run import write_random_run
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.verify import Limits
from segkc_deploy.manifest import read_manifest
from segkc_deploy.progress import console
from segkc_deploy.training.models.spec import NetworkSpec

#: Artifacts that the study compares, by engine.
_ARTIFACTS = (
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("openvino", "int8-bf16"),
)
_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
#: Images for verification and calibration, of a random and of a trained network.
_IMAGES = {False: (4, 8), True: (20, 32)}

#: Networks with random weights, by the name of their folder: the juniors of the recipes for one's own images.
RANDOM = {
    "dinov2-s-dpt": ("DINOv2-S + DPT", NetworkSpec(backbone="vit_small_patch14_dinov2", decoder="dpt"), (518, 518)),
    "convnext-nano-fpn": (
        "ConvNeXt-Nano + FPN",
        NetworkSpec(backbone="convnext_nano", decoder_channels=64),
        (512, 512),
    ),
    "efficientnet-lite0-fpn": (
        "EfficientNet-Lite0 + FPN",
        NetworkSpec(backbone="tf_efficientnet_lite0", decoder_channels=32),
        (512, 512),
    ),
    "mobilenetv4-s-fpn": (
        "MobileNetV4-S + FPN",
        NetworkSpec(backbone="mobilenetv4_conv_small", decoder_channels=32),
        (512, 512),
    ),
    "mobilenetv4-xs-fpn": (
        "MobileNetV4-S x0.5 + FPN",
        NetworkSpec(backbone="mobilenetv4_conv_small_050", decoder_channels=24),
        (512, 512),
    ),
}
#: The study shows how much every artifact agrees, so it also takes one that is just below the usual 99.5% in BF16.
_TRAINED = {"fp32": Limits(), "bf16": Limits(agreement=0.99), "int8": Limits(), "int8-bf16": Limits()}
#: A random network loses more than a trained one, and its score says nothing.
_RANDOM = {
    "fp32": Limits(),
    "bf16": Limits(agreement=0.0),
    "int8": Limits(miou_loss=100.0),
    "int8-bf16": Limits(miou_loss=100.0),
}


@dataclass(frozen=True)
class Subject:
    """A network: its run directory, the folder of its artifacts, and its size; `flops` are of one image."""

    name: str
    run: Path
    artifacts: Path
    size: tuple[int, int]
    parameters: int
    flops: int


def random_subjects(names: Iterable[str], out: Path, images: Sequence[Path]) -> Iterator[Subject]:
    """Yield networks of `RANDOM`; what an earlier call made in `out` is used again."""
    for folder in names:
        title, spec, size = RANDOM[folder]
        name, run = f"{title}, random weights", out / folder
        if not (run / "data.yaml").exists():
            console.print(f"{name}: drawing weights", soft_wrap=True)
            write_random_run(run, spec, size, [read_image(path) for path in images[: 2 * _IMAGES[False][1]]])
        yield _subject(name, run, run / "data.yaml", run / "artifacts", size, trained=False)


def given_subject(name: str, run: Path, data: Path, out: Path) -> Subject:
    """Return a trained network with artifacts of its own input size, as the baselines use, that pass verification."""
    return _subject(name, run, data, out / f"{run.name}-artifacts", None, trained=True)


def _subject(name: str, run: Path, data: Path, artifacts: Path, size: tuple[int, int] | None, trained: bool) -> Subject:
    verify, calibrate = _IMAGES[trained]
    shared = SharedWork()
    for engine, precision in _ARTIFACTS:
        path = artifacts / f"junior-{precision}{_SUFFIXES[engine]}"
        if path.exists():
            continue
        console.print(f"{name}: exporting {path.name}", soft_wrap=True)
        settings = ExportSettings(
            engine=engine,
            precision=precision,
            size=size,
            limits=(_TRAINED if trained else _RANDOM)[precision],
            verify_images=verify,
            calibration_images=calibrate,
        )
        export_run(run, data, settings, artifacts, shared=shared)
    manifest = read_manifest(artifacts / "junior-fp32.onnx")
    return Subject(name, run, artifacts, manifest.contract.size, manifest.parameters, manifest.flops)
