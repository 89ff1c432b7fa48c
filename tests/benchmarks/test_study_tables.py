"""Tables of a study that say what its seeds allow to say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_examples import MACHINE, made_row, made_rows

from segkc_deploy.benchmarks.report.seeds import PairedDifference, paired
from segkc_deploy.benchmarks.studies.merged_classes import merged_miou
from segkc_deploy.benchmarks.studies.method_tables import main as tables_main
from segkc_deploy.benchmarks.studies.method_tables import study_text
from segkc_deploy.benchmarks.studies.study import load_study
from segkc_deploy.benchmarks.studies.study_rows import append_rows, read_rows, replace_rows
from segkc_deploy.benchmarks.studies.tables import study_table
from segkc_deploy.errors import ConfigError, UserError

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"


def test_rows_replace_those_of_the_same_cell(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    append_rows(path, [*made_rows("segkc", [30, 31], [35]), made_row(study="other", miou=1)])
    merged = replace_rows(path, [made_row(miou=40), made_row(seed=2)], lambda row: (row.study, row.role, row.seed))
    found = [(row.study, row.role, row.seed, row.miou) for row in merged]
    assert found == [
        ("made", "junior", 0, 40),
        ("made", "junior", 1, 31),
        ("made", "junior", 2, 30),
        ("made", "senior", 0, 35),
        ("other", "junior", 0, 1),
    ]
    assert read_rows(path) == merged


@pytest.mark.parametrize(
    ("values", "significance"),
    [
        ((1.5, 2.0, 2.5), "outside"),  # mean 2, standard error 0.5 / √3 = 0.289, times 4.303 = 1.24
        ((1.0, 2.0, 3.0), "within"),  # one sign; mean 2, standard error 0.577, times 4.303 = 2.48
        ((1.0, 2.0, 3.0, 2.0), "outside"),  # mean 2, standard error 0.408, times 3.182 = 1.30
        ((-1.5, -2.0, -2.5), "outside"),
        ((*[1.0, 3.0] * 6,), "outside"),  # mean 2, standard error 0.302
        ((-0.1, 5.0, 5.0, 5.0, 5.0, 5.0), "within"),  # mean 4.15, standard error 0.85, but one seed speaks against it
        ((0.0, 0.0, 0.0), "within"),
        ((9.0, 9.0), "not judged"),
        ((9.0,), "not judged"),
    ],
)
def test_the_rule_by_which_a_difference_is_judged(values: tuple[float, ...], significance: str) -> None:
    assert PairedDifference(values).significance == significance


def test_a_share_of_the_headroom_has_an_interval_from_three_seeds_on() -> None:
    rows = [
        *made_rows("supervised", [20, 22, 24]),
        *made_rows("segkc", [30, 31, 33.5]),
        *made_rows("supervised", [40, 42, 44], labels="full"),
    ]
    # 10, 9 and 9.5 of 20 points; 9.5 ± 4.303 · 0.5 / √3.
    assert (
        "| segkc, 1/8 | 3 | 31.50 ± 1.80 | +9.50 ± 0.50 (outside) | +8.3 to +10.7 | 48% |"
        in study_text(rows).splitlines()
    )
    assert "Headroom" not in study_text(rows[:-3])


def test_minutes_are_given_with_the_processors_time() -> None:
    rows = [*made_rows("supervised", [20, 22], seconds=120.0, processor_seconds=90.0), *made_rows("segkc", [30, 31])]
    text = study_text(rows)
    assert "| minutes (of the processor) |" in text
    assert "| 2.0 (1.5) |" in text
    assert "of the processor" not in study_text(made_rows("supervised", [20, 22]))


def test_minutes_are_not_averaged_over_different_processors() -> None:
    usual = made_rows("supervised", [20, 22], seconds=120.0)
    slow = MACHINE | {"cpu_features": ["AVX2"]}
    other = made_row(row="supervised", miou=24, seed=2, seconds=600.0, machine=slow)
    text = study_text([*usual, other])
    assert "| 2.0 |" in text and "0: 20.00, 1: 22.00, 2: 24.00" in text
    assert "on the machine that trained most" in text
    assert "machine: test, 1 core, 1.0 GiB, no GPU or test (AVX2), 1 core, 1.0 GiB, no GPU;" in text
    assert "on the machine that trained most" not in study_text(usual)


def test_merged_classes_by_hand() -> None:
    """Classes a, b, c with b counted as a: the pixels that b and a confuse become right."""
    confusion = np.array([[5, 2, 1], [3, 4, 0], [1, 0, 9]])
    # a: 14 right of 14 + 1 + 1; c: 9 of 9 + 1 + 1.
    assert merged_miou(confusion, ["a", "b", "c"], {"a": ["b"]}) == pytest.approx(50 * (14 / 16 + 9 / 11))
    assert merged_miou(confusion, ["a", "b", "c"], {}) == pytest.approx(100 / 3 * (5 / 12 + 4 / 9 + 9 / 11))
    with pytest.raises(ConfigError, match="merge: no class 'd'; the classes are a, b, c"):
        merged_miou(confusion, ["a", "b", "c"], {"a": ["d"]})
    text = study_text([*made_rows("supervised", [20, 22], miou_merged=40.0, merged={"a": ["b", "c"]})])
    assert "| junior mIoU, merged classes |" in text
    assert "| 40.00 ± 0.00 |" in text
    assert "- merged classes: b, c as a" in text


def test_differences_are_paired_by_seed() -> None:
    assert paired({0: 3.0, 1: 5.0, 4: 9.0}, {1: 4.5, 0: 1.0, 2: 7.0}) == PairedDifference((2.0, 0.5))
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_a_lucky_seed_is_not_the_best_method() -> None:
    rows = [
        *made_rows("supervised", [20, 22, 24]),
        *made_rows("fixmatch", [26, 27, 28]),
        *made_rows("fixmatch-0", [40]),
        *made_rows("segkc", [30, 31, 33.5], [34, 35, 36]),
    ]
    assert "Best method of one network: fixmatch. segkc − fixmatch: +4.50 ± 0.87 (outside)." in study_text(rows)


def test_tables_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        *made_rows("supervised", [20, 22, 24], seconds=60.0),
        *made_rows("fixmatch", [26, 27, 28]),
        *made_rows("unimatch-v2", [27, 28, 29.6]),
        *made_rows("segkc", [30, 31, 33.5], [34, 35, 36]),
        *made_rows("segkc-no-gate", [29, 32], [34, 35]),
        *made_rows("supervised", [40, 41], labels="full"),
        *made_rows("segkc", [44], [45], labels="full", commit="abc, def"),  # it was interrupted
    ]
    path = tmp_path / "made.json"
    append_rows(path, rows)
    assert tables_main([str(path)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    # Differences of segkc to supervised 10, 9, 9.5; to unimatch-v2 3, 3, 3.9; to its senior -4, -4, -2.5.
    for line in (
        "| supervised | 22.00 ± 2.00 | 0: 20.00, 1: 22.00, 2: 24.00 | – | -9.50 ± 0.50 (outside) | 31.00 ± 0.00 | – | –"
        " | 1.0 |",
        "| segkc | 31.50 ± 1.80 | 0: 30.00, 1: 31.00, 2: 33.50 | +9.50 ± 0.50 (outside) | – | 31.00 ± 0.00"
        " | 35.00 ± 1.00 | -3.50 ± 0.87 (outside) | 1.5 |",
        "Best method of one network: unimatch-v2. segkc − unimatch-v2: +3.30 ± 0.52 (outside).",
        # With full labels seeds 0 and 1 alone: 20 and 19 points of headroom, of which segkc gains 10 and 9.
        "| supervised, 1/8 | 2 | 21.00 ± 1.41 | – | – | – |",
        "| supervised, full | 2 | 40.50 ± 0.71 | +19.50 ± 0.71 (not judged) | – | 100% |",
        "| segkc, 1/8 | 2 | 30.50 ± 0.71 | +9.50 ± 0.71 (not judged) | – | 49% |",
        "| segkc-no-gate, 1/8 | 2 | 30.50 ± 2.12 | +9.50 ± 0.71 (not judged) | – | 49% |",
        "| row (number of seeds) | 1/8 | full |",
        "| supervised | 22.00 ± 2.00 (3) | 40.50 ± 0.71 (2) |",
        "| segkc − supervised | +9.50 ± 0.50 (outside) | +4.00 (not judged) |",
        # Seeds 0 and 1: -1 and +1.
        "| segkc-no-gate | 30.50 ± 2.12 | 0: 29.00, 1: 32.00 | +0.00 ± 1.41 (not judged) | 31.00 ± 0.00"
        " | 34.50 ± 0.71 | -4.00 ± 1.41 (not judged) | 1.5 |",
        "- 900 steps; per step 4 labeled images, and 4 unlabeled ones where a method uses them; crops 192×256; scored"
        " at network input 352×480",
        "- junior of every row: mobilenet + fpn 64, random weights (0.56M)",
        "- senior: resnet18 + fpn 64, random weights (11.42M) (segkc, segkc-no-gate)",
        "- machine: test, 1 core, 1.0 GiB, no GPU; threads of a training: 1",
        "- code: commit abc, def",
        "- command: `python -m segkc_deploy.benchmarks.studies made.yaml`",
    ):
        assert line in lines
    methods, _, ablations = text.partition("## Ablations")
    assert "segkc-no-gate" not in methods.partition("## Methods")[2].partition("## Headroom")[0]
    assert "fixmatch" not in ablations
    with pytest.raises(UserError, match=r"no\.json"):
        tables_main([str(tmp_path / "no.json")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 1000}, "steps is 900 in row segkc, labels 1/8, seed 0, but 1000 in row cps, labels 1/8, seed 0"),
        ({"crop_size": [96, 96]}, "crop_size is"),
        (
            {"settings": {"precision": "fp32", "weak": {"flip": 0.25}}},
            "weak.flip is 0.5 in row segkc, labels 1/8, seed 0, but 0.25 in row cps, labels 1/8, seed 0",
        ),
        ({"settings": {"precision": "fp32"}}, "weak is {'scale': [0.5, 2.0], "),
        ({"settings": {"weak": {"twist": 1}}}, "row cps, labels 1/8, seed 0: this version cannot read weak.twist"),
        ({"settings": {"wake": {}}}, "row cps, labels 1/8, seed 0: studies of this version have no setting wake"),
        ({"settings": None}, "row cps, labels 1/8, seed 0: not a training of a study of methods"),
        ({"network": "other"}, "network is"),
        ({"images": {"labeled": 46, "unlabeled": 321, "val": 101, "sha256": "other"}}, "images is"),
        ({"images": None}, "row cps, labels 1/8, seed 0: not a training of a study of methods"),
    ],
)
def test_rows_of_different_trainings_make_no_table(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        study_text([made_row(), made_row(row="cps", **changes)])
    assert message in str(error.value)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_rows(path: Path) -> None:
    results = STUDIES.parent / "results" / f"{path.stem}.json"
    tables = results.with_suffix(".md")
    assert results.is_file() == tables.is_file()
    if results.is_file():
        rows = read_rows(results)
        # A study of several juniors has no rows that are compared in pairs.
        several = "junior" in load_study(path).compared
        text = f"### {path.stem}\n\n{study_table(rows)}" if several else study_text(rows)
        assert text + "\n" == tables.read_text()  # as printed
