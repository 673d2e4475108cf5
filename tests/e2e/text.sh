# Texts: tokenize and detokenize, prompts from every source. Needs a model with a vocabulary.
story="$source_dir/models/storyteller-29m.gguf"
[ -f "$story" ] || story="$source_dir/../shared/models/storyteller-29m"
if [ ! -e "$story" ]; then
  skip "texts" "no model with a vocabulary: neither models/storyteller-29m.gguf nor ../shared"
  return 0
fi
prompt="Once upon a time there was a little"

check "tokenize" call 0 tokenize -m "$story" -p "$prompt"
check "tokenize: a line a token" bash -c "[ \$(wc -l <out) -ge 8 ]"
check "tokenize --json" call 0 tokenize -m "$story" -p "$prompt" --json
check "tokenize --json: ids and pieces" json 'len(d["ids"]) == len(d["pieces"]) and "Once upon a time" in "".join(d["pieces"])'
cp out tokens.json
check "tokenize --no-bos" call 0 tokenize -m "$story" -p "$prompt" --no-bos --json
check "tokenize --no-bos: one token fewer" json 'd["ids"] == json.load(open("tokens.json"))["ids"][1:]'
check "tokenize --ids" call 0 tokenize -m "$story" -p "$prompt" --no-bos --ids
cp out ids.txt
check "detokenize a file of ids" call 0 detokenize -m "$story" -f ids.txt
check "detokenize: the text" [ "$(cat out)" = "$prompt" ]
check "detokenize --ids --json" call 0 detokenize -m "$story" --ids "$(cat ids.txt)" --json
check "detokenize --json: the text" json 'd == {"text": "Once upon a time there was a little"}'
check "an empty text" call 0 tokenize -m "$story" -p "" --no-bos --json
check "an empty text: no ids" json 'd == {"ids": [], "pieces": []}'
check "a text in brackets stays as it is" call 0 tokenize -m "$story" -p "[a,b]" --no-bos --json
check "a text in brackets: the pieces" json '"".join(d["pieces"]) == "[a,b]"'
check "a text that begins with a dash" call 0 tokenize -m "$story" -p "-n" --no-bos --json
check "a text that begins with a dash: the pieces" json '"".join(d["pieces"]) == "-n"'
# Every byte, NUL and broken UTF-8 among them, a newline at the end or none.
for i in $(seq 0 255); do printf "\\x$(printf %02x "$i")"; done >bytes.bin
printf 'two  spaces\n\n\ttab, na\xc3\xafve \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x99\x82 \xff end' >mixed.bin
printf 'ends in newlines\n\n' >newlines.bin
for file in bytes.bin mixed.bin newlines.bin; do
  "$bitnet" tokenize -m "$story" -f $file --no-bos --json >ids.json 2>err
  "$bitnet" detokenize -m "$story" -f ids.json >back 2>>err </dev/null
  check "tokenize, detokenize: $file comes back byte by byte" same $file back
  cp ids.json out
  check "tokenize --json of $file is JSON" json 'len(d["ids"]) > 0'
done
"$bitnet" tokenize -m "$story" --no-bos --ids <mixed.bin 2>err | "$bitnet" detokenize -m "$story" >back 2>>err
check "tokenize and detokenize in a pipe" same mixed.bin back

check "run" call 0 run -m "$story" -p "$prompt" -n 16 --temp 0
check "run prints text" bash -c "[ \$(wc -c <out) -gt 20 ]"
cp out greedy.txt
check "run --echo prints the prompt in front" call 0 run -m "$story" -p "$prompt" -n 16 --temp 0 --echo
check "run --echo: both" [ "$(cat out)" = "$prompt$(cat greedy.txt)" ]
check "run --json" call 0 run -m "$story" -p "$prompt" -n 16 --temp 0 --json
check "run --json: the same text" json 'd["text"] == open("greedy.txt").read().rstrip("\n") and len(d["ids"]) == 16 and d["prompt_ids"] == json.load(open("tokens.json"))["ids"]'
printf %s "$prompt" >prompt.txt
check "run -f" call 0 run -m "$story" -f prompt.txt -n 16 --temp 0
check "run -f: the same text" same out greedy.txt
"$bitnet" run -m "$story" -n 16 --temp 0 <prompt.txt >out 2>err
check "a prompt from the standard input" same out greedy.txt
"$bitnet" run -m "$story" -f <(cat prompt.txt) -n 16 --temp 0 >out 2>err </dev/null
check "a prompt from another command" same out greedy.txt
check "a prompt by ids" call 0 run -m "$story" --prompt-ids "$("$bitnet" tokenize -m "$story" -p "$prompt" --ids 2>/dev/null </dev/null)" -n 16 --temp 0
check "a prompt by ids: the same text" same out greedy.txt
check "--stop" call 0 run -m "$story" -p "$prompt" -n 64 --temp 0 --stop " and" --stop "," --json
check "--stop: it ends there" json 'd["stop"] == "stop" and "," not in d["text"]'
check "run --device reference: the same text" call 0 run -m "$story" -p "$prompt" -n 4 --temp 0 --ids --device reference
cp out reference_ids
check "run on the processor" call 0 run -m "$story" -p "$prompt" -n 4 --temp 0 --ids
check "run on the processor: the same ids" same out reference_ids
