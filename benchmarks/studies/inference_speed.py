"""From a decoded image to its mask on a CPU: this package's artifacts beside baselines.

`python -m segkc_deploy.benchmarks.studies.inference_speed --images FOLDER --out WORK --results RESULTS.json`

All variants of a network run interleaved, each in a process of its own. Without `--run` and `--random`, the networks
are the juniors of the recipes for one's own images, with random weights: DINOv2-S at 518×518, the others at 512×512.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.benchmarks.interleaved.contender_process import ContenderProcess
from segkc_deploy.benchmarks.interleaved.relative_speed import relative_speed
from segkc_deploy.benchmarks.interleaved.timing import LIMIT_S, RUNS, ContenderTimes, time_rounds
from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.measure.worker_process import worker_environment
from segkc_deploy.benchmarks.roofline.peaks import measure_peaks
from segkc_deploy.benchmarks.schema import Peak
from segkc_deploy.benchmarks.store.masks import mask_agreement
from segkc_deploy.benchmarks.studies.benchmark_rows import current_commit
from segkc_deploy.benchmarks.studies.inference_contender import BaselineName, InferenceJob
from segkc_deploy.benchmarks.studies.inference_rows import InferenceResult, InferenceRow, as_markdown
from segkc_deploy.benchmarks.studies.inference_subjects import RANDOM, Subject, given_subject, random_subjects
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError
from segkc_deploy.machine import describe_machine
from segkc_deploy.progress import console

#: (height, width) of the images that are predicted.
SIZES = ((375, 500), (1024, 2048))
_PEAK_SECONDS = 1.0
_MODULE = "segkc_deploy.benchmarks.studies.inference_speed"


@dataclass(frozen=True)
class Variant:
    """A way to run a network; `precision` is what most of its products are computed in, `artifact` a file's name."""

    name: str
    precision: str
    baseline: BaselineName | None = None
    artifact: str = ""
    hint: str | None = None


#: The first one is what the others are compared with.
VARIANTS = (
    Variant("PyTorch eager, PIL", "fp32", "published"),
    Variant("torch.compile with BF16 autocast, PIL", "bf16", "autocast"),
    Variant("plain torch.onnx.export, ONNX Runtime", "fp32", "plain export"),
    Variant("onnx fp32", "fp32", artifact="junior-fp32.onnx"),
    Variant("openvino fp32", "fp32", artifact="junior-fp32.xml"),
    Variant("openvino fp32 file, OpenVINO's own BF16 hint", "bf16", artifact="junior-fp32.xml", hint="bf16"),
    Variant("openvino bf16", "bf16", artifact="junior-bf16.xml"),
    Variant("openvino int8", "int8", artifact="junior-int8.xml"),
    Variant("openvino int8-bf16", "int8", artifact="junior-int8-bf16.xml"),
)


