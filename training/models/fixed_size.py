"""A network for one input size, as an exported graph needs it: a ViT's position embedding becomes a constant."""

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.models.positions import resample_as_dinov2
from segkc_deploy.training.models.segmenter import Segmenter


def at_fixed_size(segmenter: Segmenter, size: tuple[int, int]) -> Segmenter:
    """Return a copy of `segmenter` for inputs of `size` (height, width) alone, in evaluation mode.

    Raises:
        ConfigError: a side is not a multiple of what the backbone needs.
    """
    check_size(size, segmenter.size_multiple)
    spec = segmenter.spec.model_copy(update={"pretrained": False})
    fixed = Segmenter(spec, segmenter.num_classes, fixed_size=size)
    state = segmenter.state_dict()
    name = "backbone.network.pos_embed"
    if name in state:
        state[name] = _resampled(state[name], segmenter, size)
    fixed.load_state_dict(state)
    return fixed.eval()


def check_size(size: tuple[int, int], multiple: int) -> None:
    """Raise ConfigError, naming the closest sizes that work, unless both sides are positive multiples of `multiple`."""
    if any(side <= 0 or side % multiple for side in size):
        near = [max(round(side / multiple), 1) * multiple for side in size]
        raise ConfigError(
            f"size {size[0]}x{size[1]} (height x width): both sides have to be multiples of {multiple};"
            f" the closest is {near[0]}x{near[1]}"
        )


def _resampled(embedding: Tensor, segmenter: Segmenter, size: tuple[int, int]) -> Tensor:
    network = segmenter.backbone.network
    patch = segmenter.backbone.reductions[0]
    prefix = 0 if getattr(network, "no_embed_class", False) else network.num_prefix_tokens
    resample = resample_as_dinov2 if segmenter.spec.positions == "dinov2" else resample_abs_pos_embed
    resampled: Tensor = resample(
        embedding,
        new_size=[size[0] // patch, size[1] // patch],
        old_size=network.patch_embed.grid_size,
        num_prefix_tokens=prefix,
    )
    return resampled
