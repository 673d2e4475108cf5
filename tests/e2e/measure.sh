# Perplexity and bench.
check "bench" call 0 bench -m tiny.gguf -p 32 -n 8 -r 2 -t 1,2
check "bench: both tests" bash -c "grep -q pp32 out && grep -q tg8 out"
check "bench --json" call 0 bench -m tiny.gguf -p 32 -n 8 -r 2 -t 1,2 --json
check "bench --json: the shape" json '[(r["test"], r["threads"]) for r in d["results"]] == [("pp32", 1), ("tg8", 1), ("pp32", 2), ("tg8", 2)] and all(r["tokens_per_s"] > 0 and r["device"] == "cpu" and r["stddev"] >= 0 and r["gb_per_s"] > 0 for r in d["results"])'
check "bench --json: memory, times, hash" json 'd["peak_rss_bytes"] > 1e6 and d["load_s"] > 0 and d["first_token_s"] >= d["load_s"] and len(d["logits_hash"]) == 16'
check "bench --json: what was copied" json 'd["copied_bytes"]["load"]["read"] >= d["model"]["file_bytes"] / 2 and d["copied_bytes"]["token"]["moved"] > 0 and d["copied_bytes"]["load"]["transferred"] == 0 and d["pool"]["held_bytes"] >= d["pool"]["live_bytes"] > 0'
check "bench --json: the machine" json 'd["machine"]["limits"][0]["read_gb_per_s"] > 0 and d["machine"]["kernels"]'
check "bench --synthetic" call 0 bench --synthetic tiny -p 16 -n 4 -r 1 -t 1 --json
check "bench --synthetic leaves no file" bash -c "! ls \${TMPDIR:-/tmp}/bitnet-bench-*.gguf >/dev/null 2>&1"
check "bench -p 0 measures generation alone" call 0 bench -m tiny.gguf -p 0 -n 4 -r 1 -t 1 --json
check "bench -p 0: one result" json '[r["test"] for r in d["results"]] == ["tg4"]'
check "bench --depth: a prompt shorter than the depth" call 0 bench -m tiny.gguf -p 8 -n 4 -d 40 -r 1 -t 2 --kv q8_0 --json
check "bench --depth is in the test's name" json '[r["test"] for r in d["results"]] == ["pp8", "tg4 @ d40"]'
check "bench --depth: a prompt longer than the depth" call 0 bench -m tiny.gguf -p 64 -n 4 -d 40 -r 1 -t 1 --kv q8_0
check "bench --depth beyond the training context" call 2 bench -m tiny.gguf -p 8 -n 4 -d 4000 -r 1 -t 1

# The report, its baseline, and a verdict on another binary.
check "bench report" call 0 bench report -m tiny.gguf -r 2 -n 4 -p 8 -d 1,9 -t 1,2 -o speed.html --save speed.json --json
check "bench report --json: the shape" json 'd["format"] == "bitnet-bench-report" and [(m["test"], m["threads"]) for m in d["models"][0]["measurements"]][:6] == [("pp8", 1), ("tg4", 1), ("tg4 @ d9", 1), ("pp8", 2), ("tg4", 2), ("tg4 @ d9", 2)]'
check "bench report --json: percentiles and intervals" json 'all(m["tokens_per_s"]["n"] == 2 and m["tokens_per_s"]["p5"] <= m["tokens_per_s"]["p50"] <= m["tokens_per_s"]["p95"] and m["tokens_per_s"]["median_interval"][0] <= m["tokens_per_s"]["p50"] <= m["tokens_per_s"]["median_interval"][1] for m in d["models"][0]["measurements"])'
check "bench report --json: machine, build, phases" json 'len(d["machine"]["ceilings"]) == 2 and d["machine"]["ceilings"][0]["read_gb_per_s"]["p50"] > 0 and d["machine"]["energy"] and d["build"]["compiler"] and any(p["name"] == "attention" for p in d["models"][0]["generation_phases"])'
check "bench report: one page that fetches nothing" bash -c "grep -q prefers-color-scheme speed.html && ! grep -q '://' speed.html"
check "bench report: Markdown beside it" grep -q '^| tg4 @ d9 |' speed.md
check "bench report: the saved file is the document" cmp -s <(tr -d ' \n' <out) <(tr -d ' \n' <speed.json)
check "bench report --baseline" call 0 bench report -m tiny.gguf -r 2 -n 4 -p 8 -t 1 -o speed.html --baseline speed.json --no-phases --json
check "bench report --baseline: ratios" json 'len(d["baseline"]) >= 2 and all(c["ratio"] > 0 and c["ratio_interval"][0] <= c["ratio_interval"][1] for c in d["baseline"])'
echo '{"format": "bitnet-bench-report", "models": 5}' >bad.json
check "bench report --baseline of something else" call 3 bench report -m tiny.gguf -r 1 -n 1 -p 1 -t 1 -o speed.html --no-phases --baseline bad.json
check "bench report into a folder that is not there" call 3 bench report -m tiny.gguf -o absent/speed.html
check "bench report: nothing to measure" call 2 bench report -m tiny.gguf -r 0
check "bench report --isa that is not there" call 4 bench report -m tiny.gguf --isa sse9
check "bench report --against with too few pairs" call 2 bench report -m tiny.gguf -r 0 --against "$bitnet" --pairs 3
check "bench report --against no program" call 2 bench report -m tiny.gguf -r 0 --quick --against ./absent
printf '#!/bin/sh\nexec env -u BITNET_CPU_ISA "%s" "$@"\n' "$bitnet" >fast
chmod +x fast
# A 29M model on one thread: tiny ones measure the machine's moods.
if [ -e "$story" ] && [ "$("$bitnet" devices --json | grep -c '"chosen": "generic"')" -eq 0 ]; then
  export BITNET_CPU_ISA=generic
  check "bench report --against a faster binary exits with 7" call 7 bench report -m "$story" -r 0 --quick --pairs 7 -t 1 -p 16 -n 16 -o pairs.html --against ./fast --json
  unset BITNET_CPU_ISA
  check "bench report --against a faster binary: slower" json 'all(c["verdict"] == "slower" and c["severity"] != "slight" and c["pairs"] == 7 and c["same_logits"] for c in d["against"])'
