#!/bin/sh
# The whole protocol on the starter: pictures of every method on kandinsky and stable-unclip, retrieval and gap, one report.
#
#     sh eval/starter_protocol.sh RUNS OUT [REPORT]
#
# RUNS is what `eval/starter_runs.sh` made: RUNS/methods holds training runs called NAME-SEED, such as unialign-0, unialign-1,
# unialign-2, infonce-0 ...; every NAME with the runs of all its seeds becomes a method. Those in RUNS/ablation, if there are
# any, are measured without drawing. OUT keeps pictures and features; REPORT (default eval/results/starter) gets the page.
# Each step goes on where it was. STEPS, CLIPS (of a set, at most), DRAWS, DECODERS and SETS can be set; DRAWS is also the
# number of runs of each method.
# The number of pictures is (kinds of prompts x methods + 1) x DRAWS x clips x decoders, for each set.
set -eu
runs=$1 out=$2 report=${3:-$(dirname "$0")/results/starter}
draws=${DRAWS:-3}
unialign=${UNIALIGN:-unialign-gen}
data=${UNIALIGN_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/unialign_gen/starter-data}

# The options that name the methods of a folder, one a line: paths may have spaces.
methods_in() {
    for first in "$1"/*-0; do
        [ -d "$first" ] || continue
        folders=$first
        i=1
        while [ "$i" -lt "$draws" ]; do
            folders=$folders,${first%-0}-$i
            i=$((i + 1))
        done
        printf -- '--method\n%s=%s\n' "$(basename "${first%-0}")" "$folders"
    done
}
methods=$(methods_in "$runs/methods") ablation=$(methods_in "$runs/ablation")
[ -n "$methods" ] || { echo "no runs in $runs/methods: make them with eval/starter_runs.sh" >&2; exit 2; }
decoders=$(for d in ${DECODERS:-kandinsky stable-unclip}; do printf -- '--decoder\n%s\n' "$d"; done)
sets=$(for s in ${SETS:-held_out cross_source clips}; do echo "$s"; done)
drawn=$(for o in ${STEPS:+--steps "$STEPS"} ${CLIPS:+--clips "$CLIPS"}; do echo "$o"; done)

# from here on what is not quoted is split at ends of lines alone
IFS='
'
set -f

# Retrieval and gap of some methods, below a folder.
# shellcheck disable=SC2086
spaces() {
    "$unialign" eval retrieval --features "$out/$set/features" --out "$1/retrieval" $2
    "$unialign" eval gap --features "$out/$set/features" --out "$1/gap" $2
    results="$results
$1/retrieval
$1/gap"
}

# shellcheck disable=SC2086
for set in $sets; do
    prompts=text,audio,text+audio,image
    where=$(printf -- '--dataset\nstarter\n--split\n%s' "$set")
    if [ "$set" = clips ]; then
        prompts=text,audio,text+audio,video,video+text+audio,image
        where=$(printf -- '--dataset\nvggsound\n--root\n%s' "$data/clips")
    fi
    "$unialign" eval generation --out "$out/$set" $where --prompts $prompts $methods $decoders --seeds "$draws" $drawn
    results="${results:-}
$out/$set"
    spaces "$out/$set" "$methods"
    [ -z "$ablation" ] || spaces "$out/$set/ablation" "$ablation"
done
# shellcheck disable=SC2086
"$unialign" eval report $results --out "$report" --title "The starter: every method on both decoders"
