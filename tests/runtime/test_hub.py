"""`push` and `pull` against a hub in this process: what comes back is what was sent, and nothing that executes code."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import CommandLine
from stand_in_hub import StandInHub, running_hub
from tiny_artifact import make_artifact

import segkc_deploy

pytest.importorskip("huggingface_hub")

REPO = "me/streets"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with running_hub() as hub:
        yield hub


def pushed(command: CommandLine, hub: StandInHub, folder: Path) -> Path:
    artifact = make_artifact(folder)
    finished = command("push", artifact, REPO, "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    return artifact


def test_an_artifact_comes_back_as_it_was(command: CommandLine, hub: StandInHub, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "made")
    (tmp_path / "made" / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    (tmp_path / "made" / "other.txt").write_text("not part of it")
    finished = command("push", artifact, REPO, "--private", "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    (commit, files) = hub.repos[REPO][-1]
    assert commit in finished.out
    assert sorted(files) == ["README.md", "segkc-deploy.json", "tiny.onnx", "tiny.onnx.json"]
    assert hub.private == {REPO}

    out = tmp_path / "pulled"
    finished = command("pull", REPO, "--out", out, "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    assert f"3 files of commit {commit}" in finished.out and str(out / "tiny.onnx") in finished.out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "tiny.onnx", "tiny.onnx.json"]
    for name in ("README.md", "tiny.onnx", "tiny.onnx.json"):
        assert (out / name).read_bytes() == (tmp_path / "made" / name).read_bytes()
    with segkc_deploy.load(out / "tiny.onnx", "cpu") as predictor:
        assert predictor.labels.names[0] == "dark"


@pytest.mark.parametrize("name", ["my junior.onnx", "junior(1).onnx"])
def test_a_name_that_cannot_be_pulled_is_not_pushed(
    command: CommandLine, hub: StandInHub, tmp_path: Path, name: str
) -> None:
    artifact = make_artifact(tmp_path, name)
    assert "letters, digits and . _ + -" in command.refused("push", artifact, REPO, "--endpoint", hub.endpoint)
    assert not hub.repos.get(REPO)


def test_an_older_commit_can_be_pulled(command: CommandLine, hub: StandInHub, tmp_path: Path) -> None:
    pushed(command, hub, tmp_path / "one")
    (first, _) = hub.repos[REPO][0]
    artifact = make_artifact(tmp_path / "two", size=(16, 16))
    assert command("push", artifact, REPO, "--endpoint", hub.endpoint).code == 0
    for revision, made in ((first, "one"), (None, "two")):
        out = tmp_path / f"pulled-{made}"
        options = ("--revision", revision) if revision else ()
        assert command("pull", REPO, "--out", out, "--endpoint", hub.endpoint, *options).code == 0
        assert (out / "tiny.onnx").read_bytes() == (tmp_path / made / "tiny.onnx").read_bytes()
    message = command.refused("pull", REPO, "--out", tmp_path / "x", "--revision", "no", "--endpoint", hub.endpoint)
    assert "no such revision" in message


def test_a_changed_file_is_not_pulled(command: CommandLine, hub: StandInHub, tmp_path: Path) -> None:
    artifact = pushed(command, hub, tmp_path / "made")
    hub.commit(REPO, {"tiny.onnx": artifact.read_bytes()[:-1] + b"x"})
    out = tmp_path / "pulled"
    assert "checksum" in command.refused("pull", REPO, "--out", out, "--endpoint", hub.endpoint)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "../evil.onnx", "deeper/x.onnx", "lib.so", ".hidden.json"])
def test_other_files_are_not_pulled(command: CommandLine, hub: StandInHub, tmp_path: Path, name: str) -> None:
    pushed(command, hub, tmp_path / "made")
    index = json.loads(hub.repos[REPO][-1][1]["segkc-deploy.json"])
    index["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    hub.commit(REPO, {"segkc-deploy.json": json.dumps(index).encode(), name: b"x"})
    assert f"holds {name!r}" in command.refused("pull", REPO, "--out", tmp_path / "out", "--endpoint", hub.endpoint)
    assert not any(request.startswith(f"GET /{REPO}/resolve") and name in request for request in hub.requests)


def test_a_pickle_called_safetensors_is_not_pulled(command: CommandLine, hub: StandInHub, tmp_path: Path) -> None:
    import hashlib

    content = b"\x80\x04\x95 a pickle"
    packed = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    index = {"format": "segkc-deploy-package/1", "kind": "run", "files": {"junior.safetensors": packed}}
    hub.commit(REPO, {"segkc-deploy.json": json.dumps(index).encode(), "junior.safetensors": content})
    assert "not a safetensors file" in command.refused("pull", REPO, "--out", tmp_path, "--endpoint", hub.endpoint)


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"kind": "artifact", "main": "a.onnx", "files": {}}'])
def test_a_damaged_index_is_refused(command: CommandLine, hub: StandInHub, tmp_path: Path, index: bytes) -> None:
    hub.commit(REPO, {"segkc-deploy.json": index})
    assert "segkc-deploy.json" in command.refused("pull", REPO, "--out", tmp_path, "--endpoint", hub.endpoint)


def test_mistakes_end_in_one_line(command: CommandLine, hub: StandInHub, tmp_path: Path) -> None:
    pull = ("--out", tmp_path / "out", "--endpoint", hub.endpoint)
    assert "no such repository" in command.refused("pull", "me/nothing", *pull)
    assert "OWNER/NAME" in command.refused("pull", "a/b/c", *pull)
    hub.commit("me/weights", {"model.bin": b"x"})
    assert "holds no package" in command.refused("pull", "me/weights", *pull)
    engine = make_artifact(tmp_path / "made", "tiny.engine")
    assert "only ONNX artifacts" in command.refused("push", engine, REPO, "--endpoint", hub.endpoint)
    assert "not a run directory" in command.refused("push", tmp_path, REPO, "--endpoint", hub.endpoint)
    hub.refuses = 403
    artifact = make_artifact(tmp_path / "made")
    assert "hf auth login" in command.refused("push", artifact, REPO, "--endpoint", hub.endpoint)
    assert REPO not in hub.repos


def test_a_hub_that_is_not_there_is_named(command: CommandLine, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert "cannot be reached" in command.refused("pull", REPO, "--out", tmp_path, "--endpoint", endpoint)


def test_a_run_comes_back_without_its_data_and_can_be_scored(
    command: CommandLine, hub: StandInHub, run: Path, data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    finished = command("push", copy, REPO, "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    assert "no README.md" in finished.out
    names = ["config.yaml", "junior.safetensors", "segkc-deploy.json", "senior.safetensors"]
    assert sorted(hub.repos[REPO][-1][1]) == names
    assert str(data.parent).encode() not in hub.repos[REPO][-1][1]["config.yaml"]

    out = tmp_path / "pulled"
    assert command("pull", REPO, "--out", out, "--endpoint", hub.endpoint).code == 0
    recipe = yaml.safe_load((run / "config.yaml").read_text())["recipe"]
    assert yaml.safe_load((out / "config.yaml").read_text())["recipe"] == recipe
    scored = []
    for name, folder in (("own", run), ("pulled", out)):
        scores = tmp_path / f"{name}.json"
        assert command("eval", folder, "--data", data, "--device", "cpu", "--json", scores).code == 0
        scored.append(json.loads(scores.read_text()) | {"target": ""})
    assert scored[0] == scored[1]
