"""Running out of memory: how it is recognized, and which settings make a step smaller."""

import torch

from segkc_deploy.training.batch_split import BatchSplit
from segkc_deploy.training.models.backbone import is_plain_vit
from segkc_deploy.training.recipe import Recipe

#: What a plain RuntimeError says: of PyTorch's allocator of host memory, of CUDA where another program fills the
#: device, and of its libraries, which allocate by themselves.
_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the memory of a device, or of the machine, did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _TEXTS)


def is_loading_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether images did not fit into memory, or the system killed a process that loads them.

    An error of another kind in such a process says `in DataLoader worker process`, without a process id.
    """
    return isinstance(error, MemoryError) or "DataLoader worker (pid" in str(error)


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
    specs = [spec for spec in (recipe.junior, recipe.senior) if spec is not None]
    if not recipe.activation_checkpointing and all(is_plain_vit(spec.backbone) for spec in specs):
        options.append("-o activation_checkpointing=true (slower)")
    options.append("a smaller --size (crop_size)")
    if recipe.precision == "fp32":
        options.append("-o precision=bf16")
    return f"{', '.join(options[:-1])}, or {options[-1]}" if len(options) > 1 else options[0]
