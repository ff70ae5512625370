#!/bin/sh
# Stands in for `python -m <stage> <verb> ...` and `accelerate launch ... -m <stage> <verb> ...` in
# tests of the workflow: notes what it was given, and writes the files that the rule promises.
#   STAND_IN_REAL  the real interpreter, which runs `python -m runtime ...` as it is
#   STAND_IN_LOG   where a line per call goes: stage, shard or phase, devices, start, end
#   STAND_IN_HOOK  shell text to run first; sees $name, $item and $root
#   STAND_IN_RUN   if set, the real stage runs, and only what it was given is noted
case $0 in
*accelerate) while [ "$1" != -m ]; do shift; done ;;
esac
[ "$2" = runtime ] && exec "$STAND_IN_REAL" "$@"
[ "$1" = -m ] || exec "$STAND_IN_REAL" "$@"

name="$2 $3" item=- log= flag=
for word; do
    case $flag in
    --config) root=$(dirname "$word") ;;
    --shard | --phase) item=$word ;;
    --log) log=$word ;;
    esac
    flag=$word
done

start=$(date +%s.%N)
eval "$STAND_IN_HOOK"
if [ -n "$STAND_IN_RUN" ]; then
    "$STAND_IN_REAL" "$@"
else
    [ -z "$log" ] || echo "stand-in for $name $item" >>"$log"
fi || exit
[ -z "$STAND_IN_LOG" ] ||
    echo "$name|$item|${CUDA_VISIBLE_DEVICES-none}|$start|$(date +%s.%N)" >>"$STAND_IN_LOG"

[ -z "$STAND_IN_RUN" ] || exit 0

promise() {
    for file; do
        mkdir -p "$(dirname "$root/$file")"
        echo "{}" >"$root/$file"
    done
}
case $name in
"crop run") promise crops/crops.parquet crops/manifest.json ;;
"degrade plan") promise plan.parquet plan.manifest.json ;;
"degrade apply") promise "degraded/degraded-$item.json" ;;
"enhancer base") promise base/manifest.json ;;
"enhancer train") promise enhancer/manifest.json ;;
"enhancer sample") promise "samples/samples-$item.json" ;;
"annotation_import simulate") promise annotations/simulated.manifest.json ;;
"annotation_import import")
    promise annotations/labels.parquet annotations/report.json annotations/manifest.json
    ;;
"shards write") promise dataset/manifest.json ;;
"afine triplets") promise afine/triplets.manifest.json ;;
"afine train") promise "afine/phase$item/manifest.json" ;;
"afine evaluate") promise afine/evaluate.manifest.json ;;
"report write") promise report.html report.manifest.json ;;
*) echo "stand-in: unknown stage $name" >&2 && exit 1 ;;
esac
