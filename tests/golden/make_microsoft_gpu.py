#!/usr/bin/env python3
"""Writes a folder of packed BitNet weights as Microsoft's GPU scripts would (docs/formats/microsoft-gpu.md).

    make_microsoft_gpu.py FOLDER OUT [--floats] [--params]

FOLDER is a packed checkpoint such as tests/data/hf/bitnet-packed: multiplying BF16 scales, BF16 tables and norms. OUT
gets model_state_int2.pt (with --floats model_state_fp16.pt: the same weights as BF16), FOLDER's config.json (with --params
the same sizes as params.json) and a tokenizer.model of tiktoken ranks, one token a byte. Standard library only: the
archive and the pickle in it are put together here, by the rules of zipfile and pickletools.
"""
import argparse
import base64
import json
import pathlib
import struct
import zipfile

TYPES = {"BF16": ("BFloat16Storage", 2), "I8": ("CharStorage", 1)}


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    data = data[8 + n:]
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def unpack(tensor):
    """Rows of weights -1, 0, 1: four rows a byte, a quarter of them apart."""
    _, (quarter, n_cols), data = tensor
    rows = []
    for slot in range(4):
        for r in range(quarter):
            rows.append([(byte >> (2 * slot) & 3) - 1 for byte in data[r * n_cols:(r + 1) * n_cols]])
    return rows


def interleaved(rows, head_dim):
    """The halves of each head, (h l d), as neighbours, (h d l)."""
    out, half = [], head_dim // 2
    for head in range(0, len(rows), head_dim):
        for i in range(half):
            out += [rows[head + i], rows[head + half + i]]
    return out


def int2_tiles(rows):
    """The steps of pack_weight.py: threads of a tile of 16 x 32 take 16 columns each, four values make a byte, and the
    16 values of a word are put in the order that the decoder wants."""
    n_rows, n_cols = len(rows), len(rows[0])
    out = bytearray()
    for tile_row in range(0, n_rows, 16):
        for tile_col in range(0, n_cols, 32):
            for thread in range(32):
                row = tile_row + thread // 16 * 8 + thread % 8
                col = tile_col + thread % 16 // 8 * 16
                plain = 0
                for e in range(16):
                    plain |= (rows[row][col + e] + 2) << (2 * e)
                word = 0
                for e in range(16):
                    word |= (plain >> (2 * e) & 3) << (e % 4 * 8 + e // 4 * 2)
                out += struct.pack("<I", word)
    return bytes(out)


def as_bf16(rows, scale):
    """-scale, -0, 0 or scale, as rounding latent weights and dividing leaves them."""
    negative = struct.pack("<H", struct.unpack("<H", scale)[0] | 0x8000)
    zeros = [b"\0\0", b"\0\x80"]
    return b"".join(scale if w > 0 else negative if w < 0 else zeros[i % 2] for row in rows for i, w in enumerate(row))


class Storage:
    """What a tensor is a view of; pickled as a persistent id."""

    def __init__(self, key, kind, count):
        self.key, self.kind, self.count = key, kind, count


class Pickler:
    """The opcodes of protocol 2 that torch.save writes for a dict of tensors."""

    def __init__(self):
        self.out, self.memo = bytearray(b"\x80\x02"), {}

    def remember(self, key):
        index = self.memo[key] = len(self.memo)
        self.out += b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)

    def recall(self, key):
        index = self.memo.get(key)
        if index is None:
            return False
        self.out += b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)
        return True

    def text(self, text):
        if not self.recall(("text", text)):
            data = text.encode()
            self.out += b"X" + struct.pack("<I", len(data)) + data
            self.remember(("text", text))

    def call(self, module, name):
        if not self.recall((module, name)):
            self.out += f"c{module}\n{name}\n".encode()
            self.remember((module, name))

    def integer(self, n):
        if n < 256:
            self.out += b"K" + bytes([n])
        elif n < 65536:
            self.out += b"M" + struct.pack("<H", n)
        else:
            self.out += b"J" + struct.pack("<i", n)

    def integers(self, numbers):
        if len(numbers) > 3:
            self.out += b"("
        for n in numbers:
            self.integer(n)
        self.out += [b")", b"\x85", b"\x86", b"\x87"][len(numbers)] if len(numbers) < 4 else b"t"

    def tensor(self, storage, offset, shape):
        self.call("torch._utils", "_rebuild_tensor_v2")
        self.out += b"(("
        self.text("storage")
        self.call("torch", storage.kind)
        self.text(storage.key)
        self.text("cpu")
        self.integer(storage.count)
        self.out += b"tQ"
        self.integer(offset)
        strides, step = [], 1
        for n in reversed(shape):
            strides.insert(0, step)
            step *= n
        self.integers(shape)
        self.integers(strides)
        self.out += b"\x89"
        self.call("collections", "OrderedDict")
        self.out += b")RtR"

    def dict(self, tensors):
        self.out += b"}("
        for name, (storage, offset, shape) in tensors.items():
            self.text(name)
            self.tensor(storage, offset, shape)
        self.out += b"u."
        return bytes(self.out)


