"""Read mutated images, masks, annotation files and data specs: each is read, or refused by a `UserError`.

python tests/support/fuzz_inputs.py --inputs 100000 --seed 0
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from segkc_deploy.data.annotations.reading import annotated_image
from segkc_deploy.data.annotations.shapes import AnnotatedImage
from segkc_deploy.data.images import read_image
from segkc_deploy.data.mask_files import raw_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import UserError

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


def seeds() -> dict[str, bytes]:
    """Return one small valid file of each kind, by name."""
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
    files |= {"yolo.txt": b"0 0.1 0.1 0.5 0.1 0.5 0.5\n", "data.yaml": _SPEC.encode()}
    return files


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


def fuzz(inputs: int, seed: int, folder: Path) -> Iterator[tuple[str, bytes, str]]:
    """Read `inputs` mutated files below `folder`; yield name, content and fault of each that fails otherwise."""
    rng = np.random.default_rng(seed)
    image = folder / "a.png"
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(image)
    files = sorted(seeds().items())
    for _ in range(inputs):
        name, original = files[int(rng.integers(len(files)))]
        content = mutated(original, rng)
        path = folder / name
        path.write_bytes(content)
        start = time.monotonic()
        try:
            for read in readers(path, image):
                read()
        except UserError as error:
            if "\n" in str(error):
                yield name, content, f"several lines: {error}"
        except Exception as error:  # noqa: BLE001  (any other exception is what is looked for)
            yield name, content, f"{type(error).__name__}: {error}"
        if time.monotonic() - start > SECONDS:
            yield name, content, f"took {time.monotonic() - start:.1f} s"


def readers(path: Path, image: Path) -> list[Callable[[], object]]:
    """Return the ways in which a file of this name is read."""
    if path.suffix == ".yaml":
        return [lambda: load_data_spec(path)]
    if path.suffix in {".json", ".xml", ".txt"}:
        return [lambda: _regions(annotated_image(path, image, ("road",)))]
    return [lambda: _ignoring(read_image, path), lambda: raw_mask(path)]


def _regions(image: AnnotatedImage) -> None:
    for shape in image.shapes:
        shape.region(image.size)


def _ignoring(read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError(f"several lines: {error}") from None


def main() -> int:
    """Fuzz and print each fault; exit code 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = 0
        for name, content, fault in fuzz(options.inputs, options.seed, Path(folder)):
            faults += 1
            print(f"{name}: {fault}: {content[:200]!r}")
    print(f"{options.inputs} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
