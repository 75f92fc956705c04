#!/usr/bin/env bash
# The same task by others and by us, in one run on one machine: see peer.py.
#
#   benches/peer/compare.sh BUNDLE [THREADS [SECONDS [ENGINE]]]     BUNDLE: of about 12,000 items; ENGINE: the engine benchmark
#
# Installs what peer.py needs by pip, into a directory of its own beside the build; several gigabytes.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
bundle=${1:?BUNDLE: a bundle of about as many items as the task has}
threads=${2:-2}
seconds=${3:-5}
engine=${4:-}
venv="${CARGO_TARGET_DIR:-target}/peer-python"
if ! "$venv/bin/python" -c 'import torch, transformers, onnxruntime, onnxscript' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r benches/peer/requirements.txt
fi
if [[ -z "$engine" ]]; then
    engine="$(cargo build --release --bench engine --message-format=json |
        sed -n 's/.*"executable":"\([^"]*engine-[^"]*\)".*/\1/p' | tail -n 1)"
fi
RAYON_NUM_THREADS=$threads "$engine" "$bundle" "$seconds"
echo
RAYON_NUM_THREADS=$threads "$engine" tiger "$seconds"
echo
"$venv/bin/python" benches/peer/peer.py --threads "$threads" --seconds "$seconds" 2>/dev/null
