#!/usr/bin/env bash
# Prints the path of a working nvcc: $NVCC, else the one in PATH, else one from PyPI wheels, which is installed once under
# target/nvcc-venv with python3.
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=('nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*')

if [ -n "${NVCC:-}" ]; then
  echo "$NVCC"
elif command -v nvcc; then
  : # printed
elif command -v python3 >/dev/null; then
  venv=$PWD/target/nvcc-venv
  if [ ! -e "$venv/complete" ]; then
    echo "no nvcc in PATH: installing NVIDIA's wheels under target/nvcc-venv" >&2
    rm -rf "$venv"
    mkdir -p target
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${wheels[@]}" >&2
    touch "$venv/complete"
  fi
  echo "$venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc
else
  echo "no nvcc: set NVCC, or install python3 so that it can be had from PyPI" >&2
  exit 1
fi
