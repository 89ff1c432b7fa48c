import errno
import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_artifact import edit_manifest, expected_mask, make_artifact, manifest_of, network

from segkc_deploy import prediction_files, predictor
from segkc_deploy.data import images
from segkc_deploy.errors import DataError
from segkc_deploy.manifest import manifest_path, write_manifest
from segkc_deploy.sources import find_images

SIZE = (8, 12)


@pytest.fixture
def artifact(tmp_path):
    return make_artifact(tmp_path / "artifact", size=SIZE)


def write_image(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return image


def files_below(folder):
    """The files in `folder` but what `predict` noted of those that it wrote."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name not in ("predicted.jsonl", "predicted.settings.json"))


def ids(source, **options):
    return [image.id for image in find_images(str(source), **options)]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_folder_gives_a_mask_and_an_overlay_for_each_image(command, artifact, tmp_path, batch):
    images = {name: write_image(tmp_path / "in" / f"{name}.png", seed) for seed, name in enumerate(["a", "b/c", "b/d"])}
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--batch", batch)
    assert finished.code == 0
    assert finished.err == ""
    assert "3 of 3 images" in finished.out
    assert files_below(tmp_path / "out") == [
        *("masks/a.png", "masks/b/c.png", "masks/b/d.png", "overlays/a.jpg", "overlays/b/c.jpg", "overlays/b/d.jpg")
    ]
    for name, image in images.items():
        mask = cv2.imread(str(tmp_path / "out" / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected_mask(image))


def test_the_network_does_not_wait_for_files_that_are_written(artifact, tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name)
    images, second_inference = find_images(str(tmp_path / "in")), threading.Event()
    waited, written, inferences = [], prediction_files.write_results, 0
    (tmp_path / "out").mkdir()

    def write(*given):
        waited.append(second_inference.wait(timeout=60))
        written(*given)

    monkeypatch.setattr(prediction_files, "write_results", write)
    with predictor.load(artifact) as loaded:
        infer = loaded.infer

        def count(batch):
            nonlocal inferences
            inferences += 1
            if inferences == 2:
                second_inference.set()
            return infer(batch)

        monkeypatch.setattr(loaded, "infer", count)
        assert prediction_files.predict_files(loaded, images, tmp_path / "out") == 0
    assert waited == [True, True]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


def test_masks_have_the_images_own_size(command, artifact, tmp_path):
    write_image(tmp_path / "wide.bmp", size=(30, 200))
    finished = command("predict", artifact, "--source", tmp_path / "wide.bmp", "--out", tmp_path / "out")
    assert finished.code == 0
    assert cv2.imread(str(tmp_path / "out/masks/wide.png"), cv2.IMREAD_UNCHANGED).shape == (30, 200)


def test_overlays_can_be_left_out(command, artifact, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--no-overlay")
    assert files_below(tmp_path / "out") == ["masks/a.png"]


def test_the_confidence_is_an_8_bit_picture(command, tmp_path):
    artifact = make_artifact(tmp_path / "artifact", size=(8, 12), outputs=("masks", "confidence"))
    image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    assert (
        command(
            "predict", artifact, "--source", tmp_path / "a.png", "--out", tmp_path / "out", "--also", "confidence"
        ).code
        == 0
    )
    with predictor.load(artifact, "cpu") as loaded:
        ((_, confidence),) = loaded.predict_with_confidence([image])
    written = cv2.imread(str(tmp_path / "out/confidence/a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, np.rint(255 * confidence))


def test_unreadable_images_are_named_and_the_rest_is_done(command, artifact, tmp_path):
    for name in ("a.png", "c.png"):
        write_image(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes(b"not an image")
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--no-overlay")
    assert finished.code == 2
    assert files_below(tmp_path / "out") == ["masks/a.png", "masks/c.png"]
    assert "2 of 3 images" in finished.out
    left_out, error = finished.err.splitlines()
    assert left_out.startswith("left out: ")
    assert "b.png" in left_out
    assert error.startswith("error: 1 of 3 images were left out")


def test_images_with_one_stem_do_not_overwrite_each_other(command, artifact, tmp_path):
    images = {name: write_image(tmp_path / "in" / name, seed) for seed, name in enumerate(["a.bmp", "a.png", "b.png"])}
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--no-overlay")
    assert finished.code == 0
    assert files_below(tmp_path / "out") == ["masks/a.bmp.png", "masks/a.png.png", "masks/b.png"]
    for name in ("a.bmp", "a.png"):
        mask = cv2.imread(str(tmp_path / "out" / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, expected_mask(images[name]))


def test_a_folder_that_is_not_empty_is_refused_unless_overwrite(command, artifact, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out)
    assert "--overwrite" in command.refused(*arguments)
    assert files_below(out) == ["notes.txt"]
    assert command(*arguments, "--overwrite").code == 0
    assert files_below(out) == ["masks/a.png", "notes.txt", "overlays/a.jpg"]


def test_overwrite_deletes_what_predict_wrote_and_nothing_else(command, artifact, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b/c.png"):
        write_image(source / name)
    arguments = ("predict", artifact, "--source", source, "--out", out, "--overwrite")
    assert command(*arguments).code == 0
    foreign = ["masks/d.png", "overlays/e/f.jpg", "notes.txt"]
    for name in foreign:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (source / "b" / "c.png").unlink()
    assert command(*arguments, "--no-overlay").code == 0
    assert files_below(out) == sorted(["masks/a.png", *foreign])
    assert not (out / "masks" / "b").exists()
    assert all((out / name).read_text() == "mine" for name in foreign)


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
@pytest.mark.parametrize("name", ["masks/a.png", "overlays/a.jpg"])
def test_a_file_that_predict_did_not_write_is_never_replaced(command, artifact, tmp_path, name, option):
    """A data set's own masks, for instance, where `--out` is its folder."""
    source, out = tmp_path / "in", tmp_path / "out"
    for image in ("0.png", "a.png"):
        write_image(source / image)
    arguments = ("predict", artifact, "--source", source, "--out", out)
    assert command(*arguments).code == 0
    (out / "predicted.jsonl").write_text("\n".join('"' + path + '"' for path in files_below(out) if path != name))
    (out / name).write_bytes(b"mine")
    before = files_below(out)
    assert f"{out / name}: is there, and no earlier call wrote it" in command.refused(*arguments, option)
    assert (out / name).read_bytes() == b"mine"
    assert files_below(out) == before


def test_an_image_whose_name_is_too_long_costs_no_other(command, artifact, tmp_path):
    long, longer = "街" * 82, "x" * 247  # 250 bytes with `.png`, which temporary names exceed, and 255 with `.geojson`
    for name in (long, longer, "z"):
        write_image(tmp_path / "in" / f"{name}.png")
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--no-overlay")
    assert command(*arguments).code == 0
    assert files_below(tmp_path / "out") == sorted(f"masks/{name}.png" for name in (long, longer, "z"))
    (tmp_path / "in" / f"{longer}.png").rename(tmp_path / "in" / f"{'y' * 251}.png")
    finished = command(*arguments, "--overwrite", "--also", "polygons")
    assert finished.code == 2
    assert "its name is too long for a file; rename the image" in finished.err
    assert "1 of 3 images were left out" in finished.err
    assert (tmp_path / "out" / "polygons" / "z.geojson").is_file()
    for option in ("--resume", "--overwrite"):
        assert command(*arguments, option, "--also", "polygons").code == 2
        assert (tmp_path / "out" / "polygons" / "z.geojson").is_file()


def test_an_out_above_the_images_is_named_as_the_mistake(command, artifact, tmp_path):
    write_image(tmp_path / "data" / "images" / "a.png")
    arguments = (
        "predict",
        artifact,
        "--source",
        tmp_path / "data" / "images",
        "--out",
        tmp_path / "data",
        "--overwrite",
    )
    assert "its images are all inside" in command.refused(*arguments)


def test_a_wrong_stride_deletes_nothing(command, artifact, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out")
    assert command(*arguments).code == 0
    before = files_below(tmp_path / "out")
    assert "--tile-stride is for --tile" in command.refused(*arguments, "--tile-stride", 9, "--overwrite")
    assert "a stride of 9999x9999" in command.refused(*arguments, "--tile", "--tile-stride", 9999, "--overwrite")
    assert files_below(tmp_path / "out") == before


def test_a_damaged_list_of_results_deletes_nothing_outside(command, artifact, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    kept = [tmp_path / "masks.png", tmp_path / "out" / "masks.png", tmp_path / "out" / "masks" / "notes.txt"]
    (tmp_path / "out" / "masks").mkdir(parents=True)
    for path in kept:
        path.write_text("mine")
    lines = ["masks/../../masks.png", str(tmp_path / "masks.png"), "masks.png", "masks/notes.txt", "", 3]
    record = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b'\xff\n"masks/a'
    (tmp_path / "out" / "predicted.jsonl").write_bytes(record)
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--overwrite")
    assert finished.code == 0
    assert all(path.read_text() == "mine" for path in kept)
    written = (tmp_path / "out" / "predicted.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == ["masks/a.png", "overlays/a.jpg"]


def test_results_inside_the_source_are_not_predicted_again(command, artifact, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "in" / "out")
    for options in ((), ("--overwrite",)):
        assert "1 of 1 images" in command(*arguments, *options).out


def test_the_output_may_not_be_a_file(command, artifact, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "out").write_text("")
    assert "out" in command.refused("predict", artifact, "--source", tmp_path / "a.png", "--out", tmp_path / "out")


def flip_a_bit(artifact):
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)


def cut_with_fitting_manifest(artifact):
    artifact.write_bytes(network(SIZE, -1).SerializeToString()[:-40])
    write_manifest(artifact, manifest_of(artifact))


def change_manifest(**changes):
    return lambda artifact: edit_manifest(artifact, **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "sha256 differs"),
        (lambda artifact: manifest_path(artifact).unlink(), "manifest tiny.onnx.json is missing"),
        (change_manifest(format="segkc-deploy-artifact/9"), "segkc-deploy-artifact/9"),
        (change_manifest(engine="abacus"), "'abacus'; this version runs onnx"),
        (cut_with_fitting_manifest, "onnxruntime cannot load it"),
        (lambda artifact: artifact.unlink(), "no such artifact"),
    ],
)
def test_a_damaged_artifact_is_one_line_and_exit_code_2(command, artifact, tmp_path, damage, message):
    write_image(tmp_path / "a.png")
    damage(artifact)
    line = command.refused("predict", artifact, "--source", tmp_path / "a.png", "--out", tmp_path / "out")
    assert message in line
    assert "tiny.onnx" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["none.png", "empty", "none/*.png", "empty/**/*"])
