"""ONNX Runtime Web for the page, which then runs artifacts in the browser: its files, and the artifacts' own."""

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.params import Depends
from fastapi.responses import FileResponse

from segkc_deploy.errors import ConfigError
from segkc_deploy.serve.served_model import ServedModel
from segkc_deploy.serve.service import Service

#: What the page loads of the npm package's folder `dist`, with its media type.
FILES = {
    "ort.wasm.min.mjs": "text/javascript",
    "ort-wasm-simd-threaded.mjs": "text/javascript",
    "ort-wasm-simd-threaded.wasm": "application/wasm",
}


def check_runtime(folder: Path) -> None:
    """Refuse a folder that lacks the files of ONNX Runtime Web.

    Raises:
        ConfigError: one is missing.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder}: has no {name}; `npm pack onnxruntime-web` downloads a .tgz file with it in package/dist"
            )


def runs_in_browser(model: ServedModel) -> bool:
    """Whether ONNX Runtime Web takes the artifact, one RGB image at a time."""
    assert model.predictor.manifest is not None
    contract = model.predictor.contract
    return model.predictor.manifest.engine == "onnx" and contract.batch in (-1, 1) and contract.pixels.is_rgb


def browser_routes(service: Service, folder: Path, locked: Sequence[Depends]) -> APIRouter:
    """Return the routes of ONNX Runtime Web, in `folder`, and of the artifacts' files, which `locked` protects."""
    router = APIRouter(include_in_schema=False)

    @router.get("/browser-runtime/{name}")
    async def runtime(name: str) -> FileResponse:
        if name not in FILES:
            raise HTTPException(404, "no such file")
        return FileResponse(folder / name, media_type=FILES[name])

    @router.get("/models/{name}/artifact", dependencies=locked)
    async def artifact(name: str) -> FileResponse:
        model = service.model(name)
        if not runs_in_browser(model):
            raise HTTPException(404, f"{name} does not run in a browser")
        return FileResponse(model.path, media_type="application/octet-stream")

    return router
