"""Compare artifacts with Ultralytics' smallest semantic network, trained on the same labels, for accuracy and latency.

    python -m segkc_deploy.benchmarks.studies.ultralytics_comparison runs/a/junior-int8.xml --data data.yaml
        --python ULTRALYTICS/bin/python --minutes 30 --out comparison.json

`--python` is the Python of an environment with Ultralytics (and OpenVINO), which is no dependency of this package. Its
network learns the labeled images of the data spec for `--minutes`, from random weights; OMP_NUM_THREADS bounds its
threads. Both are scored by the same code, each image at its own size, and timed in alternation, each in a process of
its own: from a decoded image of 500×375 to its mask at that size, on two threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from segkc_deploy import atomic
from segkc_deploy.benchmarks.studies import ultralytics_worker
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError
from segkc_deploy.evaluation import evaluate
from segkc_deploy.machine import describe_machine
from segkc_deploy.predictor import load

_NETWORK = "yolo26n-sem.yaml"
_TRAINING_SIZE, _SIZES = 384, (384, 512)
_THREADS = 2
_WORKER = Path(ultralytics_worker.__file__)


class Contender:
    """A process that predicts and times itself on request.

    Args:
        command: what starts it.
        folder: for the images and masks that are handed over.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._image, self._mask = folder / "image.npy", folder / "mask.npy"
        environment = os.environ | {"OMP_NUM_THREADS": str(_THREADS)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=sys.stderr, text=True, env=environment
        )
        if hasattr(os, "sched_setaffinity"):  # OpenVINO takes every core that it may
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:_THREADS])
        self._read(lambda line: line == "ready")

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the mask, uint8 (H, W), of an image, uint8 (H, W, 3) RGB."""
        self.seconds(image, 0)
        return np.asarray(np.load(self._mask))

    def seconds(self, image: np.ndarray, times: int) -> list[float]:
        """Return how long the mask of an image took, so many times after one that is not counted."""
        assert self._process.stdin is not None
        np.save(self._image, image)
        self._process.stdin.write(
            json.dumps({"image": str(self._image), "mask": str(self._mask), "times": times}) + "\n"
        )
        self._process.stdin.flush()
        return list(json.loads(self._read(lambda line: line.startswith("["))))

    def close(self) -> None:
        """End the process."""
        with self._process as process:  # closes its streams and waits
            assert process.stdin is not None
            process.stdin.close()

    def _read(self, wanted: Callable[[str], bool]) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if wanted(line.strip()):
                return line
        raise ConfigError(f"{' '.join(self._process.args)}: ended early; see above")  # type: ignore[arg-type]


def lay_out(sets: ImageSets, folder: Path) -> Path:
    """Write the labeled and the validation images as Ultralytics reads them, and return the path of its `data.yaml`."""
    for part, samples in (("train", sets.labeled), ("val", sets.val)):
        for sample in samples:
            image, mask = read_sample(sample, sets)
            assert mask is not None
            name = f"{part}/{sample.id.replace('/', '_')}.png"
            for kind, pixels in (("images", image[..., ::-1]), ("masks", _ignored_as_255(mask, sets))):
                path = folder / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
    data = {"path": str(folder), "train": "images/train", "val": "images/val", "masks_dir": "masks"}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(data | {"names": dict(enumerate(sets.labels.names))}))
    return file


def compare(contenders: dict[str, Contender], sets: ImageSets, rounds: int) -> dict[str, dict[str, Any]]:
    """Return mIoU, and the median and range of the rounds' latencies in milliseconds, of each contender."""
    found: dict[str, dict[str, Any]] = {
        name: {"miou": round(evaluate(contender.predict, sets, name).scores.miou, 2)}
        for name, contender in contenders.items()
    }
    image = cv2.resize(read_sample(_without_mask(sets.val[0]), sets)[0], (500, 375))
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            medians[name].append(1000 * float(np.median(contender.seconds(image, 5))))
    for name, own in medians.items():
        found[name] |= {"p50_ms": round(float(np.median(own)), 2), "range_ms": [round(min(own), 2), round(max(own), 2)]}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.serve:
        with load(options.artifacts[0], threads=_THREADS) as predictor:
            ultralytics_worker.answer(predictor.predict)
        return 0
    if options.data is None:
        raise ConfigError("--data is missing: the data spec of the artifacts' network")
    sets = load_data_spec(options.data).resolve()
    contenders: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = options.weights or _train(options, lay_out(sets, folder / "data"), folder)
        exported = _work(options.python, "export", weights, _SIZES[1])
        commands = {
            str(path): [sys.executable, "-m", f"{__package__}.ultralytics_comparison", str(path), "--serve"]
            for path in options.artifacts
        } | {
            f"{_NETWORK}, {kind}": [options.python, str(_WORKER), "predict", str(model), str(size)]
            for kind, model, size in (
                (f"PyTorch at {_SIZES[0]}", weights, _SIZES[0]),
                (f"PyTorch at {_SIZES[1]}", weights, _SIZES[1]),
                (f"OpenVINO at {_SIZES[1]}", exported["exported"], _SIZES[1]),
            )
        }
        try:
            for number, (title, command) in enumerate(commands.items()):
                (folder / str(number)).mkdir()
                contenders[title] = Contender(command, folder / str(number))
            rows = compare(contenders, sets, options.rounds)
        finally:
            for contender in contenders.values():
                contender.close()
    result = {
        "contenders": rows,
        "ultralytics_parameters": exported["parameters"],
        "minutes": options.minutes,
        "labeled_images": len(sets.labeled),
        "threads": _THREADS,
        "rounds": options.rounds,
        "machine": describe_machine(),
    }
    atomic.write_text(options.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(rows, indent=2))
    return 0


def _train(options: argparse.Namespace, data: Path, folder: Path) -> Path:
    trained = _work(options.python, "train", _NETWORK, data, options.minutes, _TRAINING_SIZE, folder / "runs")
    return Path(trained["weights"])


def _work(python: str, *words: object) -> dict[str, Any]:
    """Run the worker to its end and return the JSON of its last line."""
    command = [python, str(_WORKER), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command[:3])}: failed; see above")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _ignored_as_255(mask: np.ndarray, sets: ImageSets) -> np.ndarray:
    return np.where(mask == sets.labels.ignore_index, 255, mask).astype(np.uint8)


def _without_mask(sample: Sample) -> Sample:
    return Sample(sample.id, sample.image)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    program = "python -m segkc_deploy.benchmarks.studies.ultralytics_comparison"
    parser = argparse.ArgumentParser(prog=program, description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", type=Path, nargs="+", help="artifacts of a network that learned the same labels")
    parser.add_argument("--data", type=Path, help="data spec with the labeled and the validation images")
    parser.add_argument("--python", default="python", help="Python of an environment with Ultralytics")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long Ultralytics trains")
    parser.add_argument("--weights", type=Path, help="what Ultralytics trained in so many minutes before")
    parser.add_argument("--rounds", type=int, default=8, help="how often each contender is timed, five masks a time")
    parser.add_argument("--out", type=Path, default=Path("ultralytics.json"), help="file for the result")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
