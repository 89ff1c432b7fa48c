"""What a network is made of, as written in a recipe and in the header of a weights file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segkc_deploy.pixel_format import MAX_BANDS, RGB, PixelFormat


class InputSpec(BaseModel):
    """Images that are not RGB of 8 bits: their bands and bits, and the normalization of each band.

    `mean` and `std` are shares of the largest value, measured on the training images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bands: int = Field(ge=1, le=MAX_BANDS)
    bits: Literal[8, 16]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _one_for_each_band(self) -> Self:
        if not len(self.mean) == len(self.std) == self.bands:
            raise ValueError(f"mean and std need one value for each of the {self.bands} bands")
        return self


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
    input: InputSpec | None = Field(
        default=None, description="set by the training where the data spec has `bands` or `bits`; by default RGB"
    )

    @property
    def pixels(self) -> PixelFormat:
        """What images the network takes."""
        return RGB if self.input is None else PixelFormat(self.input.bands, self.input.bits)
