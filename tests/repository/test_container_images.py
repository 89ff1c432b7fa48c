"""The container images, as far as they can be judged without Docker."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
IMAGES = ("runtime", "runtime-gpu", "training")


def instructions(image: str) -> list[tuple[str, str]]:
    """Return the (name, arguments) of a Dockerfile's instructions, continued lines joined."""
    text = (ROOT / f"docker/{image}.Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def last_stage(image: str) -> list[tuple[str, str]]:
    found = instructions(image)
    return found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]


def pins(image: str) -> dict[str, list[str]]:
    """Return each pinned package with its hashes."""
    text = (ROOT / f"docker/requirements/{image}.txt").read_text().replace("\\\n", " ")
    lines = [line.split(" --hash=") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = {}
    for pin, *hashes in lines:
        name, version = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.!+-]+)( ;.*)?", pin.strip()).groups()[:2]  # type: ignore[union-attr]
        assert version
        found[name.lower()] = [one.strip() for one in hashes]
    return found


def test_every_dockerfile_is_tested() -> None:
    assert {path.stem for path in (ROOT / "docker").glob("*.Dockerfile")} == set(IMAGES)
    workflow = yaml.safe_load((ROOT / ".github/workflows/images.yml").read_text())
    assert workflow["jobs"]["build"]["strategy"]["matrix"]["image"] == list(IMAGES)


@pytest.mark.parametrize("image", IMAGES)
def test_bases_are_pinned_to_a_patch_release(image: str) -> None:
    bases = [arguments.split()[0] for name, arguments in instructions(image) if name == "FROM"]
    assert bases
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_runs_as_root(image: str) -> None:
    stage = last_stage(image)
    users = [index for index, (name, _) in enumerate(stage) if name == "USER"]
    assert [stage[index][1] for index in users] == ["10001"]
    assert any("useradd --uid 10001 --create-home segkc" in arguments for _, arguments in stage[: users[0]])
    assert not [name for name, _ in stage[users[0] :] if name in {"RUN", "COPY", "ADD"}]


@pytest.mark.parametrize("image", IMAGES)
def test_everything_installed_is_pinned_by_its_hash(image: str) -> None:
    installs = [arguments for name, arguments in last_stage(image) if "pip install" in arguments]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "--no-deps /wheels/" in installs[1]
    found = pins(image)
    assert all(hashes and all(one.startswith("sha256:") for one in hashes) for hashes in found.values())
    tested = [Requirement(line) for line in (ROOT / "docker/requirements/tested.txt").read_text().splitlines()[1:]]
    assert {one.name for one in tested} & set(found)


@pytest.mark.parametrize("image", IMAGES)
def test_what_the_package_needs_is_there_and_what_an_image_is_spared_is_not(image: str) -> None:
    found = set(pins(image))
    assert {"numpy", "opencv-python-headless", "pydantic", "typer", "fastapi", "uvicorn", "av"} <= found
    assert "opencv-python" not in found
    assert ("onnxruntime" in found, "onnxruntime-gpu" in found) == ((image == "runtime"), (image != "runtime"))
    training = {"torch", "timm", "lightning", "onnx"}
    assert found & training == (training if image == "training" else set())
    assert any(name.startswith("nvidia-cudnn") for name in found) == (image != "runtime")


@pytest.mark.parametrize("image", ["runtime", "runtime-gpu"])
def test_a_service_has_a_health_check_of_a_path_that_exists(image: str) -> None:
    (check,) = [arguments for name, arguments in last_stage(image) if name == "HEALTHCHECK"]
    assert "http://127.0.0.1:8000/ready" in check
    assert '"/ready"' in (ROOT / "segkc_deploy/serve/app.py").read_text()


def test_the_build_gets_what_the_wheel_is_made_of() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "segkc_deploy", "training", "export", "benchmarks", "README.md", "LICENSE"} <= kept