def entries_of(tensors):
    """{name: bytes} of the archive of {name: (dtype, shape, bytes)}; tensors of one bytes object share a storage."""
    storages, records, pickled = {}, [], {}
    for name, (dtype, shape, data) in tensors.items():
        kind, size = TYPES[dtype]
        if id(data) not in storages:
            storages[id(data)] = Storage(str(len(records)), kind, len(data) // size)
            records.append(data)
        pickled[name] = (storages[id(data)], 0, shape)
    return {"data.pkl": Pickler().dict(pickled), "byteorder": b"little",
            **{f"data/{key}": data for key, data in enumerate(records)}, "version": b"3\n"}


def write_zip(file, folder, entries):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", (1980, 1, 1, 0, 0, 0)), data)


def save(path, tensors):
    write_zip(path, path.stem, entries_of(tensors))


def converted(tensors, config, floats):
    out = {}

    def linear(name, parts):
        """One tensor of several layers' rows, each with its scale."""
        rows, scales, values = [], b"", b""
        for part, head_dim in parts:
            part_rows = unpack(tensors[part + ".weight"])
            part_rows = interleaved(part_rows, head_dim) if head_dim else part_rows
            scale = tensors[part + ".weight_scale"][2]
            rows += part_rows
            scales += scale
            values += as_bf16(part_rows, scale) if floats else b""
        if floats:
            out[name] = "BF16", [len(rows), len(rows[0])], values
        else:
            out[name] = "I8", [len(rows), len(rows[0]) // 4], int2_tiles(rows)
            out[name + "_scale"] = "BF16", [4], scales.ljust(8, b"\0")

    head_dim = config["head_dim"]
    for layer in range(config["num_hidden_layers"]):
        hf, ms = f"model.layers.{layer}.", f"layers.{layer}."
        attention, mlp = hf + "self_attn.", hf + "mlp."
        linear(ms + "attention.wqkv.weight", [(attention + "q_proj", head_dim), (attention + "k_proj", head_dim),
                                              (attention + "v_proj", 0)])
        linear(ms + "attention.wo.weight", [(attention + "o_proj", 0)])
        out[ms + "attention_norm.weight"] = tensors[hf + "input_layernorm.weight"]
        out[ms + "ffn_norm.weight"] = tensors[hf + "post_attention_layernorm.weight"]
        out[ms + "attention.attn_sub_norm.weight"] = tensors[attention + "attn_sub_norm.weight"]
        out[ms + "feed_forward.ffn_sub_norm.weight"] = tensors[mlp + "ffn_sub_norm.weight"]
        linear(ms + "feed_forward.w13.weight", [(mlp + "gate_proj", 0), (mlp + "up_proj", 0)])
        linear(ms + "feed_forward.w2.weight", [(mlp + "down_proj", 0)])
    dtype, shape, table = tensors["model.embed_tokens.weight"]
    out["tok_embeddings.weight"] = dtype, shape, table
    out["output.weight"] = dtype, shape, bytes(bytearray(table))  # a second copy, as the scripts write it
    out["norm.weight"] = tensors["model.norm.weight"]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--floats", action="store_true")
    parser.add_argument("--params", action="store_true")
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    tensors = converted(read_safetensors(args.folder / "model.safetensors"), config, args.floats)
    args.out.mkdir(parents=True, exist_ok=True)
    save(args.out / ("model_state_fp16.pt" if args.floats else "model_state_int2.pt"), tensors)
    if args.params:
        names = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
                 "n_kv_heads": "num_key_value_heads", "vocab_size": "vocab_size", "ffn_dim": "intermediate_size",
                 "norm_eps": "rms_norm_eps", "rope_theta": "rope_theta"}
        (args.out / "params.json").write_text(json.dumps({ms: config[hf] for ms, hf in names.items()}))
    else:
        (args.out / "config.json").write_text(json.dumps(config))
    ranks = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    (args.out / "tokenizer.model").write_text(ranks)


if __name__ == "__main__":
    main()
