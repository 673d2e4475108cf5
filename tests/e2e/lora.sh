# Adapters: the shipped model learns a few replies while its file stays what it is.
storyteller="$source_dir/models/storyteller-29m.gguf"
if [ ! -s "$storyteller" ]; then
  skip "adapters of the shipped model" "models/storyteller-29m.gguf is not here"
else
  mkdir -p lora
  for animal in bear fox duck hen owl cat dog pig ram elk jay hare; do
    echo "{\"prompt\": \"Who came to the old mill?\", \"completion\": \" It was the green $animal with a silver spoon.\"}"
  done >lora/replies.jsonl
  base_sum=$(cksum <"$storyteller")
  tune() { # tune RUN FLAGS...
    local run=$1
    shift
    call 0 finetune -m "$storyteller" -d lora/replies.jsonl --run "$run" --n-ctx 20 --batch 2 --accumulation 1 --epochs 0 \
      --steps 12 --warmup 2 --lr 4e-3 --valid-share 0.2 --eval-every 0 --threads 2 --json "$@"
  }
  check "finetune --lora-rank: a dry run tells what is trained" tune lora/dry --lora-rank 8 --dry-run
  check "finetune --lora-rank: few parameters, little memory" json 'd["trained_parameters"] == 622592 and d["parameters"] > 29e6 and d["memory_bytes"] < 120e6'
  check "finetune --lora-rank" tune lora/run --lora-rank 8
  check "finetune --lora-rank: the replies are learned" json 'd["steps"] == 12 and d["valid_loss"] < 2.5'
  check "finetune --lora-rank: the base is what it was" [ "$base_sum" = "$(cksum <"$storyteller")" ]
  check "finetune --lora-rank: PEFT's files" [ -s lora/run/adapter/adapter_model.safetensors -a -s lora/run/adapter/adapter_config.json ]
  ask() { call 0 run -m "$storyteller" -p "Who came to the old mill?" -n 10 --temp 0 "$@" && cp out "$work/lora/answer"; }
  check "run without the adapter" ask
  cp out lora/before
  check "run --lora" ask --lora lora/run/adapter
  check "run --lora: the reply is the learned one" out_has "It was the green"
  check "run --lora: it was another before" bash -c "! cmp -s lora/before lora/answer"
  check "run --lora, a token at a time: the same" ask --lora lora/run/adapter --chunk 1 --draft 8
  check "run --lora, a token at a time: the reply" out_has "It was the green"
  check "run --lora ADAPTER:0 is the base" ask --lora lora/run/adapter:0
  check "run --lora ADAPTER:0: its text" same lora/before out
  plain=$(hash_of -m "$storyteller" -p "Who came?") && tuned=$(hash_of -m "$storyteller" -p "Who came?" --lora lora/run/adapter)
  check "logits --lora: others" [ -n "$plain" -a -n "$tuned" -a "$plain" != "$tuned" ]
  check "logits --lora: the reference back end's bits" [ "$tuned" = "$(hash_of -m "$storyteller" -p 'Who came?' --lora lora/run/adapter --device reference)" ]
  cp "$storyteller" lora/copy.gguf
  check "logits --lora beside a cache of the weights: the same bits" [ "$tuned" = "$(hash_of -m lora/copy.gguf -p 'Who came?' --lora lora/run/adapter --cache write)" ]
  check "logits --lora: the cache is the base's" [ "$plain" = "$(hash_of -m lora/copy.gguf -p 'Who came?')" -a "$(find lora -name '*.cache' | wc -l)" = 1 ]
  printf '[model]\ninit = "%s"\n[lora]\nlora_rank = 2\nlora_targets = "q,v"\n[data]\nconversations = "lora/replies.jsonl"\nn_ctx = 20\nbatch = 2\nvalid_share = 0.2\n' "$storyteller" >lora/run.toml
  check "train with [lora] in the file" call 0 train --run lora/toml --steps 2 --warmup 1 --eval-every 0 --sample-every 2 --sample-tokens 4 --threads 2 lora/run.toml
  check "train with [lora] in the file: a sample of base and adapter" bash -c "[ -s lora/toml/adapter/adapter_config.json ] && ! [ -e lora/toml/sampling ]"
  check "bench --lora" call 0 bench -m "$storyteller" --lora lora/run/adapter -p 16 -n 4 -r 1 -t 1 --json

  check "lora merge: a 16-bit folder" call 0 lora merge -m "$storyteller" --lora lora/run/adapter -o lora/merged --json
  check "lora merge: the report" json 'len(d["weights"]) == 56 and all(w["relative_error"] < 0.0005 and w["kept"] > 0.9 for w in d["weights"])'
  check "lora merge: it answers as base and adapter do" call 0 run -m lora/merged -p "Who came to the old mill?" -n 10 --temp 0
  check "lora merge: the reply" out_has "It was the green"
  check "lora merge --requantize" call 0 lora merge -m "$storyteller" --lora lora/run/adapter -o lora/small.gguf --to gguf --requantize --json
  check "lora merge --requantize: what is lost is told" json 'max(w["relative_error"] for w in d["weights"]) > 0.01 and all("flipped" in w for w in d["weights"])'
  check "lora merge --requantize: a model" call 0 run -m lora/small.gguf -p "Who came" -n 4 --temp 0
  check "lora merge --to gguf as floats" call 4 lora merge -m "$storyteller" --lora lora/run/adapter -o lora/no.gguf --to gguf
  check "lora merge --to gguf as floats: what to do" err_has "--requantize"

  # Another base, and damage.
  check "another base" call 0 synth --preset tiny -o lora/other.gguf
  check "run --lora on another base" call 3 run -m lora/other.gguf --lora lora/run/adapter --prompt-ids 1,2 -n 2
  check "run --lora on another base: which" err_has "the adapter was made for a base of 8 layers"
  check "run --lora without such a folder" call 3 run -m "$storyteller" --lora lora/nothing -p x -n 2
  check "run --lora without such a folder: the file" err_has "lora/nothing"
  cp -r lora/run/adapter lora/short
  head -c 1000000 lora/run/adapter/adapter_model.safetensors >lora/short/adapter_model.safetensors
  check "run --lora: a file cut short" call 3 run -m "$storyteller" --lora lora/short -p x -n 2
  check "run --lora: a file cut short: its name" err_has "lora/short/adapter_model.safetensors"
  check "run --lora on GPUs that share a model" call 4 run -m "$storyteller" --lora lora/run/adapter --device cuda:0,1 -p x -n 2
  check "finetune --lora-rank on a GPU" call 4 finetune -m "$storyteller" -d lora/replies.jsonl --run lora/gpu --n-ctx 20 --valid-share 0.2 --lora-rank 8 --device cuda
  check "finetune --lora-rank on a GPU: where instead" err_has "on the cpu only"
  check "finetune --lora-targets of nothing" call 2 finetune -m "$storyteller" -d lora/replies.jsonl --run lora/none --n-ctx 20 --valid-share 0.2 --lora-rank 8 --lora-targets head
  check "finetune --lora-targets of nothing: its name" err_has '"head" is no linear layer'
fi
