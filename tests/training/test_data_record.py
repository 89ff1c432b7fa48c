"""The image lists of a data set of any size go through a checkpoint."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.training.files import data_record
from segkc_deploy.training.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from segkc_deploy.training.files.data_record import facts_of, record_of
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.train import train_run

#: What safetensors takes as a header.
HEADER_LIMIT = 100_000_000

names = st.text(st.characters(exclude_characters="\0", categories=["L", "N", "P", "Z", "Cc", "Cs"]))


@given(st.lists(names), st.lists(names))
def test_lists_come_back_as_they_were(labeled: list[str], unlabeled: list[str]) -> None:
    facts = {"labeled": labeled, "unlabeled": unlabeled, "by_color": False}
    record = record_of(facts)
    assert record.header == {"by_color": False}
    assert facts_of(json.loads(json.dumps(record.header)), record.tensors) == facts


def test_ids_that_no_header_takes_fit_into_a_checkpoint(tmp_path: Path) -> None:
    ids = [
        f"frames/2026-11-29/recording_{index // 1000:05}/camera_front/{index:09}_rectified"
        for index in range(1_500_000)
    ]
    assert len(json.dumps(ids)) > HEADER_LIMIT
    facts = {"labeled": [], "unlabeled": ids}
    record = record_of(facts)
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, Checkpoint(1, record.tensors, {"data": record.header}))
    read = read_checkpoint(path)
    assert facts_of(read.extra["data"], read.tensors) == facts


def test_a_training_encodes_its_lists_once_and_keeps_them_out_of_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = [], data_record._encode

    def counted(ids: list[str]) -> object:
        encoded.append(ids)
        return encode(ids)

    monkeypatch.setattr(data_record, "_encode", counted)
    data = write_tiny_data(tmp_path / "data")
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe(checkpoint_every=1))
    run = RunDirectory(train_run(data, str(recipe), tmp_path / "run", device="cpu").path)
    assert [len(ids) for ids in encoded] == [4, 6]
    with safe_open(run.checkpoint, framework="pt") as file:
        assert "000" not in file.metadata()["segkc_deploy_checkpoint"]
        assert bytes(file.get_tensor("data.labeled").tolist()) == b"000\x00001\x00002\x00003\x00"