def test_a_source_without_images_is_one_line_and_exit_code_2(command, artifact, tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    line = command.refused("predict", artifact, "--source", tmp_path / source, "--out", tmp_path / "out")
    assert source in line


def test_a_folder_is_searched_with_its_subfolders_and_by_suffix(tmp_path):
    for name in ("b.JPG", "a/c.tiff", "a/._c.tiff", "notes.txt", "a.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert ids(tmp_path) == ["a/c", "a", "b"]


def test_a_glob_pattern_is_relative_to_its_fixed_part(tmp_path):
    for name in ("x/1/left.png", "x/2/left.png", "x/2/right.png"):
        write_image(tmp_path / name)
    assert ids(tmp_path / "x/*/left.png") == ["1/left", "2/left"]
    assert ids(tmp_path / "x/**/*.png") == ["1/left", "2/left", "2/right"]
    assert ids(tmp_path / "x/2/r*.png") == ["right"]


def test_a_pattern_without_a_folder_is_searched_here(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert ids("*.png") == ["a"]


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    write_image(tmp_path / "image[1].png")
    assert ids(tmp_path / "image[1].png") == ["image[1]"]


@pytest.mark.parametrize(
    "names", [["a.png", "a.jpg", "a.jpg.png"], ["A.png", "a.jpg"], ["a/b.png", "a/b.bmp", "b.png"]]
)
def test_ids_never_meet(tmp_path, names):
    for name in names:
        write_image(tmp_path / name)
    found = find_images(str(tmp_path))
    assert len({image.id.casefold() for image in found}) == len(names)
    assert all(image.path.relative_to(tmp_path).as_posix().startswith(image.id) for image in found)


def test_the_excluded_folder_alone_is_left_out(tmp_path, monkeypatch):
    for name in ("a.png", "out/b.png", "outer/c.png"):
        write_image(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert ids(tmp_path, exclude=Path("out")) == ["a", "outer/c"]
    with pytest.raises(DataError):
        find_images(str(tmp_path / "out"), exclude=Path("out"))


def test_a_full_disk_is_one_line(command, artifact, tmp_path, monkeypatch):
    def no_space(target, data, flush):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_image(tmp_path / "a.png")
    monkeypatch.setattr("segkc_deploy.atomic.write_bytes", no_space)
    line = command.refused("predict", artifact, "--source", tmp_path / "a.png", "--out", tmp_path / "out")
    assert "a.png: cannot be written: No space left on device" in line


def test_an_overlay_too_wide_for_jpeg_is_a_png_and_the_images_after_it_are_predicted(command, artifact, tmp_path):
    write_image(tmp_path / "in" / "a.png", size=(4, 65_501))
    write_image(tmp_path / "in" / "b.png")
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out")
    assert command(*arguments).code == 0
    expected = ["masks/a.png", "masks/b.png", "overlays/a.png", "overlays/b.jpg"]
    assert files_below(tmp_path / "out") == expected
    assert command(*arguments, "--overwrite", "--no-overlay").code == 0
    assert files_below(tmp_path / "out") == expected[:2]


@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_too_large_for_the_memory_is_named_and_the_rest_is_done(
    command, artifact, tmp_path, batch, monkeypatch
):
    for name in ("a", "b", "c"):
        write_image(tmp_path / "in" / f"{name}.png", size=(9, 9) if name == "b" else SIZE)
    resize = predictor.resize_image

    def short_of_memory(image, size):
        if image.shape[0] == 9:
            raise MemoryError
        return resize(image, size)

    monkeypatch.setattr(predictor, "resize_image", short_of_memory)
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", "--batch", batch)
    assert finished.code == 2
    assert "b.png: too little memory for its 9x9 pixels" in finished.err
    assert [name for name in files_below(tmp_path / "out") if "masks" in name] == ["masks/a.png", "masks/c.png"]


def test_an_image_that_memory_is_too_small_to_read_is_named_and_the_rest_is_done(
    command, artifact, tmp_path, monkeypatch
):
    """OpenCV gives nothing for such a file, as for a damaged one."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / "in" / f"{name}.png", size=(9, 9) if name == "b" else SIZE)
    large = (tmp_path / "in" / "b.png").read_bytes()
    decode, empty = cv2.imdecode, np.empty

    def short_of_memory(shape, *arguments, **named):
        if shape == (3, 9, 9, 3):
            raise MemoryError
        return empty(shape, *arguments, **named)

    monkeypatch.setattr(
        images.cv2, "imdecode", lambda data, flags: None if bytes(data) == large else decode(data, flags)
    )
    monkeypatch.setattr(images.np, "empty", short_of_memory)
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out")
    assert finished.code == 2
    assert "b.png: too little memory to read it" in finished.err
    assert [name for name in files_below(tmp_path / "out") if "masks" in name] == ["masks/a.png", "masks/c.png"]


@pytest.mark.parametrize("pattern", ["in", "in/**/*.png"])
def test_a_linked_folder_is_followed_once(tmp_path, pattern):
    write_image(tmp_path / "elsewhere" / "b.png")
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "@eaDir" / "c.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in", target_is_directory=True)
    assert ids(tmp_path / pattern) == ["a", "linked/b"]
