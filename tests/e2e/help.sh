# --help and --version.
commands="run chat logits tokenize detokenize inspect verify convert quantize calibrate plan synth perplexity bench devices"

check "--version names a version" call 0 --version
check "--version prints 'bitnet N.N.N'" grep -qE '^bitnet [0-9]+\.[0-9]+\.[0-9]+$' out
check "--help works" call 0 --help
cp out top_help
check "--help has an example" grep -q Example top_help
for command in $commands "bench ops" "bench report" "train tokenizer" "train prepare" "train report" "train replay" "lora merge"; do
  check "$command --help works" call 0 $command --help
  check "$command --help ends with an example" bash -c "tail -n 3 out | grep -q 'bitnet $command' && grep -q Example out"
  check "$command --help lists --json" out_has --json
  check "$command is in bitnet --help" grep -qE "^ +${command%% *} " top_help
done
check "no arguments: usage, exit code 2" call 2
check "no arguments: the commands are listed" err_has perplexity
