"""`segkc-deploy push` and `segkc-deploy pull`: share networks through a model hub."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app

_Endpoint = Annotated[
    str | None, typer.Option(help="Address of the hub.", show_default="HF_ENDPOINT, or huggingface.co")
]


@app.command("push")
def push_command(
    target: Annotated[Path, typer.Argument(help="A run directory, or an ONNX artifact.")],
    repo: Annotated[str, typer.Argument(help="The repository, OWNER/NAME; it is made where it does not exist.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private; refuse one that is public.")
    ] = False,
    message: Annotated[str, typer.Option(help="Commit message.")] = "Push a network of segkc-deploy",
    endpoint: _Endpoint = None,
) -> None:
    """Push a run's networks or an artifact to a model hub, with its manifest, model card and checksums.

    Example: `segkc-deploy push artifacts/junior-fp32.onnx me/street-scenes --private`

    Pushes safetensors and ONNX alone. Of a run it leaves out logs, checkpoints and the place of the data.
    """
    from segkc_deploy.sharing.hub import Hub
    from segkc_deploy.sharing.package import pack

    package = pack(target)
    typer.echo(Hub(endpoint).push(package, repo, private, message))
    typer.echo(f"pushed {', '.join(package.files)}")
    if package.left_out is not None:
        typer.echo(
            f"left out {package.left_out}: it is no model card of {target.name}; `segkc-deploy card --overwrite` makes"
            " it one"
        )
    elif "README.md" not in package.files:
        typer.echo("there is no README.md beside it: `segkc-deploy card` writes a model card")


@app.command("pull")
def pull_command(
    repo: Annotated[str, typer.Argument(help="The repository, OWNER/NAME.")],
    out: Annotated[Path, typer.Option(help="The folder for the files.")],
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit.", show_default="the newest commit")
    ] = None,
    endpoint: _Endpoint = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that is not empty; replaces files of the same names."),
    ] = False,
) -> None:
    """Pull what `push` pushed, and verify the checksum of every file.

    Example: `segkc-deploy pull me/street-scenes --out street-scenes`

    Pulls safetensors and ONNX alone, never a format that executes code when it is loaded.
    """
    from segkc_deploy.sharing.hub import Hub

    index, commit = Hub(endpoint).pull(repo, out, revision, overwrite)
    what = out / index.main if index.kind == "artifact" else out
    typer.echo(f"{len(index.files)} files of commit {commit}, checksums verified: {what}")
