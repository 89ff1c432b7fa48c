"""`segkc-deploy predict`: an artifact's masks of images, as files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app


@app.command("predict")
def predict_command(
    artifact: Annotated[Path, typer.Argument(help="What `segkc-deploy export` wrote, its manifest beside it.")],
    source: Annotated[
        str,
        typer.Option(help="An image, a folder, a glob pattern in quotes, a video, a stream's URL, `camera`, or `-`."),
    ],
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
    frames: Annotated[
        Literal["areas", "rle", "polygons"],
        typer.Option(help="Videos: what each frame's line of JSON holds of the mask."),
    ] = "areas",
    smooth: Annotated[
        float, typer.Option(min=0, max=0.99, help="Videos: decay of an average of the logits, against flicker.")
    ] = 0.0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on in a folder where predict was ended: images with results are left out."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that is not empty; deletes what predict wrote there."),
    ] = False,
) -> None:
    """Write the masks of images: single-channel PNG files of class ids, at each image's own size.

    Example: `segkc-deploy predict junior-fp32.onnx --source photos --out predicted`

    A video gives `<name>.mp4`, with the masks and its sound, and `<name>.jsonl`, a line a frame (extra `video`).
    With `--tile`, TIFF files become GeoTIFF masks with the source's georeference (extra `geo`).
    """
    from segkc_deploy.errors import ConfigError, DataError
    from segkc_deploy.prediction_files import predict_files, prepare_folder
    from segkc_deploy.predictor import load
    from segkc_deploy.sources import find_images
    from segkc_deploy.tiled_files import predict_files_tiled
    from segkc_deploy.video.source import names_video

    strength = alpha if overlay else None
    if names_video(source):
        if resume:
            raise ConfigError(f"{source}: --resume goes on with folders of images; a video is predicted as a whole")
        _predict_video(artifact, source, out, overwrite, (device, threads), (batch, strength, frames, smooth))
        return

    images = find_images(source, exclude=out)
    with load(artifact, device, threads) as predictor:
        prepare_folder(out, overwrite or resume)
        if tile:
            failed = predict_files_tiled(predictor, images, out, tile_stride, batch, strength, resume)
        else:
            failed = predict_files(predictor, images, out, batch, strength, shrink_notice, resume)
        ran_on = predictor.description
    done = len(images) - failed
    if done:
        folders = f"{out / 'masks'} and {out / 'overlays'}" if overlay else f"{out / 'masks'}"
        typer.echo(f"{done} of {len(images)} images predicted with {ran_on}: {folders}")
    if failed:
        raise DataError(f"{failed} of {len(images)} images were left out (named above); replace or remove them")


def _predict_video(
    artifact: Path,
    source: str,
    out: Path,
    overwrite: bool,
    run: tuple[str, int | None],
    options: tuple[int, float | None, Literal["areas", "rle", "polygons"], float],
) -> None:
    from segkc_deploy.errors import DataError
    from segkc_deploy.prediction_files import prepare_folder
    from segkc_deploy.predictor import load
    from segkc_deploy.video.pipeline import VideoOptions, predict_video
    from segkc_deploy.video.source import open_video

    with open_video(source) as video, load(artifact, *run) as predictor:
        prepare_folder(out, overwrite)
        result = predict_video(predictor, video, out, VideoOptions(*options))
        ran_on = predictor.description
    ended = "interrupted after " if result.interrupted else ""
    speed = f"{result.frames / result.seconds:.1f} a second"
    files = " and ".join(map(str, result.files))
    typer.echo(f"{ended}{result.frames} frames predicted with {ran_on}, {speed}: {files}")
    if result.flicker is not None:
        without = (
            f" ({result.flicker_unsmoothed:.2%} without --smooth)" if result.flicker_unsmoothed is not None else ""
        )
        typer.echo(f"{result.flicker:.2%} of the pixels change their class from frame to frame{without}")
    if video.broken:
        raise DataError(video.broken)
