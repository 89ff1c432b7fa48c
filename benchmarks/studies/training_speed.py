"""How fast training loads images and takes a step, as ratios of one run.

`python -m segkc_deploy.benchmarks.studies.training_speed --images PHOTOGRAPHS --results RESULTS.json`

Loader: views of one image by the usual pipeline on Pillow images and by this package's, one after the other in every
round, on one core. The usual one ends with standardized floats; this package does that on the device, where a GPU
trains, and makes the strong views there. Step: a whole step of SegKC beside the forwards and backwards of its networks
alone, and a step of a single network beside the same written the straightforward way in FP32, on random weights.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from segkc_deploy import atomic
from segkc_deploy.benchmarks.interleaved.relative_speed import relative_speed
from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.studies import pil_pipeline
from segkc_deploy.benchmarks.studies.benchmark_rows import current_commit
from segkc_deploy.benchmarks.studies.plain_loop import plain_step
from segkc_deploy.benchmarks.studies.random_batch import CLASSES, random_batch
from segkc_deploy.benchmarks.studies.training_speed_rows import SpeedResult, SpeedRow
from segkc_deploy.data.images import read_image
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import DataError
from segkc_deploy.machine import cpu_text, describe_machine
from segkc_deploy.pixel_format import RGB
from segkc_deploy.training.data import augment
from segkc_deploy.training.data.decoded_cache import DecodedCache
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.recipe import Recipe, StrongAugmentation, WeakAugmentation, without_pretrained
from segkc_deploy.training.recipe_file import load_recipe

#: Width and height of the images, their format, and the side of the crop.
LOADED = (((500, 375), ".jpg", 320), ((2048, 1024), ".jpg", 512), ((2048, 1024), ".png", 512))
STRONG_VIEWS = 2
_IMAGES = 8
_WEAK, _STRONG = WeakAugmentation(), StrongAugmentation()


def load_by_pillow(path: Path, side: int, seed: int) -> list[np.ndarray]:
    """Return the weak and the strong views of an image, float32 (3, H, W), by the usual pipeline."""
    rng = np.random.default_rng(seed)
    image = Image.open(path).convert("RGB")
    weak, _ = pil_pipeline.weak_view(image, Image.new("L", image.size), (side, side), 255, _WEAK, rng)
    views = [weak, *(pil_pipeline.strong_view(weak, _STRONG, rng) for _ in range(STRONG_VIEWS))]
    return [pil_pipeline.normalized(view) for view in views]


def load_by_opencv(
    path: Path, side: int, seed: int, read: Callable[[Path], np.ndarray] = read_image, strong_views: int = STRONG_VIEWS
) -> list[np.ndarray]:
    """Return the same views by this package's pipeline, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    image = read(path)
    weak, _ = augment.weak_view(image, np.zeros(image.shape[:2], np.uint8), (side, side), 255, _WEAK, rng)
    return [weak, *(augment.strong_view(weak, _STRONG, rng) for _ in range(strong_views))]


def loader_rows(photographs: Sequence[Path], rounds: int, folder: Path) -> list[SpeedRow]:
    """Return four rows for each of `LOADED`; `photographs` are resized to these sizes in `folder`."""
    cached = partial(DecodedCache(folder, 2**40).image, pixels=RGB)
    rows = []
    for size, suffix, side in LOADED:
        files = [
            _resized(path, size, folder / f"{number}-{size[0]}{suffix}") for number, path in enumerate(photographs)
        ]
        time.sleep(2)  # the cache keeps no younger files
        from_cache = partial(load_by_opencv, read=cached)
        on_gpu = partial(from_cache, strong_views=0)
        contenders = {
            "Pillow pipeline": partial(_load_all, load_by_pillow, files, side),
            "segkc-deploy": partial(_load_all, load_by_opencv, files, side),
            "segkc-deploy, decoded cache": partial(_load_all, from_cache, files, side),
            "the same, strong views on a GPU": partial(_load_all, on_gpu, files, side),
        }
        what = f"loader, {size[0]}×{size[1]} {suffix[1:].upper()}, crop {side}, {STRONG_VIEWS} strong views"
        rows += _rows(what, contenders, rounds, len(files), "image")
    return rows


def _load_all(load: Callable[[Path, int, int], object], files: Sequence[Path], side: int, seed: int) -> None:
    for file in files:
        load(file, side, seed)


def step_rows(recipe: Recipe, rounds: int) -> list[SpeedRow]:
    """Return two rows: SegKC's networks alone and the whole step, per step of `recipe`."""
    torch.manual_seed(0)
    recipe = without_pretrained(recipe)
    method = build_method(recipe, num_classes=CLASSES, ignore_index=255).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(method.online.parameters(), lr=1e-5, fused=True)
    batch = random_batch(recipe, method.strong_views)
    assert batch.unlabeled is not None
    taught = torch.cat(
        [batch.labeled["image"], *(batch.unlabeled[f"strong_{n + 1}"] for n in range(method.strong_views))]
    )

    def networks(step: int) -> None:
        for name, network in method.networks().items():
            if name.endswith("_ema"):
                with torch.no_grad():
                    network(batch.unlabeled["weak"] if batch.unlabeled else taught)
            else:
                network(taught).sum().backward()
        optimizer.zero_grad()

    def whole(step: int) -> None:
        method(batch, step).total().backward()
        optimizer.step()
        optimizer.zero_grad()
        method.update_ema(step)

    junior, senior = recipe.junior.backbone, recipe.senior.backbone if recipe.senior else "none"
    what = f"step, {recipe.method['name']}, {junior} and {senior}, crop {recipe.crop_size[0]}"
    return _rows(what, {"forwards and backwards alone": networks, "whole step": whole}, rounds, 1, "step")


