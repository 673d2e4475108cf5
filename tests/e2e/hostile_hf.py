"""Cases ST (safetensors and Hugging Face folders) of hostile.py."""
import json
import math
import random
import struct

from hostile_gguf import (CODES, CONTEXT, D_FF, D_MODEL, EMBD, HEAD_DIM, HEADS, INVALID, KV_HEADS, LAYERS, MERGES,
                          TOKENS, UNSUPPORTED, VOCAB, Variant, shapes, u64)

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "attn_sub_norm": "self_attn.attn_sub_norm", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "ffn_sub_norm": "mlp.ffn_sub_norm"}
SIZES = {"F32": 4, "BF16": 2, "U8": 1}
Q, SCALE = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight_scale"
EXTRA = '"x"'


def hf_name(gguf_name):
    if not gguf_name.startswith("blk."):
        return "model.embed_tokens.weight" if gguf_name == EMBD else "model.norm.weight"
    _, layer, name, _ = gguf_name.split(".")
    return f"model.layers.{layer}.{NAMES[name]}.weight"


def bfloats(values):
    return b"".join(struct.pack("<f", v)[2:] for v in values)


def tiny_tensors():
    """{name: (dtype, shape, data)}"""
    rng, tensors = random.Random(3), {}
    for gguf_name, shape in shapes():
        name, n = hf_name(gguf_name), math.prod(shape)
        if len(shape) == 1:
            tensors[name] = "BF16", shape, bfloats(1 + rng.gauss(0, 0.1) for _ in range(n))
        elif gguf_name == EMBD:
            tensors[name] = "BF16", shape, bfloats(rng.gauss(0, 1) for _ in range(n))
        else:
            tensors[name] = "U8", [shape[0] // 4, shape[1]], bytes(rng.choices(CODES, k=n // 4))
            tensors[name + "_scale"] = "F32", [1], struct.pack("<f", 0.02)
    return tensors


CONFIG = {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": VOCAB, "hidden_size": D_MODEL,
          "intermediate_size": D_FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
          "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "hidden_act": "relu2", "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "max_position_embeddings": CONTEXT, "tie_word_embeddings": True,
          "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                  "quantization_mode": "offline"}}
N_PLAIN = VOCAB - 2
TOKENIZER = {"version": "1.0", "normalizer": None, "post_processor": None, "decoder": {"type": "ByteLevel"},
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
             "added_tokens": [{"id": N_PLAIN + i, "content": text, "special": True, "single_word": False,
                               "lstrip": False, "rstrip": False, "normalized": False}
                              for i, text in enumerate(TOKENS[N_PLAIN:])],
             "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(TOKENS[:N_PLAIN])},
                       "merges": [f"{a} {b}" for a, b in MERGES]}}
TENSORS = tiny_tensors()


class Folder:
    """A model before it is written; entries are raw JSON, so that they can be anything."""

    def __init__(self):
        self.config, self.tensors = dict(CONFIG), dict(TENSORS)
        self.extra = []  # raw JSON of more entries
        self.extra_data = b""
        self.around = ("", "")  # before and behind the header
        self.raw = {}  # name -> bytes of a file instead of the usual, or None for no file
        self.length = None  # what the file says about its header's

    def safetensors(self, tensors=None):
        entries, data, at = [], [], 0
        for name, (dtype, shape, content) in (self.tensors if tensors is None else tensors).items():
            entries.append(f'"{name}":' + json.dumps(
                {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}))
            data.append(content)
            at += len(content)
        text = self.around[0] + "{" + ",".join(entries + self.extra) + "}" + self.around[1]
        header = text.encode("utf-8", "surrogateescape")
        length = len(header) if self.length is None else self.length
        return b"".join([u64(length), header, *data, self.extra_data])

    def write(self, folder):
        path = folder / "m"
        path.mkdir()
        files = {"config.json": json.dumps(self.config).encode(), "tokenizer.json": json.dumps(TOKENIZER).encode()}
        if "model.safetensors" not in self.raw:
            files["model.safetensors"] = self.safetensors()
        for name, data in {**files, **self.raw}.items():
            if data is not None:
                (path / name).write_bytes(data)
        return path


def good_folder(folder):
    return Folder().write(folder)


def case(id, label, level, spoil, codes, *words, **more):
    def write(folder):
        f = Folder()
        path = spoil(f)
        return path(folder) if callable(path) else f.write(folder)
    return Variant(id, label, level, write, (codes,), words, **more)


def file(id, label, data, *words):
    """The whole of model.safetensors."""
    def spoil(f):
        f.raw["model.safetensors"] = data if isinstance(data, bytes) else data(f.safetensors())
    return case(id, label, "header", spoil, INVALID, "model.safetensors", *words)


def with_length(text):
    return u64(len(text)) + text


def entry(dtype='"U8"', shape="[8]", offsets="[0,8]", name=EXTRA):
    """One more tensor; its offsets count from the end of the others."""
    return f'{name}:{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}'


def extra(id, label, raw, *words, data=bytes(8), codes=INVALID, level="header", **more):
    """Another entry of the header in place of a good one, and bytes for it. <n> is the end of the other data plus n."""
    def spoil(f):
        end = sum(len(t[2]) for t in f.tensors.values())
        text = raw
        for n in range(64):
            text = text.replace(f"<{n}>", str(end + n))
        f.extra, f.extra_data = [text], data
    return case(id, label, level, spoil, codes, *words, **more)


def good(id, label, raw, *words, data=bytes(8)):
    return extra(id, label, raw, *words, data=data, codes=0, level="good")


def headers():
    whole = Folder().safetensors()
    for n in range(8):
        yield file("ST01", f"{n} bytes", whole[:n], "byte")
    for n in (0, 1, 2**64 - 1, 2**63, 100_000_001):
        yield file("ST02", str(n), lambda good, n=n: u64(n) + good[8:], *([str(n)] if n > 1 else []))
    yield file("ST02", "file - 7", lambda good: u64(len(good) - 7) + good[8:], "length")
    yield file("ST02", "a GGUF file", b"GGUF\3" + bytes(99), "GGUF")
    for label, text in (("cut", b'{"x":{"dtype"'), ("not UTF-8", b'{"\xff\xfe":1}'), ("BOM", b"\xef\xbb\xbf{}"),
                        ("array", b"[]"), ("string", b'"x"'), ("number", b"1"), ("null", b"null")):
        yield file("ST03", label, with_length(text), "header")
    for label, before, behind in (("leading (+)", " \n\t", ""), ("trailing (+)", "", " " * 7)):
        yield case("ST04", label, "good", lambda f, a=(before, behind): setattr(f, "around", a), 0)
    yield case("ST04", "trailing NUL", "header", lambda f: setattr(f, "around", ("", "\0")), INVALID, "byte", "NUL")
    yield case("ST05", "a second object", "header", lambda f: setattr(f, "around", ("", "{}")), INVALID, "byte")
    yield extra("ST06", "tensor", entry(offsets="[<0>,<8>]", name=f'"{Q}"'), Q, "twice")
    yield extra("ST06", "dtype", '"x":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[<0>,<8>]}', EXTRA,
                "dtype", "twice")
    yield extra("ST06", "__metadata__", '"__metadata__":{},"__metadata__":{}', "__metadata__", "twice", data=b"")
    for label, meta in (("array", "[]"), ("string", '"x"'), ("number in it", '{"a":1}'), ("object in it", '{"a":{}}'),
                        ("10 MB", json.dumps({"a": "x" * 10_000_000}))):
        yield extra("ST07", label, f'"__metadata__":{meta}', "__metadata__", data=b"")
    for bad, codes in (('"Q8"', INVALID), ('"u8"', INVALID), ("8", INVALID), ('"F8_E4M3"', UNSUPPORTED)):
        yield extra("ST08", bad, entry(dtype=bad, offsets="[<0>,<8>]"), EXTRA, "dtype", codes=codes)
    yield extra("ST08", "escape sequence", entry(dtype='"\\u001b[31m"', offsets="[<0>,<8>]"), EXTRA, "dtype")
    yield extra("ST08", "missing", '"x":{"shape":[8],"data_offsets":[<0>,<8>]}', EXTRA, "dtype")
    yield extra("ST09", "missing", '"x":{"dtype":"U8","data_offsets":[<0>,<8>]}', EXTRA, "shape")
    for bad in ('"8"', "[-1]", "[1.5]", "[1e3]", "[8.0]", "[true]", "[null]", "[18446744073709551616]", "8",
                "{}", "[" + ",".join(["1"] * 10000) + "]"):
        yield extra("ST09", bad[:24], entry(shape=bad, offsets="[<0>,<8>]"), EXTRA)
    for bad in ("[2,18446744073709551614]", "[2,9223372036854775807]", "[4294967296,4294967296]"):
        yield extra("ST10", bad, entry(shape=bad, offsets="[<0>,<8>]"), EXTRA)
    yield extra("ST11", "wraps to 0", entry('"F32"', "[4294967296,4294967296]", "[<0>,1000000000000]"), EXTRA)
    yield extra("ST11", "wraps to 0, empty", entry('"F32"', "[4294967296,4294967296]", "[<0>,<0>]"), EXTRA, data=b"")
    for bad in ("[<0>]", "[]", "[<0>,<8>,<8>]", "[-8,<0>]", "[<0>,8e5]", "[<8>,<0>]", "[<0>,18446744073709551615]",
                '"<0>,<8>"', "null"):
        yield extra("ST12", bad, entry(offsets=bad), EXTRA, "data_offsets")
    for n in (7, 9):
        yield extra("ST13", f"{n} of 8 bytes", entry(offsets=f"[<0>,<{n}>]"), EXTRA, str(n), data=bytes(n))
    yield extra("ST14", "ten at one place",
                ",".join(entry(shape="[16]", offsets="[<0>,<16>]", name=f'"x{i}"') for i in range(10)), "x1", "overlap",
                data=bytes(16))
    yield extra("ST14", "a weight's", entry(offsets="[0,8]"), "overlap", data=b"")
    yield extra("ST15", "hole", entry(offsets="[<1>,<9>]"), EXTRA, "hole", data=bytes(9))

    def only_late(f):
        f.tensors, f.extra, f.extra_data = {}, [entry(offsets="[8,16]")], bytes(16)
    yield case("ST15", "the first is not at 0", "header", only_late, INVALID, EXTRA, "hole")
    yield extra("ST16", "9 bytes for 8", entry(offsets="[<0>,<8>]"), "follow", data=bytes(9))
    yield extra("ST16", "a zip archive behind", entry(offsets="[<0>,<8>]"), "follow", data=bytes(8) + b"PK\3\4" * 99)
    yield extra("ST17", "2 bytes short", entry(offsets="[<0>,<8>]"), EXTRA, "8", data=bytes(6))
    yield good("ST18", "empty (+)", entry('"F32"', "[2,0]", "[<0>,<0>]"), "x", data=b"")
    yield good("ST18", "scalar (+)", entry('"F32"', "[]", "[<0>,<4>]"), "x", data=bytes(4))
    yield extra("ST19", "odd", entry('"F4"', "[3]", "[<0>,<2>]"), "F4", data=bytes(2), codes=UNSUPPORTED)

    def many(f):
        end = sum(len(t[2]) for t in f.tensors.values())
        f.extra = [entry(shape="[1]", offsets=f"[{end + i},{end + i + 1}]", name=f'"t{i}"') for i in range(100_000)]
        f.extra_data = bytes(100_000)
    yield case("ST20", "100,000 (+)", "good", many, 0, "unknown")
    for label, name, word in (("NUL", "a\\u0000b", "NUL"), ("1 MB", "n" * 2**20, "1048576"), ("empty", "", "0 bytes"),
                              ("lone surrogate", "\\ud800", "JSON"), ("raw escape", "\x1b[31m", "JSON")):
        yield extra("ST21", label, entry(offsets="[<0>,<8>]", name=f'"{name}"'), "byte", word)
    yield good("ST21", "escape sequence (+)", entry(offsets="[<0>,<8>]", name='"\\u001b[31mred"'), "unknown")
    yield extra("ST21", "bias with an escape sequence", entry(offsets="[<0>,<8>]", name='"\\u001b[31m.bias"'), "bias",
                codes=UNSUPPORTED, level="model")
    yield file("ST22", "header", with_length(b"[" * 100_000), "header")
    yield file("ST22", "objects", with_length(b'{"a":' * 100_000), "header")
    yield extra("ST09", "[[8]]", entry(shape="[[8]]", offsets="[<0>,<8>]"), "byte", "nested")
    yield extra("ST22", "shape", entry(shape="[" * 100_000 + "]" * 100_000, offsets="[<0>,<8>]"), "byte")
    yield extra("ST22", "__metadata__", '"__metadata__":' + '{"a":' * 100_000 + "}" * 100_000, "byte", data=b"")
    for bad in ("1E400", "-0", "01", "1" * 400, "NaN", "0x8", "+8"):
        yield extra("ST23", bad[:24], entry(shape=f"[{bad}]", offsets="[<0>,<8>]"), "byte")
    yield file("ST26", "nothing else", with_length(b" " * 99_900_000), "header")
    yield case("ST26", "behind the object (+)", "good", lambda f: setattr(f, "around", ("", " " * 99_900_000)), 0)
    yield extra("ST29", "7 bytes for 4 values", entry('"BF16"', "[4]", "[<0>,<7>]"), EXTRA, "7", data=bytes(7))
    pickled = json.dumps({"p": "\x80\x04cos\nsystem\n(S'id'\ntR."})
    yield good("ST30", "pickle (+)", f'"__metadata__":{pickled}', data=b"")


def folders():
    def m(id, label, spoil, *words, codes=INVALID, level="model", **more):
        return case(id, label, level, spoil, codes, *words, **more)

    def sharded(weight_map, other=None, link=None):
        """Two shards; weight_map(map) changes where the index says that tensors are."""
        def spoil(f):
            names = list(f.tensors)
            half = {n: f.tensors[n] for n in names[:20]}, {n: f.tensors[n] for n in names[20:]}
            files = {"a.safetensors": half[0], "b.safetensors": {**half[1], **(other or {})}}
            places = {n: shard for shard, tensors in files.items() for n in tensors}
            weight_map(places)
            f.raw |= {"model.safetensors": None, **{n: f.safetensors(t) for n, t in files.items()},
                      "model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": places}).encode()}

            def write(folder):
                path = f.write(folder)
                (folder / "outside.safetensors").write_bytes(f.raw["b.safetensors"])
                if link:
                    (path / "b.safetensors").unlink()
                    (path / "b.safetensors").symlink_to(link)
                return path
            return write
        return spoil

    index = "model.safetensors.index.json"
    yield m("ST24", "two shards (+)", sharded(lambda p: None), level="good", codes=0)
    for shard in ("../../etc/passwd", "../outside.safetensors", "/etc/passwd", "..", "", "sub/b.safetensors",
                  "missing.safetensors", "nul\0.safetensors", "\x1b[31m.safetensors", "n" * 5000):
        yield m("ST24", shard[:24].replace("\0", "\\0").replace("\x1b", "\\x1b"),
                sharded(lambda p, shard=shard: p.update({Q: shard})), index, level="header")
    yield m("ST24", "not a name", sharded(lambda p: p.update({Q: 5})), index, Q, level="header")
    yield m("ST24", "link to outside", sharded(lambda p: None, link="../outside.safetensors"), index, "outside",
            level="header")
    yield m("ST24", "link in a loop", sharded(lambda p: None, link="b.safetensors"), index, "b.safetensors",
            level="header")
    yield m("ST24", "not in the named shard", sharded(lambda p: p.update({Q: "a.safetensors"})), Q, "a.safetensors",
            level="header")
    twice = {"model.norm.weight": TENSORS["model.norm.weight"]}
    yield m("ST24", "in two shards", sharded(lambda p: None, other=twice), "model.norm.weight", "a.safetensors",
            "b.safetensors", level="header")
    for label, text in (("index empty", b""), ("index an array", b"[]"), ("no weight_map", b"{}"),
                        ("weight_map an array", b'{"weight_map":[]}'), ("index cut", b'{"weight_map":{')):
        yield m("ST24", label, lambda f, text=text: f.raw.update({"model.safetensors": None, index: text}), index,
                level="header")
    for key, bad in (("hidden_size", "256"), ("hidden_size", -1), ("hidden_size", 2**40), ("hidden_size", None),
                     ("hidden_size", 256.5), ("hidden_size", [256]), ("hidden_size", 0), ("num_hidden_layers", 10**6),
                     ("num_hidden_layers", 3), ("num_attention_heads", 0), ("num_key_value_heads", 3),
                     ("head_dim", 63), ("vocab_size", 2**40), ("vocab_size", VOCAB + 1), ("rms_norm_eps", "small"),
                     ("rms_norm_eps", 0), ("rms_norm_eps", -1), ("rope_theta", 0), ("intermediate_size", 2**62),
                     ("max_position_embeddings", 2**62), ("architectures", 5), ("quantization_config", [])):
        words = ["config.json"] if (key, bad) not in (("num_hidden_layers", 3), ("vocab_size", VOCAB + 1)) else []
        yield m("ST25", f"{key} {bad}", lambda f, k=key, bad=bad: f.config.update({k: bad}), *words)
    yield m("ST25", "hidden_size missing", lambda f: f.config.pop("hidden_size") and None, "config.json", "hidden_size")
    yield m("ST25", "architecture with an escape sequence",
            lambda f: f.config.update(architectures=["\x1b[31mred"]), "config.json", codes=UNSUPPORTED)
    yield m("ST25", "unknown key with an escape sequence (+)", lambda f: f.config.update({"\x1b[31mred": 1}), "red",
            level="good", codes=0)
    yield m("ST25", "10,000 unknown keys (+)", lambda f: f.config.update({f"k{i}": i for i in range(10000)}), "k1",
            level="good", codes=0)
    yield m("ST25", "hidden_size with an escape sequence", lambda f: f.config.update(rope_scaling="\x9b31m"),
            "config.json", "rope_scaling")
    for label, text in (("empty", b""), ("cut", b'{"a":'), ("array", b"[]"), ("not UTF-8", b'{"a":"\xff"}'),
                        ("100,000 deep", b"[" * 100_000), ("100 MB", b" " * 100_000_000),
                        ("15 MB of spaces", b" " * 15_000_000), ("nothing", None),
                        ("hidden_size twice", json.dumps(CONFIG).encode()[:-1] + b',"hidden_size":256}')):
        yield m("ST25", label, lambda f, text=text: f.raw.update({"config.json": text}), "config.json")
    for label, shape in (("half", [D_MODEL // 8, D_MODEL * 2]), ("flat", [D_MODEL**2 // 4]),
                         ("transposed", [D_MODEL, D_MODEL // 4])):
        yield m("ST27", label, lambda f, s=shape: f.tensors.update({Q: ("U8", s, TENSORS[Q][2])}), Q)
    yield m("ST27", "not packed", lambda f: f.tensors.update({Q: ("U8", [D_MODEL, D_MODEL], bytes(D_MODEL**2))}), Q)
    yield m("ST28", "missing", lambda f: f.tensors.pop(SCALE) and None, SCALE, "missing")
    for shape, n in (([0], 0), ([2], 2)):
        yield m("ST28", str(shape), lambda f, s=shape, n=n: f.tensors.update({SCALE: ("F32", s, bytes(4 * n))}), SCALE)
    yield m("ST28", "U8", lambda f: f.tensors.update({SCALE: ("U8", [1], b"\1")}), SCALE)
    for bad in (0.0, -1.0, math.nan, math.inf, 1e-40):
        yield m("ST28", str(bad), lambda f, b=bad: f.tensors.update({SCALE: ("F32", [1], struct.pack("<f", b))}), SCALE,
                level="data")
    for at, byte in ((0, 3), (16383, 0xc0)):
        data = TENSORS[Q][2]
        yield m("B01", f"packed byte {at}", lambda f, d=data[:at] + bytes([byte]) + data[at + 1:]:
                f.tensors.update({Q: (*TENSORS[Q][:2], d)}), Q, level="data")
    for id, name, row in (("B07", "model.norm.weight", 0), ("B08", "model.embed_tokens.weight", 30)):
        dtype, shape, data = TENSORS[name]
        bad = data[:row * 512] + b"\xc0\x7f" * D_MODEL + data[row * 512 + 512:]
        yield m(id, f"folder, {name}", lambda f, n=name, t=(dtype, shape, bad): f.tensors.update({n: t}), name,
                level="data")
