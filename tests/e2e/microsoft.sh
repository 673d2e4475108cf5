# Checkpoints of Microsoft's GPU scripts: the golden folder packed by other code, and a file that PyTorch wrote.
ids=1,2,3,7,11,200,5
packed="$source_dir/tests/data/hf/bitnet-packed"
if [ -n "$has_python" ]; then
  expected=$(hash_of -m "$packed" --ids $ids)
  make="python3 -B $source_dir/tests/golden/make_microsoft_gpu.py $packed"
  check "microsoft: make the int2 file" $make ms/checkpoints
  check "microsoft: make the fp16 file" $make ms-floats --floats --params
  check "microsoft: the logits of the folder" [ "$(hash_of -m ms/checkpoints --ids $ids)" = "$expected" ]
  check "microsoft: the logits of the file" [ "$(hash_of -m ms/checkpoints/model_state_int2.pt --ids $ids)" = "$expected" ]
  check "microsoft: the logits of the floats" [ "$(hash_of -m ms-floats --ids $ids)" = "$expected" ]
  check "microsoft: verify against the folder" call 0 verify ms/checkpoints "$packed"
  check "microsoft: to GGUF" call 0 convert ms/checkpoints -o ms.gguf --json
  check "microsoft: to GGUF: one table" json 'd["n_tensors"] == 24 and d["notices"] == []'
  check "microsoft: as GGUF: the same logits" [ "$(hash_of -m ms.gguf --ids $ids)" = "$expected" ]
  check "microsoft: to a folder" call 0 convert ms/checkpoints/model_state_int2.pt -o ms.hf --to hf
  check "microsoft: as a folder: the same logits" [ "$(hash_of -m ms.hf --ids $ids)" = "$expected" ]
  check "microsoft: a text" call 0 run -m ms/checkpoints -p "hello" -n 4 --temp 0
  cp out ms.txt
  check "microsoft: a text from the GGUF" call 0 run -m ms.gguf -p "hello" -n 4 --temp 0
  check "microsoft: the same text" same out ms.txt
  check "microsoft: the vocabulary" call 0 tokenize -m ms/checkpoints -p "hi <|eot_id|>" --ids
  mv ms/checkpoints/tokenizer.model ms/tokenizer.model
  check "microsoft: the vocabulary above" call 0 run -m ms/checkpoints -p "hello" -n 4 --temp 0
  check "microsoft: the vocabulary above: a note" err_has "the vocabulary is ms/checkpoints/../tokenizer.model"
  check "microsoft: the vocabulary above: the same text" same out ms.txt
  check "microsoft: the vocabulary above of the file" call 0 tokenize -m ms/checkpoints/model_state_int2.pt -p "hi" --ids
  rm ms/tokenizer.model
  check "microsoft: no vocabulary" call 3 tokenize -m ms/checkpoints -p "hi"
  check "microsoft: no vocabulary: where" err_has "expected tokenizer.model"
else
  skip "microsoft: a folder packed by other code" "no python3"
fi
torch="$source_dir/tests/data/microsoft/tiny/model_state_int2.pt"
check "microsoft: inspect PyTorch's file" call 0 inspect "$torch" --json
check "microsoft: inspect PyTorch's file: a model" json 'd["runnable"] and d["format"] == "PyTorch archive" and d["config"]["n_heads"] == 2'
check "microsoft: PyTorch's file runs" call 0 run -m "$torch" --prompt-ids 1,2 -n 2 --ids
check "microsoft: what is assumed is said" err_has "heads of 128, rotary base 500000"
head -c 100000 "$torch" >cut.pt
check "microsoft: a file cut off" call 3 run -m cut.pt --prompt-ids 1,2
check "microsoft: a file cut off: why" err_has "cut.pt: the record that ends a zip archive is missing"
if [ -n "$has_python" ]; then
  python3 - "$torch" evil.pt <<'PYTHON'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as good, zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_STORED) as bad:
    for entry in good.infolist():
        data = good.read(entry)
        if entry.filename.endswith("/data.pkl"):
            data = b"\x80\x02cos\nsystem\nX\x0d\x00\x00\x00touch ran-evil\x85R."
        bad.writestr(zipfile.ZipInfo(entry.filename, (1980, 1, 1, 0, 0, 0)), data)
PYTHON
  check "microsoft: a pickle that calls" call 4 run -m evil.pt --prompt-ids 1,2
  check "microsoft: a pickle that calls: what" err_has 'it wants to call "os.system"'
  check "microsoft: a pickle that calls: it did not" [ ! -e ran-evil ]
  python3 -c 'import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as good, zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_DEFLATED) as bad:
    for entry in good.infolist(): bad.writestr(entry.filename, good.read(entry))' "$torch" deflated.pt
  check "microsoft: compressed" call 4 run -m deflated.pt --prompt-ids 1,2
  check "microsoft: compressed: why" err_has "is compressed (method 8)"
fi