def measure_subject(
    subject: Subject,
    image: Path,
    variants: Sequence[Variant],
    rounds: int,
    threads: int,
    peaks: Sequence[Peak],
    warm_up_s: float = 4.0,
) -> list[InferenceRow]:
    """Time the variants of a network in alternation and return a row for each of them and each size.

    Args:
        subject: the network with its artifacts.
        image: the image file that is predicted, in each of `SIZES`.
        variants: the first one is the reference.
        rounds: how often each variant runs on each size, `RUNS` times in a row.
        threads: CPU threads of each variant.
        peaks: the machine's, with as many threads.
        warm_up_s: how long each variant warms up on each size, at most.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folders = [Path(name, str(number)) for number in range(len(variants))]
        processes = []
        for variant, folder in zip(variants, folders, strict=True):
            folder.mkdir()
            job = InferenceJob(
                baseline=variant.baseline,
                target=subject.artifacts / variant.artifact if variant.artifact else subject.run,
                hint=variant.hint,
                image=image,
                sizes=SIZES,
                masks=folder,
                threads=threads,
                warm_up_s=warm_up_s,
            )
            (folder / "job.json").write_text(job.model_dump_json())
            command = [sys.executable, "-m", "segkc_deploy.benchmarks.studies.inference_contender"]
            process = ContenderProcess([*command, str(folder / "job.json")], worker_environment(threads), LIMIT_S)
            processes.append(ends.enter_context(process))
        # Images are taken in turn, `RUNS` a round: successive rounds are of successive sizes.
        times = time_rounds(processes, rounds * len(SIZES))
        return [
            row for place in range(len(SIZES)) for row in _rows_of_size(subject, place, variants, times, folders, peaks)
        ]


def _rows_of_size(
    subject: Subject,
    place: int,
    variants: Sequence[Variant],
    times: Sequence[ContenderTimes],
    folders: Sequence[Path],
    peaks: Sequence[Peak],
) -> list[InferenceRow]:
    height, width = SIZES[place]
    rows = []
    for variant, measured, folder in zip(variants, times, folders, strict=True):
        row = InferenceRow(
            network=subject.name,
            params_m=subject.parameters / 1e6,
            gflop=subject.flops / 1e9,
            input_size=subject.size,
            image=f"{width}x{height}",
            variant=variant.name,
            precision=variant.precision,
            engine=measured.engine,
            error=measured.error,
        )
        if measured.error is None and times[0].error is None:
            own, reference = (np.asarray(found.rounds_ms[place :: len(SIZES)]) for found in (measured, times[0]))
            speed, spread = relative_speed(reference, own), summarize(own.ravel())
            row.p50_ms, row.p90_ms = spread.p50, spread.p90
            row.speed, row.speed_interval = speed.median, speed.interval
            row.agreement = mask_agreement(folder / str(place), folders[0] / str(place), 1)
            row.roofline_ms = _roofline_ms(subject.flops, variant.precision, peaks)
            row.roofline_share = 100 * row.roofline_ms / spread.p50
        rows.append(row)
    return rows


def _roofline_ms(flops: int, precision: str, peaks: Sequence[Peak]) -> float:
    """Return the least time of the products alone, in the faster of the variant's precision and FP32."""
    return min(flops / peak.gflops / 1e6 for peak in peaks if peak.precision in (precision, "fp32"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results as JSON and Markdown, and return the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs; the first one is timed")
    parser.add_argument("--out", type=Path, required=True, help="folder for the networks and their artifacts")
    parser.add_argument("--results", type=Path, required=True, help="file for the results; .md stands beside it")
    given = ("NAME", "RUN", "DATA")
    parser.add_argument("--run", nargs=3, action="append", default=[], metavar=given, help="a trained network")
    parser.add_argument("--random", action="append", default=[], choices=RANDOM, help="a network with random weights")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each variant")
    parser.add_argument("--rounds", type=int, default=20, help="rounds for each size of the image")
    parser.add_argument("--remark", default="", help="a sentence about the machine's state")
    options = parser.parse_args(arguments)
    result = _measure(options)
    atomic.write_text(options.results, result.model_dump_json(indent=1) + "\n")
    atomic.write_text(options.results.with_suffix(".md"), as_markdown(result))
    print(f"{options.results}: {len(result.rows)} rows")
    return 0


def _measure(options: argparse.Namespace) -> InferenceResult:
    files = sorted(path for path in options.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ConfigError(f"--images {options.images}: no JPEG or PNG files; give a folder of photographs")
    names = options.random or ([] if options.run else RANDOM)
    given = (given_subject(name, Path(run), Path(data), options.out) for name, run, data in options.run)
    subjects = [*random_subjects(names, options.out, files), *given]
    precisions = list(dict.fromkeys(variant.precision for variant in VARIANTS))
    measured = measure_peaks({"cpu": precisions}, options.threads, _PEAK_SECONDS)
    for note in measured.notes:
        console.print(note, soft_wrap=True)
    rows = [
        row
        for subject in subjects
        for row in measure_subject(subject, files[0], VARIANTS, options.rounds, options.threads, measured.peaks)
    ]
    return InferenceResult(
        machine=describe_machine(),
        remark=options.remark,
        command=shlex.join(["python", "-m", _MODULE, *sys.argv[1:]]),
        commit=current_commit(),
        threads=options.threads,
        rounds=options.rounds,
        runs=RUNS,
        peaks=measured.peaks,
        rows=rows,
    )


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
