#!/usr/bin/env bash
# What tokens are worth: one fit a line, the settings beside it all alike, each with the exact scorer and without the path
# model, so that a fit takes minutes. Group `codes-alone`: an item is its codes and nothing else, so a bad code cannot hide.
# Group `parts`: an item is its code and a vector of its own, with one of them taken away or changed, or a linear map of its
# features added.
#
#   benches/tokens.sh DATA OUT [TRAINER] [SEED]     then: reg4rec-trainer report --runs OUT --out tokens.html
#
# A record that exists is not made again.
set -euo pipefail
data=${1:?DATA: a directory with interactions.parquet and items.parquet}
out=${2:?OUT: a directory for run records}
trainer=${3:-target/release/reg4rec-trainer}
seed=${4:-1}
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
    "$trainer" fit --data "$data" --out "$scratch/$slug" --preset quick --seed "$seed" --engine exact \
        --set pretrain.newcomers=0 --set pretrain.path_weight=0 "$@" \
        --record "$out/$slug-$seed.json" --system "$system" --group "$group" >"$out/$slug-$seed.log" 2>&1
    rm -rf "$scratch/$slug"
    grep -A1 '^seen items filtered' "$out/$slug-$seed.log" | tail -n 1 | sed "s/^reg4rec/$group: $system/"
}

alone() {
    local system=$1
    shift
    one codes-alone "$system" --set network.own_residuals=false "$@"
}
mpq() { printf 'tokenizer={"mpq":{"codebooks":%d,"entries":%d%s}}' "$1" "$2" "${3:+,$3}"; }

for codebooks in 8 4 16 32; do
    for entries in 256 64; do
        alone "MPQ $codebooks x $entries" --set "$(mpq $codebooks $entries)"
    done
done
alone "RQ-VAE 8 x 256" --set 'tokenizer={"rq":{"levels":8,"entries":256}}'
alone "OPQ 8 x 256" --set 'tokenizer={"opq":{"codebooks":8,"entries":256}}'
alone "random 8 x 256" --set 'tokenizer={"random":{"codebooks":8,"entries":256,"seed":17}}'
alone "MPQ 8 x 256, no gate" --set "$(mpq 8 256 '"gated":false')"
alone "MPQ 8 x 256, no orthogonality" --set "$(mpq 8 256 '"lambda_orth":0.0')"
alone "MPQ 8 x 256, orthogonal parameters" --set "$(mpq 8 256 '"orthogonality":"parameters"')"

# A whole item is its code and a vector of its own, as the presets have it.
one parts "all" --set "$(mpq 8 256)"
one parts "no codes" --set network.reads_codes=false
one parts "RQ-VAE codes" --set 'tokenizer={"rq":{"levels":8,"entries":256}}'
one parts "OPQ codes" --set 'tokenizer={"opq":{"codebooks":8,"entries":256}}'
one parts "random codes" --set 'tokenizer={"random":{"codebooks":8,"entries":256,"seed":17}}'
one parts "MPQ 16 x 256" --set "$(mpq 16 256)"
one parts "a map of features, too" --set "$(mpq 8 256)" --set network.feature_width=1
one parts "a map of features, too, RQ-VAE codes" --set 'tokenizer={"rq":{"levels":8,"entries":256}}' --set network.feature_width=1
one parts "a map of features, no codes" --set network.reads_codes=false --set network.feature_width=1
one parts "a map of features, no vector" --set "$(mpq 8 256)" --set network.own_residuals=false --set network.feature_width=1