else
  skip "bench report --against" "no model with a vocabulary, or generic kernels only"
fi

if [ ! -e "$story" ]; then
  skip "perplexity" "no model with a vocabulary"
  return 0
fi
for i in 1 2 3 4 5 6; do
  echo "Once upon a time there was a little boy, and he had a dog. The dog was very fond of the boy, number $i."
done >story.txt
check "perplexity" call 0 perplexity -m "$story" -f story.txt
check "perplexity --json" call 0 perplexity -m "$story" -f story.txt --ctx 64 --json
check "perplexity --json: the shape" json '1 < d["perplexity"] < 8192 and abs(math.log(d["perplexity"]) - d["nll"]) < 1e-9 and d["n_tokens"] > 50 and d["tokens_per_s"] > 0' 
cp out windows.json
check "perplexity with a stride" call 0 perplexity -m "$story" -f story.txt --ctx 64 --stride 32 --json
check "perplexity with a stride: all tokens but the first" json 'd["n_tokens"] == d["n_text_tokens"] - 1 and d["perplexity"] < json.load(open("windows.json"))["perplexity"]'
check "perplexity --save-logits" call 0 perplexity -m "$story" -f story.txt --ctx 64 --stride 32 --save-logits base.safetensors --json
check "perplexity --kl-base of the same model" call 0 perplexity -m "$story" -f story.txt --ctx 64 --stride 32 --kl-base base.safetensors --json
check "perplexity --kl-base of the same model: nothing between them" json 'd["mean_kl"] == 0 and d["same_top"] == 1'
check "a stride longer than the context" call 2 perplexity -m "$story" -f story.txt --kl-base base.safetensors --stride 100000
check "perplexity --kl-base of another text" call 3 perplexity -m "$story" -f greedy.txt --kl-base base.safetensors
check "perplexity of nothing" bash -c ": >nothing.txt; $bitnet perplexity -m '$story' -f nothing.txt --no-bos >out 2>err; [ \$? -eq 3 ]"
"$bitnet" tokenize -m "$story" -f greedy.txt --ids >short_ids 2>err </dev/null
check "logits -o as a base" call 0 logits -m "$story" --ids "$(cat short_ids)" -o short.safetensors
check "perplexity against it" call 0 perplexity -m "$story" -f greedy.txt --kl-base short.safetensors --json
check "perplexity against it: nothing between them" json 'd["mean_kl"] == 0'
if [ -n "$has_python" ]; then
  check "perplexity from the logits themselves" python3 - <<'PYTHON'
import array, json, math, struct
data = open("short.safetensors", "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + length])
def tensor(name, code):
    begin, end = header[name]["data_offsets"]
    return array.array(code, data[8 + length + begin:8 + length + end]), header[name]["shape"]
logits, (n, vocab) = tensor("logits", "f")
ids, _ = tensor("ids", "i")
nll = 0
for t in range(n - 1):
    row = logits[t * vocab:(t + 1) * vocab]
    top = max(row)
    nll += top + math.log(sum(math.exp(x - top) for x in row)) - row[ids[t + 1]]
got = json.load(open("out"))
raise SystemExit(abs(nll / (n - 1) - got["nll"]) > 1e-6 or got["n_tokens"] != n - 1)
PYTHON
fi
