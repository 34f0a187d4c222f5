#!/usr/bin/env bash
# The README's table on real data: prepare, train flat and hiposeg with one recipe, evaluate on every level.
# usage: benchmarks/real_data.sh SAMPLES OUT [SEED]     SAMPLES holds wbc, carparts and camvid in their published layouts
set -euo pipefail
samples=$1 out=$2 seed=${3:-0}

both() { # NAME, then the options of `hiposeg train`
  local name=$1 method
  shift
  for method in flat hiposeg; do
    hiposeg train "$out/$name" --method "$method" --net fpn --seed "$seed" --out "$out/$name-$method-$seed" "$@"
    hiposeg eval "$out/$name-$method-$seed" "$out/$name" --weights last --per-class --csv "$out/$name-$method-$seed/eval.csv"
  done
}

[ -e "$out/wbc" ] || hiposeg prepare masks "$samples/wbc" "$out/wbc" --hierarchy wbc-3-2
[ -e "$out/carparts" ] || hiposeg prepare coco "$samples/carparts" "$out/carparts" --hierarchy car-parts --val 50
[ -e "$out/camvid" ] || hiposeg prepare masks "$samples/camvid" "$out/camvid" --hierarchy camvid-11-7

both wbc --size 128 --crop 128 --batch 16 --epochs 12 --val-every 12 --set data.scale=[0.75,1.5]
both carparts --size 192 --crop 192 --batch 8 --epochs 12 --val-every 12 --set data.scale=[0.75,1.5]
both camvid --size 320 --crop 224x288 --batch 8 --epochs 8 --val-every 8 --set data.scale=[0.75,1.5]
