#!/usr/bin/env bash
# Everything worth doing while a GPU is at hand, in less than 25 minutes on a data-center GPU:
# the GPU tests, co-training on CamVid with several seeds, training throughput, export in every precision to every
# engine that the machine has, latency of each.
#
#   benchmarks/gpu_suite.sh CAMVID LABELED_IDS OUT
#
# CAMVID holds images/{train,val} and masks/{train,val}; LABELED_IDS lists the labeled training images, one a line.
# Results: OUT/gpu-camvid.json (rows with the machine's description), OUT/report-SEED/, OUT/throughput.json,
# OUT/exports.log, OUT/tests.log.
# Nothing needs to be installed but the packages of the extras train, export and benchmark; run it from the repository.
#
# SEEDS, STEPS, CROP, BATCH, SECONDS_A_LATENCY, DEVICE and LABELS can be set in the environment: a rehearsal without
# a GPU is  DEVICE=cpu SEEDS=0 STEPS=2 BATCH=2 CROP='[96, 128]' SECONDS_A_LATENCY=0.2 benchmarks/gpu_suite.sh ...
set -euo pipefail

camvid=$(realpath "$1")
labeled_ids=$(realpath "$2")
mkdir -p "$3"
out=$(realpath "$3")
cd "$(dirname "$0")/.."

seeds=${SEEDS:-0 1 2}
steps=${STEPS:-3000}
crop=${CROP:-[320, 448]}
batch=${BATCH:-8}
seconds=${SECONDS_A_LATENCY:-5}
device=${DEVICE:-cuda}
labels=${LABELS:-1/8}
precision=$([ "$device" = cuda ] && echo bf16 || echo fp32)
python=${PYTHON:-python3}

echo "== GPU tests"
# A failing test costs none of the rest; the script's exit code tells it at the end.
tests=0
"$python" -m pytest -m "gpu or tensorrt" -q > "$out/tests.log" 2>&1 || tests=$?
tail -n 5 "$out/tests.log"

runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
cat > "$runs/data.yaml" <<YAML
layout: camvid
root: $camvid
labeled: {ids: $labeled_ids}
YAML

rm -f "$out/gpu-camvid.json" "$out/exports.log"
for seed in $seeds; do
  for recipe in supervised-cpu segkc-cpu; do
    echo "== $recipe, seed $seed"
    "$python" -m segkc_deploy train --data "$runs/data.yaml" --recipe "$recipe" --out "$runs/$recipe-$seed" \
      --device "$device" -o seed="$seed" -o schedule.steps="$steps" -o crop_size="$crop" -o precision="$precision" \
      -o batch.labeled="$batch" -o batch.unlabeled="$batch" -o validation.every="$steps" -o checkpoint_every="$steps"
  done
  echo "== export and benchmark, seed $seed"
  artifacts=()
  for engine in onnx aoti openvino trt trt-rtx; do
    # Other seeds' networks run no faster.
    [ "$engine" = onnx ] || [ "$seed" = "${seeds%% *}" ] || continue
    for kind in fp32 fp16 bf16 int8 fp8; do
      # What an engine or the machine lacks is told in one line and costs none of the rest.
      if "$python" -m segkc_deploy export "$runs/segkc-cpu-$seed" --engine "$engine" --precision "$kind" \
          --out "$runs/$engine-$seed" >> "$out/exports.log" 2>&1; then
        artifacts+=("$(find "$runs/$engine-$seed" -name "junior-$kind.*" ! -name '*.json' ! -name '*.bin' | head -n 1)")
      else
        tail -n 1 "$out/exports.log"
      fi
    done
  done
  "$python" -m segkc_deploy benchmark "$runs/supervised-cpu-$seed" "$runs/segkc-cpu-$seed" \
    "${artifacts[@]}" --data "$runs/data.yaml" --out "$out/report-$seed" --seconds "$seconds"
  "$python" -m segkc_deploy.benchmarks.study "$out/report-$seed/benchmark.json" --study gpu-camvid \
    --labels "$labels" --seed "$seed" --out "$out/gpu-camvid.json"
done

echo "== training throughput (median of the second half of each run)"
"$python" - "$runs" "$out/throughput.json" <<'PYTHON'
import json, pathlib, statistics, sys
from segkc_deploy.machine import describe_machine

rows = []
for metrics in sorted(pathlib.Path(sys.argv[1]).glob("*/metrics.jsonl")):
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    speeds = [record["images_per_s"] for record in records if record["kind"] == "train"]
    second_half = speeds[len(speeds) // 2 :]
    rows.append({"run": metrics.parent.name, "images_per_s": statistics.median(second_half), "min": min(second_half),
                 "max": max(second_half), "memory_mib": records[-2]["memory_mib"]})
pathlib.Path(sys.argv[2]).write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n")
PYTHON

"$python" -m segkc_deploy.benchmarks.tables "$out/gpu-camvid.json"
exit "$tests"