def single_network_rows(recipe: Recipe, rounds: int) -> list[SpeedRow]:
    """Return two rows: a straightforward step of one network in FP32, and this package's at the recipe's precision."""
    recipe = without_pretrained(recipe)
    torch.manual_seed(0)
    method, plain = (build_method(recipe, num_classes=CLASSES, ignore_index=255).train() for _ in range(2))
    method = method.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(method.online.parameters(), lr=1e-5, fused=True)
    batch = random_batch(recipe, method.strong_views)
    networks = plain.networks()

    def ours(step: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            total = method(batch, step).total()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.update_ema(step)

    contenders = {
        "straightforward, fp32": plain_step(networks["junior"], networks["junior_ema"], batch),
        f"segkc-deploy, {recipe.precision}": ours,
    }
    images = f"{recipe.batch.labeled} + {recipe.batch.unlabeled} images"
    what = f"step, {recipe.method['name']}, {recipe.junior.backbone}, crop {recipe.crop_size[0]}, {images}"
    return _rows(what, contenders, rounds, 1, "step")


def _rows(
    what: str, contenders: Mapping[str, Callable[[int], object]], rounds: int, count: int, unit: str
) -> list[SpeedRow]:
    """Time the contenders in alternation, a round warming up; the first one is the reference."""
    milliseconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            started = time.process_time()
            run(number)
            if number:
                milliseconds[name].append(1e3 * (time.process_time() - started) / count)
    times = {name: np.array(values)[:, None] for name, values in milliseconds.items()}
    reference = next(iter(times.values()))
    rows = []
    for name, own in times.items():
        speed = relative_speed(reference, own)
        p50 = summarize(own[:, 0]).p50
        rows.append(SpeedRow(what=what, name=name, unit=unit, p50_ms=p50, speed=speed.median, interval=speed.interval))
    return rows


def _resized(photograph: Path, size: tuple[int, int], target: Path) -> Path:
    image = Image.open(photograph).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    image.save(target, quality=92)  # of JPEG; PNG ignores it
    return target


def as_markdown(result: SpeedResult) -> str:
    """Return the table of a result."""
    lines = []
    for row in result.rows:
        interval = f"{row.interval[0]:.2f} to {row.interval[1]:.2f}" if row.interval else "–"
        lines.append([row.what, row.name, f"{row.p50_ms:.2f}", f"{row.speed:.2f}", interval])
    header = ["what", "by", "processor time, ms (of an image, of a step)", "times faster", "95% interval"]
    machine = f"{cpu_text(result.machine)}, one thread, {result.rounds} rounds; commit {result.commit}"
    return f"# {result.study}\n\n{machine}; {result.remark}\n\n    {result.command}\n\n{markdown(header, lines, 2)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results, print the tables, and return the exit code."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    photographs = sorted(path for path in options.images.glob("*") if path.is_file())[:_IMAGES]
    if not photographs:
        raise DataError(f"{options.images}: no photographs; name a folder with some")
    with tempfile.TemporaryDirectory() as folder:
        rows = loader_rows(photographs, options.rounds, Path(folder))
    overrides = [f"crop_size=[{options.crop}, {options.crop}]", "method.strong_views=1", "precision=fp32"]
    rows += step_rows(load_recipe(options.recipe, overrides), max(options.rounds // 3, 1))
    crop = f"crop_size=[{options.single_crop}, {options.single_crop}]"
    overrides = [crop, "batch.labeled=2", "batch.unlabeled=2", "precision=bf16"]
    rows += single_network_rows(load_recipe(options.single, overrides), max(options.rounds // 3, 1))
    machine: dict[str, Any] = describe_machine()
    result = SpeedResult(
        machine=machine,
        remark=options.remark,
        command="python -m segkc_deploy.benchmarks.studies.training_speed --images PHOTOGRAPHS --results RESULTS.json",
        commit=current_commit(),
        rounds=options.rounds,
        rows=rows,
    )
    atomic.write_text(options.results, result.model_dump_json(indent=1) + "\n")
    print(as_markdown(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m segkc_deploy.benchmarks.studies.training_speed", description=__doc__
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder of photographs, resized for the loader")
    parser.add_argument("--results", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--rounds",
        type=int,
        default=30,
        help="rounds of the loader; a third as many of the steps",
    )
    parser.add_argument("--recipe", default="own-data-cpu", help="the recipe whose step is timed")
    parser.add_argument("--crop", type=int, default=160, help="the side of its crop")
    parser.add_argument("--single", default="unimatch-v2-dinov2-s-voc", help="the single network's recipe")
    parser.add_argument("--single-crop", type=int, default=224, help="the side of its crop")
    parser.add_argument("--remark", default="an otherwise idle machine", help="what else the machine did")
    return parser


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
