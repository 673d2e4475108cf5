# A conversation from the standard input. The story model has no chat template: that is an error with a way out; a copy
# of it with one shows the rest.
if [ ! -e "$story" ]; then
  skip "chat" "no model with a vocabulary"
  return 0
fi
check "chat without a template" call 4 chat -m "$story"
check "chat without a template: the way out" err_has "bitnet run"

folder="$source_dir/../shared/models/storyteller-29m"
if [ ! -d "$folder" ]; then
  "$bitnet" convert "$story" -o story_hf --to hf >out 2>err </dev/null
  folder=story_hf
fi
mkdir -p talker
cp "$folder"/* talker/ 2>/dev/null
cat >talker/chat_template.jinja <<'TEMPLATE'
{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}
TEMPLATE
talk() { "$bitnet" chat -m talker --temp 0 -n 8 "$@" >out 2>err; }

printf 'Hello\n/save first.json\nAnd then?\n/save both.json\n/exit\n' | talk
check "chat answers" [ -s out ]
check "chat saves" [ -s both.json ]
cp both.json out
check "chat saves every message" json '[m["role"] for m in d["messages"]] == ["user", "assistant", "user", "assistant"] and d["format"] == "bitnet-chat"'
printf '/load first.json\nAnd then?\n/save again.json\n' | talk
check "a loaded conversation goes on in the same way" same both.json again.json
printf 'Hello\nAnd then?\n' | talk --json
check "chat --json" json '[m["content"] for m in d["messages"]] == [m["content"] for m in json.load(open("both.json"))["messages"]]'
printf 'Hello\n/reset\nHello\n/save reset.json\n' | talk
check "/reset starts afresh" bash -c "diff <(tail -n +2 first.json) <(tail -n +2 reset.json) >/dev/null"
printf '/system Be brief.\nHello\n/save system.json\n' | talk
cp system.json out
check "/system" json 'd["messages"][0] == {"role": "system", "content": "Be brief."} and len(d["messages"]) == 3'
printf 'one \\\ntwo\n"""\nthree\nfour\n"""\n/save lines.json\n' | talk
cp lines.json out
check "messages of several lines" json '[m["content"] for m in d["messages"] if m["role"] == "user"] == ["one \ntwo", "three\nfour"]'
printf '/help\n/frobnicate\n/load nothing.json\n/save\n' | talk
check "/help" err_has "/reset"
check "an unknown chat command" err_has "/frobnicate"
check "/load of a missing file says so and goes on" bash -c "grep -q nothing.json err && grep -q 'needs the name' err"
printf '{"format": "bitnet-chat", "messages": [{"role": "wizard", "content": "x"}]}' >bad.json
printf '/load bad.json\n' | talk
check "/load refuses a role" err_has wizard
{ for i in $(seq 1 8); do echo "Tell me more about the little boy and his dog, please, number $i."; done; echo "/reset"; echo "Hi"; } >long.txt
"$bitnet" chat -m talker --temp 0 -n 4 --ctx 64 <long.txt >out 2>err
check "a full context is told" err_has "context"
check "a full context ends nothing" [ -s out ]
if [ -n "$has_python" ] && python3 -c 'import os; os.openpty()' 2>/dev/null && ldd "$bitnet" 2>/dev/null | grep -q libedit; then
  check "chat on a terminal: editing, history, Ctrl-C, Ctrl-D" bash -c "python3 '$here/chat_terminal.py' '$bitnet' talker >out 2>err"
  check "chat keeps a history for the user alone" bash -c "[ \"\$(stat -c %a state/bitnet/history)\" = 600 ] && grep -q /help state/bitnet/history"
else
  skip "chat on a terminal" "needs python3, libedit and a pseudo-terminal"
fi
