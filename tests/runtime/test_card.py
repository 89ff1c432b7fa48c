"""Model cards: front matter that a hub's own reader accepts, and what was and was not measured."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine
from tiny_artifact import LABELS, make_artifact

from segkc_deploy.manifest import Verification


def write_scores(path: Path, **changes: object) -> Path:
    content = {
        "target": "artifacts/tiny.onnx",
        "role": "junior",
        "images": 40,
        "miou": 61.25,
        "miou_interval": [58.0, 64.5],
        "pixel_accuracy": 90.1,
        "iou": dict(zip(LABELS.names, (90.0, 72.5, 31.0, None), strict=True)),
        "protocol": "the artifact's own",
        "ran_on": "onnxruntime",
        "rule": "mean over classes",
    }
    path.write_text(json.dumps(content | changes))
    return path


def test_a_card_says_what_was_measured(command: CommandLine, tmp_path: Path) -> None:
    found = Verification(images=20, agreement=0.9987)
    artifact = make_artifact(tmp_path, verification=found)
    (tmp_path / "limits.md").write_text("Not for driving.")
    finished = command(
        *("card", artifact, "--license", "apache-2.0", "--scores", write_scores(tmp_path / "eval.json")),
        *("--dataset", "Street Scenes", "--limits", tmp_path / "limits.md", "--repo", "me/streets"),
    )
    assert finished.code == 0, finished.err
    text = (tmp_path / "README.md").read_text()
    assert "mIoU 61.2% (95% interval over images: 58.0 to 64.5) on 40 validation images." in text
    assert "| 1 | red | 72.5 |" in text and "| 3 | blue | absent |" in text
    assert "IoU below 50%: green (31.0%)." in text
    assert "nothing is known of them: blue" in text
    assert "99.87% of the pixels of 20 images" in text
    assert "segkc-deploy pull me/streets --out streets" in text
    assert 'segkc_deploy.load("streets/tiny.onnx")' in text
    assert text.endswith("Not for driving.\n")
    assert "Not measured." in text[text.index("## Latency") : text.index("## Data")]


def test_the_hubs_own_reader_accepts_the_front_matter(command: CommandLine, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    artifact = make_artifact(tmp_path)
    scores = write_scores(tmp_path / "eval.json")
    command("card", artifact, "--license", "mit", "--scores", scores, "--dataset", "Street Scenes", "--name", "Streets")
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == (
        "mit",
        "image-segmentation",
        "segkc-deploy",
    )
    (result,) = card.data.eval_results
    assert (card.data.model_name, result.metric_type, result.metric_value) == ("Streets", "mean_iou", 0.6125)
    assert (result.dataset_name, result.task_type) == ("Street Scenes", "image-segmentation")


def test_a_card_says_what_was_not_measured(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path, verification=None)
    assert command("card", artifact, "--license", "mit").code == 0
    text = (tmp_path / "README.md").read_text()
    assert "How good it is was not measured." in text
    assert "This file was not compared with the network it was made from." in text
    assert "How many images it has is not stated." in text
    assert "mean_iou" not in text and "`dark`, `red`, `green`, `blue`" in text


def test_a_runs_card_counts_its_images(command: CommandLine, run: Path, tmp_path: Path) -> None:
    assert command("card", run, "--license", "mit", "--out", tmp_path / "card.md").code == 0
    text = (tmp_path / "card.md").read_text()
    assert "4 labeled and 6 unlabeled images for training, 3 for validation" in text
    assert "`mobilenetv4_conv_small_035`" in text and "method `segkc`" in text
    assert "learned from its own labels of 6 images" in text
    assert f"segkc-deploy export {run.name} --engine onnx --data data.yaml" in text


def test_the_latency_is_that_of_the_same_weights(command: CommandLine, tmp_path: Path) -> None:
    from made_up_results import full_row, result

    artifact, other = make_artifact(tmp_path), "/elsewhere/tiny.onnx"
    ours = full_row("ours", "artifact", 50.0, 12.0, target=other, about={"weights_sha256": "0" * 64})
    foreign = full_row("foreign", "artifact", 50.0, 99.0, target=other, about={"weights_sha256": "1" * 64})
    (tmp_path / "both.json").write_text(result([foreign, ours]).model_dump_json())
    (tmp_path / "foreign.json").write_text(result([foreign]).model_dump_json())
    card = ("card", artifact, "--license", "mit", "--benchmark")
    assert "its tiny.onnx has other weights" in command.refused(*card, tmp_path / "foreign.json")
    assert command(*card, tmp_path / "both.json").code == 0
    text = (tmp_path / "README.md").read_text()
    latency = text[text.index("## Latency") : text.index("## Data")]
    assert latency.count("made up") == 1
    assert f"{ours.latency.total.p50:.2f}" in latency or f"{ours.latency.total.p50:.1f}" in latency


def test_a_run_is_called_as_its_folder(command: CommandLine, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "street-v1.5"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    assert command("card", folder, "--license", "mit", "--out", tmp_path / "card.md").code == 0
    assert "# street-v1.5\n" in (tmp_path / "card.md").read_text()


def test_a_card_takes_the_scores_of_its_own_network_alone(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    card = ("card", artifact, "--license", "mit", "--overwrite", "--scores")
    foreign = write_scores(tmp_path / "foreign.json", weights_sha256="1" * 64)
    line = command.refused(*card, foreign)
    assert f"{foreign}: scores of another network (artifacts/tiny.onnx); run `segkc-deploy eval tiny.onnx" in line
    assert command(*card, write_scores(tmp_path / "own.json", weights_sha256="0" * 64)).code == 0
    assert command(*card, write_scores(tmp_path / "older.json")).code == 0


def test_odd_names_break_neither_the_table_nor_the_commands(command: CommandLine, tmp_path: Path) -> None:
    names = ("road|street", "red", "green", "blue")
    labels = LABELS.model_copy(update={"names": names})
    artifact = make_artifact(tmp_path, "my junior.onnx", labels=labels)
    scores = write_scores(tmp_path / "eval.json", iou=dict.fromkeys(names, 50.0))
    finished = command("card", artifact, "--license", "mit", "--scores", scores, "--repo", "me/my$streets")
    assert finished.code == 0, finished.err
    text = (tmp_path / "README.md").read_text()
    assert "| 0 | road\\|street | 50.0 |" in text
    assert "segkc-deploy pull 'me/my$streets' --out 'my$streets'\n" in text
    assert "segkc-deploy predict 'my$streets/my junior.onnx' --source photos" in text
    foreign = write_scores(tmp_path / "its scores.json", weights_sha256="1" * 64, iou=dict.fromkeys(names, 50.0))
    line = command.refused("card", artifact, "--license", "mit", "--overwrite", "--scores", foreign)
    assert f"run `segkc-deploy eval 'my junior.onnx' --data data.yaml --json '{foreign}'`" in line
    assert 'segkc_deploy.load("my$streets/my junior.onnx")' in text


@pytest.mark.parametrize(
    ("is_run", "repo", "extras"),
    [(False, None, ""), (False, "me/streets", "hub"), (True, None, "export"), (True, "me/streets", "export,hub")],
)
def test_a_card_names_an_installation_that_works(
    command: CommandLine, run: Path, tmp_path: Path, is_run: bool, repo: str | None, extras: str
) -> None:
    """The package is not on PyPI, and `pull` needs its extra."""
    target = run if is_run else make_artifact(tmp_path)
    to_hub = ("--repo", repo) if repo else ()
    assert command("card", target, "--license", "mit", "--out", tmp_path / "card.md", *to_hub).code == 0
    text = (tmp_path / "card.md").read_text()
    install = f'pip install ".[{extras}]"' if extras else "pip install ."
    assert f"```\n{install}  # in a checkout of segkc-deploy\nsegkc-deploy " in text
    assert "not on PyPI. Install it from a checkout, or from a wheel that `pip wheel . --no-deps` makes there." in text
    assert "pip install segkc-deploy" not in text and 'pip install "segkc-deploy' not in text


def test_mistakes_are_named(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    card = ("card", artifact, "--license", "mit")
    other = write_scores(tmp_path / "other.json", iou={"dark": 1.0, "red": 2.0})
    assert "other classes" in command.refused(*card, "--scores", other)
    senior = write_scores(tmp_path / "senior.json", role="senior")
    assert "scores of the senior" in command.refused(*card, "--scores", senior)
    (tmp_path / "none.json").write_text('{"images": 4}')
    assert "target is missing" in command.refused(*card, "--scores", tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    assert "not JSON" in command.refused(*card, "--scores", tmp_path / "broken.json")
    (tmp_path / "README.md").write_text("mine")
    assert "--overwrite" in command.refused(*card)
    assert (tmp_path / "README.md").read_text() == "mine"
