"""`segkc-deploy predict`: an artifact's masks of images, as files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segkc_deploy.cli.app import app
from segkc_deploy.prediction_record import Further

if TYPE_CHECKING:
    from segkc_deploy.predictor import Predictor

#: What shells give for a command that Ctrl-C ended.
_INTERRUPTED = 130


@app.command("predict")
def predict_command(
    artifact: Annotated[
        str,
        typer.Argument(
            help="What `segkc-deploy export` wrote, its manifest beside it; or a server's model, by its URL."
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            help="An image, folder, glob pattern in quotes, list (`.txt`), video, stream's URL, `camera`, or `-`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder for `masks/`, `overlays/` and what `--also` names.")],
    batch: Annotated[int, typer.Option(min=1, help="Images that run at once.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        typer.Option(help="Where it runs; tensorrt is ONNX Runtime's provider."),
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batches that run at once on a CPU."
            " [default: for folders and video files as many as export --engine auto found best, else one per core;"
            " 1 with --batch or --threads]",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="With a URL: a file with the key that the server asks for as X-API-Key.")
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Also write pictures of image and mask, with a legend.")] = True,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Overlays: 0 shows the image, 1 the colors.")] = 0.5,
    palette: Annotated[
        bool, typer.Option("--palette", help="Masks as palette PNGs: the same class ids, shown in the classes' colors.")
    ] = False,
    also: Annotated[
        list[Further] | None,
        typer.Option(help="Images: also COCO run lengths, GeoJSON in pixels, labelme, 8-bit confidence. Repeatable."),
    ] = None,
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
        typer.Option("--resume", help="Continue in the folder of an ended run: images with results are left out."),
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Predict on a Ray cluster: RAY_ADDRESS, or else this machine (extra `ray`).")
    ] = False,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="With --ray: workers, each of --threads CPUs. [default: all that fit]")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Write into a folder that is not empty; deletes what predict wrote there of images, or of this video.",
        ),
    ] = False,
) -> None:
    """Write the masks of images: single-channel PNG files of class ids, at each image's own size.

    Example: `segkc-deploy predict junior-fp32.onnx --source photos --out predicted`

    A video gives `<name>.mp4`, with the masks and its sound, and `<name>.jsonl`, a line a frame (extra `video`).
    In place of an artifact, `http://HOST:PORT/v2/models/NAME` has Triton or `segkc-deploy serve` run the network.
    With `--tile`, TIFF files become GeoTIFF masks with the source's georeference (extra `geo`).
    """
    from segkc_deploy.errors import ConfigError, DataError
    from segkc_deploy.prediction_files import predict_files, prepare_folder
    from segkc_deploy.ray_prediction import RayJob, import_ray, predict_files_on_ray
    from segkc_deploy.result_files import Outputs
    from segkc_deploy.sources import find_images
    from segkc_deploy.tiled_files import predict_files_tiled
    from segkc_deploy.video.address import shown
    from segkc_deploy.video.source import names_video

    if ray_workers and not ray:
        raise ConfigError("--ray-workers is for --ray")
    if tile_stride is not None and not tile:
        raise ConfigError("--tile-stride is for --tile")
    if streams is not None and (ray or tile):
        raise ConfigError(f"--streams is not for {'--ray, use --ray-workers' if ray else '--tile'}")
    opened = partial(_open, artifact, device, threads, api_key_file)
    strength, further = alpha if overlay else None, tuple(also or ())
    if names_video(source):
        if further or palette:
            raise ConfigError(
                f"{shown(source)}: --also and --palette are for images; --frames says what is written of a frame"
            )
        if resume and not Path(source).is_file():
            raise ConfigError(
                f"{shown(source)}: a stream cannot be resumed; leave --resume out and choose another --out"
            )
        if tile:
            raise ConfigError(f"{shown(source)}: --tile is for images; frames are predicted as a whole")
        if ray:
            raise ConfigError(f"{shown(source)}: --ray is for images; a video is predicted by one machine")
        live = not Path(source).is_file()  # its frames should not wait for one another
        opened = partial(opened, streams=_streams(streams, threads, batch, one_at_a_time=live))
        _predict_video(source, out, overwrite, resume, opened, (batch, strength, frames, smooth))
        return

    if smooth or frames != "areas":
        raise ConfigError(f"{source}: --smooth and --frames are for videos; --also says what is written of an image")
    images = find_images(source, exclude=out)
    outputs = Outputs(strength, palette, further)
    if ray:
        worker, cpus, gpus, network = _worker_options(artifact, device, threads, api_key_file)
        job = RayJob(
            worker,
            out,
            batch,
            outputs,
            shrink_notice,
            tile,
            tile_stride,
            cpus=cpus,
            gpus=gpus,
            workers=ray_workers,
            network=network,
        )
        import_ray()
        prepare_folder(out, overwrite or resume)
        failed, ran_on = predict_files_on_ray(job, images, resume), "Ray"
    else:
        alone = tile or len(images) == 1
        with opened(streams=_streams(streams, threads, batch, one_at_a_time=alone)) as predictor:
            prepare_folder(out, overwrite or resume)
            if tile:
                failed = predict_files_tiled(predictor, images, out, tile_stride, batch, outputs, resume)
            else:
                failed = predict_files(predictor, images, out, batch, outputs, shrink_notice, resume)
            ran_on = predictor.description
    done = len(images) - failed
    if done:
        folders = f"{out / 'masks'} and {out / 'overlays'}" if overlay else f"{out / 'masks'}"
        typer.echo(f"{done} of {len(images)} images predicted with {ran_on}: {folders}")
    if failed:
        raise DataError(f"{failed} of {len(images)} images were left out (named above); replace or remove them")


def _streams(wanted: int | None, threads: int | None, batch: int, one_at_a_time: bool) -> int | None:
    """Return how many batches run at once; None leaves it to `load`.

    A limit on threads is meant for the whole command, and large batches in every stream could take all memory.
    """
    if wanted is None and (threads is not None or batch > 1 or one_at_a_time):
        return 1
    return wanted


def _is_url(artifact: str) -> bool:
    return artifact.startswith(("http://", "https://"))


def _open(
    artifact: str, device: str, threads: int | None, api_key_file: Path | None, streams: int | None = 1
) -> "Predictor":
    """Return the predictor of an artifact, or of a server's model by its URL."""
    from segkc_deploy.api_key import read_key
    from segkc_deploy.errors import ConfigError
    from segkc_deploy.predictor import connect, load

    if not _is_url(artifact):
        if api_key_file is not None:
            raise ConfigError(f"--api-key-file is for a server's model; {artifact} is run here")
        return load(artifact, device, threads, streams=streams)
    if (device, threads) != ("auto", None) or (streams or 1) > 1:
        options = "--device, --threads and --streams"
        raise ConfigError(f"{artifact}: {options} are for artifacts run here; the server has its own")
    return connect(artifact, read_key(api_key_file) if api_key_file else None)


