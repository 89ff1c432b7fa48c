"""What a benchmark measured, as stored in `benchmark.json`. A metric that was not measured is null, never invented.

`python -m segkc_deploy.benchmarks.schema` prints its JSON Schema.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from segkc_deploy import atomic
from segkc_deploy.labels import Labels

#: Raised when a reader of an older format could misread a newer result.
FORMAT = "segkc-deploy-benchmark/2"

Role = Literal["senior", "junior", "artifact"]


def _null_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A float, or null where it was not measured or is not a number; JSON has no NaN.
Measured = Annotated[float | None, BeforeValidator(_null_unless_finite)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Distribution(_Part):
    """Times of repeated runs in milliseconds; `cv` is `std` / `mean`, percentiles interpolate linearly.

    `p50_interval` is a 95% interval of the median that takes into account how much successive times are alike; null
    where they are too few or too much alike.
    """

    p50: float
    p50_interval: tuple[float, float] | None = None
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
    """Latency at batch 1, end to end (`total`) and by stage; `times_ms` are the end-to-end samples in order.

    `device` is the GPU's own time of the inference, between two events on its stream, without the copies to and from
    the host; None where the engine does not run on a GPU or does not offer events.
    """

    warm_up: WarmUp
    preprocess: Distribution
    infer: Distribution
    postprocess: Distribution
    total: Distribution
    device: Distribution | None = None
    times_ms: list[float]


class BatchPoint(_Part):
    """One batch size: end-to-end images/s and time of a whole batch, and of the inference alone.

    `host_peak_mib` is the process's peak up to and including this batch size (sizes are run in ascending order).
    """

    batch: int
    images_per_s: Measured = None
    infer_images_per_s: Measured = None
    total: Distribution | None = None
    infer: Distribution | None = None
    host_peak_mib: Measured = None
    error: str | None = None


class Energy(_Part):
    """Energy of a load: `watts` is the mean power, `idle_watts` that of the seconds before it.

    `joules_per_image` includes what the machine takes when idle. `source` says which meter was read.
    """

    source: str
    watts: float
    idle_watts: Measured = None
    joules_per_image: float


class Sustained(_Part):
    """Throughput over a long time at one batch size, end to end, without pauses.

    `by_second` is the images/s of each successive second. `drift` is the median of the last fifth of the seconds
    against that of the first fifth, in percent: below 0 where the machine slowed down; null for fewer than 10 seconds.
    """

    batch: int
    seconds: float
    images: int
    images_per_s: float
    by_second: list[float]
    drift: Measured = None
    energy: Energy | None = None


class Reading(_Part):
    """The machine's state at `at_s` seconds after the row's first reading; null where it cannot be read.

    `moment` is `before` the row's first inference, `after` its last one, or the part of the measuring that was under
    way, of which the first reading is at its beginning and the last at its end. `background_load` is the share of all
    processors' time, in percent, that other processes took since the reading before. The GPU's figures are those of the
    GPU that the row runs on; `gpu_limits` are NVML's reasons for clocks below what was asked for, without idleness.
    """

    moment: str
    at_s: float
    cpu_mhz: Measured = None
    cpu_celsius: Measured = None
    background_load: Measured = None
    gpu_mhz: Measured = None
    gpu_memory_mhz: Measured = None
    gpu_watts: Measured = None
    gpu_limit_watts: Measured = None
    gpu_celsius: Measured = None
    gpu_limits: list[str] = Field(default_factory=list)


class MachineState(_Part):
    """What the machine did while a row was measured; `flags` are sentences on what makes its timings unreliable."""

    readings: list[Reading] = Field(default_factory=list)
    flags: list[str] = Field(default_factory=list)


class Peak(_Part):
    """What the machine itself can do in a precision, measured as the best of several repetitions.

    `gflops` is of a large matrix product (2 operations per multiply-add), `copy_gb_per_s` of a large copy, reading and
    writing counted, in 1e9 bytes/s. `how` names the library, the device, the threads and the sizes.
    """

    device: Literal["cpu", "gpu"]
    precision: str
    threads: int | None = None
    gflops: float
    copy_gb_per_s: float
    how: str


class Roofline(_Part):
    """The least time that the machine's peaks allow an inference at batch 1 (Williams et al. 2009, roofline model).

    `compute_ms` is the network's FLOPs at the peak of matrix products, `memory_ms` its weights, input and outputs, each
    moved once, at the peak of copies; the larger of the two is the roofline bound, and `bound` says which one it is.
    `efficiency` is that bound in percent of the median inference. `peak` is the precision of the peak.
    """

    peak: str
    compute_ms: float
    memory_ms: float
    bound: Literal["compute", "memory"]
    efficiency: float


class Contender(_Part):
    """One row or baseline of an interleaved timing, from a decoded image to its mask.

    `total` is the distribution of all its samples. `speed` is how many times faster it is than the reference: in each
    round, the reference's median divided by the contender's, and then the median over rounds. `speed_interval` is the
    95% bootstrap interval of that median and `speed_quartiles` are the quartiles of the ratios. `same_masks` is the
    percentage of pixels with the reference's class.
    """

    name: str
    kind: Literal["row", "baseline"]
    engine: str
    total: Distribution | None = None
    speed: Measured = None
    speed_interval: tuple[float, float] | None = None
    speed_quartiles: tuple[float, float] | None = None
    same_masks: Measured = None
    error: str | None = None


class InterleavedTiming(_Part):
    """Rows and baselines timed in alternation (A/B/A/B), so that changes of the machine affect all of them alike.

    Each contender has its own process, which stays alive. In each of `rounds` rounds every contender, in a new random
    order, runs once unrecorded and is then timed `runs` times.
    """

    reference: str
    rounds: int
    runs: int
    contenders: list[Contender] = Field(default_factory=list)


class Memory(_Part):
    """Memory in MiB at batch 1. Host: resident size of the row's own process. Device: null without a GPU."""

    host_baseline_mib: Measured = None
    host_peak_mib: Measured = None
    host_added_mib: Measured = None
    device_added_mib: Measured = None


