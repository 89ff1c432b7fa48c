"""`predict --resume` after a run that was ended in the middle."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from tiny_artifact import expected_mask, make_artifact

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
    with (out / "predicted.jsonl").open("a") as record:
        record.write('"masks/00')  # as a killed run leaves it
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.suffix in (".png", ".jpg")}
    assert command(*arguments, "--resume").code == 0
    changed = {path.relative_to(out).as_posix() for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"masks/003.png", "overlays/001.jpg"}
    for name, image in images.items():
        assert np.array_equal(cv2.imread(str(out / f"masks/{name}.png"), cv2.IMREAD_UNCHANGED), expected_mask(image))
        assert (out / f"overlays/{name}.jpg").is_file()
    # The record is whole again: all results are known as predict's own, and nothing else is.
    (tmp_path / "in/004.png").unlink()
    assert command(*arguments, "--overwrite").code == 0
    assert not (out / "masks/004.png").exists()
    assert (out / "mine.txt").exists()


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


def test_a_video_cannot_be_resumed(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    line = command.refused("predict", artifact, "--source", "clip.mp4", "--out", tmp_path / "out", "--resume")
    assert "--resume goes on with folders of images" in line
