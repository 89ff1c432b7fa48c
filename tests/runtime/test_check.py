"""`segkc-deploy check`: every kind of mistake is found, named and counted, and the exit code says how bad it is."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blocks, write_image, write_mask, write_pairs, write_spec
from PIL import Image
from typer.testing import CliRunner

from segkc_deploy.cli.app import app
from segkc_deploy.cli.check import check as _registered  # noqa: F401  (adds itself to the application)
from segkc_deploy.data.check import CheckReport, Finding, check
from segkc_deploy.data.spec import load_data_spec

SPEC = """
classes: [road, sky, tree]
labeled: {images: images/train, masks: masks/train, ids: few.txt}
val: {images: images/val, masks: masks/val}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pairs(tmp_path, "train", ["t0", "t1", "t2", "t3"], [0, 1, 2, 255])
    write_pairs(tmp_path, "val", ["v0", "v1"], [0, 1, 2, 255], seed=100)
    (tmp_path / "few.txt").write_text("t0\nt1\n")
    write_spec(tmp_path, SPEC)
    return tmp_path


def _check(root: Path) -> CheckReport:
    return check(load_data_spec(root / "data.yaml").resolve(allow_missing_masks=True), workers=2)


def _only_finding(root: Path) -> Finding:
    (finding,) = _check(root).findings
    return finding


def test_a_clean_data_set_has_figures_and_no_findings(root: Path) -> None:
    write_mask(root / "masks/train/t1.png", [0])
    report = _check(root)
    assert report.findings == ()
    labeled, unlabeled, val = report.sets
    assert [one.name for one in report.sets] == ["labeled", "unlabeled", "val"]
    assert [(one.images, one.masks) for one in report.sets] == [(2, 2), (2, 0), (2, 2)]
    quarter = 32 * 48 // 4
    assert labeled.class_pixels == (quarter + 32 * 48, quarter, quarter)
    assert labeled.class_images == (2, 1, 1)
    assert labeled.ignored_pixels == quarter
    assert unlabeled.class_pixels == (0, 0, 0)
    assert val.class_pixels == (2 * quarter,) * 3


def test_sizes_are_summed_up(root: Path) -> None:
    for index, (height, width) in enumerate([(16, 16), (64, 64)]):
        write_image(root / f"images/train/t{index}.png", seed=200 + index, height=height, width=width)
        write_mask(root / f"masks/train/t{index}.png", [0, 1, 2], height, width)
    (root / "few.txt").write_text("t0\nt1\nt2\n")
    sizes = _check(root).sets[0].sizes
    assert sizes is not None
    assert (sizes.smallest, sizes.median, sizes.largest, sizes.distinct) == ((16, 16), (32, 48), (64, 64), 3)


def test_pixels_are_counted_after_the_mapping(root: Path) -> None:
    write_spec(root, SPEC + "label_mapping: {2: 1, 255: 2}\n")
    quarter = 2 * 32 * 48 // 4
    labeled = _check(root).sets[0]
    assert labeled.class_pixels == (quarter, 2 * quarter, quarter)
    assert labeled.ignored_pixels == 0
    write_spec(root, SPEC + "label_mapping: {2: 1}\n")
    assert _check(root).sets[0].class_images == (2, 2, 0)


def test_ids_outside_the_classes(root: Path) -> None:
    path = write_mask(root / "masks/train/t0.png", [0, 1, 2, 7])
    write_mask(root / "masks/val/v1.png", [0, 1, 2, 8])
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("error", "unknown-ids")
    assert "the masks hold 7, 8, neither a class (0-2) nor ignore_index 255" in finding.message
    assert finding.files[0] == f"{path}: 7 (384 pixels)"
    assert len(finding.files) == 2


def test_missing_masks(root: Path) -> None:
    (root / "masks/val/v1.png").unlink()
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("error", "missing-mask")
    assert finding.files == (str(root / "images/val/v1.png"),)


def test_sizes_that_differ(root: Path) -> None:
    write_mask(root / "masks/val/v1.png", [0, 1, 2], height=16)
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("error", "size-mismatch")
    assert f"{root}/masks/val/v1.png: the mask is 48x16 pixels" in finding.files[0]


def test_unreadable_images_and_masks(root: Path) -> None:
    for path in ("images/train/t3.png", "masks/train/t1.png"):
        (root / path).write_bytes((root / path).read_bytes()[:60])
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("error", "unreadable")
    assert [line.split(":")[0] for line in finding.files] == [
        f"{root}/masks/train/t1.png",
        f"{root}/images/train/t3.png",
    ]


