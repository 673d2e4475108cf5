#!/usr/bin/env python3
"""The main promises, checked through the program alone: acceptance.py BITNET SOURCE_DIR [SECTION...].

Standard library only. Parts that need files outside the project say that they are skipped when these are absent.
"""
import array
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

BITNET, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
SECTIONS = sys.argv[3:]
SHARED = SOURCE.parent / "shared"
MODEL = SOURCE / "models" / "storyteller-29m.gguf"
FIXTURES = sorted(p.parent for p in (SOURCE / "tests/data/hf").glob("*/config.json"))
if (SHARED / "fixtures/hf").is_dir():
    FIXTURES = sorted(p.parent for p in (SHARED / "fixtures/hf").glob("*/config.json"))
checks = {"passed": 0, "failed": 0, "skipped": 0}


def run(*arguments, env=None, ok=True):
    result = subprocess.run([BITNET, *map(str, arguments)], capture_output=True, env={**os.environ, **(env or {})})
    if ok and result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit {result.returncode}: {result.stderr.decode()}")
    return result


def run_json(*arguments, env=None):
    return json.loads(run(*arguments, "--json", env=env).stdout)


def check(name, passed, detail=""):
    checks["passed" if passed else "failed"] += 1
    print(f"{'ok  ' if passed else 'FAIL'} {name}{': ' + detail if detail else ''}", flush=True)


def skip(name, reason):
    checks["skipped"] += 1
    print(f"skip {name}: {reason}", flush=True)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: (t["dtype"], t["shape"], data[8 + length + t["data_offsets"][0] : 8 + length + t["data_offsets"][1]])
        for name, t in header.items()
    }


def floats(tensor):
    dtype, _, data = tensor
    if dtype == "F32":
        return array.array("f", data)
    if dtype == "BF16":
        values = array.array("H", data)
        return array.array("f", struct.pack(f"<{len(values)}I", *(v << 16 for v in values)))
    raise ValueError(dtype)


def logits(model, ids, folder, *options, env=None):
    out = pathlib.Path(folder) / "logits.safetensors"
    run("logits", "-m", model, "--ids", ",".join(map(str, ids)), "-o", out, *options, env=env)
    return read_safetensors(out)["logits"]


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row))
    return [x - top - total for x in row]


def compare(got, want, vocab):
    """Relative RMS, mean KL(want || got), argmax changes where the reference's top-2 margin exceeds 0.1."""
    rms = math.sqrt(sum((g - w) ** 2 for g, w in zip(got, want)) / sum(w * w for w in want))
    kl, flips, rows = 0.0, 0, len(want) // vocab
    for r in range(rows):
        g, w = got[r * vocab : (r + 1) * vocab], want[r * vocab : (r + 1) * vocab]
        lg, lw = log_softmax(g), log_softmax(w)
        kl += sum(math.exp(b) * (b - a) for a, b in zip(lg, lw)) / rows
        first, second = sorted(w, reverse=True)[:2]
        flips += first - second > 0.1 and max(range(vocab), key=g.__getitem__) != max(range(vocab), key=w.__getitem__)
    return rms, kl, flips


def section_greedy(folder):
    golden = json.loads((SOURCE / "tests/data/storyteller_golden.json").read_text())
    for case in golden:
        out = run_json("run", "-m", MODEL, "-p", case["prompt"], "-n", len(case["greedy"]), "--temp", 0)
        check(f"prompt ids of {case['prompt']!r}", out["prompt_ids"] == case["ids"])
        same = next((i for i, (a, b) in enumerate(zip(out["ids"], case["greedy"])) if a != b), len(case["greedy"]))
        detail = f"{same} of {len(case['greedy'])} equal"
        if same < len(case["greedy"]):
            row = floats(logits(MODEL, case["ids"] + case["greedy"][:same], folder))[-8192:]
            first, second = sorted(row, reverse=True)[:2]
            detail += f", top-2 margin there {first - second:.4f}"
        check(f"greedy ids of {case['prompt']!r}", same == len(case["greedy"]) == len(out["ids"]), detail)
        printed = run("run", "-m", MODEL, "-p", case["prompt"], "-n", 8, "--temp", 0, "--ids").stdout.decode()
        check("--ids prints the ids", [int(x) for x in printed.replace(",", " ").split()] == case["greedy"][:8])


