"""Read mutated images, masks, annotations, specs, recipes and manifests: each is read, or refused by a `UserError`.

python tests/support/fuzz_inputs.py --inputs 100000 --seed 0

prints each fault, the slowest input and the peak memory. A fault is any other exception, a message of several lines,
more than 3 s of processor time, or more memory than `--memory-mib` on top of what the imports take.
"""

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tiny_artifact import make_artifact

from segkc_deploy.data.annotations.reading import annotated_image
from segkc_deploy.data.annotations.shapes import AnnotatedImage
from segkc_deploy.data.images import read_image
from segkc_deploy.data.mask_files import raw_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import UserError
from segkc_deploy.manifest import manifest_path, read_manifest
from segkc_deploy.training.recipe_file import load_recipe

SECONDS = 3.0
_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 24}],
    "categories": [{"id": 1, "name": "road"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1.5, 1, 9, 1, 9, 9]]},
        {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"counts": [100, 50, 234]}},
    ],
}
_SHAPE = {"label": "road", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
_LABELME = {"shapes": [_SHAPE], "imageHeight": 16, "imageWidth": 24, "imagePath": "a.png"}
_VALUE = {"points": [[5, 5], [50, 5], [50, 50]], "polygonlabels": ["road"]}
_RESULT = {"original_width": 24, "original_height": 16, "type": "polygonlabels", "value": _VALUE}
_LABEL_STUDIO = [{"id": 1, "data": {"image": "/x/a.png"}, "annotations": [{"result": [_RESULT]}]}]
_CVAT = (
    '<annotations><image id="0" name="a.png" width="24" height="16">'
    '<polygon label="road" points="1,1;9,1;9,9" z_order="0"/>'
    '<mask label="road" rle="1, 2, 3" left="1" top="2" width="3" height="2" z_order="1"/></image></annotations>'
)
_SPEC = "classes: [a, b]\nlabel_mapping: {255: 1}\nlabeled: {images: i, masks: m, fraction: 1/8}\n"
_RECIPE = (
    "base: segkc-cpu\nname: own\ncrop_size: [96, 128]\nweak: {scale: [0.5, 2.0], rare_class_crops: 0.5}\n"
    "supervision: {loss: focal, class_weights: {a: 2.0}, dice: 1}\nschedule: {steps: 100}\n"
    "method: {strong_views: 2, weights: {pseudo_label: 1}}\noptimizer: {lr: 3.0e-4, betas: [0.9, 0.999]}\n"
    "validation: {window: [64, 64]}\n"
)
_ARTIFACT = "tiny.onnx"


@dataclass(frozen=True)
class Fault:
    """An input that was neither read nor refused: the name of its kind, its bytes, and what happened."""

    name: str
    content: bytes
    what: str


@dataclass
class Cost:
    """The most processor seconds that one input took, and which one; the most memory of the process, in MiB."""

    seconds: float = 0.0
    name: str = ""
    content: bytes = b""
    memory_mib: float = 0.0

    def add(self, seconds: float, name: str, content: bytes) -> None:
        """Take the cost of one more input into account."""
        self.memory_mib = peak_memory_mib()
        if seconds > self.seconds:
            self.seconds, self.name, self.content = seconds, name, content


def peak_memory_mib() -> float:
    """Return the most memory that this process has used so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seeds(folder: Path) -> dict[str, bytes]:
    """Return one small valid file of each kind, by name; the artifact of the manifest is written to `folder`."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    files: dict[str, bytes] = {}
    for suffix in ("png", "jpeg", "webp", "bmp", "gif", "tiff"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, suffix)
        files[f"image.{suffix}"] = buffer.getvalue()
    for name, values in (("planar", np.moveaxis(pixels, 2, 0).astype(np.uint16)), ("float", pixels[..., 0] * 1.0)):
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, values, **({"photometric": "rgb", "planarconfig": "separate"} if name == "planar" else {})
        )
        files[f"{name}.tif"] = buffer.getvalue()
    files |= {"coco.json": json.dumps(_COCO).encode(), "labelme.json": json.dumps(_LABELME).encode()}
    files |= {"studio.json": json.dumps(_LABEL_STUDIO).encode(), "cvat.xml": _CVAT.encode()}
    files |= {"yolo.txt": b"0 0.1 0.1 0.5 0.1 0.5 0.5\n", "data.yaml": _SPEC.encode(), "recipe.yaml": _RECIPE.encode()}
    manifest = manifest_path(make_artifact(folder, _ARTIFACT))
    return files | {manifest.name: manifest.read_bytes()}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Change, delete, repeat or insert a few bytes."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(changed))) if changed else 0
        kind = rng.integers(4)
        if kind == 0 and changed:
            changed[at] = int(rng.choice([0, 255, 45, 57, int(rng.integers(256))]))
        elif kind == 1:
            del changed[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            changed[at:at] = changed[at : at + int(rng.integers(1, 20))]
        else:
            changed[at:at] = rng.bytes(int(rng.integers(1, 5)))
    return bytes(changed)


def fuzz(inputs: int, seed: int, folder: Path, cost: Cost) -> Iterator[Fault]:
    """Read `inputs` mutated files below `folder`; yield the faults, and add up in `cost` what reading took."""
    rng = np.random.default_rng(seed)
    image = folder / "a.png"
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(image)
    files = sorted(seeds(folder).items())
    for _ in range(inputs):
        name, original = files[int(rng.integers(len(files)))]
        content = mutated(original, rng)
        path = folder / name
        path.write_bytes(content)
        for read in readers(path, image):
            start = time.process_time()
            if what := _fault_of(read):
                yield Fault(name, content, what)
            seconds = time.process_time() - start
            cost.add(seconds, name, content)
            if seconds > SECONDS:
                yield Fault(name, content, f"took {seconds:.1f} s")


def readers(path: Path, image: Path) -> list[Callable[[], object]]:
    """Return the ways in which a file of this name is read."""
    if path.name == "recipe.yaml":
        return [lambda: load_recipe(str(path))]
    if path.name == manifest_path(_ARTIFACT).name:
        return [lambda: read_manifest(path.parent / _ARTIFACT)]
    if path.suffix == ".yaml":
        return [lambda: load_data_spec(path)]
    if path.suffix in {".json", ".xml", ".txt"}:
        return [lambda: _regions(annotated_image(path, image, ("road",)))]
    return [lambda: read_image(path), lambda: raw_mask(path)]


def _regions(image: AnnotatedImage) -> None:
    for shape in image.shapes:
        shape.region(image.size)


def _fault_of(read: Callable[[], object]) -> str:
    """Return what is wrong with the way in which a file is refused, or nothing."""
    try:
        read()
    except UserError as error:
        return f"several lines: {error}" if "\n" in str(error) else ""
    except Exception as error:  # noqa: BLE001  (any other exception is what is looked for)
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> int:
    """Fuzz and print each fault; exit code 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-mib", type=int, default=4096, help="most memory beyond that of the imports")
    options = parser.parse_args()
    imports = peak_memory_mib()
    cost = Cost()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for fault in fuzz(options.inputs, options.seed, Path(folder), cost):
            faults += 1
            print(f"{fault.name}: {fault.what}: {fault.content!r}", flush=True)
    print(f"slowest: {cost.seconds:.2f} s of processor time, {cost.name}: {cost.content!r}")
    print(f"peak memory: {cost.memory_mib:.0f} MiB, {imports:.0f} of them after the imports")
    if cost.memory_mib > imports + options.memory_mib:
        faults += 1
        print(f"more than {options.memory_mib} MiB beyond the imports")
    print(f"{options.inputs} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