def test_a_picture_of_both_labeled_and_val_is_found_in_another_format(root: Path) -> None:
    Image.fromarray(blocks(0)).save(root / "images/val/v0.png")
    (root / "images/val/v0.png").rename(root / "v0.png")
    Image.open(root / "v0.png").save(root / "images/val/v0.bmp")
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("error", "labeled-in-val")
    assert finding.files == (f"{root}/images/train/t0.png = {root}/images/val/v0.bmp",)


def test_a_picture_of_both_unlabeled_and_val_is_a_warning(root: Path) -> None:
    (root / "images/val/v0.png").write_bytes((root / "images/train/t2.png").read_bytes())
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("warning", "unlabeled-in-val")
    assert finding.files == (f"{root}/images/train/t2.png = {root}/images/val/v0.png",)


def test_a_picture_of_both_unlabeled_and_labeled_is_a_warning(root: Path) -> None:
    Image.open(root / "images/train/t0.png").save(root / "images/train/t3.bmp")
    (root / "images/train/t3.png").unlink()
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("warning", "unlabeled-in-labeled")
    assert finding.files == (f"{root}/images/train/t3.bmp = {root}/images/train/t0.png",)


def test_masks_of_0_and_255(root: Path) -> None:
    write_spec(root, SPEC.replace("[road, sky, tree]", "[background, crack]"))
    for path in (root / "masks").rglob("*.png"):
        write_mask(path, [0, 255])
    report = _check(root)
    kinds = [(finding.level, finding.kind) for finding in report.findings]
    assert kinds == [("error", "zero-and-255")] * 2 + [("warning", "never-labeled")] * 2
    assert "add `label_mapping: {255: 1}`" in report.findings[0].message

    write_spec(root, SPEC.replace("[road, sky, tree]", "[background, crack]") + "label_mapping: {255: 1}\n")
    assert _check(root).findings == ()


def test_class_0_and_ignored_colors_alone_are_no_0_and_255(root: Path) -> None:
    colors = "classes: {road: [128, 64, 128], sky: [70, 130, 180]}\nignore_colors: [[0, 0, 0]]\n"
    write_spec(root, colors + SPEC.replace("classes: [road, sky, tree]", ""))
    for path in (root / "masks").rglob("*.png"):
        mask = np.zeros((32, 48, 3), np.uint8)
        mask[:16] = (128, 64, 128)
        Image.fromarray(mask).save(path)
    kinds = [(finding.level, finding.kind) for finding in _check(root).findings]
    assert kinds == [("warning", "never-labeled")] * 2


def test_some_masks_of_0_and_255_are_a_warning(root: Path) -> None:
    path = write_mask(root / "masks/train/t1.png", [0, 255])
    finding = _only_finding(root)
    assert (finding.level, finding.kind, finding.files) == ("warning", "zero-and-255", (str(path),))


def test_classes_that_are_never_labeled(root: Path) -> None:
    for path in (root / "masks/train").iterdir():
        write_mask(path, [0, 2])
    finding = _only_finding(root)
    assert (finding.level, finding.kind) == ("warning", "never-labeled")
    assert finding.message == "classes that no labeled mask holds, and so cannot be learned from labels: sky"


def _run(root: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", "--data", str(root / "data.yaml"), *options])
    return result.exit_code, result.output


def test_the_command_prints_tables_and_exits_with_0(root: Path) -> None:
    code, output = _run(root)
    assert code == 0
    assert "unlabeled" in output
    assert " 33.33% " in output
    assert "no errors, 0 warnings" in output


def test_the_command_names_ten_files_and_exits_with_2(root: Path) -> None:
    names = [f"t{index:02d}" for index in range(14)]
    write_pairs(root, "train", names, [0, 1, 2, 9], seed=300)
    (root / "few.txt").write_text("\n".join(names))
    code, output = _run(root, "--workers", "1", "--json", str(root / "report.json"))
    assert code == 2
    assert "values outside the classes: the masks hold 9" in output
    assert output.count(": 9 (384 pixels)") == 10
    assert "… and 4 more" in output
    assert "1 error, 0 warnings" in output
    report = json.loads((root / "report.json").read_text())
    assert (report["errors"], report["warnings"]) == (1, 0)
    assert len(report["findings"][0]["files"]) == 14
    assert report["sets"][0]["class_pixels"] == [14 * 384] * 3


def test_the_command_exits_with_0_on_warnings(root: Path) -> None:
    write_mask(root / "masks/train/t1.png", [0, 255])
    code, output = _run(root)
    assert code == 0
    assert "no errors, 1 warning" in output


def test_masks_in_which_everything_is_ignored(root: Path) -> None:
    for path in (root / "masks").rglob("*.png"):
        write_mask(path, [255])
    code, output = _run(root)
    assert code == 2
    assert "every pixel of every labeled mask is ignored; check label_mapping" in output
    assert "every pixel of every val mask is ignored; check label_mapping" in output
