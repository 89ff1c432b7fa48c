"""What `label-next` chooses by: its scores against float64 formulas, its rankings and its choice by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from label_next_formulas import expected_scores, softmax
from torch import Tensor

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.label_next.choice import choose
from segkc_deploy.training.label_next.contact_sheet import score_histogram
from segkc_deploy.training.label_next.true_errors import compare
from segkc_deploy.training.label_next.uncertainty import RANKINGS, SCORES, ImageScores, pixel_scores, ranking_score


def image_scores(junior: Tensor, senior: Tensor | None, rows: int = 1 << 24) -> dict[str, float]:
    """The scores of an image that comes in parts of so many rows."""
    scores = ImageScores()
    for top in range(0, junior.shape[1], rows):
        scores.add(junior[:, top : top + rows], None if senior is None else senior[:, top : top + rows])
    return scores.means()


@pytest.mark.parametrize("rows", [1, 5, 1 << 24], ids=["row by row", "in unequal parts", "at once"])
def test_scores_equal_their_formulas(rows: int) -> None:
    rng = np.random.default_rng(1)
    junior, senior = rng.normal(0, 3, (2, 7, 13, 17))
    expected = expected_scores(softmax(junior), softmax(senior))
    tensors = [torch.from_numpy(logits).float().softmax(dim=0) for logits in (junior, senior)]
    scores = image_scores(*tensors, rows=rows)
    assert list(scores) == list(SCORES)
    for name, values in expected.items():
        assert scores[name] == pytest.approx(values.mean(), abs=2e-6), name
        np.testing.assert_allclose(pixel_scores(*tensors)[name], values, atol=1e-5, err_msg=name)


def test_scores_reach_both_ends_of_their_range() -> None:
    certain = torch.zeros(2, 3, 4)
    certain[0] = 1
    opposite = certain.flip(0)
    assert set(image_scores(certain, certain).values()) == {0.0}
    apart = image_scores(certain, opposite)
    assert apart["disagreement"] == apart["divergence"] == pytest.approx(1)
    assert (apart["entropy_junior"], apart["entropy_senior"], apart["entropy_mean"]) == pytest.approx((0, 0, 1))
    unsure = image_scores(torch.full((5, 3, 4), 0.2), torch.full((5, 3, 4), 0.2))
    assert [unsure[name] for name in SCORES] == pytest.approx([0, 0, 1, 1, 1], abs=1e-6)


def test_without_a_senior_there_is_the_juniors_entropy_alone() -> None:
    junior = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=0)
    assert image_scores(junior, None) == {"entropy_junior": image_scores(junior, junior)["entropy_junior"]}


def test_rankings() -> None:
    scores = {name: 0.1 * place for place, name in enumerate(SCORES, start=2)}
    ranked = {by: ranking_score(scores, by) for by in RANKINGS}
    assert ranked == pytest.approx(
        {
            "disagreement": scores["disagreement"],
            "entropy": scores["entropy_junior"],
            "both": scores["disagreement"] * scores["entropy_mean"],
        }
    )


# The choice


def unit(angles: list[float]) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_without_diversity_the_highest_scores_are_chosen() -> None:
    scores = np.array([0.3, 0.9, 0.1, 0.8, 0.9])
    assert choose(scores, unit([0, 0, 0, 0, 0]), 4, 0) == [1, 4, 3, 0]


def test_a_look_alike_is_passed_over() -> None:
    scores = np.array([0.9, 0.89, 0.5, 0.1])
    features = unit([0, 0.001, 1, 2])
    assert choose(scores, features, 3, 1) == [0, 2, 3]
    assert choose(scores, features, 3, 0) == [0, 1, 2]


def test_the_choice_equals_a_plain_reading_of_its_rule() -> None:
    rng = np.random.default_rng(3)
    scores, features = rng.uniform(size=40), rng.normal(size=(40, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for diversity in (0.5, 1, 2):
        expected: list[int] = []
        while len(expected) < 15:
            gains = {
                index: scores[index]
                * min((np.sqrt(((features[index] - features[other]) ** 2).sum()) for other in expected), default=1)
                ** diversity
                for index in range(40)
                if index not in expected
            }
            expected.append(max(gains, key=gains.__getitem__))
        assert choose(scores, features, 15, diversity) == expected
        assert choose(7 * scores, features, 15, diversity) == expected


def test_ties_go_to_the_higher_score_and_then_to_the_first() -> None:
    same = unit([1, 1, 1, 1])  # after the first choice every distance is 0
    assert choose(np.array([0.2, 0.5, 0.5, 0.4]), same, 4, 1) == [1, 2, 3, 0]
    assert choose(np.zeros(3), unit([0, 1, 2]), 3, 0) == [0, 1, 2]


def test_without_any_score_the_choice_spreads() -> None:
    """Neighbors first by number would be twenty frames of one scene."""
    features = unit([0, 0.1, 0.2, 2, 1])
    assert choose(np.zeros(5), features, 3, 1) == [0, 3, 4]
    assert choose(np.array([0, 0, 0, 0, 0.5]), features, 3, 1) == [4, 3, 0]


@pytest.mark.parametrize("diversity", [math.nan, math.inf, -1])
def test_a_diversity_that_is_no_number_is_refused(diversity: float) -> None:
    with pytest.raises(ConfigError, match=f"--diversity {diversity}: should be a number of 0 or more"):
        choose(np.ones(2), unit([0, 1]), 1, diversity)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ConfigError, match="no finite score to 1 of 3 images"):
        choose(np.array([0.1, math.nan, 0.2]), unit([0, 1, 2]), 2, 1)
    with pytest.raises(ConfigError, match="no finite score to 2 of 3 images"):
        choose(np.ones(3), unit([0, math.nan, math.nan]), 2, 1)


# Scores and true errors


def test_scores_are_compared_where_there_are_masks() -> None:
    errors = [{"pixel_error": value, "miou_error": 100 - value} for value in (10.0, 20.0, 60.0)]
    scores = {"good": np.array([0.1, 9, 0.2, 0.3]), "bad": np.array([3, 0, 2, 1.0])}
    comparison = compare(scores, [errors[0], None, *errors[1:]], chosen=[3, 1])
    assert comparison.images == 3
    assert comparison.correlations["good"] == pytest.approx({"pixel_error": 1, "miou_error": -1})
    assert comparison.correlations["bad"] == pytest.approx({"pixel_error": -1, "miou_error": 1})
    assert comparison.mean_of_highest == pytest.approx({"good": 40, "bad": 15})
    assert (comparison.mean_of_chosen, comparison.mean_of_all) == pytest.approx((60, 30))
    constant = compare({"constant": np.ones(4)}, [errors[0], None, *errors[1:]], chosen=[3, 1])
    assert np.isnan(list(constant.correlations["constant"].values())).all()


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "label-next"
SETS = ("camvid-training", "camvid-validation", "scenes")


def documented_rows() -> list[str]:
    """The table of the documentation, from the files that the command wrote."""
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in SETS]
    cells: dict[str, list[str]] = {f"`{name}`": [] for name in (*SCORES, "both")} | {"chosen": [], "all": []}
    for result in results:
        for name, values in result["correlations"].items():
            error = result["mean_of_highest"][name]
            cells[f"`{name}`"].append(f"{values['pixel_error']:.2f}, {values['miou_error']:.2f}, {error:.1f}")
        cells["chosen"].append(f"{result['mean_of_chosen']:.1f}")
        cells["all"].append(f"{result['mean_of_all']:.1f}")
    return [f"| {name} | {' | '.join(values)} |" for name, values in cells.items()]


def test_the_documented_table_is_that_of_the_files() -> None:
    text = (Path(__file__).parents[2] / "docs" / "label-next.md").read_text()
    assert "\n".join(documented_rows()) in text


def test_the_histogram_counts_every_image() -> None:
    histogram = score_histogram(np.array([0.0, 0.01, 0.4, 0.4]), [2])
    assert histogram.highest == 0.4
    assert [height for height in histogram.all if height] == [0.5, 0.5, 1]
    assert [height for height in histogram.chosen if height] == [0.5]
    assert score_histogram(np.zeros(3), [0]).all[0] == 1