def _worker_options(
    artifact: str, device: str, threads: int | None, api_key_file: Path | None
) -> tuple[Callable[[], "Predictor"], int, int | None, str]:
    """Return what opens the network in a Ray worker, the CPUs and GPUs that the worker occupies, and its name."""
    from segkc_deploy.manifest import read_manifest
    from segkc_deploy.prediction_files import network_of

    key = api_key_file and api_key_file.absolute()
    if _is_url(artifact):
        opened = partial(_open, artifact, device, threads, key)
        with opened() as predictor:
            return opened, 1, 0, network_of(predictor)
    path = Path(artifact).absolute()
    network = read_manifest(path).sha256  # what is wrong with it is said before there are workers
    gpus = {"auto": None, "cpu": 0}.get(device, 1)
    return partial(_open, str(path), device, threads or 1, key), threads or 1, gpus, network


def _predict_video(
    source: str,
    out: Path,
    overwrite: bool,
    resume: bool,
    opened: Callable[[], "Predictor"],
    options: tuple[int, float | None, Literal["areas", "rle", "polygons"], float],
) -> None:
    from segkc_deploy.errors import DataError
    from segkc_deploy.prediction_files import prepare_folder
    from segkc_deploy.progress import console
    from segkc_deploy.video.pipeline import VideoOptions, finished_summary, predict_video
    from segkc_deploy.video.result_files import VideoResults
    from segkc_deploy.video.source import open_video

    how = VideoOptions(*options)
    with open_video(source) as video, opened() as predictor:
        if resume and (summary := finished_summary(predictor, video, out, how)):
            typer.echo(f"{video.shown} is predicted already: {summary}")
            return
        if resume and VideoResults(out, video).lines.is_file():
            again = f"{video.shown}: its prediction was not finished; a video starts again at its first frame"
            console.print(again, markup=False, soft_wrap=True)
        prepare_folder(out, overwrite or resume)
        result = predict_video(predictor, video, out, how)
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
    if result.interrupted and video.file is not None:
        raise typer.Exit(_INTERRUPTED)  # a file is cut short; a stream or a camera has no other end
    if video.broken:
        raise DataError(video.broken)
