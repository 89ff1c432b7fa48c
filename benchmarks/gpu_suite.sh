#!/usr/bin/env bash
# Everything worth doing while a GPU is at hand, within MINUTES (9): the GPU tests; training throughput; co-training on
# CamVid, several small trainings at once; one SegKC junior exported to every engine in every precision, each timed.
#
#   benchmarks/gpu_suite.sh CAMVID OUT
#
# CAMVID holds images/{train,val} and masks/{train,val}. OUT gets, as it goes:
#
#   doctor.txt        what the machine has, and what each engine lacks
#   tests.log         the GPU tests
#   throughput.json   images per second and memory of each training, alone and beside others, with the machine
#   camvid-gpu.json   the study's rows (camvid-gpu.md: its tables)
#   exports.log       what each export said
#   gpu-latency.json  rows of accuracy and latency (report/: the same as a page)
#   throughput/ study/ artifacts/  the trainings and the exported files
#
# Run it again with the same OUT to continue an interrupted session: finished work is kept, except for the tests and the
# timing. STAGES names the stages to run, and PLAN=1 prints how long each may take and runs none. Only the packages of the
# extras train, export and benchmark, and pytest, have to be installed. Where the checkout comes without its history,
# SEGKC_COMMIT=HASH names its commit. tests/benchmarks/test_gpu_suite.py rehearses every stage on a CPU.
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: benchmarks/gpu_suite.sh CAMVID OUT" >&2
  exit 2
fi

camvid=$(realpath "$1")
mkdir -p "$2/throughput" "$2/artifacts"
out=$(realpath "$2")
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}

minutes=${MINUTES:-9}
stages=${STAGES:-tests throughput study export benchmark}
device=${DEVICE:-cuda}
only=${ONLY:-}       # trials of the study, as its --only takes them
common=${COMMON:-}   # YAML: sections in place of those that the study gives all rows
# Trainings at once. A guess: throughput.json shows the rate of one alone and of each of several.
workers=${WORKERS:-4}
# Recipes of two DINOv2 networks at the size that is published, here from random weights, and rows of the study, which
# shows the rates of its other rows itself.
throughput=${THROUGHPUT:-segkc-dinov2-s supervised-dinov2-s segkc supervised}
engines=${ENGINES:-onnx trt trt-rtx openvino aoti}   # the slowest to build comes last
precisions=${PRECISIONS:-fp32 fp16 int8-fp16 bf16 int8 fp8 fp8-fp16 int8-bf16}
seconds_a_latency=${SECONDS_A_LATENCY:-0.5}
selection=(-m "gpu or tensorrt")   # TESTS selects other tests
if [ -n "${TESTS:-}" ]; then read -ra selection <<< "$TESTS"; fi
# The most seconds that each stage takes; what others leave is the study's, which gets at least these. Guesses.
tests_seconds=100
throughput_seconds=120
study_seconds=100
export_seconds=90
benchmark_seconds=110

status=0   # a stage that fails does not affect the others

wanted() { [[ " $stages " == *" $1 "* ]]; }

# Seconds until the end, less what the named later stages need.
left() {
  local seconds=$((60 * minutes - SECONDS)) stage name
  for stage in "$@"; do
    name=${stage}_seconds
    if wanted "$stage"; then seconds=$((seconds - ${!name})); fi
  done
  echo "$((seconds > 0 ? seconds : 0))"
}

# Seconds for a stage: its own, or what is left of them beside the later ones.
seconds_for() {
  local name=${1}_seconds seconds
  shift
  seconds=$(left "$@")
  echo "$((seconds < ${!name} ? seconds : ${!name}))"
}

if [ -n "${PLAN:-}" ]; then
  if wanted tests; then echo "tests: at most $tests_seconds s: pytest ${selection[*]}"; fi
  if wanted throughput; then echo "throughput: at most $throughput_seconds s: $throughput"; fi
  if wanted study; then echo "study: $(left tests throughput export benchmark) s, $workers trainings at once"; fi
  if wanted export; then echo "export: at most $export_seconds s: $engines; $precisions"; fi
  if wanted benchmark; then echo "benchmark: at most $benchmark_seconds s"; fi
  exit
