"""Cases PT (PyTorch archives, as Microsoft's GPU scripts write them) of hostile.py."""
import io
import json
import pathlib
import random
import struct
import sys
import zipfile

from hostile_gguf import INVALID, UNSUPPORTED, Variant
from hostile_hf import CONFIG, TENSORS, TOKENIZER

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import make_microsoft_gpu as ms  # noqa: E402

FILE = "model_state_int2.pt"
SCALE = b"\x80\x3c"  # 2^-6
QKV, HEAD, NORM = "layers.0.attention.wqkv.weight", "output.weight", "norm.weight"
MODEL = ms.converted({name: ("BF16", [1], SCALE) if name.endswith("_scale") else tensor
                      for name, tensor in TENSORS.items()}, CONFIG, False)


class Folder:
    """A checkpoint before it is written."""

    def __init__(self):
        self.tensors = dict(MODEL)
        self.entries = {}  # of the archive, in place of the usual or more
        self.files = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": json.dumps(TOKENIZER).encode()}
        self.change = lambda data: data  # of the whole archive

    def archive(self):
        out = io.BytesIO()
        ms.write_zip(out, "m", {**ms.entries_of(self.tensors), **self.entries})
        return self.change(out.getvalue())

    def write(self, folder):
        path = folder / "m"
        path.mkdir()
        for name, data in {FILE: self.archive(), **self.files}.items():
            (path / name).write_bytes(data)
        return path


def case(id, label, level, spoil, codes, *words, **more):
    def write(folder):
        f = Folder()
        spoil(f)
        return f.write(folder)
    return Variant(id, label, level, write, codes if isinstance(codes, tuple) else (codes,), words, same=False, **more)


def whole(id, label, data, *words, codes=INVALID):
    """The whole archive, or what makes it of a good one."""
    return case(id, label, "header",
                lambda f: setattr(f, "change", data if callable(data) else lambda good: data), codes, FILE, *words)


def pickled(label, ops, *words, codes=INVALID, level="header", id="PT04"):
    return case(id, label, level, lambda f: f.entries.update({"data.pkl": b"\x80\x02" + ops}), codes, FILE, *words)


def at(data, place, value):
    return data[:place] + value + data[place + len(value):]


