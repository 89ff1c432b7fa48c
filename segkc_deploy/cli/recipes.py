"""`segkc-deploy recipes`: what can be trained, and what it is to be compared with."""

from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe, or a .yaml file.", metavar="[NAME]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, published numbers included.")] = False,
) -> None:
    """List the recipes, or show one with every value and the published numbers to compare it with.

    What is shown of one recipe is itself a recipe file.

    Example: `segkc-deploy recipes segkc-dinov2-s-voc`
    """
    from segkc_deploy.training.recipe_file import load_recipe, shipped_recipes
    from segkc_deploy.training.recipe_table import as_json, recipe_table

    if name is not None:
        _show(name, json)
    elif json:
        _print_json([as_json(load_recipe(shipped)) for shipped in shipped_recipes()])
    else:
        typer.echo("\n".join(recipe_table(map(load_recipe, shipped_recipes()))))


def _show(name: str, json: bool) -> None:
    import yaml

    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.training.recipe_file import load_recipe
    from segkc_deploy.training.recipe_table import as_json, comparison

    with needs_extra("train"):
        from segkc_deploy.training.methods.registry import with_method_defaults

    recipe = with_method_defaults(load_recipe(name))
    if json:
        _print_json(as_json(recipe))
        return
    typer.echo(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
    typer.echo("\n".join(comparison(recipe)))


def _print_json(data: object) -> None:
    import json

    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
