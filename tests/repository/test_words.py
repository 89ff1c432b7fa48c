"""One word for one thing: names that were replaced do not come back. CONTRIBUTING.md has the table of words."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("segkc_deploy", "training", "export", "benchmarks", "tests", "docs")
SUFFIXES = (".py", ".md", ".yaml", ".html", ".js", ".sh", ".cpp")

#: What may name an old word: this list, the readers of files that earlier versions wrote, and committed results, which
#: are data.
EXEMPT = (
    "tests/repository/test_words.py",
    "CHANGELOG.md",
    "segkc_deploy/manifest.py",
    "benchmarks/store/old_format.py",
    "tests/benchmarks/test_old_format.py",
    "benchmarks/results/",
)

#: A name that is not used, as a regular expression, and the field's word for it.
WORDS = {
    r"foreign_values": "unknown_ids",
    r"share_done": "progress",
    r"\bread_ahead\b|[Rr]ead-ahead": "prefetch",
    r"runners[./]opening\b": "runner_factory",
    r"\bPrecise\b|\bin_precision\b|\bKeeper\b": "converted graph, convert_precision, FP32 fallback",
    r"\bshortcoming": "failure reason",
    r"ASTRAY|astray": "diverges",
    r"--tail\b|segkc_deploy[./]tail\b|export[./]tail\b": "mask head, --upsampling",
    r"InTurn|PlannedWay|\bin_turn\b|benchmarks[./]turns\b|\bWay\b": "interleaved timing, contender",
    r"UsualPath|usual_paths?\b|\busual ways?\b": "baseline",
    r"\bFloor\b|share of the floor|product_model|torch_products": "roofline bound, matmul_model, torch_matmul",
    r"TurnOrder|PeakOrder|class Order\b": "job, worker config",
    r"OtherLoad|\bother_load\b": "background load",
    r"benchmarks[./]evidence\b|\bHands\b|\bWorkplace\b": "study, parallelism, study directory",
    r"baseline_gate\b|benchmarks[./]gate\b": "regression_gate, artifact_rows",
    r"RowFigure|row_figures|--figures\b": "metric, --list-metrics",
    r"report[./]verdict\b|report[./]choices\b|[Dd]oubtful": "summary, recommendation, unreliable",
    r"\bAlone\b|lone_junior\b": "SingleNetwork",
    r"\bGuidance\b|_taught\b|\.follow\(": "TeacherOutput, _teacher_forward, apply_mixing",
    r"advise_senior|junior_distance": "fuse_into_senior, distillation_loss",
    r"_agree_on_statistics|training[./]ranks\b|LossWindow": "_average_buffers, distributed, MetricAccumulator",
    r"NetworkCard|network_card": "network metadata",
    r"\bthe learners?\b": "online network",
    r"Public are\b|Told are\b|1 for ever\b|not taken apart|gone on with|costs none of the others": "plain English",
    r"the workshop\b|of the workshop\b": "training, export and benchmarks",
}


def files() -> Iterator[Path]:
    """Yield the sources, templates, recipes and pages, each once: not through the links, and no vendored code."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in (*found, *ROOT.glob("*.md")):
        through_a_link = any(parent.is_symlink() for parent in path.parents)
        if not through_a_link and "vendor" not in path.parts and not name_of(path).startswith(EXEMPT):
            yield path


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    """The file's text; in CONTRIBUTING.md without the table that names the words."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^\| use \| not \|\n(?:\|.*\n)+", "", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name_of(path): text_of(path) for path in files()}


@pytest.mark.parametrize(("pattern", "instead"), WORDS.items(), ids=WORDS.values())
def test_a_replaced_name_does_not_come_back(texts: dict[str, str], pattern: str, instead: str) -> None:
    found = [f"{name}: {match[0]}" for name, text in texts.items() for match in re.finditer(pattern, text)]
    assert found == [], f"say {instead}"


def test_the_scan_sees_every_kind_of_file(texts: dict[str, str]) -> None:
    assert {"README.md", "docs/method.md", "segkc_deploy/predictor.py", "training/recipes/segkc-cpu.yaml"} <= set(texts)
    assert not any(name.startswith("segkc_deploy/training/") for name in texts)
