"""Who may import whom: the runtime needs none of the other folders, and they import only what the table allows."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "segkc_deploy"
ROOT = Path(__file__).resolve().parents[2]
LINKED = ("training", "export", "benchmarks")

#: Libraries that a device does not have; the runtime and its command line work without them.
ABSENT_LIBRARIES = ("torch", "torchvision", "timm", "lightning", "safetensors", "onnx", "onnxscript", "onnxslim")

#: Runs artifacts that are PyTorch's own, and imports it when it has one to run.
TORCH_RUNNER = f"{PACKAGE}.runners.aoti_runner"

#: What each folder may import of the package, besides itself. `segkc_deploy` stands for the runtime alone.
ALLOWED = {
    "training": (),
    "export": ("training.models", "training.files.network_file", "training.data"),
    # A study of methods asks by a recipe and reads the run; the training itself is a process of its own.
    "benchmarks": (
        "export",
        "training.data.augment",  # what the study of training speed times
        "training.data.decoded_cache",
        "training.distributed",  # what the study of scaling times
        "training.methods.base",
        "training.methods.registry",
        "training.models.spec",
        "training.published",
        "training.recipe",
        "training.recipe_file",
        "training.files.run_directory",
    ),
}


#: The rooms of `benchmarks/`, each of which may import those before it. Nothing of the product imports `studies`.
ROOMS = (
    "schema", "options", "targets", "store", "measure", "roofline", "interleaved", "report", "regression", "suite",
    "studies",
)  # fmt: skip
MOST_ARROWS_BETWEEN_ROOMS = 35


@dataclass(frozen=True)
class Import:
    """One imported name: the importing module, what is imported, its line, and when.

    `when` is `start` (the module is imported), `call` (a function runs) or `types` (only a type checker looks).
    """

    importer: str
    target: str
    line: int
    when: str

    def __str__(self) -> str:
        return f"{self.importer} line {self.line} imports {self.target}"


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every module of the package, by the name under which it is imported, and its file."""
    for folder, prefix in ((root / PACKAGE, PACKAGE), *((root / name, f"{PACKAGE}.{name}") for name in LINKED)):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if folder.name == PACKAGE and parts[0] in LINKED:
                continue  # reached through the link
            yield ".".join((prefix, *parts)), path


def imports(root: Path) -> Iterator[Import]:
    for name, path in modules(root):
        yield from _imports_of(name, ast.parse(path.read_bytes()), "start")


def _imports_of(name: str, node: ast.AST, when: str) -> Iterator[Import]:
    importer = name.removesuffix(".__init__")
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(importer, alias.name, node.lineno, when)
    elif isinstance(node, ast.ImportFrom):
        # `from a.b import c` is an arrow to a.b.c, since c may be a module.
        package = name.split(".")[: -node.level] if node.level else []
        module = ".".join([*package, *([node.module] if node.module else [])])
        for alias in node.names:
            yield Import(importer, f"{module}.{alias.name}", node.lineno, when)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        when = "call"
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        when = "types"
    for child in ast.iter_child_nodes(node):
        yield from _imports_of(name, child, when)


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def area(module: str) -> str:
    """Return the folder a module belongs to: one of `LINKED`, or `segkc_deploy` for the runtime."""
    return next((name for name in LINKED if within(module, f"{PACKAGE}.{name}")), PACKAGE)


def forbidden(arrow: Import) -> bool:
    if within(arrow.target, *LINKED):
        return True  # the top-level folder itself, which would be a second module object
    if area(arrow.importer) == PACKAGE:
        elsewhere = within(arrow.target, *ABSENT_LIBRARIES) or area(arrow.target) != PACKAGE
        allowed = within(arrow.importer, f"{PACKAGE}.cli") or (
            arrow.importer == TORCH_RUNNER and within(arrow.target, "torch")
        )
        return elsewhere and not (arrow.when == "call" and allowed)
    if area(arrow.target) in (PACKAGE, area(arrow.importer)):
        return False
    return not within(arrow.target, *(f"{PACKAGE}.{name}" for name in ALLOWED[area(arrow.importer)]))


def violations(root: Path) -> list[str]:
    return [str(arrow) for arrow in imports(root) if forbidden(arrow)]


def test_every_import_is_allowed():
    assert violations(ROOT) == []


def test_the_scan_sees_the_whole_package():
    seen = {name for name, _ in modules(ROOT)}
    assert {f"{PACKAGE}.__init__", f"{PACKAGE}.predictor", f"{PACKAGE}.cli.predict"} <= seen
    assert {f"{PACKAGE}.{name}.__init__" for name in LINKED} <= seen
    assert f"{PACKAGE}.training.models.__init__" in seen
    assert len(seen) == len(list(modules(ROOT)))


def test_no_module_is_named_like_a_library_that_is_used():
    used = {arrow.target.split(".")[0] for arrow in imports(ROOT)} - {PACKAGE, "__future__"}
    assert {"numpy", "cv2"} <= used
    assert [str(path.relative_to(ROOT)) for _, path in modules(ROOT) if path.stem in used] == []
    assert [name for name in (*LINKED, PACKAGE) if name in sys.stdlib_module_names] == []


def test_commands_import_nothing_heavy_at_their_top():
    """`segkc-deploy --help` imports every command, and has to answer at once."""
    own = [f"{PACKAGE}.{name}" for name in ("cli", "engines", "error_messages", "errors", "prediction_record")]
    light = ("typer", *own, *sys.stdlib_module_names)
    tops = [arrow for arrow in imports(ROOT) if within(arrow.importer, f"{PACKAGE}.cli") and arrow.when == "start"]
    assert len(tops) > 10
    assert [str(arrow) for arrow in tops if not within(arrow.target, *light)] == []


