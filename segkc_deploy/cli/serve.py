"""`segkc-deploy serve`: artifacts behind HTTP, with a page to try them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app


@app.command("serve")
def serve_command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT...", help="What `segkc-deploy export` wrote; the page compares two."),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which clients reach it through a proxy; may be given several times."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key that clients send as X-API-Key; else anyone may use it.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        typer.Option(help="Where it runs; tensorrt is ONNX Runtime's provider."),
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Most images that run at once, where the artifact leaves it open.")
    ] = 8,
    batch_delay_ms: Annotated[
        float, typer.Option(min=0, help="How long an image waits for others to share its batch.")
    ] = 0.0,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Largest body; more is refused with 413.")] = 20,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels of an image; more is refused with 413.")
    ] = 50_000_000,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at once; more are refused with 503.")] = 64,
    max_client_requests: Annotated[
        int, typer.Option(min=1, help="Requests at once of one address; more are refused with 429.")
    ] = 32,
    max_waiting: Annotated[int, typer.Option(min=1, help="Images that wait for a network; more get 503.")] = 32,
    body_seconds: Annotated[float, typer.Option(min=0.01, help="Time for a body to arrive; then 408.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time until an answer is ready; then 503.")] = 30,
    browser_runtime: Annotated[
        Path | None,
        typer.Option(help="The folder dist of the npm package onnxruntime-web; the page then runs artifacts itself."),
    ] = None,
) -> None:
    """Serve artifacts over HTTP, and a page on which to try them: drop a picture, or use the camera.

    `POST /predict` takes an image file as its body and answers with a mask (PNG), areas and run lengths (JSON) or
    polygons (GeoJSON). `/health`, `/ready`, `/metrics` and `/openapi.json` are for machines.

    Example: `segkc-deploy serve junior-fp32.onnx`, then open http://127.0.0.1:8000
    """
    from contextlib import ExitStack

    from segkc_deploy.api_key import read_key
    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.predictor import load
    from segkc_deploy.progress import console

    with needs_extra("serve"):
        from segkc_deploy.serve.app import create_app
        from segkc_deploy.serve.browser_runtime import check_runtime
        from segkc_deploy.serve.limits import Limits
        from segkc_deploy.serve.served_model import served_models
        from segkc_deploy.serve.server import address_of, host_names, is_local, listen, server_for
        from segkc_deploy.serve.service import Service

    hosts = host_names(host, allowed_host or ())
    key = None if api_key_file is None else read_key(api_key_file)
    if browser_runtime is not None:
        check_runtime(browser_runtime)
    limits = Limits(
        body_mib=max_body_mib,
        pixels=max_pixels,
        requests=max_requests,
        client_requests=max_client_requests,
        waiting=max_waiting,
        body_seconds=body_seconds,
        seconds=seconds,
    )
    with ExitStack() as stack:
        predictors = [(path, stack.enter_context(load(path, device, threads))) for path in artifacts]
        models = served_models(predictors, batch, limits, batch_delay_ms / 1000)
        for model in models:
            model.warm_up()
        listening = stack.enter_context(listen(host, port))
        for model in models:
            typer.echo(f"{model.name}: {model.predictor.description}")
        typer.echo(f"Listening on {address_of(listening)} (Ctrl-C ends it)")
        if key is None and not is_local(host):
            console.print("anyone who reaches this address may use it; --api-key-file asks for a key", style="yellow")
        try:
            app_served = create_app(Service(models, limits), key, hosts, browser_runtime)
            server_for(app_served, limits).run(sockets=[listening])
        except KeyboardInterrupt:
            raise typer.Exit from None
