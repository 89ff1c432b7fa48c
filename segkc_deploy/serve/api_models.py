"""What the service answers in JSON; these models are its OpenAPI schema too."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Area(BaseModel):
    """A class that occurs in the image."""

    id: int = Field(description="the class id in masks")
    name: str
    color: tuple[int, int, int] = Field(description="RGB, 0-255")
    pixels: int
    share: float = Field(description="share of the image's pixels, 0-1")
    confidence: float | None = Field(description="mean softmax probability, 0-1; null if the artifact gives none")


class Prediction(BaseModel):
    """An image's classes, and its mask in COCO's run-length encoding."""

    model: str
    width: int = Field(description="of the image after its EXIF rotation, in pixels")
    height: int
    classes: list[Area] = Field(description="the classes that occur, the largest first")
    rle: dict[int, dict[str, Any]] = Field(
        description="by class id COCO's compressed run-length encoding: `size` [height, width] and `counts`"
    )
    milliseconds: dict[str, float] = Field(description="by part of the work: body, decode, queue, network, mask")


class Class(BaseModel):
    """A class that an artifact knows."""

    id: int
    name: str
    color: tuple[int, int, int]


class Model(BaseModel):
    """An artifact that is served."""

    name: str = Field(description="what `/predict?model=` takes")
    artifact: str
    precision: str
    runs_on: str
    height: int = Field(description="the network's input; images of other sizes are resized to it")
    width: int
    any_size: bool = Field(description="whether images keep about their own size")
    max_batch: int
    parameters: int
    sha256: str
    confidence: bool = Field(description="whether answers hold a confidence")
    in_browser: bool = Field(default=False, description="whether the page can run it in the browser")
    classes: list[Class]


class State(BaseModel):
    """The service answers (`ok`), or answers predictions too (`ready`)."""

    status: Literal["ok", "ready"]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