def room_arrows(root: Path) -> set[tuple[str, str]]:
    """Return the arrows (importing room, imported room) between the rooms of `benchmarks/`."""
    prefix = f"{PACKAGE}.benchmarks."
    pairs = {
        (arrow.importer.removeprefix(prefix).split(".")[0], arrow.target.removeprefix(prefix).split(".")[0])
        for arrow in imports(root)
        if arrow.importer.startswith(prefix) and arrow.target.startswith(prefix)
    }
    return {(importer, target) for importer, target in pairs if importer != target}


def test_the_rooms_of_benchmarks_import_downwards_only():
    arrows = room_arrows(ROOT)
    assert {room for arrow in arrows for room in arrow} == set(ROOMS)
    assert sorted(arrow for arrow in arrows if ROOMS.index(arrow[0]) < ROOMS.index(arrow[1])) == []
    assert len(arrows) <= MOST_ARROWS_BETWEEN_ROOMS


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return the modules that each module imports, at its start or in a function."""
    names = {name.removesuffix(".__init__") for name, _ in modules(root)}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for arrow in imports(root):
        target = arrow.target if arrow.target in names else arrow.target.rpartition(".")[0]
        if target in names and target != arrow.importer and arrow.when != "types":
            graph[arrow.importer].add(target)
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import circle in the order of their imports; none if there is no circle."""
    finished: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module not in finished:
            for target in sorted(graph[module]):
                if found := search(target, [*path, module]):
                    return found
            finished.add(module)
        return []

    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def test_no_modules_import_each_other():
    assert circle(import_graph(ROOT)) == []


def test_a_circle_is_found(tmp_path):
    plant(tmp_path, "training/loop.py", "from segkc_deploy.training import steps")
    (tmp_path / "training/steps.py").write_text("def f():\n    from segkc_deploy.training.losses import g")
    (tmp_path / "training/losses.py").write_text("import segkc_deploy.training.loop")
    loop, losses, steps = (f"{PACKAGE}.training.{name}" for name in ("loop", "losses", "steps"))
    assert circle(import_graph(tmp_path)) == [loop, steps, losses]


@pytest.mark.parametrize(
    ("file", "code", "target"),
    [
        ("segkc_deploy/metrics.py", "import torch", "torch"),
        ("segkc_deploy/metrics.py", "def f():\n    import torch.nn", "torch.nn"),
        ("segkc_deploy/runners/aoti_runner.py", "import torch", "torch"),
        ("segkc_deploy/runners/aoti_runner.py", "def f():\n    import timm", "timm"),
        ("segkc_deploy/metrics.py", "if True:\n    from timm import create_model", "timm.create_model"),
        ("segkc_deploy/metrics.py", "from segkc_deploy.training.models import dpt", "segkc_deploy.training.models.dpt"),
        ("segkc_deploy/metrics.py", "from segkc_deploy import export", "segkc_deploy.export"),
        ("segkc_deploy/metrics.py", "from . import benchmarks", "segkc_deploy.benchmarks"),
        ("segkc_deploy/data/masks.py", "from ..training import loop", "segkc_deploy.training.loop"),
        ("segkc_deploy/data/__init__.py", "from ..training import loop", "segkc_deploy.training.loop"),
        ("segkc_deploy/cli/train.py", "import segkc_deploy.training.loop", "segkc_deploy.training.loop"),
        ("training/loop.py", "import export", "export"),
        ("training/loop.py", "from segkc_deploy.export import verify", "segkc_deploy.export.verify"),
        ("training/loop.py", "from ..benchmarks import report", "segkc_deploy.benchmarks.report"),
        ("training/loop.py", "def f():\n    import segkc_deploy.export", "segkc_deploy.export"),
        ("export/verify.py", "from segkc_deploy.training import loop", "segkc_deploy.training.loop"),
        ("export/verify.py", "import segkc_deploy.training", "segkc_deploy.training"),
        (
            "export/verify.py",
            "from segkc_deploy.training.models_of_ours import x",
            "segkc_deploy.training.models_of_ours.x",
        ),
        ("export/verify.py", "import segkc_deploy.benchmarks.report", "segkc_deploy.benchmarks.report"),
        ("benchmarks/report.py", "from segkc_deploy.training.models import dpt", "segkc_deploy.training.models.dpt"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, file, code, target):
    plant(tmp_path, file, code)
    (found,) = violations(tmp_path)
    assert found.endswith(f" imports {target}")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (
            "segkc_deploy/metrics.py",
            "import numpy\nfrom segkc_deploy.labels import Labels\nfrom .errors import DataError",
        ),
        ("segkc_deploy/cli/train.py", "def train():\n    from segkc_deploy.training.loop import run\n    import torch"),
        ("segkc_deploy/runners/aoti_runner.py", "def f():\n    import torch._inductor"),
        (
            "training/methods/segkc.py",
            "import torch, timm\nfrom ..models import dpt\nfrom segkc_deploy.labels import Labels",
        ),
        ("export/verify.py", "from segkc_deploy.training.models.dpt import DPT\nfrom .to_onnx import export_onnx"),
        ("export/verify.py", "from segkc_deploy.training.files.network_file import load_network"),
        ("benchmarks/report.py", "from segkc_deploy.export.torch_runner import TorchRunner"),
    ],
)
def test_an_allowed_import_is_not_reported(tmp_path, file, code):
    plant(tmp_path, file, code)
    assert violations(tmp_path) == []
    assert list(imports(tmp_path)), "nothing was scanned"


def plant(root: Path, file: str, code: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
