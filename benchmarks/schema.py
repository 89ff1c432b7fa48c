"""What a benchmark found, as stored in `benchmark.json`. A figure that was not measured is null, never made up."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from segkc_deploy import atomic
from segkc_deploy.labels import Labels

#: Raised when a reader of an older format could misread a newer result.
FORMAT = "segkc-deploy-benchmark/1"

Role = Literal["senior", "junior", "artifact"]


def _null_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A float, or null where it was not measured or is not a number; JSON has no NaN.
Figure = Annotated[float | None, BeforeValidator(_null_unless_finite)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Distribution(_Part):
    """Times of repeated runs in milliseconds; `cv` is `std` / `mean`, percentiles interpolate linearly."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float
    std: float
    cv: float
    samples: int


class WarmUp(_Part):
    """Unrecorded runs before measuring; `stable` is false when time ran out before the latency settled."""

    runs: int
    seconds: float
    stable: bool


class Latency(_Part):
    """Latency at batch 1, end to end (`total`) and by stage; `times_ms` are the end-to-end samples in order."""

    warm_up: WarmUp
    preprocess: Distribution
    infer: Distribution
    postprocess: Distribution
    total: Distribution
    times_ms: list[float]


class BatchPoint(_Part):
    """One batch size: end-to-end images/s and time of a whole batch, and of the inference alone.

    `host_peak_mib` is the process's peak up to and including this batch size (sizes are run in ascending order).
    """

    batch: int
    images_per_s: Figure = None
    infer_images_per_s: Figure = None
    total: Distribution | None = None
    infer: Distribution | None = None
    host_peak_mib: Figure = None
    error: str | None = None


class Memory(_Part):
    """Memory in MiB at batch 1. Host: resident size of the row's own process. Device: null without a GPU."""

    host_baseline_mib: Figure = None
    host_peak_mib: Figure = None
    host_added_mib: Figure = None
    device_added_mib: Figure = None


class Accuracy(_Part):
    """Scores in percent over the whole validation set, at each image's own size, from one global confusion matrix.

    `iou` has one entry per class, null for a class absent from truth and prediction (left out of `miou`);
    `boundary_iou` and `boundary_miou` are the same for the classes' edges.
    `agreement` is the share of pixels in percent with the same class as row `agreement_with`, and `miou_difference` is
    `miou` less that of the same row.
    `miou_interval` and `miou_difference_interval` are 95% bootstrap intervals (lower, upper end) over images: of
    `resamples` draws from `resampling_seed`, `resampling_block` successive images together; null for fewer than two
    blocks.
    `image_miou` maps each image's id to its own mIoU.
    """

    images: int
    miou: Figure
    pixel_accuracy: Figure
    iou: list[Figure]
    boundary_miou: Figure = None
    boundary_iou: list[Figure] = Field(default_factory=list)
    agreement: Figure = None
    agreement_with: str | None = None
    miou_interval: tuple[float, float] | None = None
    miou_difference: Figure = None
    miou_difference_interval: tuple[float, float] | None = None
    resamples: int | None = None
    resampling_seed: int | None = None
    resampling_block: int | None = None
    image_miou: dict[str, Figure] = Field(default_factory=dict)


class Row(_Part):
    """Everything measured of one network: `name` is unique in a result, `flops` counts 2 per multiply-add.

    `measured` is when, and `machine`, in a comparison of several results, the label of the one that the row is from.
    """

    name: str
    machine: str | None = None
    measured: str | None = None
    role: Role
    target: str
    engine: str
    precision: str
    size: tuple[int, int]
    parameters: int | None = None
    flops: int | None = None
    file_bytes: int | None = None
    about: dict[str, Any] = Field(default_factory=dict)
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    throughput: list[BatchPoint] = Field(default_factory=list)
    memory: Memory = Field(default_factory=Memory)
    cold_start_s: Figure = None
    threads: dict[str, int | None] = Field(default_factory=dict)


class Failure(_Part):
    """A row that could not be measured, and why."""

    name: str
    role: Role
    target: str
    error: str


class Cell(_Part):
    """One picture of a comparison: its column's title and its file, relative to the report's folder."""

    title: str
    file: str


class Comparison(_Part):
    """One validation image seen by every row; `reason` says why, `miou` is that of the row that chose it (percent)."""

    id: str
    reason: str
    miou: Figure
    cells: list[Cell]


class Source(_Part):
    """One of the results that a comparison joins: its label, its file, and the conditions of its rows."""

    label: str
    file: str
    created: str
    command: str
    options: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    data: str


class BenchmarkResult(_Part):
    """All rows of one benchmark and the conditions that they were measured under.

    In a comparison `sources` holds the conditions of each result that was joined; `options`, `machine`, `versions` and
    `data` are then for reading: one value where all agree, else each with the label of its source.
    """

    format: str = FORMAT
    created: str
    command: str
    options: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    data: str
    labels: Labels
    rows: list[Row] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    chosen_by: str | None = None
    comparisons: list[Comparison] = Field(default_factory=list)
    sources: list[Source] = Field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write this result to `path` as JSON, atomically."""
        atomic.write_text(path, self.model_dump_json(indent=1) + "\n")
