# Runs artifacts on the CPU: predict, serve, eval. It holds neither PyTorch nor CUDA.
FROM python:3.11.14-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11.14-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY docker/requirements/runtime.txt /requirements.txt
RUN pip install --no-cache-dir --require-hashes --requirement /requirements.txt
COPY --from=wheel /wheels /wheels
# Without its dependencies: the pinned ones hold the headless OpenCV instead of the desktop's.
RUN pip install --no-cache-dir --no-deps /wheels/*.whl && useradd --uid 10001 --create-home segkc

USER 10001
WORKDIR /home/segkc
EXPOSE 8000
# For `serve`, the default; other commands end before it matters.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["segkc-deploy"]
CMD ["serve", "/models/junior.onnx", "--host", "0.0.0.0"]
