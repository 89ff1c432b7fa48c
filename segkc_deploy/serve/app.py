"""The service's routes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from segkc_deploy.serve.access import key_check
from segkc_deploy.serve.api_models import Model, Prediction, Problem, State
from segkc_deploy.serve.browser_runtime import browser_routes, runs_in_browser
from segkc_deploy.serve.inference import inference_routes, problem_response
from segkc_deploy.serve.page import page_headers, page_html
from segkc_deploy.serve.replies import Format
from segkc_deploy.serve.responses import CLIENT_CLOSED_REQUEST, CountResponses
from segkc_deploy.serve.service import Service

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not a readable image."},
    401: {"model": Problem, "description": "The API key is missing or wrong."},
    404: {"model": Problem, "description": "There is no such model."},
    408: {"model": Problem, "description": "The body arrived too slowly."},
    413: {"model": Problem, "description": "The body or the image is too large."},
    415: {"model": Problem, "description": "The body has a Content-Encoding such as gzip."},
    429: {"model": Problem, "description": "This client has too many requests at once."},
    503: {"model": Problem, "description": "All clients together have too many requests at once, or time ran out."},
}
_ANSWER: dict[str, Any] = {
    "description": "The prediction, at the image's own size.",
    "model": Prediction,
    "content": {
        "image/png": {"schema": {"type": "string", "format": "binary"}},
        "application/geo+json": {"schema": {"type": "object"}},
    },
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself: JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC, told by its content.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def create_app(
    service: Service, api_key: str | None = None, hosts: Sequence[str] = ("*",), browser_runtime: Path | None = None
) -> FastAPI:
    """Return the ASGI application.

    Args:
        service: what predicts.
        api_key: what all but the page and the probes ask for; None leaves them open.
        hosts: the names under which it may be addressed, as `host_names` gives them. A service for this machine alone
            names only itself, so that no web page can reach it through a name that points here (DNS rebinding).
        browser_runtime: a folder with ONNX Runtime Web, with which the page runs artifacts in the browser.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # No page of documentation: FastAPI's would fetch scripts from elsewhere.
    app = FastAPI(
        title="segkc-deploy",
        version=metadata.version("segkc-deploy"),
        description="Semantic segmentation: an image in, the class of every pixel out.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(CountResponses, metrics=service.metrics)
    locked = [Depends(key_check(api_key))]

    @app.post(
        "/predict", dependencies=locked, responses={200: _ANSWER, **_PROBLEMS}, openapi_extra=_BODY, summary="Predict"
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="A name from `/models`; the first one by default.")] = None,
        format: Annotated[Format, Query(description="A PNG of class ids, areas and RLE, or GeoJSON.")] = "png",
        tolerance: Annotated[
            float, Query(ge=0, le=100, description="Polygons: how far an outline may be off, in pixels.")
        ] = 0.0,
    ) -> Response:
        """Return the mask of the image in the body, its classes' areas, or their outlines."""
        try:
            return await service.predict(request, model, format, tolerance)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.get("/models", dependencies=locked, responses={401: _PROBLEMS[401]}, summary="The artifacts")
    async def models() -> list[Model]:
        """Return the artifacts that are served."""
        here = browser_runtime is not None
        served = service.models.values()
        return [model.describe().model_copy(update={"in_browser": here and runs_in_browser(model)}) for model in served]

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Is it there?")
    async def health() -> State:
        """Answer that the process lives; nothing else is looked at."""
        return State(status="ok")

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", responses={503: {"model": Problem}}, summary="Can it predict?")
    async def ready() -> State:
        """Answer whether the networks are loaded and given batches."""
        if not service.ready:
            raise HTTPException(503, "not ready")
        return State(status="ready")

    @app.get("/metrics", dependencies=locked, summary="For Prometheus")
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    app.add_exception_handler(StarletteHTTPException, problem_response)
    app.include_router(inference_routes(service, locked, _PROBLEMS))

    if browser_runtime is not None:
        app.include_router(browser_routes(service, browser_runtime, locked))

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(page_html(), headers=page_headers(browser_runtime is not None))

    return app
