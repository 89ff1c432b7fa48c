"""Any timm network as four feature maps."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.training.models.positions import use_dinov2_positions
from segkc_deploy.training.models.spec import NetworkSpec

#: timm's modules of plain ViTs: one grid throughout, so feature maps are tapped between blocks.
_PLAIN_VIT_MODULES = {"vision_transformer", "eva", "deit"}

#: Published taps (0-based blocks) where they are not the ends of the four quarters (DINOv2, UniMatch V2).
_PUBLISHED_TAPS = {24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}

_STAGES = 4


class Backbone(nn.Module):
    """Four feature maps of a timm network, of RGB images or of as many bands as `spec.input` says.

    A plain ViT gives the normalized tokens after the last block of each quarter, all on the patch grid. A hierarchical
    network gives its last four stages, fine to coarse.

    Args:
        spec: the timm name and where its weights come from.
        fixed_size: (height, width) that a ViT's position embedding is made for; by default it is resampled to each
            input, to any size that is a multiple of the patch, in the way that `spec.positions` names.

        weights: weights by name, as their publisher wrote them; by default those that `spec.pretrained` names.

    Attributes:
        channels: channels of the four maps.
        reductions: input pixels per cell of each map.
        size_multiple: sides of the input have to be multiples of this (the patch, or the coarsest reduction).
        mean, std: the input normalization per RGB channel that the weights expect, or per band that was measured.

    Raises:
        ConfigError: the name is not timm's, or the weights are not available.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        fixed_size: tuple[int, int] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.is_plain_vit = is_plain_vit(spec.backbone)
        if self.is_plain_vit:
            size_options = {"img_size": fixed_size} if fixed_size else {"dynamic_img_size": True}
            self.network = _create(spec, weights, num_classes=0, **size_options)
            if spec.positions == "dinov2":
                use_dinov2_positions(self.network)
            self.taps = taps_of(len(self.network.blocks))
            patch = self.network.patch_embed.patch_size[0]
            self.channels = (int(self.network.embed_dim),) * _STAGES
            self.reductions = (patch,) * _STAGES
        else:
            self.network = _create(spec, weights, features_only=True)
            self.channels = tuple(self.network.feature_info.channels()[-_STAGES:])
            self.reductions = tuple(self.network.feature_info.reduction()[-_STAGES:])
            if len(self.channels) < _STAGES or len(set(self.reductions)) < _STAGES:
                raise ConfigError(
                    f"backbone {spec.backbone!r} has feature maps at 1/{self.reductions} of the input;"
                    f" {_STAGES} stages of falling size are needed: take a ResNet, ConvNeXt, MobileNet or a plain ViT"
                )
        self.size_multiple = max(self.reductions)
        config = _pretrained_config(self.network)
        self.mean: tuple[float, ...] = spec.input.mean if spec.input else tuple(config["mean"])
        self.std: tuple[float, ...] = spec.input.std if spec.input else tuple(config["std"])

    def require_checkpoints(self) -> None:
        """Raise a ConfigError unless it is a plain ViT: batch normalization would count its statistics twice."""
        if not self.is_plain_vit:
            raise ConfigError("activation_checkpointing is for plain ViTs; other backbones store less: leave it out")

    def checkpoint_activations(self) -> None:
        """Store the input of each block alone for the backward pass, which computes the rest again.

        Raises:
            ConfigError: it is no plain ViT.
        """
        self.require_checkpoints()
        self.network.set_grad_checkpointing(True)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (N, bands, H, W) to four maps (N, channels[i], H / reductions[i], W / …)."""
        if self.is_plain_vit:
            return self.network.forward_intermediates(
                images, indices=list(self.taps), norm=True, intermediates_only=True
            )
        return self.network(images)[-_STAGES:]


def is_plain_vit(name: str) -> bool:
    """Whether timm's `name` is a ViT with one grid throughout.

    Raises:
        ConfigError: timm knows no such name; the closest ones are in the message.
    """
    architecture, _, tag = name.partition(".")
    if tag and timm.is_model(architecture) and name not in timm.list_pretrained(f"{architecture}.*"):
        tags = timm.list_pretrained(f"{architecture}.*")
        raise ConfigError(f"backbone {name!r}: timm has no weights {tag!r} of {architecture}; it has {', '.join(tags)}")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise ConfigError(f"backbone {name!r}: timm has no network of this name; {hint}")
    return model_entrypoint(name).__module__.rpartition(".")[2] in _PLAIN_VIT_MODULES


def taps_of(depth: int) -> tuple[int, ...]:
    """Return the 0-based blocks after which a ViT of `depth` blocks is tapped: (2, 5, 8, 11) of 12."""
    return _PUBLISHED_TAPS.get(depth, tuple(depth * quarter // _STAGES - 1 for quarter in range(1, _STAGES + 1)))


def _create(spec: NetworkSpec, weights: Mapping[str, Tensor] | None, **options: Any) -> Any:
    if spec.input is not None:
        options["in_chans"] = spec.input.bands  # timm adapts the weights of the first convolution
    if spec.drop_path_rate:
        options["drop_path_rate"] = spec.drop_path_rate
    if not spec.pretrained:
        return _create_from_timm(spec, options)
    if weights is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": dict(weights)}
    elif isinstance(spec.pretrained, Path):
        assert spec.pretrained.suffix == ".npz", "timm would unpickle other files: `build_network` reads them"
        options["pretrained_cfg_overlay"] = {"file": str(spec.pretrained)}
    network = _create_pretrained(spec, options)
    for config in (network.pretrained_cfg, getattr(network, "default_cfg", {})):
        config.pop("state_dict", None)  # the weights once more, which every copy of the network would hold as well
    return network


def _create_from_timm(spec: NetworkSpec, options: dict[str, Any], pretrained: bool = False) -> Any:
    try:
        return timm.create_model(spec.backbone, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        # timm passes options on to constructors, some of which know no drop_path_rate or other sizes.
        raise ConfigError(f"backbone {spec.backbone!r}: {_first_line(error)}") from error


def _create_pretrained(spec: NetworkSpec, options: dict[str, Any]) -> Any:
    """Create with weights, and refuse weights that fill only a part: timm only logs what it did not find."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = _create_from_timm(spec, options)
        torch.manual_seed(0)
        try:
            network = _create_from_timm(spec, options, pretrained=True)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise _weights_error(spec, _first_line(error)) from error
    # From the same seed, a weight that no file has filled is bit for bit the fresh one.
    untouched = [
        name
        for (name, loaded), random in zip(network.named_parameters(), fresh.parameters(), strict=True)
        if loaded.ndim > 1 and torch.equal(loaded, random)
    ]
    if untouched:
        raise _weights_error(spec, f"{len(untouched)} weights are not in them, such as {untouched[0]}")
    return network


def _weights_error(spec: NetworkSpec, reason: str) -> DataError:
    where = f"{spec.pretrained}: " if isinstance(spec.pretrained, Path) else ""
    return DataError(
        f"{where}pretrained weights of {spec.backbone} could not be loaded ({reason});"
        " give a file that matches (pretrained: path/to/weights.safetensors) or pretrained: false"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _pretrained_config(network: Any) -> dict[str, Any]:
    default = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    config = getattr(network, "pretrained_cfg", None)
    return dict(config) if config and config.get("mean") else default
