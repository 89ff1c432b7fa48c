"""`segkc-deploy export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app
from segkc_deploy.engines import ENGINES

_SIZES = "Sizes"
_PROOF = "Proof"
_BUILD = "Build of an engine"


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    engine: Annotated[str, typer.Option(help=f"{', '.join(ENGINES)}, or auto: the fastest here.")] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16, int8, fp8; int8-fp16, int8-bf16, fp8-fp16: the rest in 16 bits."
            " [default: fp32; with auto any that passes]"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data spec: validation images verify, training images calibrate; by default the run's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the artifact; by default the run directory.")] = None,
    outputs: Annotated[
        str | None,
        typer.Option(help="Any of masks,confidence,logits. [default: masks; for onnx and openvino masks,logits]"),
    ] = None,
    upsampling: Annotated[
        Literal["dense", "sparse"] | None,
        typer.Option(help="How masks are made from logits: sparse for CPUs (onnx, openvino), dense for TensorRT."),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(help="ONNX opset of the file (onnx), for parsers that read no newer one; 23.", show_default=False),
    ] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Also write a Triton model repository into this folder (onnx and trt).")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Input size, 518 or 360x480 (height x width); by default the validated size.",
            rich_help_panel=_SIZES,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="4 (always), 1:8 or 1:4:8 (smallest:usual:largest).", rich_help_panel=_SIZES),
    ] = None,
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic", help="Free height and width, in multiples of the patch.", rich_help_panel=_SIZES),
    ] = False,
    min_size: Annotated[
        str | None, typer.Option(help="Smallest size of --dynamic; half of --size.", rich_help_panel=_SIZES)
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Largest size of --dynamic; twice --size.", rich_help_panel=_SIZES)
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            help="Images without masks (file, folder or glob) that verify instead of the data spec's.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    verify_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images to verify on, at most; by default 32 to 200, fewer the larger the input size.",
            show_default=False,
            rich_help_panel=_PROOF,
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="Images to calibrate on, at most.", rich_help_panel=_PROOF)
    ] = 64,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least share of pixels like PyTorch's; 0.999 (FP32), 0.995 (16 bit).",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    max_miou_loss: Annotated[
        float | None,
        typer.Option(min=0, help="Most mIoU that may be lost; 0.5 (INT8, FP8).", rich_help_panel=_PROOF),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="Memory of TensorRT's kernels, MiB.", rich_help_panel=_BUILD)
    ] = None,
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="TensorRT's builder optimization level.", rich_help_panel=_BUILD)
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later TensorRT versions too.", rich_help_panel=_BUILD)
    ] = False,
    hardware_compatible: Annotated[
        Literal["ampere_plus", "same_compute_capability"] | None,
        typer.Option(help="For other GPUs too.", rich_help_panel=_BUILD),
    ] = None,
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Leave weights out of the plan.", rich_help_panel=_BUILD)
    ] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="Folder of TensorRT's timing caches.", rich_help_panel=_BUILD),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="GPU to build for ahead of time, such as 8.9 (trt-rtx); repeatable.", rich_help_panel=_BUILD),
    ] = None,
) -> None:
    """Export the junior, and only the junior, and prove that the artifact agrees with it.

    Example: `segkc-deploy export runs/a --engine trt --precision fp16 --size 364x476 --batch 1:8`
    """
    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("export"):
        from segkc_deploy.export.auto_engine import AUTO, choice_lines, export_fastest
        from segkc_deploy.export.engines.base import BuildOptions, Range
        from segkc_deploy.export.engines.registry import find_engine
        from segkc_deploy.export.export_run import export_run
        from segkc_deploy.export.settings import ExportSettings
        from segkc_deploy.export.summary import summary
        from segkc_deploy.export.to_onnx import OPSET
        from segkc_deploy.export.triton import check_model_repository, write_model_repository
        from segkc_deploy.export.verify import Limits
        from segkc_deploy.training.files.run_directory import RunDirectory, read_config

    from segkc_deploy.cli.ranges import parse_range
    from segkc_deploy.cli.sizes import parse_size
    from segkc_deploy.errors import ConfigError

    settings = ExportSettings(
        engine="onnx" if engine == AUTO else engine,
        precision=precision or "fp32",
        size=parse_size(size) if size else None,
        free_size=dynamic,
        min_size=parse_size(min_size, "--min-size") if min_size else None,
        max_size=parse_size(max_size, "--max-size") if max_size else None,
        batch=Range(*parse_range(batch, "--batch")) if batch else None,
        outputs=tuple(name.strip() for name in outputs.split(",")) if outputs else None,
        upsampling=upsampling,
        limits=Limits(min_agreement, max_miou_loss),
        verify_images=verify_images,
        calibration_images=calibration_images,
        opset=OPSET if opset is None else opset,
        options=BuildOptions(
            workspace_mib=workspace,
            optimization_level=level,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            strip_weights=strip_weights,
            timing_cache=timing_cache,
            compute_capabilities=tuple(compute_capability or ()),
        ),
    )
    if data is None:
        data = read_config(RunDirectory(run))[1]
        if data is None and not verify:
            raise ConfigError(f"{run}: imported without a data spec; give --data, or images without masks by --verify")
        # Images without masks suffice to verify most precisions where the run's own data has not come along.
        if verify and data is not None and not _is_here(data):
            data = None
    if engine == AUTO and (triton is not None or opset is not None or settings.options != BuildOptions()):
        raise ConfigError(
            "--engine auto takes no --triton, no --opset and no options of a build; name the engine for them"
        )
    if triton is not None and strip_weights:
        raise ConfigError("--strip-weights with --triton: Triton loads whole plans alone; leave one of them out")
    if triton is not None:
        check_model_repository(find_engine(engine).name, f"junior-{settings.precision}", triton)
    if engine == AUTO:
        exported, choice = export_fastest(run, data, settings, [precision] if precision else None, out, verify)
        for line in choice_lines(choice):
            typer.echo(line)
    else:
        exported = export_run(run, data, settings, out, verify)
    for line in summary(exported.path, exported.manifest):
        typer.echo(line)
    if triton is not None:
        typer.echo(f"  Triton model: {write_model_repository(exported.path, exported.manifest, triton)}")


def _is_here(data: Path) -> bool:
    """Return whether the images of a run's own data spec are on this machine."""
    from segkc_deploy.data.spec import load_data_spec
    from segkc_deploy.errors import UserError

    if not data.is_file():
        return False
    try:
        load_data_spec(data).resolve()
    except UserError as error:
        typer.echo(f"the run's own data is left out: {error}", err=True)
        return False
    return True
