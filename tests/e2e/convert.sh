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
for type in iq1_bn iq2_bn packed; do
  check "tiny to $type" call 0 convert tiny.gguf -o "tiny_$type.gguf" --type $type
  check "tiny as $type: the same logits" [ "$(hash_of -m "tiny_$type.gguf" --ids $ids)" = "$tiny" ]
  check "tiny as $type: inspect" call 0 inspect "tiny_$type.gguf" --json
  check "tiny as $type: a model" json 'd["runnable"]'
done
master="$source_dir/tests/data/hf/bitnet-bf16-master"
check "quantize a master" call 0 quantize "$master" -o master.gguf --report report.json --json
check "quantize a master: the logits of the reference's online mode" \
  [ "$(hash_of -m master.gguf --ids $ids)" = "$(hash_of -m "$master" --ids $ids)" ]
check "quantize: the report names errors" json 'any(w.get("sqnr_db", 0) > 0 for w in d["weights"])'
check "quantize by lsq" call 0 quantize "$master" -o lsq.gguf --scheme lsq:group=64 --embed-scheme q8_0
check "quantize by lsq: the model runs" call 0 run -m lsq.gguf --prompt-ids 1,2 -n 2 --ids
check "quantize by q4_1" call 0 quantize "$master" -o q4.gguf --scheme q4_1 --embed-scheme q2_k
check "quantize by q4_1: the model runs" call 0 run -m q4.gguf --prompt-ids 1,2 -n 2 --ids
check "quantize: an unknown scheme" call 2 quantize "$master" -o never.gguf --scheme q9
check "quantize: nothing is left behind" [ ! -e never.gguf ]
printf '{"text": "Once upon a time there was a king."}\n"And a queen, and a dog."\n' >calibration.jsonl
story="$source_dir/models/storyteller-29m.gguf"
check "calibrate" call 0 calibrate "$story" -f calibration.jsonl --json
check "calibrate: every linear" json 'len(d["inputs"]) == 56 and d["inputs"][0]["sqnr_db"]["int8"] > 20'
check "plan" call 0 plan "$story" -f calibration.jsonl --budget 80% --embed-schemes q8_0,q4_0 --schemes absmean:store=tq1_0 -o plan.json
check "plan: the file names weights" bash -c 'grep -q "blk.0.attn_q.weight" plan.json'
check "quantize by a plan" call 0 quantize "$story" -o planned.gguf --plan plan.json --json
check "quantize by a plan: smaller" json 'd["output_bytes"] < 0.8 * d["source_bytes"]'
check "plan: a budget that nothing fits" call 2 plan "$story" -f calibration.jsonl --budget 1%
for type in f16 bf16 q8_0 q6_k q5_k q5_1 q5_0 q4_k q4_1 q4_0 q3_k q2_k f32; do
  check "embedding as $type" call 0 convert tiny.gguf -o embed.gguf --embed-type $type
  check "embedding as $type runs" call 0 run -m embed.gguf --prompt-ids 1,2 -n 2 --ids
done
check "a source as its own output" call 2 convert tiny.gguf -o tiny.gguf
check "a refused conversion leaves nothing behind" bash -c "$bitnet convert cut.gguf -o never.gguf 2>/dev/null; ! ls never.gguf* >/dev/null 2>&1"
