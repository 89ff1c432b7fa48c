"""What is in the wheel and the source archive: real files below one import root, the linked folders included."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
LINKED = ("training", "export", "benchmarks")

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / ".git").exists(), reason="git lists the files to build from, and this is no checkout"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source archive, and the wheel that was built from what is in the archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy_of_sources(folder))]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


def copy_of_sources(folder: Path) -> Path:
    """Copy the tracked and new files, links as links: a build leaves its own files in the tree it works on."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    sources = folder / "sources"
    for name in filter(None, listed.stdout.split("\0")):
        origin, target = REPOSITORY / name, sources / name
        if not origin.exists():  # deleted, not yet committed
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            target.symlink_to(origin.readlink())
        else:
            target.write_bytes(origin.read_bytes())
    return sources


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    """The wheel's files by name."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        assert all(entry.external_attr >> 28 in (0, 0o10) for entry in archive.infolist()), "only plain files"
        return {name: archive.read(name) for name in archive.namelist()}


def sources_of(folder: str) -> set[str]:
    """The files of a top-level folder, as paths below it."""
    found = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(REPOSITORY / folder).as_posix() for path in found}


@pytest.mark.parametrize("folder", LINKED)
def test_the_wheel_holds_the_files_behind_the_links(wheel: dict[str, bytes], folder: str) -> None:
    expected = {
        name for name in sources_of(folder) if PurePosixPath(name).suffix in (".py", ".yaml", ".html", ".css", ".js")
    }
    assert expected
    for name in expected:
        assert wheel[f"segkc_deploy/{folder}/{name}"] == (REPOSITORY / folder / name).read_bytes()


def test_the_wheel_holds_recipes_template_and_type_marker(wheel: dict[str, bytes]) -> None:
    recipes = [name for name in wheel if name.startswith("segkc_deploy/training/recipes/") and name.endswith(".yaml")]
    assert "segkc_deploy/training/recipes/segkc-dinov2-s.yaml" in recipes
    assert any(name.startswith("segkc_deploy/benchmarks/") and name.endswith(".html") for name in wheel)
    assert "segkc_deploy/benchmarks/report/page/vendor/LICENSES" in wheel
    assert "segkc_deploy/py.typed" in wheel


def test_the_wheel_holds_the_partition_lists(wheel: dict[str, bytes]) -> None:
    folder = REPOSITORY / "segkc_deploy/data/lists"
    lists = [path for path in folder.rglob("*") if path.is_file()]
    assert lists
    for path in lists:
        assert wheel[f"segkc_deploy/data/lists/{path.relative_to(folder).as_posix()}"] == path.read_bytes()


def test_the_wheel_has_one_import_root(wheel: dict[str, bytes]) -> None:
    roots = {name.partition("/")[0] for name in wheel}
    assert "segkc_deploy" in roots
    assert [root for root in roots - {"segkc_deploy"} if not root.endswith(".dist-info")] == []


def test_the_wheel_names_its_license_and_command(wheel: dict[str, bytes]) -> None:
    texts = {
        name.partition(".dist-info/")[2]: content.decode() for name, content in wheel.items() if ".dist-info/" in name
    }
    assert "License-Expression: Apache-2.0" in texts["METADATA"]
    assert "Requires-Python: >=3.11" in texts["METADATA"]
    assert "licenses/LICENSE" in texts
    assert "segkc-deploy = segkc_deploy.cli:main" in texts["entry_points.txt"]


def test_the_runtime_imports_from_the_wheel_alone(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    program = (
        "import segkc_deploy, segkc_deploy.predictor, segkc_deploy.training.recipe_file as recipes;"
        "print(segkc_deploy.__file__, *recipes.shipped_recipes())"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    file, *recipes = finished.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert "segkc-dinov2-s" in recipes


def test_the_source_archive_builds_the_same_wheel(built: Path, wheel: dict[str, bytes]) -> None:
    """`build` makes the wheel from the unpacked archive, so the wheel's content proves the archive's."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = [name for name in wheel if name.startswith("segkc_deploy/") and name not in names]
    assert missing == []
    assert {"LICENSE", "pyproject.toml", "README.md"} <= names


@pytest.mark.parametrize("extra", ["none", "train", "export", "openvino", "benchmark"])
def test_the_installation_page_names_what_is_declared(extra: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] if extra == "none" else project["optional-dependencies"][extra]
    names = {Requirement(line).name for line in declared} - {"segkc-deploy", "onnxruntime-gpu"}
    heading = extra if extra == "none" else f"`{extra}`"
    page = (REPOSITORY / "docs" / "install.md").read_text().splitlines()
    (row,) = (line for line in page if line.startswith(f"| {heading} |"))
    listed = {name.strip() for name in row.split("|")[2].split(",")}
    assert {name for name in listed if not name.startswith("`")} == names
