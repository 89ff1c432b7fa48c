"""`segkc-deploy train --dry-run`: parameters, arithmetic and memory of a step, without a run directory.

Memory is measured: optimizer steps on random images, at the recipe's micro-batch and at twice as many images. What it
grows by from one to the other gives, by a straight line, the largest micro-batch that fits.
"""

import math
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.machine import available_memory
from segkc_deploy.training.batch_split import BatchSplit
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.methods.base import Batch, Method
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.out_of_memory import is_out_of_memory, smaller_steps
from segkc_deploy.training.recipe import Recipe

#: A part of the memory is left for what a step of other images takes, and for other programs.
_USED_SHARE = 0.9
#: The optimizer makes its state in the first step; in the second one everything is there.
_STEPS = 2


@dataclass(frozen=True)
class MemoryLine:
    """Peak memory in bytes as a straight line over the images of a micro-batch, in units of (labeled, unlabeled).

    `smaller` and `larger` are the numbers of units that were measured, with their peaks; `larger_peak` is None where
    they did not fit.
    """

    unit: tuple[int, int]
    smaller: int
    smaller_peak: int
    larger: int
    larger_peak: int | None

    def largest(self, memory: int) -> tuple[int, int]:
        """Return the (labeled, unlabeled) images of the largest micro-batch that fits into `memory` bytes."""
        if self.larger_peak is None:
            units = self.smaller
        else:
            per_unit = max((self.larger_peak - self.smaller_peak) / (self.larger - self.smaller), 1.0)
            units = self.smaller + math.floor((memory * _USED_SHARE - self.smaller_peak) / per_unit)
        return max(units, 0) * self.unit[0], max(units, 0) * self.unit[1]


def dry_run(recipe: Recipe, method: Method, sets: ImageSets, split: BatchSplit, fabric: Fabric) -> list[str]:
    """Return the lines that `train --dry-run` prints; nothing is written.

    Args:
        recipe: the recipe.
        method: with networks of any weights.
        sets: the images; none is read.
        split: how a step is divided.
        fabric: of one device.
    """
    lines = [f"parameters: {_parameters(method)}"]
    networks = {role: network for role, network in method.networks().items() if not role.endswith("_ema")}
    height, width = recipe.crop_size
    flops = ", ".join(f"{role} {_gflops(network, recipe.crop_size):,.1f} GFLOPs" for role, network in networks.items())
    lines.append(f"one forward pass of a {width}x{height} crop (width x height): {flops} (a multiply-add is two)")
    lines.append(split.in_words())
    # A second micro-batch adds the gradients of the first to its memory; more of them add nothing.
    measured = replace(split, ranks=1, accumulation=min(split.accumulation, 2))
    trainer = Trainer(recipe, method, sets, RunDirectory(Path()), _STEPS, measured, fabric)
    trainer.method.train()

    def measure(labeled: int, unlabeled: int) -> int | None:
        batch = _random_batch(recipe, sets, method.strong_views, labeled, unlabeled, fabric.device)
        return _peak_memory(lambda: trainer.try_step(batch), fabric.device)

    try:
        line = _measure_line(measure, split)
    finally:
        trainer.writer.close()
    memory, what = _memory_of(fabric.device)
    if line is None:
        micro_batch = f"{split.labeled // split.parts} + {split.unlabeled // split.parts}"
        return [*lines, f"a step of {micro_batch} images does not fit into {what}: {smaller_steps(recipe, split)}"]
    labeled, unlabeled = line.largest(memory)
    lines.append(
        f"peak memory of a step, measured: {_mib(line.smaller_peak)} with {_images(line, line.smaller)} images"
        + (f", {_mib(line.larger_peak)} with {_images(line, line.larger)}" if line.larger_peak else "")
    )
    lines.append(
        f"largest micro-batch for {_USED_SHARE:.0%} of {what}: {labeled} + {unlabeled} images; an estimate, by a"
        " straight line through what was measured"
    )
    if fabric.device.type == "cpu":
        lines.append("this is the memory of the whole process on a CPU; a GPU takes other kernels and another amount")
    return lines


def _measure_line(measure: Callable[[int, int], int | None], split: BatchSplit) -> MemoryLine | None:
    """Measure the micro-batch of `split` and the double of it, in this order: a process's peak never falls."""
    labeled, unlabeled = split.labeled // split.parts, split.unlabeled // split.parts
    units = math.gcd(labeled, unlabeled) if unlabeled else labeled
    peak = measure(labeled, unlabeled)
    if peak is None:
        return None
    double = measure(2 * labeled, 2 * unlabeled)
    return MemoryLine((labeled // units, unlabeled // units), units, peak, 2 * units, double)


def _peak_memory(step: Callable[[], None], device: torch.device) -> int | None:
    """Return the peak bytes of the device in `step`, of the process on a CPU; None where there is too little."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        for _ in range(_STEPS):
            step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)


def _memory_of(device: torch.device) -> tuple[int, str]:
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return memory, f"the GPU's {memory / 2**30:.1f} GiB"
    memory = available_memory()
    return memory, f"the {memory / 2**30:.1f} GiB that this process may use"


def _random_batch(
    recipe: Recipe, sets: ImageSets, strong_views: int, labeled: int, unlabeled: int, device: torch.device
) -> Batch:
    size = recipe.crop_size
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> torch.Tensor:
        return torch.rand(count, sets.pixels.bands, *size, generator=generator).to(
            device, memory_format=torch.channels_last
        )

    masks = torch.randint(sets.labels.num_classes, (labeled, *size), generator=generator).to(device)
    known = {"image": images(labeled), "mask": masks}
    if not strong_views:
        return Batch(known)
    views = {name: images(unlabeled) for name in ("weak", *(f"strong_{view + 1}" for view in range(strong_views)))}
    return Batch(known, views | {"ignored": torch.zeros(unlabeled, *size, dtype=torch.bool, device=device)})


def _parameters(method: Method) -> str:
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters()) / 1e6
        for name, part in method.online.named_children()
    }
    return ", ".join(f"{name} {count:.2f} M" for name, count in counts.items() if count)


def _gflops(network: Segmenter, size: tuple[int, int]) -> float:
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, network.pixels.bands, *size))
    return float(counter.get_total_flops()) / 1e9


def _images(line: MemoryLine, units: int) -> str:
    return f"{units * line.unit[0]} + {units * line.unit[1]}"


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
