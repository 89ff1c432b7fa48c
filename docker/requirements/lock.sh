#!/bin/sh
# Write the pinned requirements of the images anew: `pip install uv`, then `sh docker/requirements/lock.sh`.
set -eu
cd "$(dirname "$0")/../.."

lock() {
  image=$1
  shift
  uv pip compile pyproject.toml "docker/requirements/$image.in" "$@" \
    --overrides "docker/requirements/$image.overrides" \
    --constraint docker/requirements/tested.txt --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
    --generate-hashes --upgrade --quiet --no-header -o "docker/requirements/$image.txt"
}

lock runtime --extra serve --extra video
lock runtime-gpu --extra serve --extra video
lock training --extra train --extra export --extra openvino --extra serve --extra benchmark --extra tiff --extra geo --extra video
