"""EntropyMix and how mixed views carry labels, confidences and padding, against loops in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segkc_deploy.training.data.cutmix import blend
from segkc_deploy.training.data.entropymix import patches_by_entropy, prediction_entropy, random_patches
from segkc_deploy.training.data.views import View, entropy_mixed, mixed_views
from segkc_deploy.training.recipe import EntropyMixConfig, StrongAugmentation

N, HEIGHT, WIDTH, GRID = 2, 11, 14, 3


def slow_choice(
    entropies: tuple[np.ndarray, np.ndarray], ignored: tuple[np.ndarray, np.ndarray], select: str
) -> np.ndarray:
    """Whether each pixel is the first view's, patch by patch in loops."""
    chosen = np.zeros((N, HEIGHT, WIDTH), dtype=bool)
    row_patch = [y * GRID // HEIGHT for y in range(HEIGHT)]
    column_patch = [x * GRID // WIDTH for x in range(WIDTH)]
    for n in range(N):
        for row in range(GRID):
            for column in range(GRID):
                pixels = [
                    (y, x)
                    for y in range(HEIGHT)
                    for x in range(WIDTH)
                    if row_patch[y] == row and column_patch[x] == column
                ]
                means = []
                for entropy, skip in zip(entropies, ignored, strict=True):
                    values = [entropy[n, y, x] for y, x in pixels if not skip[n, y, x]]
                    means.append(sum(values) / len(values) if values else 0.0)
                first = means[0] >= means[1] if select == "high" else means[0] <= means[1]
                for y, x in pixels:
                    chosen[n, y, x] = first
    return chosen


@pytest.mark.parametrize("select", ["high", "low"])
def test_patches_go_to_the_view_of_higher_or_lower_entropy(select: str) -> None:
    rng = np.random.default_rng(0)
    entropies = (rng.random((N, HEIGHT, WIDTH)), rng.random((N, HEIGHT, WIDTH)))
    ignored = (rng.random((N, HEIGHT, WIDTH)) < 0.3, rng.random((N, HEIGHT, WIDTH)) < 0.3)
    ignored[0][0, :4, :5] = True  # a patch of padding alone
    got = patches_by_entropy(
        (torch.from_numpy(entropies[0]), torch.from_numpy(entropies[1])),
        (torch.from_numpy(ignored[0]), torch.from_numpy(ignored[1])),
        GRID,
        "high" if select == "high" else "low",
    )
    np.testing.assert_array_equal(got.numpy(), slow_choice(entropies, ignored, select))


def test_patches_keep_their_precision_under_autocast() -> None:
    """Sums of many pixels: in float16 they overflow, in bfloat16 patches that differ by a hundredth tie."""
    first, ignored = torch.full((1, 400, 400), 1.01), torch.zeros(1, 400, 400, dtype=torch.bool)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            low = patches_by_entropy((first, first - 0.005), (ignored, ignored), 2, "low")
            high = patches_by_entropy((first, first - 0.005), (ignored, ignored), 2, "high")
        assert bool(high.all())
        assert not bool(low.any())


def test_entropy_is_that_of_the_softmax() -> None:
    logits = np.random.default_rng(1).normal(size=(N, 5, 4, 6))
    exponentials = np.exp(logits)
    probability = exponentials / exponentials.sum(axis=1, keepdims=True)
    expected = -(probability * np.log(probability)).sum(axis=1)
    np.testing.assert_allclose(prediction_entropy(torch.from_numpy(logits)).numpy(), expected, rtol=1e-6)


def test_random_patches_are_whole_and_repeat_with_the_seed() -> None:
    torch.manual_seed(3)
    first = random_patches(4, (8, 12), 4)
    torch.manual_seed(3)
    assert torch.equal(first, random_patches(4, (8, 12), 4))
    patches = first.view(4, 4, 2, 4, 3).float().mean(dim=(2, 4))
    assert bool(((patches == 0) | (patches == 1)).all())
    assert 0.2 < patches.mean() < 0.8


def test_blending_on_a_coarser_grid_is_blending_then_pooling() -> None:
    """For values that are constant within a cell, as a coarser grid's are, both orders are the same."""
    torch.manual_seed(0)
    mask = torch.rand(2, 8, 12) < 0.5
    inside, outside = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)

    def enlarged(values: Tensor) -> Tensor:
        return values.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)

    fine = blend(enlarged(inside), enlarged(outside), mask)
    pooled = fine.view(2, 3, 4, 2, 4, 3).mean(dim=(3, 5))
    torch.testing.assert_close(blend(inside, outside, mask), pooled)


def unlabeled_images() -> dict[str, Tensor]:
    """Two views whose every pixel tells the image, the view and its place: 1000 · view + 100 · image + column."""
    place = torch.arange(16.0).repeat(3, 3, 8, 1) + 100 * torch.arange(3.0)[:, None, None, None]
    ignored = torch.zeros(3, 8, 16, dtype=torch.bool)
    ignored[0, :, 12:] = True
    return {"weak": place, "strong_1": place + 1000, "strong_2": place + 2000, "ignored": ignored}


def test_labels_and_padding_follow_the_images_through_both_mixes() -> None:
    torch.manual_seed(0)
    config = StrongAugmentation(
        cutmix_probability=1.0, entropymix=EntropyMixConfig(mode="after-cutmix", grid=4, select="random")
    )
    unlabeled = unlabeled_images()
    views = mixed_views(unlabeled, 2, config, pytest.fail)
    assert len(views) == 3
    for view in views:
        assert torch.equal(view.apply_mixing(unlabeled["weak"]), view.image % 1000)
        assert torch.equal(view.apply_mixing(unlabeled["ignored"]), view.ignored)
        assert torch.equal(view.apply_mixing(unlabeled["weak"][:, 0].long()), (view.image % 1000)[:, 0].long())
    assert bool((views[0].image // 1000 == 1).all())
    assert set((views[2].image // 1000).unique().tolist()) == {1.0, 2.0}
    assert bool((views[0].image % 1000 != unlabeled["weak"]).any())  # CutMix did something


def test_instead_of_cutmix_leaves_no_boxes() -> None:
    config = StrongAugmentation(
        cutmix_probability=1.0, entropymix=EntropyMixConfig(mode="instead-of-cutmix", grid=4, keep_views=False)
    )
    unlabeled = unlabeled_images()
    (view,) = mixed_views(unlabeled, 2, config, lambda images: images[:, 0])
    assert torch.equal(view.image % 1000, unlabeled["weak"])
    assert bool((view.image // 1000)[~unlabeled["ignored"][:, None].expand(-1, 3, -1, -1)].eq(2).all())  # 2000 > 1000


def test_only_patches_picked_by_entropy_ask_for_predictions() -> None:
    images = unlabeled_images()
    first = View(images["strong_1"], images["ignored"], lambda values: values)
    second = View(images["strong_2"], images["ignored"], lambda values: values)
    asked: list[Tensor] = []

    def entropy(of: Tensor) -> Tensor:
        asked.append(of)
        return of[:, 0]

    entropy_mixed(first, second, EntropyMixConfig(select="random"), entropy)
    assert asked == []
    entropy_mixed(first, second, EntropyMixConfig(select="low"), entropy)
    assert len(asked) == 2
