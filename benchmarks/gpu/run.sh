#!/usr/bin/env bash
# Latency and board energy of the examples before and after `eopt compile`, in eager and compiled torch.
# Needs an NVIDIA GPU, its driver and a Python with torch for CUDA. Never changes clocks, power limits or modes; it
# records what it finds. Without network: WHEELS=<folder of wheels> ./run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv-gpu}
if [ ! -x "$VENV/bin/python" ]; then
  "$PYTHON" -m venv --system-site-packages "$VENV"
  "$VENV/bin/python" -m pip install -q ${WHEELS:+--no-index --find-links "$WHEELS"} -e '.[gpu]'
fi
nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu --format=csv \
  || { echo "no NVIDIA GPU here: nothing to measure" >&2; exit 0; }
exec "$VENV/bin/python" benchmarks/gpu/examples.py "$@"
