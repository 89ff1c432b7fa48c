"""The Open Inference Protocol (KServe v2): the paths and messages of Triton, so that its clients work here too."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.params import Depends as Dependency
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from segkc_deploy.errors import DataError
from segkc_deploy.inference_protocol import (
    DATATYPES,
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    decode_request,
    encode,
    tensor_of,
)
from segkc_deploy.manifest import Contract, TensorContract
from segkc_deploy.model_config import client_parameters
from segkc_deploy.preprocess import network_size
from segkc_deploy.serve.batcher import Outputs
from segkc_deploy.serve.body import read_body
from segkc_deploy.serve.responses import CLIENT_CLOSED_REQUEST
from segkc_deploy.serve.served_model import ServedModel
from segkc_deploy.serve.service import Service
from segkc_deploy.serve.stages import Stages

_BODY = {
    "requestBody": {
        "required": True,
        "description": "A request of the Open Inference Protocol: JSON, which the bytes of binary tensors may follow.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

#: A served artifact has no versions; this is the one of Triton's repository.
_VERSION = "1"
_MODEL = "/models/{name}"


class Refusal(BaseModel):
    """Why a request was refused, as the protocol words it."""

    error: str


def inference_routes(
    service: Service, locked: Sequence[Dependency], problems: dict[int | str, dict[str, Any]]
) -> APIRouter:
    """Return the routes below `/v2`.

    Args:
        service: what predicts.
        locked: what is asked of who does more than look whether the service is there.
        problems: the refusals and what they mean, for OpenAPI.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    async def named(request: Request, name: str) -> ServedModel:
        version = request.path_params.get("version", _VERSION)
        if version != _VERSION:
            raise HTTPException(404, f"{name} has no version {version!r}; leave it out, or ask for {_VERSION}")
        return service.model(name)

    chosen = Depends(named)
    versioned = f"{_MODEL}/versions/{{version}}"

    @router.get("", dependencies=locked, summary="The server")
    async def server() -> dict[str, Any]:
        """Return the service's name and version."""
        extensions = ["binary_tensor_data", "model_configuration"]
        return {"name": "segkc-deploy", "version": metadata.version("segkc-deploy"), "extensions": extensions}

    @router.get("/health/live", summary="Is it there?")
    async def live() -> Response:
        """Answer that the process lives."""
        return Response()

    @router.get("/health/ready", summary="Can it predict?")
    async def ready() -> Response:
        """Answer whether the networks are loaded and given batches."""
        return Response(status_code=200 if service.ready else 503)

    @router.get(versioned, dependencies=locked, include_in_schema=False)
    @router.get(_MODEL, dependencies=locked, summary="An artifact's tensors")
    async def model_metadata(model: Annotated[ServedModel, chosen]) -> dict[str, Any]:
        """Return names, types and shapes of the inputs and outputs; -1 is any size."""
        contract = model.predictor.contract
        return {
            "name": model.name,
            "versions": [_VERSION],
            "platform": "segkc-deploy",
            "inputs": [_described(model, contract.input)],
            "outputs": [_described(model, tensor) for tensor in contract.outputs],
        }

    @router.get(f"{versioned}/ready", include_in_schema=False)
    @router.get(f"{_MODEL}/ready", summary="Can it predict?")
    async def model_ready(model: Annotated[ServedModel, chosen]) -> Response:
        """Answer whether the network is loaded and given batches."""
        return await ready()

    @router.get(f"{versioned}/config", dependencies=locked, include_in_schema=False)
    @router.get(f"{_MODEL}/config", dependencies=locked, summary="An artifact's classes")
    async def model_config(model: Annotated[ServedModel, chosen]) -> dict[str, Any]:
        """Return the parameters that Triton's model configuration has of an artifact: classes, colors, contract."""
        assert model.predictor.manifest is not None
        parameters = client_parameters(model.predictor.manifest)
        return {
            "name": model.name,
            "platform": "segkc-deploy",
            "max_batch_size": model.max_batch if model.predictor.contract.batch < 0 else 0,
            "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        }

    @router.post(f"{versioned}/infer", dependencies=locked, include_in_schema=False)
    @router.post(
        f"{_MODEL}/infer",
        dependencies=locked,
        responses={status: problem | {"model": Refusal} for status, problem in problems.items()},
        response_model=InferResponse,
        openapi_extra=_BODY,
        summary="Predict images at the network's size",
    )
    async def infer(request: Request, model: Annotated[ServedModel, chosen]) -> Response:
        """Return the network's outputs for `images`, as JSON or in binary."""
        try:
            return await _infer(service, request, model)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    return router


async def problem_response(request: Request, problem: Exception) -> Response:
    """Return a refusal as this protocol words it (`error`) below `/v2`, and as `Problem` (`detail`) elsewhere."""
    assert isinstance(problem, StarletteHTTPException)
    if not request.url.path.startswith("/v2"):
        return await http_exception_handler(request, problem)
    return JSONResponse({"error": problem.detail}, problem.status_code, problem.headers)


async def _infer(service: Service, request: Request, model: ServedModel) -> Response:
    stages = Stages()
    async with service.admitted(request, model, stages):
        with stages.timed("body"):
            body = await read_body(request, service.limits)
        # The body's length stands for the pixels: lists in JSON are longer still.
        with stages.timed("decode"):
            wanted, images = await service.run(lambda: _decode(service, model, body, request), len(body))
        outputs = await service.network(model, list(images), stages)
        names = _binary_by_name(model, wanted)

        def finish() -> tuple[bytes, dict[str, str]]:
            return _encoded(model, wanted, names, outputs, images.shape[1:3])

        # Logits of many classes are long as JSON, however small the images are.
        in_binary = all(names.values())
        with stages.timed("mask"):
            content, headers = await (service.run(finish, images.size) if in_binary else service.run_in_thread(finish))
    service.metrics.images.labels(model.name).inc(len(images))
    return Response(content, headers=headers | {"Server-Timing": stages.server_timing()})


def _decode(service: Service, model: ServedModel, body: bytes, request: Request) -> tuple[InferRequest, np.ndarray]:
    """Return the request and its images, uint8 (N, H, W, 3) at a size that the network takes."""
    try:
        wanted, inputs = decode_request(body, request.headers.get(HEADER_LENGTH))
    except DataError as error:
        raise HTTPException(400, str(error)) from None
    contract = model.predictor.contract
    images = inputs.get(contract.input.name)
    if images is None or len(inputs) > 1:
        raise HTTPException(400, f"{model.name} takes one tensor, {contract.input.name!r}, not {', '.join(inputs)}")
    if images.ndim != 4 or images.dtype != np.uint8 or not images.size or images.shape[3] != contract.bands:
        raise HTTPException(400, f"images are {images.dtype} {list(images.shape)}; send UINT8 [N, H, W, 3]")
    size = images.shape[1:3]
    if network_size(contract, size) != size:
        nearest = network_size(contract, size)
        raise HTTPException(400, f"{model.name} takes images of {list(nearest)}, not of {list(size)}; resize them")
    most = max(service.limits.waiting, contract.batch)  # of a fixed batch all images come at once
    if len(images) > most:
        raise HTTPException(413, f"a request may hold {most} images, not {len(images)}")
    unknown = {output.name for output in wanted.outputs} - {output.name for output in contract.outputs}
    if unknown:
        raise HTTPException(400, f"{model.name} gives no {', '.join(sorted(unknown))}")
    return wanted, images


def _binary_by_name(model: ServedModel, wanted: InferRequest) -> dict[str, bool]:
    """Return the outputs that are wanted, and of each whether in binary."""
    in_binary = wanted.parameters.get("binary_data_output") is True
    names = {output.name: output.parameters.get("binary_data", in_binary) is True for output in wanted.outputs}
    return names or {output.name: in_binary for output in model.predictor.contract.outputs}


def _encoded(
    model: ServedModel,
    wanted: InferRequest,
    names: Mapping[str, bool],
    outputs: Sequence[Outputs],
    size: tuple[int, int],
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the answer with the outputs of `names`, binary or as JSON."""
    tensors, contents = [], []
    for name, binary in names.items():
        # Where the network gives logits, its own masks are not computed; these are the same.
        values = np.stack([one[name] if name in one else model.mask(one, size) for one in outputs])
        tensor, content = tensor_of(name, values, binary)
        tensors.append(tensor)
        contents.append(content)
    return encode(InferResponse(model_name=model.name, id=wanted.id, outputs=tensors), contents)


def _described(model: ServedModel, tensor: TensorContract) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": _shape(model, tensor)}


def _shape(model: ServedModel, tensor: TensorContract) -> list[int]:
    contract: Contract = model.predictor.contract
    height, width = contract.size if contract.size_multiple is None else (-1, -1)
    batch = contract.batch if contract.batch > 0 else -1
    if tensor.name == "logits":
        return [batch, -1, -1, model.predictor.labels.num_classes]
    return [batch, height, width, *([contract.bands] if tensor.layout == "NHWC" else [])]
