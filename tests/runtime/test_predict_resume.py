"""`predict --resume` after a run that was ended in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from test_video import make_video
from tiny_artifact import expected_mask, make_artifact

from segkc_deploy.model_config import client_parameters, read_sha256
from segkc_deploy.prediction_files import network_of
from segkc_deploy.predictor import Predictor, load

SIZE = (8, 12)


def write_images(folder: Path, count: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    folder.mkdir()
    images = {}
    for index in range(count):
        images[f"{index:03}"] = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:03}.png"), images[f"{index:03}"][..., ::-1])
    return images


def test_only_what_is_missing_is_predicted(command: CommandLine, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out)
    assert command(*arguments).code == 0
    (out / "masks/001.png").unlink()
    (out / "overlays/003.jpg").unlink()
    (out / "mine.txt").write_text("not predict's")
    (out / "masks/.004-0123abcd.png").write_bytes(b"")  # of a killed run
    (out / "masks/.mine-0123abcd.png").write_bytes(b"")
    with (out / "predicted.jsonl").open("a") as record:
        record.write('"masks/00')  # as a killed run leaves it
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*") if path.suffix in (".png", ".jpg")}
    assert command(*arguments, "--resume").code == 0
    changed = {path.relative_to(out).as_posix() for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"masks/003.png", "overlays/001.jpg"}
    assert [path.name for path in out.rglob(".*")] == [".mine-0123abcd.png"]
    for name, image in images.items():
        assert np.array_equal(cv2.imread(str(out / f"masks/{name}.png"), cv2.IMREAD_UNCHANGED), expected_mask(image))
        assert (out / f"overlays/{name}.jpg").is_file()
    # The record is whole again: all results are known as predict's own, and nothing else is.
    (tmp_path / "in/004.png").unlink()
    assert command(*arguments, "--overwrite").code == 0
    assert not (out / "masks/004.png").exists()
    assert (out / "mine.txt").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((), "made with another network"),
        (("--tile",), "made with tile False, not True"),
        (("--palette",), "made with palette False, not True"),
        (("--alpha", 0.9), "made with alpha 0.5, not 0.9"),
    ],
)
def test_results_of_one_folder_are_made_alike(
    command: CommandLine, tmp_path: Path, changes: tuple[str, ...], told: str
) -> None:
    write_images(tmp_path / "in", 2)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("--source", tmp_path / "in", "--out", out)
    assert command("predict", artifact, *arguments).code == 0
    (out / "masks/001.png").unlink()
    other = artifact if changes else make_artifact(tmp_path / "other", size=(16, 24))
    assert told in command.refused("predict", other, *arguments, *changes, "--resume")
    assert not (out / "masks/001.png").exists()
    assert command("predict", other, *arguments, *changes, "--overwrite").code == 0
    (out / "masks/001.png").unlink()
    (out / "predicted.settings.json").unlink()  # as earlier versions left their folders
    assert command("predict", artifact, *arguments, "--resume").code == 0
    assert (out / "masks/001.png").exists()


def test_overlays_keep_their_strength_where_a_call_between_wrote_none(command: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out)
    assert command(*arguments, "--alpha", 0.1).code == 0
    assert command(*arguments, "--no-overlay", "--resume").code == 0
    assert "made with alpha 0.1, not 0.9" in command.refused(*arguments, "--alpha", 0.9, "--resume")
    assert command(*arguments, "--alpha", 0.1, "--resume").code == 0


def test_tiles_of_one_folder_have_one_stride(command: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out, "--tile", "--tile-stride")
    assert command(*arguments, 4).code == 0
    assert "made with tile_stride 4, not 8" in command.refused(*arguments, 8, "--resume")
    (out / "masks/001.png").unlink()
    assert command(*arguments, 4, "--resume").code == 0
    assert (out / "masks/001.png").exists()


def test_results_of_other_images_do_not_count(command: CommandLine, tmp_path: Path) -> None:
    """Cameras begin their numbers anew every day."""
    images = write_images(tmp_path / "monday", 3)
    write_images(tmp_path / "tuesday", 3)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("predict", artifact, "--out", out, "--source")
    assert command(*arguments, tmp_path / "monday").code == 0
    line = command.refused(*arguments, tmp_path / "tuesday", "--resume")
    assert f"made with images {tmp_path}/monday, not {tmp_path}/tuesday" in line
    assert "choose another --out" in line

    retaken = 255 - images["001"]
    cv2.imwrite(str(tmp_path / "monday/001.png"), retaken[..., ::-1])
    later = (out / "masks/001.png").stat().st_mtime_ns + 1
    os.utime(tmp_path / "monday/001.png", ns=(later, later))
    finished = command(*arguments, tmp_path / "monday", "--resume")
    assert "2 of 3 images have results already" in finished.err
    mask = cv2.imread(str(out / "masks/001.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, expected_mask(retaken))


def test_a_servers_network_is_known_by_its_artifact(tmp_path: Path) -> None:
    """And not by the URL, behind which another one may stand tomorrow."""
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with load(artifact) as local:
        assert local.manifest is not None
        parameters = {name: {"string_value": text} for name, text in client_parameters(local.manifest).items()}
        remote = Predictor(local._runner, local.labels, local.contract, sha256=read_sha256({"parameters": parameters}))
        assert network_of(remote) == network_of(local) == local.manifest.sha256
        del parameters["sha256"]
        unknown = Predictor(local._runner, local.labels, local.contract, sha256=read_sha256({"parameters": parameters}))
        assert network_of(unknown) == local.description


@pytest.mark.parametrize("lost", [lambda data: b"", lambda data: data[:-4] + bytes(4)], ids=["empty", "zeros"])
@pytest.mark.parametrize("name", ["masks/001.png", "overlays/001.jpg", "rle/001.json"])
def test_what_a_crash_of_the_machine_spoiled_is_predicted_again(
    command: CommandLine, tmp_path: Path, name: str, lost: Callable[[bytes], bytes]
) -> None:
    write_images(tmp_path / "in", 2)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out, "--also", "rle")
    assert command(*arguments).code == 0
    whole = (out / name).read_bytes()
    (out / name).write_bytes(lost(whole))
    assert command(*arguments, "--resume").code == 0
    assert (out / name).read_bytes() == whole


def test_a_file_that_was_corrected_by_hand_is_kept(command: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out, "--also", "labelme")
    assert command(*arguments).code == 0
    (out / "labelme/000.json").write_text('{"shapes": []}\n')  # editors end a file with a new line
    assert command(*arguments, "--resume").code == 0
    assert (out / "labelme/000.json").read_text() == '{"shapes": []}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_run_is_finished(command: CommandLine, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 60, (300, 400))
    artifact, out = make_artifact(tmp_path / "artifact", size=(300, 400)), tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out)
    process = subprocess.Popen([sys.executable, "-m", "segkc_deploy", *map(str, arguments)], stderr=subprocess.DEVNULL)
    while len([*out.glob("masks/*.png")]) < 5 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = command(*arguments, "--resume")
    assert finished.code == 0, finished.err
    for name, image in images.items():
        assert np.array_equal(cv2.imread(str(out / f"masks/{name}.png"), cv2.IMREAD_UNCHANGED), expected_mask(image))
        assert cv2.imread(str(out / f"overlays/{name}.jpg")) is not None


def test_an_unfinished_video_starts_again_and_a_finished_one_is_left(command: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("av")
    source, out = make_video(tmp_path / "clip.mp4", count=30), tmp_path / "out"
    artifact = make_artifact(tmp_path / "artifact", size=(48, 64))
    arguments = ("predict", artifact, "--source", source, "--out", out, "--resume")
    out.mkdir()
    (out / "clip.jsonl").write_text('{"frame":0}\n{"fra')  # as a killed run leaves it
    (out / "mine.txt").write_text("not predict's")
    again = command(*arguments)
    assert again.code == 0
    assert again.err == f"{source}: its prediction was not finished; a video starts again at its first frame\n"
    assert len((out / "clip.jsonl").read_text().splitlines()) == 30
    assert json.loads((out / "clip.summary.json").read_text())["frames"] == 30
    written = (out / "clip.mp4").stat().st_mtime_ns
    left = command(*arguments)
    assert (left.code, left.err) == (0, "")
    assert "is predicted already" in left.out
    assert (out / "clip.mp4").stat().st_mtime_ns == written
    assert (out / "mine.txt").exists()
    assert "made with frames areas, not rle" in command.refused(*arguments, "--frames", "rle")
    other = make_artifact(tmp_path / "other", size=(24, 32))
    line = command.refused("predict", other, "--source", source, "--out", out, "--resume")
    assert "made with another network" in line
    (tmp_path / "b").mkdir()
    another = make_video(tmp_path / "b/clip.mp4", count=20)
    line = command.refused("predict", artifact, "--source", another, "--out", out, "--resume")
    assert f"made with video {source}, not {another}" in line


def test_a_video_that_ended_early_is_not_done(command: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("av")
    whole = make_video(tmp_path / "whole.mkv", None, count=80).read_bytes()
    source, out = tmp_path / "clip.mkv", tmp_path / "out"
    artifact = make_artifact(tmp_path / "artifact", size=(48, 64))
    arguments = ("predict", artifact, "--source", source, "--out", out, "--resume")
    source.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        cut = command(*arguments)
        assert cut.code == 2
        assert "ends early" in cut.err and "predicted already" not in cut.out
    source.write_bytes(whole)  # copied again
    assert command(*arguments).code == 0
    assert len((out / "clip.jsonl").read_text().splitlines()) == 80
    assert "predicted already" in command(*arguments).out


def test_a_video_that_was_changed_is_not_done(command: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("av")
    source, out = make_video(tmp_path / "clip.mp4", None, count=3), tmp_path / "out"
    artifact = make_artifact(tmp_path / "artifact", size=(48, 64))
    arguments = ("predict", artifact, "--source", source, "--out", out, "--resume")
    assert command(*arguments).code == 0
    os.utime(source, ns=(0, source.stat().st_mtime_ns + 10**9))  # its size is the same
    assert "made with video_changed" in command.refused(*arguments)


def test_a_stream_cannot_be_resumed(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    line = command.refused("predict", artifact, "--source", "rtsp://host/1", "--out", tmp_path / "out", "--resume")
    assert "a stream cannot be resumed" in line
