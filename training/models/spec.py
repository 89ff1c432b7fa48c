"""What a network is made of, as written in a recipe and in the header of a weights file."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class NetworkSpec(BaseModel):
    """A backbone of timm's and a decoder of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(description="a timm name, such as vit_small_patch14_dinov2 or mobilenetv4_conv_small")
    decoder: Literal["auto", "dpt", "fpn"] = Field(
        default="auto", description="auto: dpt for a plain ViT, fpn for a hierarchical backbone"
    )
    decoder_channels: int | None = Field(
        default=None, ge=8, description="width of the decoder; by default that of its publication for this backbone"
    )
    pretrained: bool | Path = Field(
        default=False,
        description=(
            "where the weights come from. true: timm's for this backbone; a file of a backbone's weights; a run"
            " directory or a network file of ours, which fill the decoder too; false: random"
        ),
    )
    drop_path_rate: float = Field(default=0.0, ge=0.0, lt=1.0, description="stochastic depth of the backbone")
    positions: Literal["timm", "dinov2"] = Field(
        default="timm",
        description=(
            "how a ViT's position embedding is resampled to an input's size: timm (antialiased), or as DINOv2's own"
            " code and networks trained with it do (scale + 0.1, no antialiasing); the same at the size it was made for"
        ),
    )
