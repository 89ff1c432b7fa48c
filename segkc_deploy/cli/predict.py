"""`segkc-deploy predict`: an artifact's masks of images, as files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app


@app.command("predict")
def predict_command(
    artifact: Annotated[Path, typer.Argument(help="What `segkc-deploy export` wrote, its manifest beside it.")],
    source: Annotated[str, typer.Option(help="An image, a folder with its subfolders, or a glob pattern in quotes.")],
    out: Annotated[Path, typer.Option(help="The folder for `masks/` and `overlays/`.")],
    batch: Annotated[int, typer.Option(min=1, help="Images that run at once.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        typer.Option(help="Where it runs; tensorrt is ONNX Runtime's provider."),
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    overlay: Annotated[bool, typer.Option(help="Also write pictures of image and mask, with a legend.")] = True,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Overlays: 0 shows the image, 1 the colors.")] = 0.5,
    tile: Annotated[
        bool, typer.Option("--tile", help="Predict large images in windows of the network's size, at full resolution.")
    ] = False,
    tile_stride: Annotated[
        int | None, typer.Option(min=1, help="Pixels from one window to the next. [default: two thirds of a window]")
    ] = None,
    shrink_notice: Annotated[
        float, typer.Option(min=1, help="Say so when an image is shrunk by more than this, without --tile.")
    ] = 3.0,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that is not empty; deletes what predict wrote there."),
    ] = False,
) -> None:
    """Write the masks of images: single-channel PNG files of class ids, at each image's own size.

    Example: `segkc-deploy predict junior-fp32.onnx --source photos --out predicted`

    With `--tile`, TIFF files become GeoTIFF masks with the source's georeference (extra `geo`).
    """
    from segkc_deploy.errors import DataError
    from segkc_deploy.prediction_files import predict_files, prepare_folder
    from segkc_deploy.predictor import load
    from segkc_deploy.sources import find_images
    from segkc_deploy.tiled_files import predict_files_tiled

    images = find_images(source, exclude=out)
    with load(artifact, device, threads) as predictor:
        prepare_folder(out, overwrite)
        strength = alpha if overlay else None
        if tile:
            failed = predict_files_tiled(predictor, images, out, tile_stride, batch, strength)
        else:
            failed = predict_files(predictor, images, out, batch, strength, shrink_notice)
        ran_on = predictor.description
    done = len(images) - failed
    if done:
        folders = f"{out / 'masks'} and {out / 'overlays'}" if overlay else f"{out / 'masks'}"
        typer.echo(f"{done} of {len(images)} images predicted with {ran_on}: {folders}")
    if failed:
        raise DataError(f"{failed} of {len(images)} images were left out (named above); replace or remove them")
