"""The study of scaling: bytes of gradients against counted parameters, and timed steps of one process."""

from pathlib import Path

from tiny_data import tiny_recipe, write_recipe

from segkc_deploy.benchmarks.studies import scaling
from segkc_deploy.training.methods.registry import build_method


def test_the_study_writes_bytes_and_times(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    path = str(write_recipe(tmp_path / "tiny.yaml", recipe))
    results = tmp_path / "results.json"
    options = ["--results", str(results), "--recipe", path, "--crop", "64", "--steps", "2", "--ranks", "1"]
    assert scaling.main(options) == 0
    result = scaling.ScalingResult.model_validate_json(results.read_bytes())
    assert [row.recipe for row in result.pairs] == list(scaling.PAIRS)
    (timed,) = result.ranks
    assert timed.ranks == 1 and 0 < timed.fastest <= timed.seconds <= timed.slowest

    method = build_method(recipe, num_classes=8, ignore_index=255)
    learning = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    row = scaling.pair_row(path)
    assert (row.parameters, row.gradient_bytes) == (learning, 4 * learning)
