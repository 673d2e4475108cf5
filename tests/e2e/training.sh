# bitnet train CONFIG and bitnet train replay: a small model learns, is killed, goes on to the same bytes, and runs.
call 0 train replay "$source_dir/tests/data/train/ten_steps.safetensors" --json
check "replay: ten losses, gradients within 1e-3" json \
  'len(d["losses"]) == 10 and d["max_grad_rel_diff"] < 1e-3 and d["max_loss_diff"] < 1e-3'
call 0 train replay "$source_dir/tests/data/train/ten_steps.safetensors" --arithmetic kernels --json
check "replay on the kernels" json 'd["max_grad_rel_diff"] < 1e-3'
call 3 train replay "$source_dir/README.md" --json
check "replay of another file is refused" json 'd["error"]["kind"] == "invalid_input"'

for i in $(seq 1 600); do echo "One day the fox number $((i * 7919 % 97)) saw the old bear by the river."; done >story.txt
cat >run.toml <<'TOML'
[model]
n_layers = 2
d_model = 64
d_ff = 128
n_heads = 4
n_kv_heads = 2
[data]
text = "story.txt"
n_ctx = 64
batch = 4
[optimizer]
lr = 4e-3
[schedule]
steps = 150
warmup = 10
[run]
checkpoint_every = 7
eval_every = 50
sample_every = 150
sample_tokens = 20
threads = 1
TOML
call 0 train --run whole --json run.toml
check "a run whose loss falls below 0.6" json 'd["steps"] == 150 and d["valid_loss"] < 0.6'
check "it writes a folder and a GGUF file" [ -s whole/model/model.safetensors -a -s whole/model.gguf ]
check "metrics have a line a step that is logged" [ "$(wc -l <whole/metrics.jsonl)" -ge 15 ]
call 0 run -m whole/model.gguf -p "One day the " -n 30 --temp 0
check "the model has learnt the text" out_has "fox number"
folder=$(hash_of -m whole/model -p "One day the fox")
check "folder and GGUF file compute the same" [ -n "$folder" -a "$folder" = "$(hash_of -m whole/model.gguf -p 'One day the fox')" ]

n_kills=0
threads=1
until [ -s parts/model.gguf ] || [ $n_kills -ge 40 ]; do
  threads=$((threads % 3 + 1))
  "$bitnet" train --run parts --threads $threads run.toml >out 2>err </dev/null &
  pid=$!
  sleep "0.$((RANDOM % 9 + 1))"
  kill -9 $pid 2>/dev/null && n_kills=$((n_kills + 1))
  wait $pid 2>/dev/null
  [ $n_kills -ge 6 ] && "$bitnet" train --run parts --threads 2 run.toml >out 2>err </dev/null
done
check "killed $n_kills times, it ends with the same bytes" same whole/model/model.safetensors parts/model/model.safetensors

for i in $(seq 1 60); do echo "{\"prompt\": \"Who came? \", \"completion\": \"The duck number $((i % 3)).\"}"; done >replies.jsonl
call 0 finetune -m whole/model.gguf -d replies.jsonl --run tuned --n-ctx 48 --batch 2 --accumulation 1 --epochs 6 \
  --lr 4e-3 --valid-share 0.2 --threads 2 --json
check "finetune: replies are learned" json 'd["valid_loss"] < 1 and d["steps"] == 81'
call 0 run -m tuned/model.gguf -p "Who came? " -n 16 --temp 0
check "the tuned model replies" out_has "The duck number"
echo '{"prompt": "Who?"}' >bad.jsonl
call 3 finetune -m whole/model.gguf -d bad.jsonl --run tuned2
check "a line without a reply is refused by its number" err_has "bad.jsonl: line 1"
call 3 finetune -m whole/model.gguf -d story.txt.missing --run tuned3
check "data that is not there" err_has "story.txt.missing"
call 2 train --conversations replies.jsonl --run tuned4
check "conversations want a model" err_has "a model to continue from"

small="--n-layers 2 --n-ctx 32 --batch 4 --eval-every 0 --threads 1"
shape="$small --d-model 32 --d-ff 64 --n-heads 2"
call 0 train --text story.txt --run teacher --architecture llama --quantize 0 $small --d-model 48 --d-ff 96 --n-heads 4 \
  --steps 80 --warmup 10 --lr 5e-3 --json
check "a float teacher learns" json 'd["valid_loss"] < 2'
call 0 distill --teacher teacher -d story.txt --run student $shape --steps 150 --warmup 10 --lr 4e-3 --distill-attention 0.1 \
  --layer-steps 10 --bits 8:10,4:10 --json
check "distill: a student of another width learns from it" json 'd["steps"] == 150 and d["valid_loss"] < 2.4'
check "distill: how far it is from its teacher is logged" grep -q '"logits_divergence"' student/metrics.jsonl
check "distill: the student is a ternary model like any other" call 0 run -m student/model.gguf -p "One day" -n 4 --temp 0
call 0 distill --teacher teacher -d story.txt --run dry2 $shape --dry-run --json
check "distill: a dry run counts the teacher" json \
  'd["teacher"]["memory_bytes"] > 4 * d["teacher"]["parameters"] - 1 and d["flops_per_token"] > 2 * d["teacher"]["flops_per_token"] > 0'
call 2 distill -d story.txt --run none
check "distill wants a teacher" err_has "distill wants a teacher"
call 2 distill --teacher teacher -d story.txt --run none2 $shape --vocab-size 300
check "another vocabulary is refused" err_has "they must share the vocabulary"
call 4 distill --teacher teacher -d story.txt --run none3 $shape --device cuda
check "distill on a GPU is refused" err_has "on the processor only"
call 2 train --text story.txt --run none4 $shape --steps 20 --warmup 2 --layer-steps 20
check "a schedule that does not end in time is refused" err_has "from step 21 on, but the run ends at 20"

call 2 train --run whole --lr 1e-3 run.toml
check "another learning rate cannot go on" err_has "the run began with lr = 0.004"
echo "d_modle = 3" >>run.toml
call 3 train --run other run.toml
check "an unknown key is refused" err_has "there is no key d_modle in [run]"
call 2 train --run other
check "a run without data is refused" err_has "the data are one of dataset, text and conversations, none is given"
call 0 train --text story.txt --run dry --n-layers 1 --d-model 32 --d-ff 64 --n-heads 2 --n-ctx 32 --batch 2 --dry-run --json
check "a dry run tells what it would take" json 'd["parameters"] > 8192 and d["tokens_per_s"] > 0'
