#!/usr/bin/env bash
# A training on several nodes under SLURM, which stops before its time limit, requeues itself and continues.
#
#   sbatch docs/examples/slurm.sh DATA.yaml RECIPE RUN [more options of segkc-deploy train]
#
# Adapt the lines that begin with #SBATCH. Every node has to see the data and RUN at the same paths.
#SBATCH --job-name=segkc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8   # one for each GPU
#SBATCH --gpus-per-node=8     # not --gpus-per-task: every task has to see all GPUs of its node
#SBATCH --cpus-per-task=12
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@90      # 90 s before the limit, and on preemption: the step is finished and saved
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
if [ $# -lt 3 ]; then
  echo "usage: sbatch slurm.sh DATA.yaml RECIPE RUN [more options of segkc-deploy train]" >&2
  exit 2
fi
data=$1 recipe=$2 run=$3
shift 3

# The requeued job runs the same command, and resumes by itself. The ranks end each other when one dies; if srun did it, it
# would hide the exit code.
srun --kill-on-bad-exit=0 segkc-deploy train --data "$data" --recipe "$recipe" --out "$run" "$@"
code=$?
if [ "$code" -eq 75 ]; then   # stopped by the signal, and saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
