#!/usr/bin/env bash
# Has NVIDIA's compiler make every kernel of the CUDA path that a warm-up visits, on a machine without a GPU, and counts what a
# step asks of the driver.
#
#   benches/nvrtc/check.sh [BINARY [BUNDLE]]     BINARY: reg4rec-server built with `--features cuda`; built here by default
#
# NVRTC and the CUDA headers come by pip, into the build's directory. The driver is `driver.c`, which runs nothing: so the server
# reads zeros, and is right not to serve when the bundle's golden answers are not among them. Wrong is a kernel that cannot be
# compiled, a step that is read more than once, or that one of our own kernels was not asked for.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
binary="${1:-}"
bundle="${2:-model-artifacts/demo}"
target="${CARGO_TARGET_DIR:-target}"
venv="$target/nvrtc-python"
place="$(mktemp -d)"
trap 'rm -rf -- "$place"' EXIT

if [[ -z "$binary" ]]; then
    cargo build --features cuda --bin reg4rec-server
    binary="$target/debug/reg4rec-server"
fi
if [[ ! -x "$venv/bin/python" ]]; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12
fi
nvidia="$(echo "$PWD/$venv"/lib/python3*/site-packages/nvidia)"
[[ -d "$nvidia" ]] || nvidia="$(echo "$venv"/lib/python3*/site-packages/nvidia)"
mkdir -p "$place/cuda/include"
cp -r "$nvidia"/cuda_runtime/include/. "$nvidia"/cuda_nvcc/include/. "$place/cuda/include"
ln -s "$nvidia/cuda_nvrtc/lib/libnvrtc.so.12" "$place/libnvrtc.so"
# No other name: NVRTC itself would find `libcuda.so.1`, and ask it for more.
cc -shared -fPIC -O1 -w -o "$place/libcuda.so" benches/nvrtc/driver.c

said="$place/said"
CUDA_PATH="$place/cuda" LD_LIBRARY_PATH="$place:$nvidia/cuda_nvrtc/lib" \
    REG4REC__ENGINE__BATCH__MAX_BATCH=8 REG4REC__ENGINE__WARMUP_BATCHES='[1]' REG4REC__ENGINE__WARMUP_HISTORIES='[32]' \
    timeout 600 "$binary" --device cuda --bundle "$bundle" --listen 127.0.0.1:0 --admin 127.0.0.1:0 >/dev/null 2>"$said" || true

failed=0
if grep -m 1 -i 'compilation error' "$said"; then
    failed=1
fi
for kernel in read_items weigh_tokens tell_roots read_paths; do
    grep -q "^driver runs $kernel" "$said" || { echo "$kernel was not run"; failed=1; }
done
# What is read before the next kernel runs belongs to the step; a wait behind it ends the read. Other waits are those for room.
awk '/^driver loads/ { made++ }
    /^driver runs/ { run++; told = /tell_roots|read_paths/ }
    told && /^driver runs/ { steps++; reads = 0 }
    told && /^driver waits/ && before ~ /^driver reads/ && ++reads > most { most = reads }
    /^driver/ { before = $0 }
    END {
        printf "%d kernels compiled, %d run; %d steps of searches, each is read %d time at most\n", made, run, steps, most
        exit !(steps > 0 && most == 1)
    }' "$said" || failed=1
grep -q 'stage golden' "$said" || { grep -v '^driver\|^ ' "$said" | tail -n 1; failed=1; }
exit "$failed"
