import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_artifact import LABELS, edit_manifest, make_artifact, manifest_of

from segkc_deploy.engine_match import rebuild_command
from segkc_deploy.errors import ArtifactError
from segkc_deploy.manifest import companion_path, manifest_path, read_manifest, sha256_of, write_manifest


def refusal(artifact):
    with pytest.raises(ArtifactError) as refused:
        read_manifest(artifact)
    message = str(refused.value)
    assert "\n" not in message
    assert artifact.name in message
    return message


def test_what_was_written_is_read(tmp_path):
    artifact = make_artifact(tmp_path)
    manifest = read_manifest(artifact)
    assert manifest == manifest_of(artifact)
    assert manifest.labels == LABELS
    assert manifest_path(artifact).name == "tiny.onnx.json"


def test_the_file_is_plain_json_with_these_keys(tmp_path):
    """Readers in other languages rely on the names: a change of them is a change of `format`."""
    stored = json.loads(manifest_path(make_artifact(tmp_path)).read_text())
    assert stored["format"] == "segkc-deploy-artifact/2"
    assert list(stored) == [
        *("format", "artifact", "sha256", "bytes", "companions", "engine", "precision", "contract", "labels"),
        *("normalization", "parameters", "flops", "activation_peak_bytes", "source", "layer_precision", "build"),
        *("verification", "machine", "command", "created", "digest"),
    ]
    assert stored["contract"] == {
        "input": {"name": "images", "dtype": "uint8", "layout": "NHWC"},
        "outputs": [{"name": "masks", "dtype": "uint8", "layout": "NHW"}],
        "size": [8, 12],
        "batch": -1,
        "max_batch": None,
        "size_multiple": None,
        "min_size": None,
        "max_size": None,
        "align_corners": False,
        "color": "RGB",
        "bands": 3,
        "resize": "stretch",
        "interpolation": "bilinear-or-area",
    }
    assert stored["labels"]["names"] == ["dark", "red", "green", "blue"]


def test_a_manifest_of_format_1_is_read(tmp_path):
    artifact = make_artifact(tmp_path)
    old = json.loads((Path(__file__).parents[1] / "support" / "manifest_format_1.json").read_text())
    assert (old["format"], list(old["layer_precision"])[-1]) == ("segkc-deploy-artifact/1", "kept")
    manifest_path(artifact).write_text(json.dumps(old | {"sha256": sha256_of(artifact)}))
    manifest = read_manifest(artifact)
    assert manifest.format == "segkc-deploy-artifact/2"
    assert [node.reason for node in manifest.layer_precision.fallbacks] == ["sums exponentials"]
    assert rebuild_command(manifest).endswith("--precision fp16 --upsampling sparse")
    write_manifest(artifact, manifest)
    assert read_manifest(artifact) == manifest


def test_the_command_that_builds_it_anew_quotes_the_run(tmp_path):
    manifest = manifest_of(make_artifact(tmp_path))
    moved = manifest.model_copy(update={"source": manifest.source.model_copy(update={"run": "my runs/a"})})
    assert rebuild_command(moved) == "segkc-deploy export 'my runs/a' --engine onnx --precision fp32"


def test_sha256_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 9000  # more than one of the pieces it is read in
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("position", [0, 100, -1])
def test_one_flipped_bit_is_noticed(tmp_path, position):
    artifact = make_artifact(tmp_path)
    content = bytearray(artifact.read_bytes())
    content[position] ^= 1
    artifact.write_bytes(content)
    assert "sha256" in refusal(artifact)


def test_any_flipped_byte_of_a_manifest_is_noticed(tmp_path):
    """Or does not matter: a blank may become another one, and 8.0 may become 8.00."""
    artifact = make_artifact(tmp_path)
    original, content = read_manifest(artifact), manifest_path(artifact).read_bytes()
    noticed = 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        manifest_path(artifact).write_bytes(flipped)
        try:
            assert read_manifest(artifact) == original
        except ArtifactError as error:
            assert "\n" not in str(error)
            noticed += 1
    assert noticed > 0.7 * len(content)


def test_the_digest_is_that_of_the_other_keys(tmp_path):
    """What a reader in another language computes: keys sorted, no blanks, ASCII."""
    artifact = make_artifact(tmp_path)
    stored = json.loads(manifest_path(artifact).read_text())
    digest = stored.pop("digest")
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_manifest_without_a_digest_is_read(tmp_path):
    artifact = make_artifact(tmp_path)
    edit_manifest(artifact, precision="fp16")
    assert read_manifest(artifact).precision == "fp16"


@pytest.mark.parametrize("suffix", ["/../../secret", "../secret", "/etc/passwd", "..", "", ".a/b", ".\\secret"])
def test_a_manifest_that_points_outside_its_folder_is_refused(tmp_path, suffix):
    artifact = make_artifact(tmp_path)
    edit_manifest(artifact, companions={suffix: "0" * 64})
    assert "companions" in refusal(artifact)


