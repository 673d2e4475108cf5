"""Cases M (meaning) and B (tensor bytes) of hostile.py, in GGUF files."""
import random
import struct

from hostile_gguf import (BF16, D_FF, D_MODEL, EMBD, F16, F32, Gguf, I2_S, I8, INF, INVALID, LAYERS, MAX64, NAN, NORM,
                          P, Q, Q8_0, Q_TAIL, TOKENS, TQ1_0, TQ2_0, TRITS4, TRITS5, Tensor, UNSUPPORTED, VOCAB,
                          Variant, case, change, key, poke, string, tensor, ternary, tiny_model, u32, u64, value,
                          without)


def meaning():
    def m(id, label, spoil, *words, codes=INVALID, level="model", **more):
        return case(id, label, level, spoil, codes, *words, **more)

    def good(id, label, spoil, *words, **more):
        return case(id, label, "good", spoil, 0, *words, **more)

    def vocab(id, label, spoil, *words, codes=INVALID, **more):
        return case(id, label, "vocabulary", spoil, codes, *words, **more)

    a = "general.architecture"
    yield m("M01", "missing", without(a), a)
    yield m("M01", "unknown", key(a, "str", "gpt5"), a, "gpt5", codes=UNSUPPORTED)
    yield m("M01", "escape sequence", key(a, "str", "\x1b[31mred"), a, codes=UNSUPPORTED)
    yield m("M01", "1 MB", key(a, "str", "x" * 2**20), a, codes=UNSUPPORTED)
    yield good("M01", "name with an escape sequence (+)", key("general.name", "str", "\x1b[31m\x9b31mred"))
    yield m("M01", "number", key(a, "u32", 5), a, "u32")
    n = P + "block_count"
    for bad in (0, 513, 2**31, 3):
        yield m("M02", str(bad), key(n, "u32", bad), *(["blk.2."] if bad in (3, 513) else [str(bad)]))
    yield m("M02", "fewer", key(n, "u32", 1), "blk.1.", codes=UNSUPPORTED)
    yield m("M02", "string", key(n, "str", "2"), n, "string")
    yield m("M02", "array", key(n, "[u32]", [2, 2]), n, "array")
    yield m("M02", "negative", key(n, "i32", -2), n, "-2")
    for name, bad in (("attention.head_count", 0), ("attention.head_count", 2**31), ("attention.head_count_kv", 0),
                      ("attention.head_count_kv", 8), ("attention.head_count_kv", 3), ("embedding_length", 0),
                      ("embedding_length", 250), ("embedding_length", 2**31), ("attention.head_count", 256)):
        id = "M04" if name.startswith("emb") or bad == 256 else "M03"
        yield m(id, f"{name} {bad}", key(P + name, "u32", bad), *([str(bad)] if bad != 256 else []))
    for bad in (7, 0, 2**20 + 2):
        yield m("M04", f"head dimension {bad}", key(P + "attention.key_length", "u32", bad), "head")
    for bad in (0, 2**32 - 1):
        yield m("M05", str(bad), key(P + "context_length", "u32", bad), "context", str(bad))
    yield good("M05", "2^30 (+)", key(P + "context_length", "u32", 2**30))
    for bad in (0, 63, 128, 2**31):
        yield m("M06", f"dimensions {bad}", key(P + "rope.dimension_count", "u32", bad), str(bad))
    for bad in (0.0, -1.0, NAN, INF):
        yield m("M06", f"base {bad}", key(P + "rope.freq_base", "f32", bad), *([] if bad <= 0 else ["rope.freq_base"]))
        yield m("M07", f"{bad}", key(P + "attention.layer_norm_rms_epsilon", "f32", bad), "psilon")
    yield m("M06", "base f64 that no f32 holds", key(P + "attention.layer_norm_rms_epsilon", "f64", 1e300), "psilon")
    for bad in (0, 511, 2**31):
        yield m("M08", str(bad), key(P + "feed_forward_length", "u32", bad), str(bad))
    tokens = "tokenizer.ggml.tokens"

    def n_tokens(count):
        def spoil(g):
            texts = TOKENS[:count] + [f"more{i}" for i in range(count - VOCAB)]
            g.set(tokens, "[str]", texts)
            g.set("tokenizer.ggml.token_type", "[i32]", [1] * count)
            g.set("tokenizer.ggml.merges", "[str]", [])
            for id in ("bos", "eos"):
                g.keys.pop(f"tokenizer.ggml.{id}_token_id")
        return spoil
    yield vocab("M09", "no tokens", n_tokens(0), "tokens")
    yield m("M09", "one token", n_tokens(1), "1 tokens", str(VOCAB))
    yield m("M09", "one token too many", n_tokens(VOCAB + 1), str(VOCAB + 1), str(VOCAB))
    yield vocab("M09", "numbers", key(tokens, "[u32]", list(range(VOCAB))), tokens)
    yield m("M09", "vocab_size", key(P + "vocab_size", "u32", VOCAB + 1), EMBD)
    yield m("M10", "a projection", without(Q), Q, "missing")
    yield m("M10", "the embedding", without(EMBD), EMBD, "missing")
    yield m("M10", "a norm", without(NORM), NORM, "missing")
    up = "blk.0.ffn_up.weight"
    yield m("M11", "transposed", change(up, dims=[D_FF, D_MODEL]), up, "[256, 512]", "[512, 256]")
    yield m("M12", "one dimension", change(Q, dims=[D_MODEL**2]), Q, "[65536]")
    yield m("M12", "norm with two", change(NORM, dims=[D_MODEL, 1]), NORM, "[1, 256]")
    yield m("M12", "four", change(Q, dims=[D_MODEL, D_MODEL, 1, 1]), Q)
    yield good("M13", "unknown (+)", tensor("blk.0.mystery.weight", [4]), "mystery")
    yield good("M13", "unknown key (+)", key(P + "mystery", "u32", 5), "mystery")
    yield good("M13", "10,000 unknown keys (+)", lambda g: [g.set(f"{P}k{i}", "u32", i) for i in range(10000)] and None,
               "unknown")
    yield good("M13", "unknown key with an escape sequence (+)", key(P + "\x1b[31mred", "u32", 5), "unknown")
    yield m("M13", "bias", tensor("blk.0.attn_q.bias", [4]), "blk.0.attn_q.bias", codes=UNSUPPORTED)
    yield m("M13", "bias with an escape sequence", tensor("blk.0.\x1b[31m.bias", [4]), "bias", codes=UNSUPPORTED)
    yield m("M13", "layer 99999999999999999999", tensor("blk.99999999999999999999.x", [4]), "layer", codes=UNSUPPORTED)
    for name in ("attn_sub_norm", "ffn_sub_norm"):
        yield m("M14", name, without(f"blk.0.{name}.weight"), f"blk.0.{name}.weight", "missing")
    yield m("M15", "two values", tensor("blk.0.attn_q.scale", [2], data=struct.pack("<2f", 1, 1)), "blk.0.attn_q.scale")
    for bad in (0.0, NAN, -1.0):
        yield case("M15", str(bad), "data", tensor("blk.0.attn_q.scale", [1], data=struct.pack("<f", bad)), INVALID,
                   "blk.0.attn_q.scale")
    yield m("M15", "integer", tensor("blk.0.attn_q.scale", [1], I8, b"\1"), "blk.0.attn_q.scale", "I8")
    rng = random.Random(2)
    floats = struct.pack(f"<{D_MODEL**2}f", *(rng.gauss(0, 1) for _ in range(D_MODEL**2)))
    yield case("M16", "floats that are not ternary", "data", change(Q, type=F32, data=floats), UNSUPPORTED, Q, "F32")
    signs = struct.pack(f"<{D_MODEL**2}f", *rng.choices((-0.5, 0, 0.5), k=D_MODEL**2))
    yield good("M16", "floats that are (+)", change(Q, type=F32, data=signs), same=False)
    yield m("M16", "norm as Q8_0", change(NORM, type=Q8_0, data=bytes(D_MODEL // 32 * 34)), NORM, "Q8_0")
    yield m("M16", "embedding as I8", change(EMBD, type=I8, data=bytes(VOCAB * D_MODEL)), EMBD, "I8",
            codes=UNSUPPORTED)

    def sentencepiece(scores_kind, n_scores, **more):
        def spoil(g):
            for k in [k for k in g.keys if k.startswith("tokenizer.")]:
                g.keys.pop(k)
            pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["\u2581", "a"]
            g.set("tokenizer.ggml.model", "str", "llama")
            g.set(tokens, "[str]", pieces)
            g.set("tokenizer.ggml.token_type", "[i32]", [2, 3, 3] + [6] * 256 + [1] * 2)
            g.set("tokenizer.ggml.scores", scores_kind, [0] * n_scores)
            for name, (kind, content) in more.items():
                g.set("tokenizer.ggml." + name, kind, content)
        return spoil
    yield good("M17", "SentencePiece (+)", sentencepiece("[f32]", VOCAB))
    for kind in ("[u8]", "[f64]", "[u32]"):
        yield vocab("M17", f"scores {kind}", sentencepiece(kind, VOCAB), "tokenizer.ggml.scores")
    yield vocab("M17", "types as strings", key("tokenizer.ggml.token_type", "[str]", ["1"] * VOCAB),
                "tokenizer.ggml.token_type")
    yield vocab("M17", "type 99", key("tokenizer.ggml.token_type", "[i32]", [1] * (VOCAB - 1) + [99]), "99")
    for n in (VOCAB - 1, 0, VOCAB + 1):
        yield vocab("M18", f"{n} scores", sentencepiece("[f32]", n), "score", str(n))
        yield vocab("M18", f"{n} types", key("tokenizer.ggml.token_type", "[i32]", [1] * n), "type", str(n))
    for id in ("bos", "eos"):
        k = f"tokenizer.ggml.{id}_token_id"
        for kind, bad in (("u32", VOCAB), ("u32", 2**32 - 1), ("i32", -1), ("u64", MAX64)):
            yield vocab("M19", f"{id} {kind} {bad}", key(k, kind, bad), k, str(bad))
        yield good("M19", f"no {id} (+)", without(k))

    def one_row(g):
        n_tokens(1)(g)
        g.set(P + "vocab_size", "u32", 4)
        g.set(tokens, "[str]", TOKENS[:4])
        g.set("tokenizer.ggml.token_type", "[i32]", [1] * 4)
        change(EMBD, dims=[D_MODEL, 4], data=g.tensors[EMBD].data[:4 * D_MODEL * 2])(g)
    yield m("M19", "four tokens and no ids", one_row, level="runs", codes=(0, INVALID))
    no_bos = without("tokenizer.ggml.bos_token_id")
    yield m("M20", "add_bos without bos", lambda g: no_bos(g) or g.set("tokenizer.ggml.add_bos_token", "bool", 1),
            level="runs", codes=(0, INVALID))
    for label, count, no in (("shard 1 of 2", 2, 0), ("shard 2 of 2", 2, 1), ("of 65535", 65535, 7),
                             ("number beyond", 2, 9)):
        yield case("M21", label, "header", lambda g, count=count, no=no: g.set("split.count", "u16", count) or
                   g.set("split.no", "u16", no), UNSUPPORTED, "split", str(count))
    yield case("M21", "../x", "header", key("split.count", "str", "../x"), INVALID, "split.count")
    yield good("M21", "one part (+)", lambda g: g.set("split.count", "u16", 1) or g.set("split.no", "u16", 0))
    adapter = Gguf({"general.type": value("str", "adapter"), a: value("str", "bitnet-b1.58"),
                    "adapter.type": value("str", "lora"), "adapter.lora.alpha": value("f32", 16.0)},
                   {"blk.0.attn_q.weight.lora_a": Tensor([D_MODEL, 4], F32, bytes(D_MODEL * 16)),
                    "blk.0.attn_q.weight.lora_b": Tensor([4, 128], F32, bytes(128 * 16))})
    yield case("M24", "an adapter as a model", "model", lambda g: None, INVALID, P + "block_count",
               base=adapter)
    yield good("M24", "adapter tensors of other dims (+)", tensor("blk.0.attn_q.weight.lora_a", [4, 4], data=bytes(64)),
               "lora_a")


def tensor_bytes():
    def d(id, label, spoil, *words, codes=INVALID, **more):
        return case(id, label, "data", spoil, codes, *words, **more)

    for at in (0, 100, Q_TAIL - 1):
        for byte in (0x03, 0x0c, 0x30, 0xc0, 0xff):
            yield d("B01", f"byte {at} {byte:#x}", poke(Q, at, bytes([byte])), Q, "code 3")
    tq1, tq2 = tiny_model(TQ1_0), tiny_model(TQ2_0)
    yield case("B02", "TQ1_0 (+)", "good", lambda g: None, 0, base=tq1, same=False)
    yield case("B02", "TQ2_0 (+)", "good", lambda g: None, 0, base=tq2, same=False)
    for at in (0, 63, 66 * 255):
        yield d("B02", f"TQ2_0 byte {at}", poke(Q, at, b"\xc0"), Q, base=tq2)
    never = [b for b in range(256) if b not in TRITS5]
    for at, byte in ((0, never[0]), (47, never[-1]), (48, never[0]), (51, next(b for b in TRITS5 if b not in TRITS4))):
        yield d("B02", f"TQ1_0 byte {at} {byte:#x}", poke(Q, at, bytes([byte])), Q, base=tq1)
    for bad in (NAN, INF, 0.0, -1.0, 1e-40, -0.0):
        yield d("B03", f"I2_S {bad}", poke(Q, Q_TAIL, struct.pack("<f", bad)), Q, "scale")
    for bad in (NAN, INF, 0.0, -1.0):
        yield d("B03", f"TQ2_0 {bad}", poke(Q, 64, struct.pack("<e", bad)), Q, "scale", base=tq2)
        yield d("B03", f"TQ1_0 {bad}", poke(Q, 52, struct.pack("<e", bad)), Q, "scale", base=tq1)
    down = f"blk.{LAYERS - 1}.ffn_down.weight"

    def no_tail(g):
        change(down, data=g.tensors[down].data[:-32])(g)
    yield case("B04", "the last one", "header", no_tail, INVALID, down)
    yield case("B04", "one in the middle", "header", lambda g: change(Q, data=g.tensors[Q].data[:-32])(g), INVALID,
               "overlap", Q)
    for dims in ([3, 3], [127], [100, 3], [64, 1]):
        yield case("B05", str(dims), "header", tensor("x", dims, I2_S, bytes(256)), INVALID, '"x"', "128")

    def tail_a_row(g):
        for t in g.tensors.values():
            if t.type == I2_S:
                row = t.dims[0] // 4
                t.data = b"".join(t.data[r * row:(r + 1) * row] + t.data[-32:] for r in range(t.dims[1]))
    yield case("B06", "a tail for each row", "header", tail_a_row, INVALID, "follow the end")
    for kind, form, bad in ((F32, "f", NAN), (F32, "f", INF), (F32, "f", -INF), (F16, "e", NAN), (F16, "e", INF)):
        data = struct.pack(f"<{D_MODEL}{form}", *([1.0] * 10 + [bad] + [1.0] * (D_MODEL - 11)))
        yield d("B07", f"type {kind} {bad}", change(NORM, type=kind, data=data), NORM, "value 10")
    for bits in (0x7fc0, 0x7f80, 0xff80):
        data = struct.pack(f"<{D_MODEL}H", *([0x3f80] * 10 + [bits] + [0x3f80] * (D_MODEL - 11)))
        yield d("B07", f"BF16 {bits:#x}", change(NORM, type=BF16, data=data), NORM, "value 10")
    for row in (0, 30, VOCAB - 1):
        yield d("B08", f"row {row}", poke(EMBD, row * D_MODEL * 2, b"\0\x7e" * D_MODEL), EMBD, f"row {row}")


def checked_bytes(checked, places):
    """B09 to B12 spoil a file with checksums, which the program wrote; `places` is {tensor: (offset, size)}."""
    def d(id, label, spoil, *words, level="data", codes=INVALID, **more):
        def write(folder):
            path = folder / "m.gguf"
            path.write_bytes(spoil(bytearray(checked)))
            return path
        return Variant(id, label, level, write, (codes,), words, **more)

    def put(at, data):
        def spoil(file):
            file[at:at + len(data)] = data
            return file
        return spoil

    rng = random.Random(9)
    for name, (offset, size) in places.items():
        at, bit = offset + rng.randrange(size), rng.randrange(8)
        yield d("B09", f"{name} byte {at} bit {bit}", put(at, bytes([checked[at] ^ 1 << bit])), name)
    one, two = (f"blk.{i}.attn_q.weight" for i in range(2))
    (at, size), (other, _) = places[one], places[two]

    def swap(file):
        file[at:at + size], file[other:other + size] = file[other:other + size], file[at:at + size]
        return file
    yield d("B10", "data", swap, "checksum")
    first, second, neither = one.encode(), two.encode(), b"?" * len(one)
    yield d("B10", "names", lambda f: f.replace(first, neither).replace(second, first).replace(neither, second),
            "checksum")
    yield d("B11", "zeroed", put(at + 4096, bytes(4096)), one, "checksum")
    yield d("B11", "repeated", put(at + 4096, checked[at:at + 4096]), one, "checksum")
    table = checked.index(b"bitnet.checksum.xxh3_64") + 23 + 4 + 4 + 8
    yield d("B12", "another file's (+)", put(table, bytes(8)), "checksum", level="good", codes=0)
    yield d("B12", "damaged", put(table + 8, bytes(8)), "checksum")
    yield d("B12", "of another type", put(table - 12, u32(11)), "bitnet.checksum", level="model")
    yield d("B12", "of another name (+)", put(table - 39, b"x"), level="good", codes=0)
