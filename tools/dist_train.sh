#!/usr/bin/env bash
# Train on several GPUs.
#   tools/dist_train.sh CONFIG GPUS [--max-restarts N] [arguments of tools/train.py]
# On several machines, run this on each of them, with GPUS per machine:
#   tools/dist_train.sh CONFIG GPUS --nnodes 2 --rdzv-endpoint HOST:29500 [...]
# Alternatively set NNODES, NODE_RANK, MASTER_ADDR and PORT.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG GPUS [--max-restarts N] [arguments of tools/train.py]" >&2; exit 2; }
config=$1 gpus=$2; shift 2
exec "${PYTHON:-python}" "$(dirname "$0")/launch.py" "$gpus" "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
