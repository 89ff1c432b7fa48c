"""`push` and `pull` against a hub in this process: what comes back is what was sent, and nothing that executes code."""

import hashlib
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


def package(kind: str, files: dict[str, bytes], main: str = "") -> dict[str, bytes]:
    """Return the files of a package with their index."""
    packed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in files.items()
    }
    index = {"format": "segkc-deploy-package/1", "kind": kind, "main": main, "files": packed}
    return {"segkc-deploy.json": json.dumps(index).encode(), **files}


def pushed(command: CommandLine, hub: StandInHub, folder: Path) -> Path:
    artifact = make_artifact(folder)
    finished = command("push", artifact, REPO, "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    return artifact


def test_an_artifact_comes_back_as_it_was(command: CommandLine, hub: StandInHub, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "made")
    assert command("card", artifact, "--license", "mit").code == 0
    (tmp_path / "made" / "other.txt").write_text("not part of it")
    finished = command("push", artifact, REPO, "--private", "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    (commit, files) = hub.repos[REPO][-1]
    assert commit in finished.out
    assert "pushed tiny.onnx, tiny.onnx.json, README.md\n" in finished.out
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


@pytest.mark.parametrize(
    "text",
    [
        "# Secret project\nabout tiny.onnx",
        "---\nlicense: mit\n---\ntiny.onnx",
        "---\nlibrary_name: segkc-deploy\n---\nother.onnx",
        "---\n{\n---\ntiny.onnx",
    ],
)
def test_a_readme_that_is_no_card_of_it_stays_here(
    command: CommandLine, hub: StandInHub, tmp_path: Path, text: str
) -> None:
    artifact = make_artifact(tmp_path)
    (tmp_path / "README.md").write_text(text)
    finished = command("push", artifact, REPO, "--endpoint", hub.endpoint)
    assert finished.code == 0, finished.err
    assert f"left out {tmp_path / 'README.md'}: it is no model card of tiny.onnx" in finished.out
    assert sorted(hub.repos[REPO][-1][1]) == ["segkc-deploy.json", "tiny.onnx", "tiny.onnx.json"]


def test_what_is_to_be_private_is_not_pushed_into_a_public_repository(
    command: CommandLine, hub: StandInHub, tmp_path: Path
) -> None:
    artifact = pushed(command, hub, tmp_path)
    private = ("push", artifact, REPO, "--private", "--endpoint", hub.endpoint)
    assert f"{REPO}: is there and public" in command.refused(*private)
    assert len(hub.repos[REPO]) == 1
    hub.private.add(REPO)
    assert command(*private).code == 0
    assert len(hub.repos[REPO]) == 2


@pytest.mark.parametrize("name", ["my junior.onnx", "junior(1).onnx", "con.onnx"])
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
    content = b"\x80\x04\x95 a pickle"
    hub.commit(REPO, package("run", {"junior.safetensors": content, "config.yaml": b"{}"}))
    assert "not a safetensors file" in command.refused("pull", REPO, "--out", tmp_path, "--endpoint", hub.endpoint)


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"kind": "artifact", "main": "a.onnx", "files": {}}'])
def test_a_damaged_index_is_refused(command: CommandLine, hub: StandInHub, tmp_path: Path, index: bytes) -> None:
    hub.commit(REPO, {"segkc-deploy.json": index})
    assert "segkc-deploy.json" in command.refused("pull", REPO, "--out", tmp_path, "--endpoint", hub.endpoint)


DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"segkc-deploy.json": DEEP}, "segkc-deploy.json is damaged"),
        ({"segkc-deploy.json": b" " * (2 << 20)}, "it has 2097152 bytes"),
        (
            package("run", {"junior.safetensors": len(DEEP).to_bytes(8, "little") + DEEP, "config.yaml": b""}),
            "not a safetensors file",
        ),
        (package("artifact", {"a.onnx": b""}, "a.onnx"), "names no a.onnx.json"),
        (package("run", {"junior.safetensors": b""}), "names no config.yaml"),
        (package("run", {"config.yaml": b""}), "names no junior.safetensors"),
        (package("run", {"CON.json": b""}), "holds 'CON.json'"),
        (package("run", {"lpt1.x.json": b""}), "holds 'lpt1.x.json'"),
        (package("run", {"a.json": b"", "A.json": b""}), "holds 'a.json' and 'A.json'"),
        (package("run", {"\u00e9.json": b"", "e\u0301.json": b""}), "holds "),
        (
            package("run", {"junior.safetensors": b"12345", "config.yaml": b""}) | {"junior.safetensors": b"1234567"},
            "junior.safetensors is damaged: it has 7 bytes, and 5 by",
        ),
    ],
)
def test_what_cannot_be_used_or_is_hostile_is_refused(
    command: CommandLine, hub: StandInHub, tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    hub.commit(REPO, files)
    out = tmp_path / "out"
    assert reason in command.refused("pull", REPO, "--out", out, "--endpoint", hub.endpoint)
    assert list(out.iterdir()) == []


def test_a_folder_in_the_place_of_a_file_leaves_all_files_as_they_were(
    command: CommandLine, hub: StandInHub, tmp_path: Path
) -> None:
    pushed(command, hub, tmp_path / "made")
    out = tmp_path / "out"
    (out / "tiny.onnx").mkdir(parents=True)
    (out / "tiny.onnx.json").write_text("an older one")
    line = command.refused("pull", REPO, "--out", out, "--overwrite", "--endpoint", hub.endpoint)
    assert f"{out / 'tiny.onnx'}: a folder is in the place of a file" in line
    assert sorted(path.name for path in out.iterdir()) == ["tiny.onnx", "tiny.onnx.json"]
    assert (out / "tiny.onnx.json").read_text() == "an older one"


@pytest.mark.parametrize("endpoint", ["http://[::1", "http://a b/", "no-url", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_no_address_is_one_line(command: CommandLine, tmp_path: Path, endpoint: str) -> None:
    line = command.refused("pull", REPO, "--out", tmp_path / "out", "--endpoint", endpoint)
    assert "check --endpoint and HF_ENDPOINT" in line or "cannot be reached" in line


def test_an_error_of_the_transfer_is_one_line(
    command: CommandLine, hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    pushed(command, hub, tmp_path / "made")

    def failing(*_: object, **__: object) -> str:
        raise RuntimeError("Data processing error: CAS service error\nReqwest Error")  # as hf_xet raises it

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", failing)
    line = command.refused("pull", REPO, "--out", tmp_path / "out", "--endpoint", hub.endpoint)
    assert "could not be transferred (Data processing error: CAS service error Reqwest Error)" in line


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
