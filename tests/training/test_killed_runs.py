"""A training that is killed with SIGKILL at random instants ends with the weights of one that was not."""

import random
from pathlib import Path

import pytest
from kill_and_resume import finish, kill_until_finished, weights
from tiny_data import tiny_recipe, write_recipe, write_tiny_data


@pytest.mark.timeout(900)
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe(checkpoint_every=1))
    seconds = finish(data, recipe, tmp_path / "whole")
    outcome = kill_until_finished(data, recipe, tmp_path / "killed", seconds, random.Random(3))
    assert outcome.kills > 0
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
