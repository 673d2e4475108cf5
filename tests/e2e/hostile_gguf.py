"""Cases G (GGUF container) of hostile.py, and a GGUF writer that can lie."""
import dataclasses
import math
import random
import struct

LAYERS, D_MODEL, D_FF, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 2, 256, 512, 4, 2, 64, 128
NUMBERS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"),
           "f32": (6, "f"), "bool": (7, "B"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}
F32, F16, Q8_0, I8, BF16, TQ1_0, TQ2_0, I2_S = 0, 1, 8, 24, 30, 34, 35, 36
MAX64, NAN, INF = 2**64 - 1, math.nan, math.inf
INVALID, UNSUPPORTED, RESOURCE = 3, 4, 5
P, Q, EMBD, NORM = "bitnet-b1.58.", "blk.1.attn_q.weight", "token_embd.weight", "output_norm.weight"
Q_TAIL = D_MODEL * D_MODEL // 4  # where the scale of an I2_S matrix of this shape stands


@dataclasses.dataclass
class Variant:
    id: str
    label: str
    level: str  # where it must show: header, model, vocabulary, data; good: nowhere
    write: object  # write(folder) gives the path of the model
    codes: tuple = (INVALID,)
    words: tuple = ()  # in every error message; of a good variant in the notes
    same: bool = True  # a good variant computes what the unspoilt model computes
    cpu_s: float = 1.0


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return u64(len(data)) + data


def value(kind, content):
    """Type number and bytes of a metadata value; "[str]" is an array of strings."""
    if kind == "str":
        return u32(8) + string(content)
    if kind == "[str]":
        return u32(9) + u32(8) + u64(len(content)) + b"".join(map(string, content))
    number, form = NUMBERS[kind.strip("[]")]
    if kind[0] == "[":
        return u32(9) + u32(number) + u64(len(content)) + struct.pack(f"<{len(content)}{form}", *content)
    return u32(number) + struct.pack("<" + form, content)


@dataclasses.dataclass
class Tensor:
    dims: list  # innermost first, as stored
    type: int
    data: bytes
    offset: int = None  # where the header says that the data are; None: where they are
    n_dims: int = None


@dataclasses.dataclass
class Gguf:
    keys: dict  # name -> type and bytes
    tensors: dict
    magic: bytes = b"GGUF"
    version: int = 3
    extra_keys: int = 0  # announced beyond those that are there
    extra_tensors: int = 0
    raw_keys: bytes = b""
    raw_infos: bytes = b""
    alignment: int = 32
    gap: int = 0  # unused bytes after each tensor, a multiple of the alignment
    order: object = list  # of the data
    tail: bytes = b""
    pad_end: bool = True

    def copy(self):
        tensors = {name: dataclasses.replace(t, dims=list(t.dims)) for name, t in self.tensors.items()}
        return dataclasses.replace(self, keys=dict(self.keys), tensors=tensors)

    def set(self, key, kind, content):
        self.keys[key] = value(kind, content)

    def rename(self, old, new):
        self.tensors = {new if name == old else name: t for name, t in self.tensors.items()}

    def poke(self, tensor, offset, data):
        t = self.tensors[tensor]
        t.data = t.data[:offset] + data + t.data[offset + len(data):]

    def header(self, offsets):
        parts = [self.magic, u32(self.version), u64(len(self.tensors) + self.extra_tensors),
                 u64(len(self.keys) + self.extra_keys)]
        parts += [string(k) + v for k, v in self.keys.items()] + [self.raw_keys]
        for name, t in self.tensors.items():
            n_dims = len(t.dims) if t.n_dims is None else t.n_dims
            parts += [string(name), u32(n_dims), *map(u64, t.dims), u32(t.type)]
            parts.append(u64(offsets[name] if t.offset is None else t.offset))
        return b"".join(parts) + self.raw_infos

    def bytes(self):
        offsets, data, at = {}, [], 0
        order = self.order(self.tensors)
        for name in order:
            t = self.tensors[name]
            offsets[name] = at
            padding = -len(t.data) % self.alignment + (self.gap if name != order[-1] else 0)
            data += [t.data, bytes(padding)]
            at += len(t.data) + padding
        head = self.header(offsets)
        body = b"".join(data)
        if self.tensors and not self.pad_end:
            body = body[:-len(data[-1])] if data[-1] else body
        return head + bytes(-len(head) % self.alignment) + body + self.tail


