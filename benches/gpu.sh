#!/usr/bin/env bash
# What a GPU gives: that its answers are the CPU's, then users a second and latencies, and how busy the device was.
#
#   benches/gpu.sh [BUNDLE [SECONDS [BINARY]]]     BUNDLE: model-artifacts/demo by default; SECONDS for each figure: 4
#
# BINARY is the engine benchmark built elsewhere with `--features cuda` (that needs no CUDA toolkit); without it, it is
# built here. Needs the NVIDIA driver and NVRTC, with which kernels are compiled at first use.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
bundle="${1:-model-artifacts/demo}"
seconds="${2:-4}"
binary="${3:-}"

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L | grep -q GPU; then
    echo "no NVIDIA GPU here: nothing to measure" >&2
    exit 2
fi
if [[ -z "$binary" ]]; then
    binary="$(cargo build --release --features cuda --bench engine --message-format=json |
        sed -n 's/.*"executable":"\([^"]*engine-[^"]*\)".*/\1/p' | tail -n 1)"
fi

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
busy="$(mktemp)"
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits --loop-ms=200 >"$busy" &
watcher=$!
trap 'kill "$watcher" 2>/dev/null || true; rm -f -- "$busy"' EXIT
# How often a kernel was running while each row was timed: what is missing to 100 the device was idle.
timed='' seen=0
"$binary" "$bundle" "$seconds" cuda | while IFS= read -r line; do
    case "$line" in
    '| engine | batch |'*) timed=1 line+=' device busy % |' ;;
    '|---'*) [[ -z "$timed" ]] || line+='---|' ;;
    '| '*)
        if [[ -n "$timed" ]]; then
            line+="$(awk -F', ' -v seen="$seen" 'NR > seen { sum += $1; n++ } END { printf n ? " %.0f |" : " |", sum / (n ? n : 1) }' "$busy")"
        fi
        ;;
    *) timed='' ;;
    esac
    seen="$(wc -l <"$busy")"
    printf '%s\n' "$line"
done
awk -F', ' '$2 > most { most = $2 } END { if (NR) printf "\nmemory at most %d MiB\n", most }' "$busy"
