#!/bin/sh
# The heads that the protocol compares: every method with equal budgets and three seeds, and the ablation of table 2.
# The methods have the paper's volume weight for generation, 0.1, the ablation that for retrieval, 1.
#
#     sh eval/starter_runs.sh RUNS
#
# Writes RUNS/methods/NAME-SEED and RUNS/ablation/NAME-SEED. Needs the recipe's `caches`. Each run goes on where it was and is
# left alone when finished. TRAINING_STEPS, DRAWS (seeds), JOBS (runs at a time, a processor core each) and UNIALIGN_DATA can be set.
set -eu
runs=$1
steps=${TRAINING_STEPS:-600} draws=${DRAWS:-3} jobs=${JOBS:-2}
unialign=${UNIALIGN:-unialign-gen}
config=$(dirname "$0")/../unialign_gen/configs/starter.yaml
export UNIALIGN_DATA="${UNIALIGN_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/unialign_gen/starter-data}" OMP_NUM_THREADS=1

ours="name: unialign, tau: 0.5, tau_centroid: 0.5, tau_alignment: null, alignment_weight: 10"
seed=0
while [ "$seed" -lt "$draws" ]; do
    while IFS="|" read -r place objective; do
        printf '%s\0%s\0%s\0' "$runs/$place-$seed" "$seed" "{$objective}"
    done <<EOF
methods/unialign|$ours, volume_weight: 0.1
methods/unialign-geodesic|$ours, volume_weight: 0.1, uniformity_geometry: geodesic, alignment_geometry: geodesic
methods/infonce|name: infonce, tau: 0.07
methods/gram|name: gram, tau: 0.07
methods/pmrl|name: pmrl
ablation/neither|$ours, volume_weight: 0
ablation/volume|$ours, volume_weight: 1, centroid_uniformity: false
ablation/centroid|$ours, volume_weight: 1, volume_alignment: false
ablation/both|$ours, volume_weight: 1
EOF
    seed=$((seed + 1))
done | xargs -0 -n 3 -P "$jobs" sh -c '
    mkdir -p "$(dirname "$3")"
    "$0" train "$1" --set "out=$3" --set "seed=$4" --set "objective=$5" --set "steps=$2" --set "trackers=[]" \
        --set evaluation.every=0 >"$3.log" 2>&1 || { echo "$3: see $3.log" >&2; exit 255; }
    echo "$3"' "$unialign" "$config" "$steps"