fi

heading() { echo "== $1 ($((SECONDS / 60)) of $minutes minutes gone)"; }

# Run a command into a log, for at most so many seconds, and tell its last line if it fails.
quietly() {
  local seconds=$1 log=$2
  shift 2
  timeout -k 10 "$seconds" "$@" >> "$log" 2>&1 || {
    local code=$?
    echo "$(tail -n 1 "$log") (exit code $code, $log)"
    return 1
  }
}

write_throughput() {
  "$python" - "$out" "$workers" <<'PYTHON'
import json, statistics, sys
from pathlib import Path
from segkc_deploy import atomic
from segkc_deploy.machine import describe_machine

out, rows = Path(sys.argv[1]), []
for folder, at_once in ((out / "throughput", 1), (out / "study" / "runs", int(sys.argv[2]))):
    for metrics in sorted(folder.glob("*/metrics.jsonl")):
        records = [json.loads(line) for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]
        trained = [record for record in records if record["kind"] == "train"]
        second_half = [record["images_per_s"] for record in trained[len(trained) // 2 :]]
        if second_half:
            rows.append({"run": metrics.parent.name, "trainings_at_once": at_once, "steps": trained[-1]["step"],
                         "images_per_s": statistics.median(second_half), "min": min(second_half),
                         "max": max(second_half), "memory_mib": max(record["memory_mib"] for record in trained)})
note = "images per second: labeled and unlabeled ones, median of the second half of a training"
text = json.dumps({"machine": describe_machine(), "note": note, "rows": rows}, indent=1)
atomic.write_text(out / "throughput.json", text + "\n")
PYTHON
}

study=benchmarks/studies/camvid-gpu.yaml
if [ -n "$common" ]; then
  "$python" - "$study" "$out/camvid-gpu.yaml" "$common" <<'PYTHON'
import sys
from pathlib import Path
import yaml

study = yaml.safe_load(Path(sys.argv[1]).read_text())
study["common"] |= yaml.safe_load(sys.argv[3])
Path(sys.argv[2]).write_text(yaml.safe_dump(study, sort_keys=False))
PYTHON
  study=$out/camvid-gpu.yaml
fi
run_study() {
  "$python" -m segkc_deploy.benchmarks.studies "$study" --data-root "$camvid" --out "$out/study" \
    --results "$out/camvid-gpu.json" ${only:+--only "$only"} "$@"
}

"$python" -m segkc_deploy doctor > "$out/doctor.txt" 2>&1 || true

if wanted tests; then
  heading "GPU tests"
  quietly "$(seconds_for tests throughput study export benchmark)" "$out/tests.log" \
    "$python" -m pytest "${selection[@]}" -q || status=1
  tail -n 1 "$out/tests.log"
fi

if wanted throughput; then
  heading "training throughput, one training at a time"
  run_study --collect   # writes the recipes and the data specs
  cat > "$out/throughput/supervised-dinov2-s.yaml" <<'YAML'
base: supervised-dinov2-s
junior: {pretrained: false}
YAML
  cat > "$out/throughput/segkc-dinov2-s.yaml" <<'YAML'
base: segkc-dinov2-s
junior: {pretrained: false}
senior: {pretrained: false}
YAML
  steps=${THROUGHPUT_STEPS:-20}
  end=$((SECONDS + $(seconds_for throughput study export benchmark)))
  for name in $throughput; do
    [ ! -f "$out/throughput/$name/junior.safetensors" ] || continue
    recipe=$out/throughput/$name.yaml
    [ -f "$recipe" ] || recipe=$out/study/recipes/$name.yaml
    if [ "$((end - SECONDS))" -lt 10 ]; then
      echo "no time for the throughput of $name"
      continue
    fi
    # Scores of so few steps are worth nothing: small images make them cheap.
    quietly "$((end - SECONDS))" "$out/throughput/$name.log" "$python" -m segkc_deploy train --overwrite --device "$device" \
      --data "$out/study/data/1_8.yaml" --recipe "$recipe" --out "$out/throughput/$name" \
      -o schedule.epochs=null -o schedule.steps="$steps" -o schedule.warmup_steps=0 -o log_every=5 \
      -o checkpoint_every="$steps" -o validation.every="$steps" -o validation.size="[56, 56]" || status=1
    write_throughput
  done
fi

if wanted study; then
  heading "the study, $workers at once"
  run_study --workers "$workers" --device "$device" --limit-minutes "$("$python" -c "print($(left export benchmark) / 60)")" || status=1
  write_throughput
  if [ -f "$out/camvid-gpu.json" ]; then
    "$python" -m segkc_deploy.benchmarks.studies.method_tables "$out/camvid-gpu.json" > "$out/camvid-gpu.md" || status=1
  fi
fi

# Where no SegKC run of the study got to its end, the one of the throughput has the same networks, as fast.
run=
for found in "$out"/study/runs/segkc-1_8-seed* "$out/throughput/segkc"; do
  if [ -z "$run" ] && [ -f "$found/junior.safetensors" ]; then run=$found; fi
done
if { wanted export || wanted benchmark; } && [ -z "$run" ]; then
  echo "no SegKC run to export: none came to its end"
  exit 1
fi

# "ENGINE PRECISION FILE" for each export that this machine can make; why not the others goes into the log.
possible_exports() {
  "$python" - "$engines" "$precisions" <<'PYTHON'
import sys
from segkc_deploy.errors import UserError
from segkc_deploy.export.engines.base import BuildOptions
from segkc_deploy.export.engines.registry import find_engine

for name in sys.argv[1].split():
    for precision in sys.argv[2].split():
        try:
            engine = find_engine(name)
            if precision in engine.precisions:
                engine.check(BuildOptions(), precision)
                print(name, precision, f"{name}/junior-{precision}{engine.suffix}")
        except UserError as error:
            print(f"{name} {precision}: {error}", file=sys.stderr)
PYTHON
}
if wanted export || wanted benchmark; then
  possible_exports > "$out/artifacts/possible.txt" 2> >(tee -a "$out/exports.log" >&2)
  mapfile -t possible < "$out/artifacts/possible.txt"
fi

if wanted export; then
  heading "exports of $run"
  for export in "${possible[@]}"; do
    read -r engine precision file <<< "$export"
    [ ! -f "$out/artifacts/$file" ] || continue
    seconds=$(left benchmark)
    if [ "$seconds" -lt 10 ]; then
      echo "no time for $engine $precision"
    else
      # One that is refused (the log says by what) is a finding, not a failure of this script.
      quietly "$seconds" "$out/exports.log" "$python" -m segkc_deploy export "$run" --engine "$engine" \
        --precision "$precision" --out "$out/artifacts/$engine" || true
    fi
  done
fi

if wanted benchmark; then
  heading "accuracy and latency"
  artifacts=()
  for export in "${possible[@]}"; do
    file=$out/artifacts/${export##* }
    if [ -f "$file" ]; then artifacts+=("$file"); fi
  done
  # Its figures are on disk after each row.
  seconds=$(left)
  timeout -s INT $((seconds > 60 ? seconds : 60)) "$python" -m segkc_deploy benchmark "$run" "${artifacts[@]}" \
    --data "$out/study/data/1_8.yaml" --out "$out/report" --batches 1,8 --seconds "$seconds_a_latency" \
    --sustained "${SECONDS_SUSTAINED:-5}" || status=1
  # Where the time ended before the page was written, it is made from what was measured.
  [ -f "$out/report/index.html" ] || "$python" -m segkc_deploy report "$out/report/benchmark.json" --out "$out/report" || status=1
  rm -f "$out/gpu-latency.new.json"
  if "$python" -m segkc_deploy.benchmarks.studies.benchmark_rows "$out/report/benchmark.json" --study gpu-latency --labels 1/8 \
    --seed 0 --out "$out/gpu-latency.new.json"; then
    mv "$out/gpu-latency.new.json" "$out/gpu-latency.json"
  else
    status=1
  fi
  [ ! -f "$out/gpu-latency.json" ] || "$python" -m segkc_deploy.benchmarks.studies.tables "$out/gpu-latency.json"
fi

heading "done"
exit "$status"
