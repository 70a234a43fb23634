#!/usr/bin/env bash
# Train on a Slurm cluster, with one torchrun per node.
#   [NODES=2] [GPUS_PER_NODE=8] [CPUS_PER_TASK=32] [SRUN_ARGS=...] \
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]" >&2; exit 2; }
partition=$1 job=$2 config=$3; shift 3
export GPUS_PER_NODE="${GPUS_PER_NODE:-8}" PORT="${PORT:-29500}"
tools="$(dirname "$0")"
# The processes connect to each other through the first node of the allocation.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job" --nodes="${NODES:-1}" --ntasks-per-node=1 \
  --gres="gpu:$GPUS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-32}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  bash -c 'exec "${PYTHON:-python}" "$0/launch.py" "$GPUS_PER_NODE" --nnodes "$SLURM_NNODES" --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$PORT" \
    "$0/train.py" "$@"' \
  "$tools" "$config" --launcher pytorch "$@"
