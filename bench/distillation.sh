#!/usr/bin/env bash
# A ternary student alone and with a teacher, at equal tokens: distillation.sh BITNET TEXT TEACHER FOLDER [SEEDS]
# Prints the validation loss (plain cross-entropy, nats a token) of each learning rate and seed (docs/training.md). What
# is in FOLDER already is not computed again.
set -eu
bitnet=$1 text=$2 teacher=$3 folder=$4 seeds=${5:-"1 2 3"}
mkdir -p "$folder"
run() { # run NAME FLAGS...
  local name=$1
  shift
  if [ ! -s "$folder/$name.json" ]; then
    "$bitnet" train --text "$text" --valid-share 0.05 --run "$folder/$name" --n-layers 3 --d-model 128 --d-ff 384 \
      --n-heads 4 --n-ctx 128 --batch 8 --steps 350 --warmup 50 --eval-every 0 --eval-batches 100 --checkpoint-every 0 \
      --export-model 0 --log-every 50 --json "$@" >"$folder/$name.tmp" 2>"$folder/$name.log"
    mv "$folder/$name.tmp" "$folder/$name.json"
  fi
  echo "$name $(grep valid_loss "$folder/$name.json")"
}
for seed in $seeds; do
  for lr in 1e-3 2e-3 4e-3 8e-3; do
    run "alone-$lr-$seed" --lr "$lr" --seed "$seed"
    run "taught-$lr-$seed" --lr "$lr" --seed "$seed" --teacher "$teacher"
  done
done
