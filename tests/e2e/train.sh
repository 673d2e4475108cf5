# Around training: a vocabulary, data, the report of a run.
for i in $(seq 1 400); do
  echo "Once upon a time there was a fox, number $i, who said: \"It's $((i * 37)) o'clock!\""
  [ $((i % 20)) -eq 0 ] && printf '<|end|>\n'
done >tales.txt

check "train tokenizer" call 0 train tokenizer tales.txt --vocab-size 400 --out vocabulary --json
check "train tokenizer: the report" json 'd["vocab_size"] == 400 and d["n_merges"] >= 142 and d["bytes_per_token"] > 2 and d["notices"] == []'
check "train tokenizer: other commands read it" call 0 tokenize --tokenizer vocabulary -p "Once upon a time, fox 99" --json
check "train tokenizer: few tokens for a known text" json 'len(d["ids"]) < 16 and d["ids"][0] == 398'
if [ -n "$has_python" ]; then
  check "train tokenizer: tokenizer.json" python3 -c 'import json
d = json.load(open("vocabulary/tokenizer.json"))
m = d["model"]
assert m["type"] == "BPE" and len(m["vocab"]) == 398 + 2 and [t["content"] for t in d["added_tokens"]] == ["<|begin_of_text|>", "<|end_of_text|>"]
assert all("".join(merge.split(" ")) in m["vocab"] for merge in m["merges"])'
fi
check "train tokenizer: threads change nothing" call 0 train tokenizer tales.txt --vocab-size 400 --out vocabulary1 -t 1
check "train tokenizer: the same file" same vocabulary/tokenizer.json vocabulary1/tokenizer.json
check "train tokenizer: too few tokens" call 2 train tokenizer tales.txt --vocab-size 257 --out none
check "train tokenizer: too few tokens: the least" err_has 258
check "train tokenizer: a text that is too short" call 0 train tokenizer tales.txt --vocab-size 90000 --out large
check "train tokenizer: a text that is too short: it is said" err_has "of the 90000 tokens only"
check "train tokenizer: a pre-tokenizer that is none" call 2 train tokenizer tales.txt --vocab-size 400 --pre regex --out none

check "train prepare" call 0 train prepare tales.txt --separator '<|end|>\n' --valid-documents 0.3 --tokenizer vocabulary --out data --json
check "train prepare: the report" json 'd["vocab_size"] == 400 and d["train"]["n_documents"] + d["valid"]["n_documents"] == 20 and d["train"]["n_tokens"] > d["valid"]["n_tokens"] > 0'
check "train prepare: nothing but the dataset" bash -c "ls data | tr '\n' ' ' | grep -qx 'dataset.json tokenizer.json tokenizer_config.json train-00000.tokens valid-00000.tokens '"
check "train prepare: a table for people" call 0 train prepare tales.txt --tokenizer byte --valid-tail 0.1 --out bytes
check "train prepare: the splits" out_has valid
if [ -n "$has_python" ]; then
  check "train prepare: the tokens of bytes are the text" python3 -c 'import json
text = open("tales.txt", "rb").read()
tokens = {s: open("bytes/%s-00000.tokens" % s, "rb").read() for s in ("train", "valid")}
n = {s: json.load(open("bytes/dataset.json"))[s][0]["n_tokens"] for s in tokens}
assert tokens["train"][64:64 + n["train"]] + tokens["valid"][64:64 + n["valid"]] == text
assert n["train"] == int(0.9 * len(text))'
fi
check "train prepare: a folder that is there" call 2 train prepare tales.txt --tokenizer byte --out bytes
check "train prepare: a folder that is there: what to do" err_has "already"
check "train prepare: both ways to validate" call 2 train prepare tales.txt --tokenizer byte --valid-tail 0.1 --valid-documents 0.1 --out none
check "train prepare: an input that is not there" call 3 train prepare nothing.txt --tokenizer byte --out none
: >nothing.jsonl
check "train prepare: no documents" call 3 train prepare nothing.jsonl --tokenizer byte --out none
printf '{"text": "a"}\n{"body": "b"}\n' >lines.jsonl
check "train prepare: a line without text" call 3 train prepare lines.jsonl --tokenizer byte --out none
check "train prepare: a line without text: which" err_has "line 2"
check "train prepare: a member by name" call 3 train prepare lines.jsonl --field body --tokenizer byte --out none
check "train prepare: nothing is left of what failed" bash -c "! ls -d none* 2>/dev/null"

mkdir run
for i in $(seq 1 50); do echo "{\"step\": $i, \"time_s\": $((1764223200 + i)).5, \"loss\": $((6 - i / 10)).25, \"learning_rate\": 0.00$((50 - i))1, \"scale/layers.0.q_proj\": 0.02, \"scale/layers.1.q_proj\": 0.03}"; done >run/metrics.jsonl
echo '{"step": 50, "time_s": 1764223250.5, "name": "sample", "text": "Once <b>upon</b> a \"time\""}' >run/samples.jsonl
check "train report" call 0 train report run --json
check "train report: what was found" json 'd["last_step"] == 50 and d["n_samples"] == 1 and "loss" in d["metrics"]'
check "train report: plots" bash -c "[ \$(grep -c '<figure>' run/report.html) -eq 3 ]"
check "train report: a sample is text, not markup" grep -qF 'Once &lt;b&gt;upon&lt;/b&gt; a &quot;time&quot;' run/report.html
check "train report: nothing is fetched" bash -c "! grep -qE 'https?://|src=|<script|@import|url\(' run/report.html"
printf '{"step": 51, "time_s": 17642' >>run/metrics.jsonl
check "train report: a line that is being written" call 0 train report run -o report.html
check "train report: into a file" [ -s report.html ]
check "train report: a folder that is no run" call 3 train report data
check "train report: a folder that is no run: what is missing" err_has metrics.jsonl
