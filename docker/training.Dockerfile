# Trains, exports and benchmarks, on NVIDIA GPUs or the CPU; the driver is the host's.
FROM python:3.11.14-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11.14-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# torch.compile and the export to AOTInductor compile C++.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY docker/requirements/training.txt /requirements.txt
RUN pip install --no-cache-dir --require-hashes --requirement /requirements.txt
COPY --from=wheel /wheels /wheels
# Without its dependencies: the pinned ones hold the headless OpenCV instead of the desktop's.
RUN pip install --no-cache-dir --no-deps /wheels/*.whl && useradd --uid 10001 --create-home segkc

USER 10001
WORKDIR /home/segkc
# A training is no service: its exit code and its log say how it is.
HEALTHCHECK NONE
ENTRYPOINT ["segkc-deploy"]
CMD ["doctor"]
