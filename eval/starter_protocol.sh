#!/bin/sh
# The whole protocol on the starter: pictures of every method on both decoders, retrieval and gap, one report.
#
#     sh eval/starter_protocol.sh RUNS OUT [REPORT]
#
# RUNS is what `eval/starter_runs.sh` made: RUNS/methods holds training runs called NAME-SEED, such as unialign-0, unialign-1,
# unialign-2, infonce-0 ...; every NAME with the runs of all its seeds becomes a method. Those in RUNS/ablation, if there are
# any, are measured without drawing. OUT keeps pictures and features; REPORT (default eval/results/starter) gets the page.
# Each step goes on where it was. STEPS, DRAWS, DECODERS and SETS can be set; DRAWS is also the number of runs of each method.
# The number of pictures is (kinds of prompts x methods + 1) x DRAWS x clips x decoders, for each set.
set -eu
runs=$1 out=$2 report=${3:-eval/results/starter}
draws=${DRAWS:-3}
unialign=${UNIALIGN:-unialign-gen}

# The options that name the methods of a folder.
methods_in() {
    for first in "$1"/*-0; do
        [ -d "$first" ] || continue
        folders=$first
        i=1
        while [ "$i" -lt "$draws" ]; do
            folders=$folders,${first%-0}-$i
            i=$((i + 1))
        done
        printf ' --method %s=%s' "$(basename "${first%-0}")" "$folders"
    done
}
methods=$(methods_in "$runs/methods") ablation=$(methods_in "$runs/ablation")

decoders=
for decoder in ${DECODERS:-kandinsky stable-unclip}; do
    decoders="$decoders --decoder $decoder"
done

results=
for set in ${SETS:-held_out cross_source clips}; do
    prompts=text,audio,text+audio,image
    options="--dataset starter --split $set"
    if [ "$set" = clips ]; then
        prompts=text,audio,text+audio,video,video+text+audio,image
        options="--dataset vggsound --root ${UNIALIGN_DATA:-$HOME/.cache/unialign_gen/starter-data}/clips"
    fi
    # shellcheck disable=SC2086
    $unialign eval generation --out "$out/$set" $options --prompts $prompts $methods $decoders --seeds "$draws" \
        ${STEPS:+--steps $STEPS}
    # shellcheck disable=SC2086
    $unialign eval retrieval --features "$out/$set/features" --out "$out/$set/retrieval" $methods
    # shellcheck disable=SC2086
    $unialign eval gap --features "$out/$set/features" --out "$out/$set/gap" $methods
    results="$results $out/$set $out/$set/retrieval $out/$set/gap"
    if [ -n "$ablation" ]; then
        # shellcheck disable=SC2086
        $unialign eval retrieval --features "$out/$set/features" --out "$out/$set/ablation" $ablation
        # shellcheck disable=SC2086
        $unialign eval gap --features "$out/$set/features" --out "$out/$set/ablation-gap" $ablation
        results="$results $out/$set/ablation $out/$set/ablation-gap"
    fi
done
# shellcheck disable=SC2086
$unialign eval report $results --out "$report" --title "The starter: every method on both decoders"
