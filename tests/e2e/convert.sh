# Between formats and back: nothing of the ternary weights is lost.
ids=1,2,3,7,11,200,5
for fixture in "$source_dir"/tests/data/hf/*/; do
  [ -f "$fixture/config.json" ] || continue
  name=$(basename "$fixture")
  expected=$(hash_of -m "$fixture" --ids $ids)
  check "$name: logits of the folder" [ -n "$expected" ]
  check "$name to I2_S" call 0 convert "$fixture" -o "$name.gguf" --json
  check "$name to I2_S: the report" json 'd["n_tensors"] > 0 and d["output_bytes"] > 0 and isinstance(d["notices"], list)'
  check "$name as I2_S: the same logits" [ "$(hash_of -m "$name.gguf" --ids $ids)" = "$expected" ]
  check "$name: verify against the folder" call 0 verify "$name.gguf" "$fixture"
  check "$name back to a folder" call 0 convert "$name.gguf" -o "$name.hf" --to hf
  check "$name back in a folder: the same logits" [ "$(hash_of -m "$name.hf" --ids $ids)" = "$expected" ]
  check "$name: inspect the folder" call 0 inspect "$fixture" --json
  check "$name: inspect finds a model" json 'd["runnable"] and d["config"]["n_layers"] > 0'
done
tiny=$(hash_of -m tiny.gguf --ids $ids)
for type in tq1_0 tq2_0 i2_s f32 f16; do
  check "tiny to $type" call 0 convert tiny.gguf -o "tiny_$type.gguf" --type $type
  check "tiny as $type: verify" call 0 verify "tiny_$type.gguf"
done
for type in tq1_0 tq2_0 i2_s; do
  check "tiny as $type: the same logits" [ "$(hash_of -m "tiny_$type.gguf" --ids $ids)" = "$tiny" ]
  check "tiny from $type to i2_s" call 0 convert "tiny_$type.gguf" -o "tiny_back.gguf"
  check "tiny from $type and back: the same logits" [ "$(hash_of -m tiny_back.gguf --ids $ids)" = "$tiny" ]
done
for type in f16 bf16 q8_0 q6_k f32; do
  check "embedding as $type" call 0 convert tiny.gguf -o embed.gguf --embed-type $type
  check "embedding as $type runs" call 0 run -m embed.gguf --prompt-ids 1,2 -n 2 --ids
done
check "a source as its own output" call 2 convert tiny.gguf -o tiny.gguf
check "a refused conversion leaves nothing behind" bash -c "$bitnet convert cut.gguf -o never.gguf 2>/dev/null; ! ls never.gguf* >/dev/null 2>&1"
