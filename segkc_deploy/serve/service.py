"""From a request to its answer: body, decoding, queue, network, mask."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from fastapi import HTTPException, Request, Response

from segkc_deploy.data.images import Header, decode_image, read_header
from segkc_deploy.errors import DataError
from segkc_deploy.serve.admission import RETRY_AFTER, Admission
from segkc_deploy.serve.batcher import Outputs, QueueFullError
from segkc_deploy.serve.body import read_body
from segkc_deploy.serve.limits import Limits
from segkc_deploy.serve.metrics import Metrics
from segkc_deploy.serve.replies import MEDIA_TYPES, Format, png, polygons_json, prediction_json
from segkc_deploy.serve.served_model import ServedModel
from segkc_deploy.serve.stages import Stages

_Result = TypeVar("_Result")

#: Images of up to so many pixels, in files of up to so many bytes, are decoded, and their masks encoded as PNG, without
#: a thread: that takes a few milliseconds, and the way there and back adds 0.6 ms to every request.
_AT_ONCE = 512 * 512


class Service:
    """Answers predictions within its limits.

    Memory is bounded: requests hold their body and the image at the network's size; images and masks at their own
    size exist only in the few threads that decode and encode.

    Args:
        models: the artifacts, by different names; the first one answers where a request names none.
        limits: what is accepted.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.metrics = Metrics()
        self._admission = Admission(limits)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="images")
        self._workers: list[asyncio.Task[None]] = []
        self.metrics.in_work.set_function(lambda: self._admission.requests)
        for model in models:
            self.metrics.waiting.labels(model.name).set_function(model.waiting)

    @property
    def ready(self) -> bool:
        """Whether every network is being given batches."""
        return bool(self._workers) and not any(worker.done() for worker in self._workers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Give the networks their batches while the block runs."""
        self._workers = [asyncio.create_task(model.batcher.work()) for model in self.models.values()]
        try:
            yield
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            self._threads.shutdown()

    async def predict(self, request: Request, name: str | None, form: Format, tolerance: float) -> Response:
        """Answer with the prediction for the image in the request's body.

        Raises:
            HTTPException: 400 no readable image, 404 no such model, 408, 413, 429 and 503 by the limits.
        """
        model = self.model(name)
        stages = Stages()
        async with self.admitted(request, model, stages):
            content = await self._content(request, model, form, tolerance, stages)
        self.metrics.images.labels(model.name).inc()
        return Response(content, media_type=MEDIA_TYPES[form], headers={"Server-Timing": stages.server_timing()})

    def model(self, name: str | None) -> ServedModel:
        """Return a model by its name, the first one by default.

        Raises:
            HTTPException: 404 where there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise HTTPException(404, f"no model {name!r} here; there are {', '.join(self.models)}")
        return self.models[name]

    @asynccontextmanager
    async def admitted(self, request: Request, model: ServedModel, stages: Stages) -> AsyncIterator[None]:
        """Do the block's work for a request, within the limits on requests and time, and note how long all of it took.

        Raises:
            HTTPException: 429 and 503 by the limits.
        """
        started = time.perf_counter()
        with self._admission.admit(request.client.host if request.client else ""):
            try:
                async with asyncio.timeout(self.limits.seconds):
                    yield
            except TimeoutError:
                detail = f"no answer within {self.limits.seconds:g} s; try again later"
                raise HTTPException(503, detail, RETRY_AFTER) from None
        for stage, seconds in stages.seconds.items():
            self.metrics.stage_seconds.labels(stage).observe(seconds)
        self.metrics.seconds.labels(model.name).observe(time.perf_counter() - started)

    async def network(self, model: ServedModel, images: Sequence[np.ndarray], stages: Stages) -> list[Outputs]:
        """Return the network's outputs for each of `images`, which have the network's size.

        Raises:
            HTTPException: 503 where too many images wait.
        """
        try:
            ran = await model.batcher.infer_all(images)
        except QueueFullError:
            detail = f"{self.limits.waiting} images at most wait for {model.name}; try again later"
            raise HTTPException(503, detail, RETRY_AFTER) from None
        stages.seconds |= {"queue": max(one.waited_s for one in ran), "network": max(one.ran_s for one in ran)}
        for one in ran:
            self.metrics.batch_size.labels(model.name).observe(one.batch)
        return [one.outputs for one in ran]

    async def _content(
        self, request: Request, model: ServedModel, form: Format, tolerance: float, stages: Stages
    ) -> bytes:
        with stages.timed("body"):
            body = await read_body(request, self.limits)
        with stages.timed("decode"):
            header = await self.run(lambda: self._header(body), len(body))
            # A file of few pixels may have many bytes, and the other way round.
            most = max(math.prod(header[1]), len(body))
            size, image = await self.run(lambda: self._decode(body, header, model), most)
        (outputs,) = await self.network(model, [image], stages)

        def finish() -> bytes:
            mask = model.mask(outputs, size)
            if form == "png":
                return png(mask)
            confidence = model.confidence(outputs, size)
            if form == "polygons":
                return polygons_json(model, mask, confidence, tolerance)
            return prediction_json(model, mask, confidence, stages)

        with stages.timed("mask"):
            # Outlines and run lengths of a mask of noise take seconds, however small it is.
            return await (self.run(finish, math.prod(size)) if form == "png" else self.run_in_thread(finish))

    def _header(self, body: bytes) -> Header:
        """Return the header of the image in `body`, unless it has too many pixels."""
        try:
            header = read_header(body, "the body")
        except DataError as error:
            raise HTTPException(400, str(error)) from None
        height, width = header[1]
        if height * width > self.limits.pixels:
            raise HTTPException(413, f"the image has {width} × {height} pixels, more than {self.limits.pixels}")
        return header

    def _decode(self, body: bytes, header: Header, model: ServedModel) -> tuple[tuple[int, int], np.ndarray]:
        """Return the image's (height, width) and the image at the network's size."""
        try:
            image = decode_image(body, "the body", header)
        except DataError as error:
            raise HTTPException(400, str(error)) from None
        return image.shape[:2], model.network_input(image)

    async def run(self, work: Callable[[], _Result], size: int) -> _Result:
        """Do the work of so many pixels or bytes: of few at once, of others in a thread."""
        if size <= _AT_ONCE:
            return work()
        return await self.run_in_thread(work)

    async def run_in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Do work in a thread, while others are answered."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
