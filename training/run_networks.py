"""The networks of a training as the files of its run: what `eval`, `export` and `benchmark` read."""

from segkc_deploy.data.images import read_image
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.training.evaluation.prediction import input_size, window_for
from segkc_deploy.training.files.network_file import NetworkMetadata, save_network
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.recipe import Recipe


def shipped_networks(recipe: Recipe, method: Method) -> dict[str, str]:
    """Return by role (`junior`, `senior`) the name of the network, online or EMA, that the recipe ships."""
    suffix = "_ema" if recipe.ship == "ema" else ""
    return {role: role + suffix for role in ("junior", "senior") if role + suffix in method.networks()}


def write_networks(
    run: RunDirectory, recipe: Recipe, method: Method, sets: ImageSets, step: int, scores: dict[str, float]
) -> None:
    """Write the networks that the recipe ships; `scores` are those of `step` by network, empty if not known yet."""
    networks = method.networks()
    for role, name in shipped_networks(recipe, method).items():
        network = networks[name]
        metadata = NetworkMetadata(
            role=role,
            network=network.spec,
            labels=sets.labels,
            input_size=usual_input_size(recipe, sets, network.size_multiple),
            recipe=recipe.name,
            method=recipe.method["name"],
            step=step,
            ema=name != role,
            scores={scored: score for scored, score in scores.items() if scored.startswith(role)},
        )
        save_network(run.network(role), network, metadata)


def usual_input_size(recipe: Recipe, sets: ImageSets, multiple: int) -> tuple[int, int]:
    """Return the network's input size for the first validation image, or for the crop where there is none.

    With a sliding window too: an artifact sees whole images, unless they are so large that validation tiles them.
    """
    size = recipe.validation.size or recipe.crop_size
    if recipe.validation.size is None and sets.val:
        image = read_image(sets.val[0].image, sets.pixels)
        tiled = recipe.validation.window is None and window_for(recipe.validation, image.shape[:2], multiple)
        size = tiled or (image.shape[0], image.shape[1])
    return input_size(size, multiple)
