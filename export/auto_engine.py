"""`export --engine auto`: export with each installed engine, time the artifacts, and keep the fastest."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.data.images import read_image
from segkc_deploy.engine_choice import (
    EngineChoice,
    TriedEngine,
    engine_versions,
    find_choice,
    store_choice,
    this_machine,
)
from segkc_deploy.engines import ENGINES
from segkc_deploy.errors import (
    ConfigError,
    DataError,
    RunDirectoryError,
    SegKCError,
    UserError,
    VerificationError,
)
from segkc_deploy.export.export_run import Exported, SharedWork, export_run
from segkc_deploy.export.real_images import RealImages, real_images
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.machine import available_cores
from segkc_deploy.manifest import Manifest, manifest_path, sha256_of
from segkc_deploy.predictor import Predictor, load
from segkc_deploy.progress import console
from segkc_deploy.training.files.network_file import read_metadata

AUTO = "auto"

#: What is tried, by the kind of machine. Not ONNX Runtime in INT8, which is slow on CPUs, and not AOTInductor, which
#: compiles for minutes and is slower than OpenVINO where that was measured.
_ON_CPU = (
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("openvino", "int8-bf16"),
)
_ON_GPU = (("onnx", "fp32"), ("onnx", "fp16"), ("trt", "fp16"), ("trt", "int8-fp16"))

#: What no other engine or precision mends.
_NOT_OF_THE_ENGINE = (DataError, RunDirectoryError)

#: Artifacts are timed in alternation: one run that is not recorded, then `_RUNS`, in each round.
_ROUNDS, _RUNS = 5, 3
_IMAGES = 4
_STREAM_SECONDS = 2.0


@dataclass(frozen=True)
class _Contender:
    """An artifact with a number of threads, ready to predict."""

    exported: Exported
    threads: int | None
    predictor: Predictor


def export_fastest(
    run: Path,
    data: Path | None = None,
    settings: ExportSettings | None = None,
    precisions: Sequence[str] | None = None,
    out: Path | None = None,
    verify_source: str | None = None,
) -> tuple[Exported, EngineChoice]:
    """Export the junior of a run for the engine and precision with the lowest latency on this machine.

    Every artifact has to pass verification. A choice that is stored for this network, machine and settings is used
    without measuring again, as long as its artifact passes. The arguments are those of `export_run`, except:

    Args:
        settings: `engine` and `precision` do not count.
        precisions: those to try; all that are worth it if None.

    Raises:
        UserError: the run, the data or a setting cannot be used.
        VerificationError: no engine gave an artifact that passes.
    """
    settings, out = settings or ExportSettings(), out or run
    network = sha256_of(_weights(run))
    images = real_images(read_metadata(_weights(run)), data, verify_source, _IMAGES, 1)
    key = _key(settings, precisions, images)
    choice = find_choice(network, key)
    if choice is not None:
        chosen = replace(settings, engine=choice.chosen.engine, precision=choice.chosen.precision)
        try:
            return export_run(run, data, chosen, out, verify_source), choice
        except _NOT_OF_THE_ENGINE:
            raise
        except SegKCError as error:
            console.print(f"the fastest before is not usable: {error}; measuring again", soft_wrap=True, markup=False)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".auto-") as folder:
        attempts = _Attempts(run, data, settings, verify_source, Path(folder))
        on_gpu = not cuda_obstacle()
        attempts.make(_to_try(precisions, on_gpu))
        if on_gpu and not any(map(_runs_on_gpu, attempts.artifacts)):
            on_gpu = False
            console.print("no engine here uses the GPU; trying those for CPUs")
            attempts.make(_to_try(precisions, on_gpu))
        if not attempts.artifacts:
            raise attempts.failure(precisions)
        pictures = [read_image(sample.image, images.sets.pixels) for sample in images.verification]
        timed = _time_all(attempts.artifacts, pictures, _thread_counts(on_gpu))
        fastest, best = min(timed, key=lambda pair: pair[1].latency_ms or 0.0)
        streams, images_per_s = _best_streams(fastest, pictures, on_gpu)
        final = _move(fastest, out)
    others = sorted((one for _, one in timed if one is not best), key=lambda one: one.latency_ms or 0.0)
    choice = EngineChoice(
        network=network,
        run=str(run),
        settings=key,
        machine=this_machine(),
        versions=engine_versions(),
        tried=(best, *others, *attempts.rejected),
        contract=final.manifest.contract.model_dump(mode="json"),
        streams=streams,
        images_per_s=images_per_s,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    store_choice(choice)
    return final, choice


def choice_lines(choice: EngineChoice) -> Iterator[str]:
    """Yield one line per candidate, the chosen one first."""
    for place, one in enumerate(choice.tried):
        name = f"  {one.engine:<9} {one.precision:<9}"
        if one.latency_ms is None:
            yield f"{name} not usable: {one.rejected}"
            continue
        threads = "" if one.threads is None else f" with {one.threads} thread{'s' if one.threads > 1 else ''}"
        mark = ", chosen" if place == 0 else ""
        yield f"{name} {one.latency_ms:.1f} ms{threads}, {one.verified}{mark}"
    if choice.images_per_s is not None and choice.streams > 1:
        yield f"  most images/s: {choice.images_per_s:.1f}, {choice.streams} images at once"


def _weights(run: Path) -> Path:
    path = run / "junior.safetensors"
    read_metadata(path)  # says what is wrong with a file that cannot be used
    return path


def _key(settings: ExportSettings, precisions: Sequence[str] | None, images: RealImages) -> dict[str, Any]:
    """Return what the choice depends on, as JSON values: settings, and which precisions the images can judge."""
    values = asdict(settings)
    for name in ("engine", "precision", "options"):
        del values[name]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()} | {
        "precisions": list(precisions) if precisions else None,
        "masks": images.masks,
        "labeled": bool(images.labeled),
    }


class _Attempts:
    """The exports of a run for engines and precisions, each in a folder of its own.

    Attributes:
        rejected: what cannot be used, with the reason.
        artifacts: those that pass.
    """

    def __init__(
        self, run: Path, data: Path | None, settings: ExportSettings, verify_source: str | None, folder: Path
    ) -> None:
        self.rejected: list[TriedEngine] = []
        self.artifacts: list[Exported] = []
        self._errors: list[SegKCError] = []
        self._run, self._data, self._settings, self._source = run, data, settings, verify_source
        self._folder = folder
        self._shared = SharedWork()

    def make(self, candidates: Sequence[tuple[str, str]]) -> None:
        """Export for `candidates`, engines with precisions, that were not tried before."""
        known = {(one.manifest.engine, one.manifest.precision) for one in self.artifacts}
        known |= {(one.engine, one.precision) for one in self.rejected}
        for engine, precision in candidates:
            if (engine, precision) not in known:
                self._export(engine, precision)

    def failure(self, precisions: Sequence[str] | None) -> SegKCError:
        """Return the error for no artifact at all: of the user where each attempt failed by a mistake of theirs."""
        if not self.rejected:
            wanted = ", ".join(precisions or ())
            return ConfigError(f"--engine auto --precision {wanted}: no engine here is tried with it")
        if all(isinstance(error, UserError) for error in self._errors):
            return ConfigError("; ".join(dict.fromkeys(map(str, self._errors))))
        reasons = "; ".join(f"{one.engine} {one.precision}: {one.rejected}" for one in self.rejected)
        return VerificationError(f"{self._run}: no engine gives an artifact that passes: {reasons}")

    def _export(self, engine: str, precision: str) -> None:
        console.print(f"trying {engine} in {precision}")
        chosen = replace(self._settings, engine=engine, precision=precision)
        folder = self._folder / f"{engine}-{precision}"
        try:
            self.artifacts.append(export_run(self._run, self._data, chosen, folder, self._source, self._shared))
        except _NOT_OF_THE_ENGINE:
            raise
        except SegKCError as error:
            # What was rejected goes with its folder, so its name says nothing.
            text = error.reason if isinstance(error, VerificationError) else str(error)
            reason = text.replace(str(self._folder), self._run.name)
            self.rejected.append(TriedEngine(engine=engine, precision=precision, rejected=reason))
            self._errors.append(error)


def _to_try(precisions: Sequence[str] | None, on_gpu: bool) -> Sequence[tuple[str, str]]:
    """Return engines with precisions: those that are worth it, or of these engines all that offer the `precisions`."""
    usual = _ON_GPU if on_gpu else _ON_CPU
    if precisions is None:
        return usual
    engines = dict.fromkeys(engine for engine, _ in usual)
    return [(engine, one) for engine in engines for one in precisions if one in ENGINES[engine].precisions]


def _runs_on_gpu(exported: Exported) -> bool:
    """Return whether an artifact runs on a GPU here; ONNX Runtime without its libraries for one takes the CPU.

    What verified it does not tell: the masks of an ONNX file are compared on the CPU.
    """
    with load(exported.path) as predictor:
        return "CPU" not in predictor.description


def _thread_counts(on_gpu: bool) -> Sequence[int | None]:
    """Return the numbers of threads to try: all processors and half of them; on a GPU the engine's own choice."""
    if on_gpu:
        return [None]
    return sorted({available_cores(), max(available_cores() // 2, 1)}, reverse=True)


def _time_all(
    artifacts: Sequence[Exported], images: Sequence[np.ndarray], thread_counts: Sequence[int | None]
) -> list[tuple[Exported, TriedEngine]]:
    """Time every artifact in alternation and return each with its best number of threads."""
    with ExitStack() as open_predictors:
        contenders = [
            _Contender(exported, threads, open_predictors.enter_context(load(exported.path, threads=threads)))
            for exported in artifacts
            for threads in thread_counts
        ]
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(_ROUNDS):
            for contender, own in zip(contenders, times, strict=True):
                contender.predictor.predict(images[0])  # the others have filled the caches, and their threads may spin
                own += [_seconds(contender.predictor, images[run % len(images)]) for run in range(_RUNS)]
    best: dict[Path, tuple[Exported, TriedEngine]] = {}
    for contender, own in zip(contenders, times, strict=True):
        manifest, latency = contender.exported.manifest, 1e3 * statistics.median(own)
        known = best.get(contender.exported.path)
        if known is None or latency < (known[1].latency_ms or 0.0):
            measured = TriedEngine(
                engine=manifest.engine,
                precision=manifest.precision,
                threads=contender.threads,
                latency_ms=latency,
                verified=_verified(manifest),
            )
            best[contender.exported.path] = contender.exported, measured
    return list(best.values())


def _seconds(predictor: Predictor, image: np.ndarray) -> float:
    start = time.perf_counter()
    predictor.predict(image)
    return time.perf_counter() - start


def _verified(manifest: Manifest) -> str:
    found = manifest.verification
    assert found is not None
    text = f"{found.agreement:.2%} of the pixels like the junior's"
    if found.miou_network is not None and found.miou_artifact is not None:
        text += f", mIoU {found.miou_artifact - found.miou_network:+.2f}"
    return text


def _best_streams(exported: Exported, images: Sequence[np.ndarray], on_gpu: bool) -> tuple[int, float]:
    """Return how many images at once give the most images/s when they share the processors, and that number."""
    cores = available_cores()
    tried = {1, 2, cores} if ENGINES[exported.manifest.engine].streams and not on_gpu else {1}
    found = {streams: _images_per_s(exported.path, images, streams, max(cores // streams, 1)) for streams in tried}
    streams = max(found, key=lambda count: found[count])
    return streams, found[streams]


def _images_per_s(path: Path, images: Sequence[np.ndarray], streams: int, threads: int) -> float:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(streams))
        predictor = stack.enter_context(load(path, threads=threads, streams=streams))
        list(pool.map(predictor.predict, [images[0]] * streams))
        start = time.perf_counter()

        def work(_: int) -> int:
            done = 0
            while time.perf_counter() - start < _STREAM_SECONDS:
                predictor.predict(images[done % len(images)])
                done += 1
            return done

        return sum(pool.map(work, range(streams))) / (time.perf_counter() - start)


def _move(exported: Exported, out: Path) -> Exported:
    """Move an artifact with its companions and manifest into `out`, the artifact last."""
    files = sorted(exported.path.parent.iterdir(), key=lambda path: path == exported.path)
    assert manifest_path(exported.path) in files
    for path in files:
        path.replace(out / path.name)
    return Exported(out / exported.path.name, exported.manifest)
