"""Running out of memory: how it is recognized, and which settings make a step smaller."""

import torch

from segkc_deploy.training.batch_split import BatchSplit
from segkc_deploy.training.recipe import Recipe

#: What PyTorch's allocator of host memory says, in a plain RuntimeError.
_HOST_MEMORY = "DefaultCPUAllocator: can't allocate memory"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the memory of a device, or of the machine, did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or _HOST_MEMORY in str(error)


def smaller_steps(recipe: Recipe, split: BatchSplit) -> str:
    """Name the settings that make a step take less memory, those first that change a training least."""
    shares = [share // split.ranks for share in (split.labeled, split.unlabeled) if share]
    # CutMix takes a box from another image of the same micro-batch.
    fewest = 2 if recipe.strong.uses_cutmix else 1
    more = [
        micro_batches
        for micro_batches in range(split.accumulation + 1, max(shares) + 1)
        if all(share % micro_batches == 0 for share in shares)
        and (not split.unlabeled or split.unlabeled // split.ranks // micro_batches >= fewest)
    ]
    options = []
    if more:
        options.append(f"-o batch.accumulation={more[0]} (each step keeps its images and its learning rate)")
    if not recipe.activation_checkpointing:
        options.append("-o activation_checkpointing=true (slower, for ViTs)")
    options.append("a smaller --size (crop_size)")
    if recipe.precision == "fp32":
        options.append("-o precision=bf16")
    return f"{', '.join(options[:-1])}, or {options[-1]}" if len(options) > 1 else options[0]
