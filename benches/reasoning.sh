#!/usr/bin/env bash
# What post-training is worth, one thing at a time: every run begins from the same bundle. Group `rewards`: the rewards, one
# more at a time, and all of them with learnt weights. Group `future`: how many of the next events reward a path (h) and what
# a later one counts (w). Group `anchor`: how hard the path model is held to where it began. Group `precision`: layers in
# fewer bits.
#
#   benches/reasoning.sh BUNDLE DATA OUT [TRAINER] [SEED]     then: reg4rec-trainer report --runs OUT --out reasoning.html
#
# A record that exists is not made again. ONLY='^rewards' runs one group; LENGTH='--set rounds=2' makes runs shorter.
# Engines, orders of codebooks and CORP's thresholds need no training: reg4rec-trainer reflect --bundle BUNDLE --data DATA
set -euo pipefail
bundle=${1:?BUNDLE: the bundle that every run begins from}
data=${2:?DATA: a directory with interactions.parquet and items.parquet}
out=${3:?OUT: a directory for run records}
trainer=${4:-target/release/reg4rec-trainer}
seed=${5:-1}
only=${ONLY:-.}
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# one GROUP NAME [--set ...]
one() {
    local group=$1 system=$2 slug
    shift 2
    slug=$(tr -c 'a-z0-9\n' - <<<"$group-${system,,}")
    if [[ -e $out/$slug-$seed.json ]] || ! [[ "$group: $system" =~ $only ]]; then return; fi
    # shellcheck disable=SC2086 # LENGTH is words
    "$trainer" post-train --bundle "$bundle" --data "$data" --out "$scratch/$slug" --seed "$seed" ${LENGTH:-} "$@" \
        --record "$out/$slug-$seed.json" --system "$system" --group "$group" >"$out/$slug-$seed.log" 2>&1
    rm -rf "$scratch/$slug"
    grep -A1 '^seen items filtered' "$out/$slug-$seed.log" | tail -n 1 | sed "s/^reg4rec/$group: $system/"
}
rewards() { printf '%s' "rewards={\"step\":$1,\"category\":$2,\"consistency\":$3,\"path\":$4}"; }

one rewards "none, path loss alone" --set reward_weight=0 --set path_weight=1
one rewards "step" --set "$(rewards 1 0 0 0)"
one rewards "step, category" --set "$(rewards 1 0.5 0 0)"
one rewards "step, category, consistency" --set "$(rewards 1 0.5 0.25 0)"
one rewards "all four" --set "$(rewards 1 0.5 0.25 1)"
one rewards "path alone" --set "$(rewards 0 0 0 1)"
one rewards "all four, weights learnt" --set "$(rewards 1 0.5 0.25 1)" --set adaptive=true
one rewards "all four, the encoder learns too" --set "$(rewards 1 0.5 0.25 1)" --set encoder=true --set noise=false

one future "h 0" --set window=0
for window in 1 2 3 4 5; do
    for decay in 0.6 0.8 1; do
        one future "h $window, w $decay" --set window=$window --set decay=$decay
    done
done

for beta in 0 0.02 0.1 0.5 2; do
    one anchor "beta $beta" --set beta=$beta
done

one precision "fp32" --set ladq.reduced=0
for share in 0.5 0.75 1; do
    one precision "$share of the layers reduced" --set ladq.reduced=$share
done
