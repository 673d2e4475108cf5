# Ctrl-C: exit code 6, soon, nothing half-written left behind.
interrupt_after() { # interrupt_after SECONDS ARGUMENTS...: sets $code
  local seconds=$1
  shift
  # A job of a script ignores SIGINT unless job control is on.
  set -m
  "$bitnet" "$@" >out 2>err </dev/null &
  local pid=$!
  set +m
  sleep "$seconds"
  kill -INT $pid 2>/dev/null
  wait $pid
  code=$?
}
"$bitnet" synth --preset 700m --embed-type q8_0 -o big.gguf >out 2>err </dev/null
if [ ! -s big.gguf ]; then
  skip "interrupts" "no room for a model of 700 million weights"
  return 0
fi
interrupt_after 2 run -m big.gguf --prompt-ids 1,2,3 -n -1 --temp 0 --ids
check "Ctrl-C ends a generation with 6" [ "$code" -eq 6 ]
check "Ctrl-C is told" err_has "Ctrl-C"
interrupt_after 2 run -m big.gguf --prompt-ids 1,2,3 -n -1 --temp 0 --json
check "Ctrl-C with --json" [ "$code" -eq 6 ]
check "Ctrl-C with --json: an error document" json 'd["error"]["kind"] == "interrupted" and d["error"]["code"] == 6'
interrupt_after 0.3 synth --preset 3b -o stopped.gguf
check "Ctrl-C ends synth with 6" [ "$code" -eq 6 ]
check "an interrupted synth leaves nothing behind" bash -c "! ls | grep -q stopped"
interrupt_after 0.3 convert big.gguf -o stopped.gguf --type tq2_0
check "Ctrl-C ends convert with 6" [ "$code" -eq 6 ]
check "an interrupted convert leaves nothing behind" bash -c "! ls | grep -q stopped"
interrupt_after 1.5 bench report -m big.gguf -o stopped.html --save stopped.json
check "Ctrl-C ends bench report with 6" [ "$code" -eq 6 ]
interrupt_after 3 bench report -m big.gguf -r 0 --pairs 20 --against "$bitnet" -o stopped.html
check "Ctrl-C ends bench report --against with 6" [ "$code" -eq 6 ]
check "an interrupted report leaves nothing behind" bash -c "! ls | grep -q stopped"
rm -f big.gguf
