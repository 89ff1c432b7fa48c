"""`predict --ray`: what a worker does, how many there are, and a local cluster against a single process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from tiny_artifact import make_artifact

import segkc_deploy
from segkc_deploy import ray_prediction
from segkc_deploy.errors import ConfigError
from segkc_deploy.prediction_files import predict_files
from segkc_deploy.prediction_record import ResultFolder
from segkc_deploy.predictor import load
from segkc_deploy.ray_prediction import RayJob
from segkc_deploy.result_files import Outputs
from segkc_deploy.sources import SourceImage, find_images

SIZE = (16, 24)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("artifact"), size=SIZE, outputs=("masks", "logits"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs, one of them in a folder, and two damaged files."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "day").mkdir()
    for index in range(12):
        image = np.random.default_rng(index).integers(0, 256, (20 + index, 100, 3), np.uint8)
        cv2.imwrite(str(folder / ("day/0.png" if index == 0 else f"{index}.png")), image)
    (folder / "a.png").write_bytes(b"no image")
    (folder / "z.png").write_bytes((folder / "1.png").read_bytes()[:500])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder; the lines of the record, which is not written in a fixed order, sorted."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found["predicted.jsonl"] = b"\n".join(sorted(found["predicted.jsonl"].splitlines()))
    return found


def job_of(artifact: Path, folder: Path, **changes: object) -> RayJob:
    fields = {"opened": partial(load, artifact, "cpu", 1), "out": folder, "batch_size": 2, "outputs": Outputs()}
    return RayJob(**(fields | {"shrink_notice": 3.0} | changes))  # type: ignore[arg-type]


def row_of(images: list[SourceImage]) -> dict[str, object]:
    return {"images": [[os.fsencode(image.path), os.fsencode(image.id)] for image in images]}


@pytest.mark.parametrize("tile", [False, True])
def test_a_worker_writes_what_a_single_process_writes(artifact: Path, photos: Path, tmp_path: Path, tile: bool) -> None:
    from segkc_deploy.tiled_files import predict_files_tiled

    images = find_images(str(photos))
    single, many = tmp_path / "single", tmp_path / "many"
    for folder in (single, many):
        folder.mkdir()
    with segkc_deploy.load(artifact, "cpu", 1) as predictor:
        predict = predict_files_tiled if tile else partial(predict_files, batch_size=2)
        assert predict(predictor, images, single) == 2
    ResultFolder(many).note(Path("masks/a.png"))
    worker = ray_prediction._Worker(job_of(artifact, many, tile=tile))
    rows = [worker(row_of(images[:5])), worker(row_of(images[5:]))]
    reasons = [reason for row in rows for reason in row["reasons"]]
    assert len(reasons) == 14
    assert sorted(Path(reason.split(":")[0]).name for reason in reasons if reason) == ["a.png", "z.png"]
    assert [bool(row["notice"]) for row in rows] == [not tile, False]
    one, other = contents(single), contents(many)
    assert other.pop("predicted.jsonl") == b'"masks/a.png"'
    assert one.pop("predicted.jsonl") and one.pop("predicted.settings.json")  # of the process that has the workers
    assert one == other


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"out": Path("/nowhere")}, "not the same folder on every machine"),
        ({"opened": partial(load, Path("gone.onnx"))}, "gone.onnx"),
    ],
)
def test_what_a_worker_cannot_do_comes_back_as_one_line(
    artifact: Path, photos: Path, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    ResultFolder(tmp_path).note(Path("masks/a.png"))
    row = ray_prediction._Worker(job_of(artifact, tmp_path, **changes))(row_of(find_images(str(photos))))
    assert says in row["error"] and "(on " in row["error"]


def test_workers_fill_the_cluster_or_are_as_many_as_asked_for(artifact: Path) -> None:
    def room(resources: dict[str, float], **changes: object) -> tuple[int, int, int]:
        return ray_prediction._room(resources, job_of(artifact, Path(), **changes))

    assert room({"CPU": 16.0}, cpus=4) == (4, 0, 4)
    assert room({"CPU": 16.0, "GPU": 2.0}, cpus=4) == (4, 1, 2)
    assert room({"CPU": 16.0, "GPU": 2.0}, cpus=4, gpus=0) == (4, 0, 4)
    assert room({"CPU": 16.0}, workers=3) == (1, 0, 3)
    with pytest.raises(ConfigError, match="room for 1 workers of 2 CPUs and 0 GPUs; lower --threads"):
        room({"CPU": 3.0}, cpus=2, workers=2)
    with pytest.raises(ConfigError, match="room for 0"):
        room({"CPU": 3.0}, gpus=1)


def test_a_worker_that_keeps_dying_ends_the_run_in_one_line(artifact: Path, photos: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")

    class DyingCluster:
        """Stands in for Ray and its data sets."""

        exceptions = ray.exceptions

        def __init__(self) -> None:
            self.data = self

        def cluster_resources(self) -> dict[str, float]:
            return {"CPU": 2.0}

        def from_items(self, items: list[object], **_: object) -> "DyingCluster":
            assert len(items) == 1
            return self

        def map(self, worker: type, **options: object) -> "DyingCluster":
            assert options["max_task_retries"] == 3
            return self

        def iter_rows(self) -> Iterator[dict[str, object]]:
            raise ray.exceptions.ActorDiedError
            yield {}

    with pytest.raises(ConfigError, match=r"died 4 times over the same images.*--resume to continue"):
        list(ray_prediction._reasons(DyingCluster(), job_of(artifact, tmp_path), find_images(str(photos))))


def test_arguments_that_do_not_go_together(command: CommandLine, artifact: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ("predict", artifact, "--source", photos, "--out", tmp_path / "out")
    assert "--ray-workers is for --ray" in command.refused(*arguments, "--ray-workers", 2)
    assert "a video is predicted by one machine" in command.refused(
        "predict", artifact, "--source", "a.mp4", "--out", tmp_path / "out", "--ray"
    )
    assert "no such artifact" in command.refused("predict", tmp_path / "gone.onnx", *arguments[2:], "--ray")


def test_a_missing_ray_is_named(
    command: CommandLine, artifact: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ("predict", artifact, "--source", photos, "--out", tmp_path / "out", "--ray")
    assert 'pip install "segkc-deploy[ray]"' in command.refused(*arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_local_cluster_gives_what_a_single_process_gives(artifact: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")

    def predict(out: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "segkc_deploy",
            "predict",
            artifact,
            "--source",
            photos,
            "--out",
            tmp_path / out,
        ]
        options = ["--also", "polygons", "--also", "labelme", "--palette"]
        environment = os.environ | {"RAY_ADDRESS": "local"}
        return subprocess.run(
            list(map(str, [*command, *options, *more])), capture_output=True, text=True, env=environment, check=False
        )

    single, many = predict("single"), predict("many", "--ray")
    for finished in (single, many):
        assert finished.returncode == 2
        assert "2 of 14 images were left out" in finished.stderr
    assert many.stderr.index("z.png: not a readable image") < many.stderr.index("error: ")
    assert contents(tmp_path / "single") == contents(tmp_path / "many")

    kept = contents(tmp_path / "many")
    for name in ("masks/3.png", "polygons/day/0.geojson"):
        (tmp_path / "many" / name).unlink()
    untouched = tmp_path / "many/masks/5.png"
    before = untouched.stat().st_mtime_ns
    resumed = predict("many", "--ray", "--resume")
    assert "2 of 14 images were left out" in resumed.stderr
    assert contents(tmp_path / "many") == kept
    assert untouched.stat().st_mtime_ns == before
