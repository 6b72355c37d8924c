#!/bin/sh
# The whole protocol on the starter: pictures of every method on both decoders, retrieval and gap, one report.
#
#     sh eval/starter_protocol.sh RUNS OUT [REPORT]
#
# RUNS holds training runs called NAME-SEED, such as unialign-0, unialign-1, unialign-2, infonce-0 ...; every NAME with the
# runs of all its seeds becomes a method. OUT keeps pictures and features; REPORT (default eval/results/starter) gets the page.
# Each step goes on where it was. STEPS, DRAWS, DECODERS and SETS can be set; DRAWS is also the number of runs of each method.
# The number of pictures is (kinds of prompts x methods + 1) x DRAWS x clips x decoders, for each set.
set -eu
runs=$1 out=$2 report=${3:-eval/results/starter}
draws=${DRAWS:-3}
unialign=${UNIALIGN:-unialign-gen}

methods=
for first in "$runs"/*-0; do
    name=$(basename "${first%-0}")
    folders=$first
    i=1
    while [ "$i" -lt "$draws" ]; do
        folders=$folders,$runs/$name-$i
        i=$((i + 1))
    done
    methods="$methods --method $name=$folders"
done

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
done
# shellcheck disable=SC2086
$unialign eval report $results --out "$report" --title "The starter: every method on both decoders"
