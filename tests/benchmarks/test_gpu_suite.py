"""The script for a borrowed GPU: its plan fits the time, and every stage of it runs, here on a CPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny_data import draw

from segkc_deploy.data.partitions import partitions
from segkc_deploy.engines import ENGINES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu_suite.sh"
STAGES = ["tests", "throughput", "study", "export", "benchmark"]


def run(camvid: Path, out: Path, **settings: str) -> str:
    """Run the script and return what it prints."""
    environment = os.environ | {"PYTHON": sys.executable} | settings
    done = subprocess.run(
        [SCRIPT, camvid, out], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_plan_holds_every_stage_within_the_time(tmp_path: Path) -> None:
    plan = run(tmp_path, tmp_path / "out", PLAN="1").splitlines()
    assert [line.partition(":")[0] for line in plan] == STAGES
    seconds = [int(re.findall(r"(\d+) s\b", line)[0]) for line in plan]
    assert all(count >= 60 for count in seconds)
    assert sum(seconds) <= 9 * 60  # a command may take ten minutes
    only = run(tmp_path, tmp_path / "out", PLAN="1", STAGES="study export", MINUTES="5").splitlines()
    assert [line.partition(":")[0] for line in only] == ["study", "export"]
    assert "study: 210 s" in only[0]


def test_what_the_plan_names_exists(tmp_path: Path) -> None:
    plan = dict(line.split(": ", 1) for line in run(tmp_path, tmp_path / "out", PLAN="1").splitlines())
    rows = yaml.safe_load((ROOT / "benchmarks/studies/camvid-gpu.yaml").read_text())["rows"]
    written = re.findall(r"throughput/([\w-]+)\.yaml\" <<", SCRIPT.read_text())
    assert set(plan["throughput"].split(": ")[1].split()) <= {*rows, *written}
    engines, precisions = (part.split() for part in plan["export"].split(": ")[1].split("; "))
    assert set(engines) == set(ENGINES)
    assert set(precisions) == {name for entry in ENGINES.values() for name in entry.precisions}


def write_camvid(root: Path) -> Path:
    """Draw as many images as the shipped lists name, with their names."""
    rng = np.random.default_rng(0)
    for part, names in (("train", partitions("camvid")["1/2"]), ("val", ["a", "b", "c"])):
        for folder in ("images", "masks"):
            (root / folder / part).mkdir(parents=True)
        for name in names:
            image, mask = draw(rng)
            cv2.imwrite(str(root / "images" / part / f"{name}.jpg"), image[..., ::-1])
            cv2.imwrite(str(root / "masks" / part / f"{name}.png"), mask)
    return root


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_stage_runs_on_a_cpu(tmp_path: Path) -> None:
    """A rehearsal of the whole script, with networks, images, tests and times of the smallest size."""
    common = {
        "junior": {"backbone": "mobilenetv4_conv_small_035", "decoder_channels": 16},
        "senior": {"backbone": "resnet10t", "decoder_channels": 16},
        "crop_size": [32, 64],
        "batch": {"labeled": 2, "unlabeled": 2},
        "schedule": {"steps": 4, "warmup_steps": 0},
        "validation": {"every": 4, "size": [32, 64]},
        "precision": "fp32",
    }
    out = tmp_path / "out"
    printed = run(
        write_camvid(tmp_path / "camvid"),
        out,
        DEVICE="cpu",
        MINUTES="55",
        WORKERS="2",
        ONLY="row=segkc,row=supervised,labels=1/8,seed=0",
        COMMON=yaml.safe_dump(common, default_flow_style=True, width=1000),
        TESTS="tests/runtime/test_metrics.py",
        THROUGHPUT="supervised",
        THROUGHPUT_STEPS="4",
        ENGINES="onnx",
        PRECISIONS="fp32",
        SECONDS_A_LATENCY="0.05",
        SECONDS_SUSTAINED="0",
        OMP_NUM_THREADS="1",
    )
    assert [line for line in printed.splitlines() if line.startswith("== ")][-1].startswith("== done")
    assert "passed" in (out / "tests.log").read_text()
    rates = json.loads((out / "throughput.json").read_text())["rows"]
    assert {(row["run"], row["trainings_at_once"]) for row in rates} == {
        ("supervised", 1),
        ("supervised-1_8-seed0", 2),
        ("segkc-1_8-seed0", 2),
    }
    study = json.loads((out / "camvid-gpu.json").read_text())
    assert {row["row"] for row in study} == {"segkc", "supervised"}
    assert (out / "artifacts/onnx/junior-fp32.onnx").is_file()
    latencies = json.loads((out / "gpu-latency.json").read_text())
    artifacts = [row for row in latencies if row["role"] == "artifact"]
    assert artifacts
    assert all(row["engine"].startswith("onnxruntime") for row in artifacts)
    assert (out / "report/index.html").is_file()
