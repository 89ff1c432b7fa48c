"""Roboflow's semantic masks: PNG files beside the images, with `_classes.csv`."""

from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine
from data_helpers import blocks, write_spec
from PIL import Image

from segkc_deploy.data.check import check
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError

VALUES = "Pixel Value, Class\n0, background\n1, road\n2, tree\n"


def export(root: Path, csv: str = VALUES) -> dict[str, np.ndarray]:
    """Write `train` and `valid`; return the values of each mask by its image's name."""
    masks = {}
    for seed, name in enumerate(("train/a_jpg.rf.1f0", "train/b_jpg.rf.2e1", "valid/c_mask_jpg.rf.3d2")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        masks[Path(name).name] = np.random.default_rng(seed).integers(0, 3, (32, 48), dtype=np.uint8)
        Image.fromarray(blocks(seed)).save(root / f"{name}.jpg")
        Image.fromarray(masks[Path(name).name]).save(root / f"{name}_mask.png")
    for split in ("train", "valid"):
        (root / split / "_classes.csv").write_text(csv)
    return masks


SETS = "labeled: {images: train, masks: train}\nval: {images: valid, masks: valid}\n"


def test_masks_are_found_beside_the_images_and_are_no_images(tmp_path: Path) -> None:
    masks = export(tmp_path)
    sets = load_data_spec(write_spec(tmp_path, f"classes: [background, road, tree]\n{SETS}")).resolve()
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.val)) == (2, 0, 1)
    for sample in (*sets.labeled, *sets.val):
        np.testing.assert_array_equal(read_mask(sample, sets.coding), masks[sample.id])
    assert check(sets, workers=1).errors == 0


def test_values_mean_the_names_of_the_file_not_the_order_of_the_classes(tmp_path: Path) -> None:
    masks = export(tmp_path)
    spec = f"classes: [tree, road]\nlabel_mapping: {{background: 255}}\n{SETS}"
    sets = load_data_spec(write_spec(tmp_path, spec)).resolve()
    for sample in (*sets.labeled, *sets.val):
        np.testing.assert_array_equal(read_mask(sample, sets.coding), np.array([255, 1, 0])[masks[sample.id]])
    path = write_spec(tmp_path, f"classes: [tree, road]\n{SETS}")
    with pytest.raises(ConfigError, match=r"the label 'background' of .* is not a class; add it"):
        load_data_spec(path).resolve()


def test_a_specs_own_mapping_of_a_value_wins_over_the_files(tmp_path: Path) -> None:
    masks = export(tmp_path)
    spec = f"classes: [background, tree, road]\nlabel_mapping: {{2: 255}}\n{SETS}"
    sets = load_data_spec(write_spec(tmp_path, spec)).resolve()
    for sample in (*sets.labeled, *sets.val):
        np.testing.assert_array_equal(read_mask(sample, sets.coding), np.array([0, 2, 255])[masks[sample.id]])


def test_two_exports_have_to_agree(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "valid/_classes.csv").write_text("Pixel Value, Class\n0, background\n2, road\n1, tree\n")
    path = write_spec(tmp_path, f"classes: [background, road, tree]\n{SETS}")
    with pytest.raises(ConfigError, match=r"the value 2 is 'road' in .*, but another class in labeled\.masks"):
        load_data_spec(path).resolve()


def test_its_values_are_not_applied_to_masks_of_another_tool(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "valid/_classes.csv").unlink()
    path = write_spec(tmp_path, f"classes: [tree, road, background]\n{SETS}")
    with pytest.raises(ConfigError, match=r"val\.masks: .* has no _classes\.csv, while that of the other masks maps"):
        load_data_spec(path).resolve()


@pytest.mark.parametrize("line", ["x, road", "300, road", "1", "1,", "1, road, more", "0, again"])
def test_a_damaged_list_of_classes_is_named(tmp_path: Path, line: str) -> None:
    export(tmp_path, f"Pixel Value, Class\n0, background\n{line}\n")
    path = write_spec(tmp_path, f"classes: [background, road, tree]\n{SETS}")
    with pytest.raises(DataError, match=r"_classes\.csv: line 3: should be `value, name`"):
        load_data_spec(path).resolve()


def test_init_and_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    command = CommandLine(monkeypatch, capfd)
    masks = export(tmp_path / "in")
    assert command("convert", tmp_path / "in", "--out", tmp_path / "out").code == 0
    sets = load_data_spec(tmp_path / "out/data.yaml").resolve()
    assert sets.labels.names == ("background", "road", "tree")
    assert (len(sets.labeled), len(sets.val)) == (2, 1)
    for sample in (*sets.labeled, *sets.val):
        assert sample.mask is not None
        np.testing.assert_array_equal(np.asarray(Image.open(sample.mask)), masks[sample.image.stem])