class Accuracy(_Part):
    """Scores in percent over the whole validation set, at each image's own size, from one global confusion matrix.

    `iou` has one entry per class, null for a class absent from truth and prediction (left out of `miou`);
    `boundary_iou` and `boundary_miou` are the same for the classes' edges.
    `agreement` is the share of pixels in percent with the same class as row `agreement_with`, and `miou_difference` is
    `miou` less that of the same row.
    `miou_interval` and `miou_difference_interval` are 95% bootstrap intervals (lower, upper end) over images: of
    `resamples` draws from `resampling_seed`, `resampling_block` successive images together; null for fewer than two
    blocks.
    `image_miou` maps each image's id to its own mIoU. `confusion` counts pixels, a row for each class of the truth and
    a column for each that was predicted.
    """

    images: int
    miou: Measured
    pixel_accuracy: Measured
    iou: list[Measured]
    boundary_miou: Measured = None
    boundary_iou: list[Measured] = Field(default_factory=list)
    agreement: Measured = None
    agreement_with: str | None = None
    miou_interval: tuple[float, float] | None = None
    miou_difference: Measured = None
    miou_difference_interval: tuple[float, float] | None = None
    resamples: int | None = None
    resampling_seed: int | None = None
    resampling_block: int | None = None
    image_miou: dict[str, Measured] = Field(default_factory=dict)
    confusion: list[list[int]] = Field(default_factory=list)


class Row(_Part):
    """Everything measured of one network: `name` is unique in a result, `flops` counts 2 per multiply-add.

    `activation_peak_bytes` is the most that the intermediate tensors of one image take at once, by the graph and not by
    the allocator. `moved_bytes` is the least that an inference at batch 1 moves: the weights in the row's precision,
    the image and the outputs, each once. `latency_cuda_graph` is the latency once more with CUDA graphs, where the
    engine has them.
    `not_measured` says of a figure by its name why it is missing.
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
    activation_peak_bytes: int | None = None
    moved_bytes: int | None = None
    about: dict[str, Any] = Field(default_factory=dict)
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    latency_cuda_graph: Latency | None = None
    roofline: Roofline | None = None
    throughput: list[BatchPoint] = Field(default_factory=list)
    memory: Memory = Field(default_factory=Memory)
    sustained: Sustained | None = None
    cold_start_s: Measured = None
    threads: dict[str, int | None] = Field(default_factory=dict)
    state: MachineState = Field(default_factory=MachineState)
    not_measured: dict[str, str] = Field(default_factory=dict)


class Failure(_Part):
    """A row that could not be measured, and why."""

    name: str
    role: Role
    target: str
    error: str


class Picture(_Part):
    """One picture of a comparison: its column's title and its file, relative to the report's folder."""

    title: str
    # Whoever renders a stored report reads and writes this file: never one in another folder.
    file: str = Field(pattern=r"^pictures/[^/\\]+\.(jpg|png)$")


class Comparison(_Part):
    """One validation image as every row segments it.

    `reason` says why the image was selected, and `miou` is its mIoU in percent for the row that selected it.
    """

    id: str
    reason: str
    miou: Measured
    pictures: list[Picture]


class Conditions(_Part):
    """What the rows of one benchmark were measured under; `command` made them, `machine` is what it ran on."""

    created: str
    command: str
    options: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    data: str


class Source(Conditions):
    """One of the results that a comparison joins: its label, its file, and the conditions of its rows."""

    label: str
    file: str


class BenchmarkResult(Conditions):
    """All rows of one benchmark and the conditions that they were measured under.

    In a comparison `sources` holds the conditions of each result that was joined; `options`, `machine`, `versions` and
    `data` are then for reading: one value where all agree, else each with the label of its source.
    """

    format: str = FORMAT
    labels: Labels
    rows: list[Row] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    peaks: list[Peak] = Field(default_factory=list)
    interleaved: InterleavedTiming | None = None
    chosen_by: str | None = None
    comparisons: list[Comparison] = Field(default_factory=list)
    sources: list[Source] = Field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write this result to `path` as JSON, atomically."""
        atomic.write_text(path, self.model_dump_json(indent=1) + "\n")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `BenchmarkResult.write` stores."""
    schema = BenchmarkResult.model_json_schema()
    schema["properties"]["format"] = {"const": FORMAT}
    schema["required"] = ["format", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