def end(place, value):
    """A field of the record at the archive's end, which zipfile writes without zip64 and comment."""
    return lambda good: at(good, len(good) - 22 + place, value)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def archives():
    good = Folder().archive()
    rng = random.Random(8)
    yield case("PT", "the good one", "good", lambda f: None, 0)
    for n in [*range(24), *rng.sample(range(24, len(good)), 40), len(good) - 1]:
        yield whole("PT01", f"{n} of {len(good)} bytes", good[:n])
    for label, data, word in (("GGUF", b"GGUF\3" + bytes(99), "GGUF"), ("gzip", b"\x1f\x8b" + bytes(99), "gzip"),
                              ("a page", b"<html>" + bytes(99), "page"), ("LFS", b"version https://git-lfs", "LFS"),
                              ("of PyTorch 1.5", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "1.6"),
                              ("an empty zip", b"PK\5\6" + bytes(18), "zip")):
        yield whole("PT01", label, data, word)
    for label, change, word in (("65535 entries", end(8, b"\xff\xff\xff\xff"), "entry"),
                                ("no entries", end(8, bytes(4)), "follow"),
                                ("a long directory", end(12, b"\xff\xff\xff\x00"), "directory"),
                                ("a directory of 4 GB", end(12, b"\xff\xff\xff\xff"), "directory"),
                                ("a directory elsewhere", end(16, b"\0\0\0\0"), "directory"),
                                ("a second disk", end(4, b"\1\0"), "parts"),
                                ("bytes behind", lambda good: good + b"PK", "ends")):
        yield whole("PT02", label, change, word, codes=UNSUPPORTED if word == "parts" else INVALID)
    for method, name in ((zipfile.ZIP_DEFLATED, "deflate"), (zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")):
        def packed(_, method=method):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", method) as archive:
                archive.writestr("m/data.pkl", bytes(1 << 26))
            return out.getvalue()
        yield whole("PT02", f"{name} of 64 MB", packed, "compressed", codes=UNSUPPORTED)
    for n, codes in ((30_000, 0), (65_600, INVALID)):
        more = {f"other/{i}": b"" for i in range(n)}
        yield case("PT02", f"{n} other entries", "good" if codes == 0 else "header",
                   lambda f, more=more: f.entries.update(more), codes)
    yield whole("PT02", "no pickle", lambda good: good.replace(b"m/data.pkl", b"m/code.pkl"), "data.pkl")
    directory = good.index(b"PK\1\2")
    spots = [*range(400), *range(directory, len(good))]
    for i in range(60):  # whatever comes of it, it ends well
        place, bit = rng.choice(spots), 1 << rng.randrange(8)
        flip = at(good, place, bytes([good[place] ^ bit]))
        yield case("PT03", f"bit {bit} of byte {place}", "runs",
                   lambda f, flip=flip: setattr(f, "change", lambda good: flip), (INVALID, UNSUPPORTED))


def pickles():
    for name in ("os system", "builtins eval", "builtins exec", "subprocess Popen", "torch load", "torch.hub load",
                 "numpy.core.multiarray _reconstruct", "\x1b[31m red", "x" * 4000 + " y"):
        module, _, function = name.partition(" ")
        yield pickled(f"calls {name[:24]!r}", f"c{module}\n{function}\n".encode() + text(b"touch ran") + b"\x85R.",
                      "wants to call", codes=UNSUPPORTED)
    for op in (b"i", b"o", b"\x81", b"\x82", b"\x83", b"\x84", b"\x92", b"\x93", b"\x95", b"\x97", b"P", b"S", b"I",
               b"0"):
        yield pickled(f"opcode {op!r}", op + b"os\nsystem\n(.", "opcode", codes=UNSUPPORTED)
    million = 1_000_000
    for label, ops, words, codes in (
            ("a million values", b"N" * million + b".", ["values"], INVALID),
            ("a million marks", b"(" * million + b".", ["values"], INVALID),
            ("a million lists", b"]" * million + b".", ["values"], INVALID),
            ("150,000 deep", b"N" + b"\x85" * 150_000 + b".", ["a tuple"], UNSUPPORTED),
            ("doubled 20,000 times", b"]q\0" + b"(h\0h\0tq\0" * 20_000 + b".", ["values"], INVALID),
            ("two million recalls", b"Nq\0" + b"h\0" * 2 * million + b".", ["values"], INVALID),
            ("a list a million times in itself", b"]q\0(" + b"h\0" * million + b"e.", ["a list"], UNSUPPORTED),
            ("a dict of 700,000", b"}q\0(" + b"h\0h\0" * 700_000 + b"u.", ["700000 entries"], INVALID),
            ("a text of 4 GB", b"X\xff\xff\xff\xff.", ["longer"], INVALID),
            ("a text of 1 MB", text(b"x" * million) + b".", ["limit"], INVALID),
            ("5 MB", b"N" * 5 * million, ["limit"], INVALID),
            ("memo of 4 billion", b"Nr\xff\xff\xff\xffj\xff\xff\xff\xfe.", ["recalls"], INVALID),
            ("nothing", b"", ["ends"], INVALID), ("a number", b"K\1.", ["an integer"], UNSUPPORTED),
            ("no tensors", b"}.", ["tok_embeddings"], UNSUPPORTED)):
        yield pickled(label, ops, *words, codes=codes, level="model" if label == "no tensors" else "header")
    build = ms.Pickler()
    build.dict({"t": (ms.Storage("0", "FloatStorage", 2**31 - 1), 0, [2])})
    yield pickled("a storage of 2 billion", bytes(build.out[2:]), "storage")


def meaning():
    def m(id, label, spoil, *words, codes=INVALID, level="model", **more):
        return case(id, label, level, spoil, codes, *words, **more)

    def replace(name, dtype, shape, data):
        return lambda f: f.tensors.update({name: (dtype, shape, data)})
    for name in (QKV, QKV + "_scale", HEAD, NORM, "tok_embeddings.weight"):
        yield m("PT05", f"no {name}", lambda f, n=name: f.tensors.pop(n) and None, name,
                codes=UNSUPPORTED if name.startswith("tok") else INVALID)
    for label, shape in (("flat", [512 * 64]), ("transposed", [64, 512]), ("half", [256, 128]),
                         ("2^15 wide", [1, 32768])):
        yield m("PT05", label, replace(QKV, "I8", shape, MODEL[QKV][2]), "wqkv")
    yield m("PT05", "a layer far away", replace("layers.999999999999.x", "I8", [1], b"x"), "layers.",
            codes=UNSUPPORTED)
    yield m("PT05", "a bias", replace("layers.0.attention.wo.bias", "BF16", [2], bytes(4)), "wo.bias",
            codes=UNSUPPORTED)
    yield m("PT05", "a name with an escape sequence", replace("layers.\x1b[31m", "I8", [1], b"x"), "layers.",
            codes=UNSUPPORTED)
    shared = b"xy"
    yield m("PT05", "8,000 names of one storage (+)", lambda f: f.tensors.update(
        {f"t{i}": ("I8", [2], shared) for i in range(8000)}), "unknown", level="good", codes=0)
    for value in (b"\0\0", b"\0\x80", b"\xc0\x7f", b"\x80\x7f", b"\x80\xbf", b"\1\0"):
        yield m("PT06", f"scale {value.hex()}", replace(QKV + "_scale", "BF16", [4], value + SCALE + SCALE + b"\0\0"),
                "wqkv", level="data")
    for place in (0, 16384, 32767):
        yield m("PT06", f"packed byte {place}", replace(QKV, "I8", MODEL[QKV][1], at(MODEL[QKV][2], place, b"\0")),
                "wqkv", level="data")
    norm = MODEL[NORM][2]
    yield m("PT06", "a norm of NaN", replace(NORM, "BF16", [256], at(norm, 8, b"\xc0\x7f")), NORM, level="data")
    for key, value in (("dim", -1), ("dim", 2**62), ("dim", "x"), ("n_layers", 10**6), ("n_heads", 0), ("n_heads", 3),
                       ("vocab_size", 2**40), ("rope_theta", 0), ("norm_eps", "x"), ("head_dim", 2**40)):
        def params(f, key=key, value=value):
            del f.files["config.json"]
            f.files["params.json"] = json.dumps({"n_heads": 4, key: value}).encode()
        codes = UNSUPPORTED if (key, value) in (("n_heads", 3), ("head_dim", 2**40)) else INVALID
        yield m("PT07", f"{key} {value}", params, codes=codes)
    for label, data in (("cut", b"{"), ("array", b"[]"), ("100,000 deep", b"[" * 100_000),
                        ("17 MB", b" " * (17 << 20))):
        yield m("PT07", label, lambda f, d=data: f.files.update({"config.json": d}), "config.json")
