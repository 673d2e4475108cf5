# Every instruction set that this machine has computes the same bits.
expected=$(hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13)
check "devices --json names the kernels" call 0 devices --json
kernels=$(tr -d ' \n' <out | grep -o '"device":"cpu".*' | grep -o '"kernels":\[[^]]*\]' | head -n 1 | sed 's/"kernels":\[//; s/[]"]//g; s/,/ /g')
check "there is a generic one" bash -c "case ' $kernels ' in *' generic '*) ;; *) exit 1 ;; esac"
for isa in $kernels; do
  check "BITNET_CPU_ISA=$isa: the same logits" [ "$(BITNET_CPU_ISA=$isa hash_of -m tiny.gguf --ids 5,6,7,8,9,10,11,12,13)" = "$expected" ]
  check "BITNET_CPU_ISA=$isa is what runs" bash -c "BITNET_CPU_ISA=$isa $bitnet logits -m tiny.gguf --ids 1 --json 2>err | grep -q '\"kernels\": \"$isa\"'"
done