def section_golden(folder):
    for fixture in FIXTURES:
        golden = read_safetensors(fixture / "golden.safetensors")
        ids = array.array("i", golden["ids"][2]).tolist()
        got = floats(logits(fixture, ids, folder))
        rms, kl, flips = compare(got, floats(golden["logits"]), golden["logits"][1][1])
        passed = rms <= 1e-5 or (rms <= 3e-2 and kl <= 1e-4 and flips == 0)
        check(f"logits of {fixture.name}", passed, f"relative RMS {rms:.1e}, mean KL {kl:.1e}, {flips} changed")


def unpack(tensor, rows):
    """Codes of a packed uint8 tensor as one bytes object a row."""
    _, (packed_rows, cols), data = tensor
    table = [bytes((b >> (2 * i) & 3) for b in range(256)) for i in range(4)]
    return [data[r % packed_rows * cols : (r % packed_rows + 1) * cols].translate(table[r // packed_rows])
            for r in range(rows)]


def section_round_trip(folder):
    for fixture in FIXTURES:
        config = json.loads((fixture / "config.json").read_text())
        quantization = config["quantization_config"]
        divide = quantization.get("linear_class", "bitlinear") != "autobitlinear"
        packed = quantization.get("quantization_mode", "offline") == "offline"
        source = read_safetensors(fixture / "model.safetensors")
        ids = [1, 5, 99, 300, 7, 8, 200, 17]
        want = logits(fixture, ids, folder)
        for kind in ("i2_s", "tq1_0", "tq2_0"):
            gguf, back = folder / f"{fixture.name}.{kind}.gguf", folder / f"{fixture.name}.{kind}.hf"
            made = run("convert", fixture, "-o", gguf, "--type", kind, ok=False)
            odd = any(config[k] % 256 for k in ("hidden_size", "intermediate_size"))
            if kind != "i2_s" and odd:
                check(f"{fixture.name} -> {kind} refused with the reason",
                      made.returncode in (3, 4) and b"256" in made.stderr, made.stderr.decode().strip()[:160])
                continue
            if made.returncode != 0:
                check(f"{fixture.name} -> {kind}", False, made.stderr.decode())
                continue
            check(f"{fixture.name} -> {kind}: logits bit-equal", logits(gguf, ids, folder) == want)
            run("convert", gguf, "-o", back, "--to", "hf")
            result = read_safetensors(back / "model.safetensors")
            same_codes = same_scales = True
            for name, tensor in source.items():
                if not name.endswith("proj.weight") or not packed:
                    continue
                rows = tensor[1][0] * 4
                same_codes &= unpack(tensor, rows) == unpack(result[name], rows)
                alpha = floats(source[name + "_scale"])[0]
                if divide:
                    alpha = struct.unpack("<f", struct.pack("<f", 1.0 / alpha))[0]
                same_scales &= floats(result[name + "_scale"])[0] == alpha
            check(f"{fixture.name} -> {kind} -> folder: codes and scales equal", same_codes and same_scales)
            check(f"{fixture.name} -> {kind} -> folder: logits bit-equal", logits(back, ids, folder) == want)


def section_same_bits(folder):
    devices = run_json("devices")
    kernels = next(d["kernels"] for d in devices["devices"] if d["device"] == "cpu")
    ids = json.loads((SOURCE / "tests/data/storyteller_golden.json").read_text())[0]["ids"] * 60
    ids = ids[:512]
    for model in [MODEL, *FIXTURES]:
        some = ids if model == MODEL else [i % 500 for i in ids[:200]]
        want = logits(model, some, folder, "--threads", 1)[2]
        for isa in kernels:
            check(f"{model.name}: {isa} gives the same bits",
                  logits(model, some, folder, env={"BITNET_CPU_ISA": isa})[2] == want)
        for threads in (2, 3, 4, 8):
            check(f"{model.name}: {threads} threads give the same bits",
                  logits(model, some, folder, "--threads", threads)[2] == want)
        for chunk in (1, 7, 32, 512):
            check(f"{model.name}: chunk {chunk} gives the same bits",
                  logits(model, some, folder, "--chunk", chunk)[2] == want)
    check("an instruction set that is not here is refused",
          run("logits", "-m", MODEL, "--ids", "1", env={"BITNET_CPU_ISA": "nonsense"}, ok=False).returncode == 4)


def section_tokenizers(folder):
    folder_of_vectors = SHARED / "tokenizers"
    if not folder_of_vectors.is_dir():
        return skip("tokenizer vectors", "no shared/tokenizers beside the project")
    for inputs in sorted(folder_of_vectors.glob("*.inp")):
        cases = inputs.read_bytes().split(b"\n__ggml_vocab_test__\n")
        wanted = inputs.with_suffix(".out").read_text().split("\n")
        good = 0
        for case, want in zip(cases, wanted):
            (folder / "case").write_bytes(case)
            out = run_json("tokenize", "--tokenizer", str(inputs)[:-4], "-f", folder / "case", "--no-bos")
            good += out["ids"] == [int(x) for x in want.split()]
        check(f"{inputs.name}", good == len(cases), f"{good} of {len(cases)}")


def section_text(folder):
    """Texts that break tokenizers: long runs, invalid UTF-8, many megabytes."""
    valid = SHARED / "data/storybooks/valid.txt"
    texts = {"1 MB of one letter": b"a" * 1_000_000, "1 MB of spaces": b" " * 1_000_000,
             "invalid UTF-8": bytes(range(256)) * 64 + b"\xc0\x80\xed\xa0\x80\xf5\xff", "empty": b""}
    if valid.is_file():
        texts["10 MB of text"] = (valid.read_bytes() * 25)[:10_000_000]
    for name, text in texts.items():
        (folder / "text").write_bytes(text)
        out = run_json("tokenize", "-m", MODEL, "-f", folder / "text", "--no-bos")
        (folder / "ids").write_text(",".join(map(str, out["ids"])))
        check(f"{name}: detokenize(tokenize(x)) == x",
              run("detokenize", "-m", MODEL, "-f", folder / "ids").stdout == text)


def section_perplexity(folder):
    valid = SHARED / "data/storybooks/valid.txt"
    text = valid.read_bytes()[:20000] if valid.is_file() else b" ".join(
        c["text"].encode() for c in json.loads((SOURCE / "tests/data/storyteller_golden.json").read_text()))
    (folder / "text").write_bytes(text)
    ctx, ids = 256, run_json("tokenize", "-m", MODEL, "-f", folder / "text")["ids"]
    out = run_json("perplexity", "-m", MODEL, "-f", folder / "text", "--ctx", ctx)
    nll, n = 0.0, 0
    for begin in range(0, len(ids), ctx):
        window = ids[begin : begin + ctx]
        rows = floats(logits(MODEL, window, folder))
        for t in range(1, len(window)):
            nll -= log_softmax(rows[(t - 1) * 8192 : t * 8192])[window[t]]
            n += 1
    check("perplexity equals the one from logits", out["n_tokens"] == n and abs(out["nll"] - nll / n) < 1e-6,
          f"{out['perplexity']:.6f} and {math.exp(nll / n):.6f} over {n} tokens")
    kernels = next(d["kernels"] for d in run_json("devices")["devices"] if d["device"] == "cpu")
    for isa in kernels:
        other = run_json("perplexity", "-m", MODEL, "-f", folder / "text", "--ctx", ctx, env={"BITNET_CPU_ISA": isa})
        check(f"perplexity on {isa} is the same number", other["nll"] == out["nll"])


def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, section in list(globals().items()):
            if name.startswith("section_") and (not SECTIONS or name[8:] in SECTIONS):
                section(pathlib.Path(folder))
    print(f"{checks['passed']} passed, {checks['failed']} failed, {checks['skipped']} skipped")
    return checks["failed"] != 0


if __name__ == "__main__":
    sys.exit(main())