@pytest.fixture
def with_companion(tmp_path):
    """An artifact of two files."""
    artifact = make_artifact(tmp_path, name="tiny.xml")
    weights = companion_path(artifact, ".bin")
    weights.write_bytes(b"weights")
    write_manifest(artifact, manifest_of(artifact, companions={".bin": sha256_of(weights)}))
    return artifact


def test_an_artifact_of_two_files_is_read(with_companion):
    assert read_manifest(with_companion).companions == {".bin": hashlib.sha256(b"weights").hexdigest()}


def test_a_changed_companion_is_noticed(with_companion):
    with_companion.with_suffix(".bin").write_bytes(b"heights")
    with pytest.raises(ArtifactError, match=r"tiny\.bin: the file's sha256 differs"):
        read_manifest(with_companion)


def test_a_missing_companion_is_named(with_companion):
    with_companion.with_suffix(".bin").unlink()
    assert "tiny.bin" in refusal(with_companion)


def test_files_that_are_renamed_together_still_belong_together(with_companion):
    """The file that is checked is the one that is run, whatever the names."""
    for suffix in (".xml", ".bin", ".xml.json"):
        with_companion.with_suffix(suffix).rename(with_companion.with_name("renamed" + suffix))
    assert read_manifest(with_companion.with_name("renamed.xml")).companions


@pytest.mark.parametrize(
    ("artifact", "companion"),
    [
        ("junior-fp32.xml", "junior-fp32.bin"),
        ("v1.2.xml", "v1.2.bin"),
        (".junior-fp32.xml.unverified", ".junior-fp32.bin.unverified"),
        ("junior-fp32.xml.rejected", "junior-fp32.bin.rejected"),
    ],
)
def test_companions_are_named_after_their_artifact(tmp_path, artifact, companion):
    assert companion_path(tmp_path / artifact, ".bin") == tmp_path / companion


def test_a_missing_artifact_names_the_command_that_makes_one(tmp_path):
    assert "segkc-deploy export" in refusal(tmp_path / "none.onnx")


def test_a_missing_manifest_is_named(tmp_path):
    artifact = make_artifact(tmp_path)
    manifest_path(artifact).unlink()
    assert "tiny.onnx.json" in refusal(artifact)


def test_reading_manifests_loads_no_library_for_images():
    loaded = "import sys, segkc_deploy.manifest; print(*{'cv2', 'PIL', 'torch'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert process.stdout == "\n"


def test_given_a_manifest_the_artifact_is_named(tmp_path):
    artifact = make_artifact(tmp_path)
    line = f"{manifest_path(artifact)}: the manifest of an artifact; give the artifact itself, {artifact}"
    assert refusal(manifest_path(artifact)) == line
    artifact.unlink()
    assert "a manifest, whose artifact tiny.onnx is missing; copy it beside" in refusal(manifest_path(artifact))


def test_what_is_no_artifact_is_named_with_the_way_to_one(tmp_path):
    run, photos, empty = (tmp_path / name for name in ("my run", "photos", "empty"))
    for path in (run / "config.yaml", run / "junior.safetensors", photos / "deep/a.JPG", empty / "notes.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "ride.mp4").touch()
    swapped = "not an artifact; the arguments may be swapped: the artifact comes first, images are for --source"
    assert refusal(run) == f"{run}: a run directory, not an artifact; make one with `segkc-deploy export '{run}'`"
    assert refusal(photos) == f"{photos}: a folder of images, {swapped}"
    assert refusal(photos / "deep/a.JPG") == f"{photos / 'deep/a.JPG'}: an image, {swapped}"
    assert refusal(tmp_path / "ride.mp4") == f"{tmp_path / 'ride.mp4'}: a video, {swapped}"
    assert refusal(empty) == f"{empty}: a folder without an artifact; make one with `segkc-deploy export RUN`"
    artifact = make_artifact(run)
    assert refusal(run) == f"{run}: a folder; give an artifact in it, such as {artifact}"


def test_a_manifest_of_another_format_is_refused(tmp_path):
    artifact = make_artifact(tmp_path)
    edit_manifest(artifact, format="segkc-deploy-artifact/3")
    assert "segkc-deploy-artifact/3" in refusal(artifact)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"precision": None}, "precision"),
        ({"labels": {"names": ["a", "b"], "palette": [[0, 0, 0]]}}, "labels"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_with_a_wrong_field_names_it(tmp_path, changes, part):
    artifact = make_artifact(tmp_path)
    edit_manifest(artifact, **changes)
    assert part in refusal(artifact)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    artifact = make_artifact(tmp_path)
    manifest_path(artifact).write_bytes(content)
    assert "not a manifest" in refusal(artifact)


def test_a_manifest_is_replaced_whole(tmp_path):
    artifact = make_artifact(tmp_path)
    write_manifest(artifact, manifest_of(artifact, precision="fp16"))
    assert read_manifest(artifact).precision == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx", "tiny.onnx.json"]
