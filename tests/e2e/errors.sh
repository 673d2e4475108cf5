# Wrong usage 2, missing and damaged files 3, unsupported 4, no room 5; each with a message that helps.
"$bitnet" synth --preset tiny -o tiny.gguf --json >out 2>err </dev/null

check "unknown command" call 2 rnu
check "unknown command: the nearest one is named" err_has "bitnet run --help"
check "unknown flag" call 2 run -m tiny.gguf --frobnicate
check "unknown flag: it is named" err_has --frobnicate
check "run without a model" call 2 run -p x
check "run without a model: the flag is named" err_has --model
check "a number that is none" call 2 run -m tiny.gguf --prompt-ids 1 -n many
check "a number out of range" call 2 run -m tiny.gguf --prompt-ids 1 --top-p 2
check "two prompts" call 2 run -m tiny.gguf -p a -f b
check "ids that are none" call 2 run -m tiny.gguf --prompt-ids 1,x,3
check "ids that are none: the culprit is named" err_has "'x'"
check "an id outside the vocabulary" call 2 run -m tiny.gguf --prompt-ids 99999999
check "an id outside the vocabulary: both numbers" err_has 512
check "more context than the model has" call 2 run -m tiny.gguf --prompt-ids 1 --ctx 100000
check "an unknown preset" call 2 synth --preset huge -o huge.gguf
check "an unknown type" call 2 convert tiny.gguf -o x.gguf --type q9_k
check "bench without a model" call 2 bench
check "bench of nothing" call 2 bench -m tiny.gguf -p 0 -n 0
check "a prompt that does not fit" call 2 run -m tiny.gguf --ctx 4 --prompt-ids 1,2,3,4,5,6
check "a prompt that does not fit: both numbers" bash -c "grep -q 6 err && grep -q 4 err"

for arguments in "run -m nothing.gguf -p x" "chat -m nothing.gguf" "logits -m nothing.gguf --ids 1" "inspect nothing.gguf" \
  "tokenize -m nothing.gguf -p x" "tokenize --tokenizer nothing.json -p x" "detokenize -m nothing.gguf --ids 1" \
  "verify nothing.gguf" "convert nothing -o x.gguf" "perplexity -m tiny.gguf -f nothing.txt" "bench -m nothing.gguf"; do
  check "missing file: $arguments" call 3 $arguments
  check "missing file: $arguments: it is named" err_has nothing
done
head -c 3000 tiny.gguf >cut.gguf
check "a file cut short" call 3 run -m cut.gguf --prompt-ids 1
check "a file cut short: it is named" err_has cut.gguf
printf 'This is no model.' >text.gguf
check "a text file as a model" call 3 inspect text.gguf
: >empty.gguf
check "an empty file as a model" call 3 verify empty.gguf --json
check "a folder without a model" bash -c "mkdir -p hollow; $bitnet run -m hollow -p x >out 2>err; [ \$? -eq 3 ]"
printf '\xff\xfe' >bytes.json
check "a vocabulary of garbage" call 3 tokenize --tokenizer bytes.json -p x

check "a device that is not there" call 4 run -m tiny.gguf --prompt-ids 1 --device tpu
check "a device that is not there: what there is" err_has reference
check "an instruction set that is not there" env BITNET_CPU_ISA=sse9 bash -c "$bitnet devices >out 2>err; [ \$? -eq 4 ]"
check "an instruction set that is not there: it is named" err_has sse9
check "an output folder that is not there" bash -c "$bitnet synth --preset tiny -o no/such/folder/x.gguf >out 2>err </dev/null; c=\$?; [ \$c -eq 3 ] || [ \$c -eq 5 ]"
if [ -w /dev/full ]; then
  check "a full disk" bash -c "$bitnet devices --json >/dev/full 2>err; [ \$? -eq 5 ]"
  check "a full disk: it is said" err_has "standard output"
fi

check "errors as JSON: a missing file" call 3 run -m nothing.gguf -p x --json
check "errors as JSON: the shape" json 'd["error"]["code"] == 3 and d["error"]["kind"] == "invalid_input" and "nothing.gguf" in d["error"]["message"] and isinstance(d["error"]["context"], list) and isinstance(d["error"]["suggestion"], str) and d["error"]["severity"] == "error" and d["error"]["transient"] is False'
check "errors as JSON: wrong usage" call 2 run --json --frobnicate
check "errors as JSON: wrong usage: the shape" json 'd["error"]["code"] == 2 and d["error"]["kind"] == "invalid_argument"'
check "errors as JSON: unsupported" call 4 logits -m tiny.gguf --ids 1 --device tpu --json
check "errors as JSON: unsupported: the shape" json 'd["error"]["kind"] == "unsupported"'
