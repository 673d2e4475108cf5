#!/usr/bin/env python3
"""Hostile model files: hostile.py BITNET SOURCE_DIR [ID-prefix...].

Writes a small valid model and spoils it in every way of the lists in hostile_gguf.py, hostile_model.py, hostile_hf.py
and hostile_torch.py. The program must end by itself, soon, in little memory, with the exit code of docs/guide/cli.md and
one message that names the file and the culprit. Variants marked (+) are unusual and must be accepted. Standard library only.
"""
import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
BITNET, SOURCE = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
PREFIXES = tuple(sys.argv[3:])

WALL_S = 60  # of a machine under load; what counts is the processor time
ROOM_BYTES = 64 << 20
SHOWN_BYTES = 200_000  # of an output
MESSAGE_BYTES = 4000
KINDS = {2: "invalid_argument", 3: "invalid_input", 4: "unsupported", 5: "resource", 6: "interrupted"}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REFUSAL = "Not a model that this program can run: "


def execute(folder, arguments, seconds=WALL_S, during=None):
    """(exit code or -signal, processor seconds, peak bytes, stdout, stderr). `during` runs beside the program.

    Runs in a process of its own that stays small: a child's peak memory is never below its parent's.
    """
    outputs = [pathlib.Path(folder) / name for name in ("stdout", "stderr")]
    with open(outputs[0], "wb") as out, open(outputs[1], "wb") as err:
        process = subprocess.Popen([BITNET, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   cwd=folder)
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        if during:
            time.sleep(during[1])
            os.truncate(*during[0])
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    texts = []
    for path in outputs:
        with open(path, "rb") as file:
            texts.append(file.read(SHOWN_BYTES).decode("utf-8", "surrogateescape"))
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, *texts


RUNNER = concurrent.futures.ProcessPoolExecutor(1)
EMPTY_RSS = RUNNER.submit(execute, tempfile.gettempdir(), ["--version"]).result()[2]

import hostile_gguf as gguf  # noqa: E402  the runner must be started before memory is used
import hostile_hf as hf  # noqa: E402
import hostile_model as model  # noqa: E402
import hostile_torch as torch  # noqa: E402

COMMANDS = {"inspect": ["inspect", "{m}"], "logits": ["logits", "-m", "{m}", "--ids", "1,2,3", "--json"],
            "verify": ["verify", "{m}", "--json"], "convert": ["convert", "{m}", "-o", "{out}"],
            "tokenize": ["tokenize", "-m", "{m}", "-p", "hello <|end|>", "--ids"]}
# What each command does with a file that is spoilt at this level: fails, refuses to call it a model, or works.
FAILS, REFUSES, WORKS, EITHER = "fails", "refuses", "works", "either"
LEVELS = {"header": [FAILS] * 5, "model": [REFUSES, FAILS, FAILS, FAILS, EITHER],
          "vocabulary": [REFUSES, FAILS, FAILS, FAILS, FAILS], "data": [WORKS, FAILS, FAILS, FAILS, WORKS],
          "good": [WORKS] * 5, "runs": [EITHER] * 5}
tally = {}  # case -> [variants, failures]


def report(id, label, problems):
    counts = tally.setdefault(id, [0, 0])
    counts[0] += 1
    counts[1] += bool(problems)
    for problem in problems:
        print(f"FAIL {id} {label}: {problem}", flush=True)


def size_of(path):
    try:
        return sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def message_of(command, code, out, err):
    """The one message that tells why, or an exception saying what is wrong with it."""
    if command == "logits":
        error = json.loads(out)["error"]
        if (error["code"], error["kind"], error["severity"], error["transient"]) != (
                code, KINDS[code], "error", False) or set(error) != {
                "kind", "code", "severity", "message", "context", "suggestion", "transient"}:
            raise ValueError(f"error document {error}")
        return error["message"] + error["suggestion"]
    if command == "verify":
        document = json.loads(out)
        if "error" in document:  # nothing to check
            return document["error"]["message"]
        failed = [c["detail"] for c in document.get("checks", []) if not c["ok"]]
        if document.get("ok") is not False or len(failed) < 1:
            raise ValueError(f"document {out[:300]!r}")
        return " ".join(failed)
    if out:
        raise ValueError(f"prints {out[:200]!r}")
    lines = [line for line in err.splitlines() if ": note: " not in line]
    if not lines or not lines[0].startswith(f"bitnet {command}: ") or any(
            not line.startswith(("Try: ", "  ")) for line in lines[1:]):
        raise ValueError(f"stderr {err[:300]!r}")
    return "\n".join(lines)


def run_program(folder, words, cpu_s=1.0):
    """What `execute` gives; a run that takes too long has two more chances, since a busy machine only ever adds time."""
    for _ in range(3):
        pathlib.Path(folder, "out.gguf").unlink(missing_ok=True)
        result = RUNNER.submit(execute, str(folder), words).result()
        if result[1] < cpu_s:
            break
    return result


def judge(command, expected, variant, path, result):
    code, cpu_s, rss, out, err = result
    problems = []
    if code < 0 or code > 6 or code == 1:
        problems.append(f"dies with {code}: {err[-300:]}")
    if cpu_s >= variant.cpu_s:
        problems.append(f"takes {cpu_s:.2f} s")
    if rss > size_of(path) + ROOM_BYTES + EMPTY_RSS:
        problems.append(f"takes {rss >> 20} MB for a file of {size_of(path) >> 20} MB")
    if odd := CONTROL.search(out.replace("\r", "") + err):
        problems.append(f"prints the control character {odd[0]!r}")
    if len(err) > MESSAGE_BYTES:
        problems.append(f"prints {len(err)} bytes of messages")
    if problems:
        return problems
    if code == 0:
        if expected == FAILS:
            return ["accepts it"]
        if expected == REFUSES:
            refusal = out.partition(REFUSAL)[2]
            missing = [w for w in (str(path), *variant.words) if w not in refusal]
            return [f"refusal {refusal[:300]!r} lacks {missing}"] if missing else []
        if command == "inspect" and variant.level == "good" and REFUSAL in out:
            return [out[out.index(REFUSAL):][:300]]
        if command == "logits" and expected == WORKS and variant.level == "good":
            notes = [w for w in variant.words if w not in err]
            return [f"notes {err[:300]!r} lack {notes}"] if notes else []
        return []
    if expected in (WORKS, REFUSES) or code not in variant.codes:
        return [f"ends with {code}: {(err or out)[:400]}"]
    try:
        message = message_of(command, code, out, err)
    except (ValueError, KeyError, TypeError) as error:
        return [f"no good message: {error!r}"]
    words = () if expected == EITHER else (str(path), *variant.words)
    missing = [w for w in words if w not in message]
    return [f"message {message[:400]!r} lacks {missing}"] if missing else []


def commands_for(path, folder):
    """The arguments of every command; output of a conversion is a file that must not stay after a failure."""
    return {name: [a.format(m=path, out=folder / "out.gguf") for a in words] for name, words in COMMANDS.items()}


def check(variant, good_logits):
    with tempfile.TemporaryDirectory(dir=BASE) as name:
        folder = pathlib.Path(name)
        path = variant.write(folder)
        problems = []
        for (command, words), expected in zip(commands_for(path, folder).items(), LEVELS[variant.level]):
            if command == "tokenize" and path.is_dir():
                expected = WORKS  # the vocabulary has a file of its own
            result = run_program(name, words, variant.cpu_s)
            found = judge(command, expected, variant, path, result)
            if command == "logits" and variant.level == "good" and variant.same and not found:
                if json.loads(result[3])["hash"] != good_logits[path.is_dir()]:
                    found = ["gives other logits than the good model"]
            if command == "convert" and result[0] != 0 and any("out.gguf" in f.name for f in folder.iterdir()):
                found.append("leaves an output behind")
            problems += [f"{command} {problem}" for problem in found]
    report(variant.id, variant.label, problems)


def check_truncations():
    """G09: a good file cut anywhere."""
    small = gguf.Gguf({}, {"a": gguf.Tensor([32, 2], gguf.Q8_0, bytes(68)), "b": gguf.Tensor([4], gguf.F32, bytes(16))})
    for kind, content in (("u8", 1), ("i64", -1), ("f64", 0.5), ("bool", 1), ("str", "text"), ("[str]", ["ab", "c"]),
                          ("[f32]", [1, 2])):
        small.set("key." + kind, kind, content)
    whole, n_header = small.bytes(), len(small.header({"a": 0, "b": 96}))
    big = gguf.MODEL.bytes()
    first_tensor = len(gguf.MODEL.header(dict.fromkeys(gguf.MODEL.tensors, 0)))
    rng = random.Random(4)
    cuts = [(whole, n, ["inspect"]) for n in range(n_header + 1)]
    cuts += [(big, n, ["inspect", "logits"]) for n in range(0, first_tensor, 211)]
    cuts += [(big, n, COMMANDS) for n in rng.sample(range(first_tensor, len(big) - 31), 64)]
    for data, n, names in cuts:
        with tempfile.TemporaryDirectory(dir=BASE) as name:
            path = pathlib.Path(name) / "m.gguf"
            path.write_bytes(data[:n])
            variant = gguf.Variant("G09", f"{n} of {len(data)} bytes", "header", None)
            words = commands_for(path, path.parent)
            problems = [f"{c} {p}" for c in names
                        for p in judge(c, FAILS, variant, path, run_program(name, words[c]))]
        report("G09", variant.label, problems)


def check_shrinking():
    """M22: the file gets shorter while it is read, and after."""
    g = gguf.MODEL.copy()
    for key in [k for k in g.keys if k.startswith("tokenizer.")]:
        del g.keys[key]
    n_rows = 1 << 17  # zeros, which a sparse file holds for nothing and which take long enough to read
    g.set(gguf.P + "vocab_size", "u32", n_rows)
    g.tensors[gguf.EMBD] = embedding = g.tensors.pop(gguf.EMBD)
    embedding.dims, embedding.data = [gguf.D_MODEL, n_rows], b""
    head = g.bytes()
    size = len(head) + n_rows * gguf.D_MODEL * 2
    commands = {"run": ["run", "-m", "{m}", "--prompt-ids", "1,2,3", "-n", "20", "--temp", "0", "--ids"],
                "verify": COMMANDS["verify"], "convert": COMMANDS["convert"],
                "bench": ["bench", "-m", "{m}", "-p", "8", "-n", "4", "-r", "1"]}
    variant = gguf.Variant("M22", "", "runs", None, cpu_s=WALL_S)
    for (command, words), delay in itertools.product(commands.items(), (0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4)):
        with tempfile.TemporaryDirectory(dir=BASE) as name:
            path = pathlib.Path(name) / "m.gguf"
            path.write_bytes(head)
            os.truncate(path, size)
            words_here = [a.format(m=path, out=pathlib.Path(name) / "out.gguf") for a in words]
            result = RUNNER.submit(execute, name, words_here, during=((path, len(head)), delay)).result()
            os.truncate(path, size)  # the limit of memory is that of the whole file
            # Measuring needs memory of its own, and a copy of the weights is laid out while the file is read.
            problems = [p for p in judge(command, EITHER, variant, path, result) if " MB" not in p]
        report("M22", f"{command} after {delay} s", problems)


def check_paths():
    """M23: what is no file."""
    def make(folder, kind):
        path = folder / "m.gguf"
        if kind == "folder":
            path.mkdir()
        elif kind == "FIFO":
            os.mkfifo(path)
        elif kind == "unreadable":
            path.write_bytes(b"GGUF")
            path.chmod(0)
        elif kind == "symlink loop":
            path.symlink_to("m.gguf")
        elif kind == "symlink to nothing":
            path.symlink_to("nothing.gguf")
        elif kind == "below a file":
            (folder / "file").write_bytes(b"GGUF")
            return folder / "file" / "m.gguf"
        elif kind == "long name":
            return folder / ("n" * 300)
        elif kind == "folder of FIFOs":
            path.mkdir()
            for name in ("config.json", "model.safetensors", "tokenizer.json"):
                os.mkfifo(path / name)
        elif kind.startswith("/dev"):
            return pathlib.Path(kind)
        return path
    for kind in ("folder", "FIFO", "/dev/zero", "/dev/null", "unreadable", "symlink loop", "symlink to nothing",
                 "below a file", "long name", "folder of FIFOs"):
        if kind == "unreadable" and os.geteuid() == 0:
            continue  # nothing is unreadable for root
        variant = gguf.Variant("M23", kind, "header", None, (3, 5))
        with tempfile.TemporaryDirectory(dir=BASE) as name:
            path = make(pathlib.Path(name), kind)
            problems = [f"{c} {p}" for c, words in commands_for(path, pathlib.Path(name)).items()
                        for p in judge(c, FAILS, variant, path, run_program(name, words))]
        report("M23", kind, problems)


def checksummed(folder, path):
    """A copy of the model with checksums, as the program writes them, and where its tensors lie."""
    copy = folder / "checked.gguf"
    code, *_, err = RUNNER.submit(execute, str(folder), ["convert", path, "-o", copy]).result()
    if code:
        raise RuntimeError(err)
    out = subprocess.run([BITNET, "inspect", copy, "--json"], capture_output=True, check=True).stdout
    return copy.read_bytes(), {t["name"]: (t["offset_bytes"], t["size_bytes"]) for t in json.loads(out)["tensors"]}


def main():
    with tempfile.TemporaryDirectory(dir=BASE) as name:
        folder = pathlib.Path(name)
        paths = gguf.good_file(folder), hf.good_folder(folder)
        good = []
        for path in paths:
            result = RUNNER.submit(execute, name, ["logits", "-m", path, "--ids", "1,2,3", "--json"]).result()
            if result[0] != 0:
                sys.exit(f"the good model is refused: {result[3]} {result[4]}")
            good.append(json.loads(result[3])["hash"])
        spoilt = itertools.chain(
            [gguf.Variant("good", kind, "good", write) for kind, write in (("GGUF", gguf.good_file),
                                                                           ("folder", hf.good_folder))],
            gguf.container(), model.meaning(), model.tensor_bytes(), model.checked_bytes(*checksummed(folder, paths[0])),
            hf.headers(), hf.folders(), torch.archives(), torch.pickles(), torch.meaning())
        for variant in spoilt:
            if variant.id.startswith(PREFIXES or ""):
                check(variant, good)
        for id, special in (("G09", check_truncations), ("M22", check_shrinking), ("M23", check_paths)):
            if id.startswith(PREFIXES or ""):
                special()
    for id, (n, failed) in sorted(tally.items()):
        print(f"{'FAIL' if failed else 'ok  '} {id} ({n} variants{f', {failed} failed' if failed else ''})")
    failures = sum(failed for _, failed in tally.values())
    print(f"{len(tally)} cases, {sum(n for n, _ in tally.values())} variants, {failures} failures")
    return failures != 0


BASE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # disks are busy, writers sync

if __name__ == "__main__":
    sys.exit(main())
