#!/usr/bin/env bash
# Measure operators and whole models on this NVIDIA GPU for at most ten minutes; the next call goes on. See README.md.
# PYTHON: one with torch for CUDA and numpy. WHEELS: a folder of wheels of what it lacks for whole models (onnx,
# immutables, …). No network is used. No clock, limit or mode is ever set.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
home=$PWD/build/gpu
rm -rf "$home" && mkdir -p "$home/links/eopt" "$home/site"
# the folders at the root are the packages eopt.*; a wheel is an archive of what goes on the path
ln -s "$PWD"/eopt/* "$PWD"/{ir,passes,costmodel,backends,tools} "$home/links/eopt/"
ln -s "$PWD/benchmarks" "$home/links/benchmarks"
for wheel in "${WHEELS:-/nonexistent}"/*.whl; do
  [ -e "$wheel" ] && "$PYTHON" -m zipfile -e "$wheel" "$home/site"
done
export PYTHONPATH="$home/links:$home/site${PYTHONPATH:+:$PYTHONPATH}"
minutes=9
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
case $minutes in [1-9] | 10) ;; *) echo "--minutes: a whole number from 1 to 10" >&2; exit 2 ;; esac
# a kernel that crashes takes its process with it; a new one goes on with the case after
while left=$((60 * minutes - SECONDS)) && [ "$left" -gt 20 ]; do
  tenths=$((left / 6))
  timeout -k 5 "$left" "$PYTHON" -P -m benchmarks.gpu.sweep --minutes "$((tenths / 10)).$((tenths % 10))" "${rest[@]+"${rest[@]}"}"
  status=$?
  case $status in
    75 | 134 | 139) ;;
    124) exit 0 ;;
    *) exit "$status" ;;
  esac
done
