# Looking at models: synth, inspect, verify, logits, run by ids.
check "synth makes a model" call 0 synth --preset tiny -o tiny.gguf --seed 3 --json
check "synth reports it" json 'd["preset"] == "tiny" and d["output_bytes"] > 100000'
check "synth: the same seed" call 0 synth --preset tiny -o tiny_again.gguf --seed 3
check "synth: the same file" same tiny.gguf tiny_again.gguf
check "synth: another seed" call 0 synth --preset tiny -o tiny_other.gguf --seed 4
check "synth: another file" bash -c "! cmp -s tiny.gguf tiny_other.gguf"

check "inspect a GGUF file" call 0 inspect tiny.gguf
check "inspect: tensors by name" out_has token_embd.weight
check "inspect --json" call 0 inspect tiny.gguf --json
check "inspect --json: config, types and tensors" json 'd["config"]["vocab_size"] == 512 and d["types"]["I2_S"]["n_tensors"] == 14 and d["runnable"] and any(t["name"] == "blk.0.attn_q.weight" and t["shape"] == [256, 256] for t in d["tensors"])'
check "inspect takes -m too" call 0 inspect -m tiny.gguf --json

check "verify a good file" call 0 verify tiny.gguf --json
check "verify: every check holds" json 'd["ok"] and len(d["checks"]) >= 9 and all(c["ok"] and c["detail"] for c in d["checks"])'
check "verify: the reference agrees" json 'any("reference" in c["name"] and "bit for bit" in c["detail"] for c in d["checks"])'
check "verify: two equal models" call 0 verify tiny.gguf tiny_again.gguf
check "verify: two different models" call 3 verify tiny.gguf tiny_other.gguf --json
check "verify: two different models: not ok" json 'not d["ok"]'
# One byte in the middle of the file: among the weights.
cp tiny.gguf flipped.gguf
size=$(stat -c %s tiny.gguf)
printf '\xff' | dd of=flipped.gguf bs=1 seek=$((size / 2)) conv=notrunc status=none
check "verify: a flipped byte" call 3 verify flipped.gguf --json
check "verify: a flipped byte is a failed check" json 'not d["ok"] and any(not c["ok"] for c in d["checks"])'
check "run refuses a flipped byte" call 3 run -m flipped.gguf --prompt-ids 1 -n 1

check "logits for people" call 0 logits -m tiny.gguf --ids 1,2,3
check "logits: a line a position" bash -c "[ \$(grep -cE '^ +[0-9]+ ' out) -eq 3 ]"
check "logits --json" call 0 logits -m tiny.gguf --ids "[1, 2, 3]" --json
check "logits --json: hash and best tokens" json 'len(d["hash"]) == 16 and d["ids"] == [1, 2, 3] and len(d["top"]) == 3 and d["top"][0][0]["logit"] >= d["top"][0][4]["logit"]'
check "logits -o" call 0 logits -m tiny.gguf --ids 1,2,3 -o logits.safetensors --json
check "logits -o: the file" call 0 inspect logits.safetensors --json
check "logits -o: shapes and types" json '{t["name"]: (t["type"], t["shape"]) for t in d["tensors"]} == {"logits": ("F32", [3, 512]), "ids": ("I32", [3])}'
all=$(hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13)
check "logits have a hash" [ -n "$all" ]
for options in "--chunk 1" "--chunk 4" "-t 1" "-t 3" "--device reference"; do
  check "logits $options: the same bits" [ "$(hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13 $options)" = "$all" ]
done
q8_0=$(hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13 --kv q8_0)
check "logits --kv q8_0: other bits" [ "$q8_0" != "$all" ]
for options in "--chunk 1" "-t 3" "--device reference"; do
  check "logits --kv q8_0 $options: the same bits" [ "$(hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13 --kv q8_0 $options)" = "$q8_0" ]
done
check "run --kv q8_0" call 0 run -m tiny.gguf --prompt-ids 1,2,3 -n 12 --temp 0 --ids --kv q8_0
check "an unknown cache type" call 2 run -m tiny.gguf --prompt-ids 1,2,3 -n 1 --kv q4_0
check "logits --no-act-quant: other bits" [ "$(hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13 --no-act-quant)" != "$all" ]

check "run by ids" call 0 run -m tiny.gguf --prompt-ids 1,2,3 -n 12 --temp 0 --ids
check "run --ids: 12 ids on one line" grep -qE '^[0-9]+(,[0-9]+){11}$' out
cp out greedy_ids
check "run reports its speed" bash -c "grep -q 'tokens/s' err && grep -q 'GB/s' err"
check "run --json" call 0 run -m tiny.gguf --prompt-ids 1,2,3 -n 12 --temp 0 --json
check "run --json: the shape" json 'd["prompt_ids"] == [1, 2, 3] and d["stop"] == "length" and d["tokens_per_s"] > 0 and d["prompt_tokens_per_s"] > 0 and d["text"] == ""'
check "run --json: the same ids" json 'd["ids"] == [int(x) for x in open("greedy_ids").read().split(",")]'
check "run: threads change nothing" call 0 run -m tiny.gguf --prompt-ids 1,2,3 -n 12 --temp 0 --ids -t 1
check "run: threads change nothing: the ids" same out greedy_ids
check "run -n -1 fills the context" call 0 run -m tiny.gguf --prompt-ids 1,2,3 -n -1 --ctx 20 --temp 0 --json
check "run -n -1: it says so" json 'd["stop"] == "context" and len(d["ids"]) == 17'
check "run with a seed" call 0 run -m tiny.gguf --prompt-ids 1 -n 8 --seed 7 --temp 5 --ids
cp out seeded
check "run with the same seed" call 0 run -m tiny.gguf --prompt-ids 1 -n 8 --seed 7 --temp 5 --ids
check "run with the same seed: the same ids" same out seeded
check "run with another seed" call 0 run -m tiny.gguf --prompt-ids 1 -n 8 --seed 8 --temp 5 --ids
check "run with another seed: other ids" bash -c "! cmp -s out seeded"
check "a text prompt needs a vocabulary" call 3 run -m tiny.gguf -p hello
check "a text prompt needs a vocabulary: what to do" err_has --tokenizer

mkdir -p models
cp tiny.gguf models/by-name.gguf
for arguments in "run -m by-name --prompt-ids 1 -n 1" "inspect by-name" "verify by-name" "logits -m by-name --ids 1"; do
  check "a model by its name: $arguments" call 0 $arguments
done
check "devices" call 0 devices
check "devices: the processor" out_has cpu
check "devices --json" call 0 devices --json
check "devices --json: the shape" json 'd["devices"][0]["device"] == "cpu" and d["devices"][0]["chosen"] in d["devices"][0]["kernels"]'