def byte_alphabet():
    """GPT-2's letter for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b if b in shown else next(others)) for b in range(256)]


MERGES = [("h", "e"), ("l", "l"), ("he", "ll")]
TOKENS = byte_alphabet() + [a + b for a, b in MERGES] + ["<|begin|>", "<|end|>"]
VOCAB = len(TOKENS)


def shapes():
    """(name, [rows, columns] or [n]) of every weight, by its GGUF name."""
    yield EMBD, [VOCAB, D_MODEL]
    yield NORM, [D_MODEL]
    kv = KV_HEADS * HEAD_DIM
    for layer in range(LAYERS):
        for name, shape in {"attn_norm": [D_MODEL], "attn_q": [D_MODEL, D_MODEL], "attn_k": [kv, D_MODEL],
                            "attn_v": [kv, D_MODEL], "attn_sub_norm": [D_MODEL], "attn_output": [D_MODEL, D_MODEL],
                            "ffn_norm": [D_MODEL], "ffn_gate": [D_FF, D_MODEL], "ffn_up": [D_FF, D_MODEL],
                            "ffn_sub_norm": [D_FF], "ffn_down": [D_MODEL, D_FF]}.items():
            yield f"blk.{layer}.{name}.weight", shape


def halves(rng, n, deviation):
    return struct.pack(f"<{n}e", *(rng.gauss(0, deviation) for _ in range(n)))


# Bytes whose 2-bit codes are all 0, 1 or 2.
CODES = bytes(b for b in range(256) if all(b >> s & 3 != 3 for s in (0, 2, 4, 6)))
TRITS5 = bytes(-(-q * 256 // 243) for q in range(243))
TRITS4 = bytes(-(-3 * q * 256 // 243) for q in range(81))


def ternary(rng, kind, n):
    if kind == I2_S:
        return bytes(rng.choices(CODES, k=n // 4)) + struct.pack("<f28x", 0.02)
    blocks, scale = [], struct.pack("<e", 0.02)
    for _ in range(n // 256):
        if kind == TQ2_0:
            blocks.append(bytes(rng.choices(CODES, k=64)) + scale)
        else:
            blocks.append(bytes(rng.choices(TRITS5, k=48) + rng.choices(TRITS4, k=4)) + scale)
    return b"".join(blocks)


def tiny_model(kind=I2_S):
    rng = random.Random(1)
    g = Gguf({}, {})
    g.set("general.architecture", "str", "bitnet-b1.58")
    for key, content in {"vocab_size": VOCAB, "context_length": CONTEXT, "embedding_length": D_MODEL,
                         "block_count": LAYERS, "feed_forward_length": D_FF, "rope.dimension_count": HEAD_DIM,
                         "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS}.items():
        g.set(P + key, "u32", content)
    g.set(P + "rope.freq_base", "f32", 10000.0)
    g.set(P + "attention.layer_norm_rms_epsilon", "f32", 1e-5)
    g.set("tokenizer.ggml.model", "str", "gpt2")
    g.set("tokenizer.ggml.pre", "str", "gpt-2")
    g.set("tokenizer.ggml.tokens", "[str]", TOKENS)
    g.set("tokenizer.ggml.token_type", "[i32]", [1] * (VOCAB - 2) + [3, 3])
    g.set("tokenizer.ggml.merges", "[str]", [f"{a} {b}" for a, b in MERGES])
    g.set("tokenizer.ggml.bos_token_id", "u32", VOCAB - 2)
    g.set("tokenizer.ggml.eos_token_id", "u32", VOCAB - 1)
    for name, shape in shapes():
        n = math.prod(shape)
        if len(shape) == 1:
            g.tensors[name] = Tensor(shape, F32, struct.pack(f"<{n}f", *(1 + rng.gauss(0, 0.1) for _ in range(n))))
        elif name == EMBD:
            g.tensors[name] = Tensor(shape[::-1], F16, halves(rng, n, 1.0))
        else:
            g.tensors[name] = Tensor(shape[::-1], kind, ternary(rng, kind, n))
    return g


MODEL = tiny_model()


def good_file(folder):
    path = folder / "m.gguf"
    path.write_bytes(MODEL.bytes())
    return path


def case(id, label, level, spoil, codes=INVALID, *words, base=None, **more):
    """spoil(Gguf) changes it, or gives the bytes of the file."""
    def write(folder):
        g = (base or MODEL).copy()
        raw = spoil(g)
        path = folder / "m.gguf"
        path.write_bytes(raw if isinstance(raw, bytes) else g.bytes())
        return path
    return Variant(id, label, level, write, codes if isinstance(codes, tuple) else (codes,), words, **more)


def field(name, content):
    return lambda g: setattr(g, name, content)


def key(name, kind, content):
    return lambda g: g.set(name, kind, content)


def raw_key(name, number, payload):
    """A value with any type number and bytes."""
    def spoil(g):
        g.keys[name] = u32(number) + payload
    return spoil


def last_key(raw):
    """Anything in place of one more entry of the metadata."""
    def spoil(g):
        g.raw_keys, g.extra_keys = raw, 1
    return spoil


def tensor(name, dims, kind=F32, data=bytes(16), **more):
    """One more tensor."""
    def spoil(g):
        g.tensors[name] = Tensor(dims, kind, data, **more)
    return spoil


def change(name, **fields):
    def spoil(g):
        g.tensors[name] = dataclasses.replace(g.tensors[name], **fields)
    return spoil


def poke(name, offset, data):
    return lambda g: g.poke(name, offset, data)


def without(name):
    return lambda g: (g.keys if name in g.keys else g.tensors).pop(name) and None


def container():
    def h(id, label, spoil, *words, codes=INVALID):
        return case(id, label, "header", spoil, codes, *words)

    def good(id, label, spoil, *words, **more):
        return case(id, label, "good", spoil, 0, *words, **more)

    def raw(id, label, data, *words, codes=INVALID):
        return h(id, label, lambda g: data, *words, codes=codes)

    def array(number, count, rest=b""):
        return raw_key("some.key", 9, u32(number) + u64(count) + rest)

    whole = MODEL.bytes()
    yield raw("G01", "empty", b"", "empty")
    for n in (1, 3, 4, 8, 23):
        yield raw("G02", f"{n} bytes", whole[:n])
    for label, first, word in (("FUGG", b"FUGG", "reversed"), ("GGML", b"GGML", "2023"), ("ggjt", b"tjgg", "2023"),
                               ("HTML", b"<!DOCTYPE html>\n<html><body>404", "HTML"),
                               ("git-LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 +
                                b"\nsize 123456789\n", "git-LFS"), ("gzip", b"\x1f\x8b\x08", "gzip")):
        yield raw("G03", label, first if label == "git-LFS" else first + whole[4:], word)
    for version, codes in ((0, INVALID), (1, UNSUPPORTED), (4, UNSUPPORTED), (2**32 - 1, UNSUPPORTED)):
        yield h("G04", f"version {version}", field("version", version), "byte 4", "version", codes=codes)
    yield h("G05", "big-endian", field("version", 3 << 24), "byte 4", "big-endian", codes=UNSUPPORTED)
    for n in (MAX64, 2**63, 2**40):
        yield h("G06", f"{n} tensors", field("extra_tensors", n - len(MODEL.tensors)), "byte 8", str(n), "tensors")
        yield h("G07", f"{n} keys", field("extra_keys", n - len(MODEL.keys)), "byte 16", str(n), "keys")
    yield h("G06", "one more", field("extra_tensors", 1), "byte")
    yield h("G07", "one more", field("extra_keys", 1), "byte")
    yield h("G08", "one less", field("extra_tensors", -1))
    yield h("G08", "none", field("extra_tensors", -len(MODEL.tensors)))
    for n in (MAX64, 2**63, 2**40, len(whole)):
        yield h("G10", f"key of {n} bytes", last_key(u64(n) + b"abcdefgh"), "byte", "key", str(n))
        yield h("G15", f"string of {n} bytes", raw_key("some.key", 8, u64(n) + b"ab"), "byte", "some.key", str(n))
    for n in (MAX64, 2**63, 2**61, len(whole)):
        yield h("G16", f"{n} elements", array(10, n), "byte", "some.key", str(n))
        yield h("G16", f"{n} bools", array(7, n), "byte", "some.key", str(n))
        yield h("G16", f"{n} strings", array(8, n), "byte", "some.key", str(n))
    yield h("G11", "empty key", last_key(string("") + value("u32", 1)), "byte", "empty")
    yield h("G12", "NUL", last_key(string("a\0b") + value("u32", 1)), "byte", "NUL")
    yield h("G12", "not UTF-8", last_key(string(b"a\xc0\x80") + value("u32", 1)), "byte", "UTF-8")
    for n in (65536, 10**6):
        yield h("G12", f"{n} bytes", last_key(string("k" * n) + value("u32", 1)), "byte", "65535")
    yield good("G12", "escape sequence", key("\x1b[31m\x9b31mred", "str", "\x1b]0;title\x07"))
    yield h("G13", "twice", last_key(string("general.architecture") + value("str", "llama")), "byte", "twice",
            "general.architecture")
    for n in (13, 255, 2**32 - 1):
        yield h("G14", f"type {n}", raw_key("some.key", n, bytes(8)), "byte", "some.key", str(n))
        yield h("G14", f"array of type {n}", array(n, 1, bytes(8)), "byte", "some.key", str(n))
    for depth in (2, 10000):
        nest = (u32(9) + u64(1)) * (depth - 1) + u32(0) + u64(1) + b"\7"
        yield h("G17", f"depth {depth}", raw_key("some.key", 9, nest), "byte", "some.key", "array", codes=UNSUPPORTED)
    yield h("G18", "2^32 empty strings", array(8, 2**32, bytes(1000)), "byte", "some.key", "4294967296")
    yield good("G18", "2^20 empty strings (+)", array(8, 2**20, bytes(8 * 2**20)))
    yield h("G18", "2^22 empty strings", array(8, 2**22, bytes(8 * 2**22)), "byte", "some.key", "limit",
            codes=UNSUPPORTED)

    def many_arrays(g):
        for i in range(64):
            g.keys[f"k{i}"] = u32(9) + u32(8) + u64(2**16) + bytes(2**19)
    yield h("G18", "2^22 in 64 arrays", many_arrays, "byte", "k31", "limit", codes=UNSUPPORTED)
    for n in (2, 255):
        yield h("G19", f"bool {n}", raw_key("some.key", 7, bytes([n])), "byte", "some.key", str(n))
        yield h("G19", f"{n} in an array", array(7, 3, bytes([0, 1, n])), "byte", "some.key", str(n))
    for n in (0, 3, 13, 2**31, 2**32 - 1):
        yield h("G20", str(n), key("general.alignment", "u32", n), "general.alignment", str(n))
    for kind, content in (("i32", 32), ("u64", 32), ("str", "32"), ("[u32]", [32])):
        yield h("G20", kind, key("general.alignment", kind, content), "general.alignment", "u32")

    def twice(g):
        g.set("general.alignment", "u32", 32)
        last_key(string("general.alignment") + value("u32", 64))(g)
    yield h("G20", "twice", twice, "general.alignment", "twice")

    def aligned(n):
        def spoil(g):
            g.set("general.alignment", "u32", n)
            g.alignment = n
        return spoil
    for n in (1, 64, 4096):
        yield good("G21", f"alignment {n} (+)", aligned(n))
    for label, name, word in (("empty", "", "empty"), ("65 bytes", "n" * 65, "65"), ("1 MB", "n" * 2**20, "1048576"),
                              ("NUL", "a\0b", "NUL"), ("not UTF-8", b"\xff\xfe", "UTF-8")):
        yield h("G22", label, tensor(name, [4]), "byte", "name", word)
    yield good("G22", "64 bytes (+)", tensor("n" * 64, [4]), "unknown")
    yield good("G22", "escape sequence (+)", tensor("\x1b[31mred", [4]), "unknown")

    def same_up_to_nul(g):
        tensor("same", [4])(g)
        tensor("same\0other", [4])(g)
    yield h("G22", "equal up to NUL", same_up_to_nul, "NUL")

    def again(name, n_others=0):
        def spoil(g):
            g.tensors |= {f"t{i}": Tensor([1], I8, b"\0") for i in range(n_others)}
            end = sum(len(t.data) + -len(t.data) % 32 for t in g.tensors.values())
            g.raw_infos = string(name) + u32(1) + u64(4) + u32(F32) + u64(end)
            g.extra_tensors, g.tail = 1, bytes(32)
        return spoil
    yield h("G23", "twice", again(EMBD), EMBD, "twice")
    yield h("G23", "twice among 100,000", again("t7", 100000), "t7", "twice")
    for n in (5, 2**32 - 1):
        yield h("G24", f"{n} dimensions", tensor("x", [1] * 5, n_dims=n), "byte", "x", str(n), "dimensions")
    yield h("G25", "no dimension", tensor("x", []), "byte", "x", "0 dimensions")
    for dims in ([0], [4, 0]):
        yield h("G26", str(dims), tensor("x", dims), "byte", "x", "dimension 0")
    yield h("G27", "-1", tensor("x", [MAX64]), "byte", "x", str(MAX64))
    for id, kind, dims in (("G28", F32, [2**32, 2**32]), ("G28", I2_S, [2**32, 2**32]), ("G29", F32, [2**16] * 4),
                           ("G29", I8, [2**16] * 4), ("G29", I2_S, [2**16] * 4), ("G30", F32, [2**32, 2**31]),
                           ("G30", F32, [2**62 + 2, 2]), ("G30", I2_S, [2**62 + 128, 2]), ("G31", F32, [2**62 - 1]),
                           ("G31", F16, [2**63 - 1]), ("G31", I2_S, [2**63 - 128]),
                           ("G32", Q8_0, [(2**64 // 34 + 1) * 32]), ("G32", Q8_0, [2**62, 32]),
                           ("G32", TQ2_0, [2**62, 16])):
        yield h(id, f"type {kind} {dims}", tensor("x", dims, kind), '"x"')
    for kind, n, block in ((TQ2_0, 255, 256), (TQ1_0, 128, 256), (Q8_0, 33, 32), (I2_S, 100, 128)):
        yield h("G33", f"type {kind}, {n} columns", tensor("x", [n, 2], kind, bytes(256)), "byte", '"x"', str(block))
    for n, codes in ((2**32 - 1, INVALID), (4, UNSUPPORTED), (5, UNSUPPORTED), (37, UNSUPPORTED), (38, UNSUPPORTED),
                     (39, UNSUPPORTED), (40, UNSUPPORTED), (43, INVALID), (500, INVALID), (2**31, INVALID)):
        yield h("G34", f"type {n}", tensor("x", [128], n), "byte", '"x"', str(n), codes=codes)
    for n in (1, 16, 33):
        yield h("G35", f"offset {n}", tensor("x", [4], offset=n), "byte", '"x"', str(n), "alignment")
    for n in (2**40, 2**63, 2**64 - 32, len(whole) // 32 * 32 + 32):
        yield h("G36", f"offset {n}", tensor("x", [4], offset=n), '"x"', str(n))
    yield h("G37", "the same offset", change(Q, offset=0), "overlap", Q)
    yield h("G37", "inside", tensor("x", [4], offset=64), "overlap", '"x"')
    yield good("G38", "holes (+)", field("gap", 4096))
    yield good("G39", "backwards (+)", field("order", lambda names: list(names)[::-1]))
    yield good("G40", "no padding at the end (+)", field("pad_end", False))
    yield h("G40", "one byte short", lambda g: setattr(g, "pad_end", False) or g.bytes()[:-1], "end of the file")
    for n in (1, 32, 4096):
        yield h("G41", f"{n} bytes", field("tail", bytes(n)), "follow the end")
    yield good("G42", "200,000 keys (+)", lambda g: [g.set(f"k{i}", "u32", i) for i in range(200000)] and None,
               cpu_s=0.5)
    yield good("G42", "200,000 tensors (+)",
               lambda g: g.tensors.update({f"t{i}": Tensor([1], I8, b"\0") for i in range(200000)}), "unknown")
    yield h("G42", "300,000 keys", lambda g: [g.set(f"k{i}", "u32", i) for i in range(300000)] and None, "byte 16",
            "limit", codes=UNSUPPORTED)
