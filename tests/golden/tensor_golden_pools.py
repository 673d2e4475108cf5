"""Pools of inputs, random views into them, and the file of cases that make_tensor_goldens.py fills.

One generator serves pools and cases, so their order decides what the file holds.
"""
import json
import struct
import warnings

import numpy as np

warnings.simplefilter("ignore")
np.seterr(all="ignore")
rng = np.random.default_rng(20240521)

NUMPY = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32,
         "I64": np.int64, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_}
FLOATS = ["F32", "F16", "BF16", "F64"]
SIGNED, UNSIGNED = ["I8", "I16", "I32", "I64"], ["U8", "U16", "U32", "U64"]
TYPES = FLOATS + SIGNED + UNSIGNED + ["BOOL"]
NAMES = {np.dtype(t).name: name for name, t in NUMPY.items()}
POOL = 640


def to_bf16(values):
    """Nearest bfloat16 of doubles, ties to even, as float32."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    exponent = np.maximum(exponent, -125)  # subnormals have the least normal exponent
    rounded = np.ldexp(np.rint(np.ldexp(np.asarray(values, np.float64), 8 - exponent)), exponent - 8)
    rounded = np.where(np.abs(rounded) >= 2.0 ** 128, np.copysign(np.inf, rounded), rounded)
    return np.where(np.isfinite(values), rounded, values).astype(np.float32)


def rounded(name, values):
    return to_bf16(values) if name == "BF16" else np.asarray(values).astype(NUMPY[name])


def numpy_type(name):
    return np.float32 if name == "BF16" else NUMPY[name]


def promote(a, b):
    """The rule of elementwise.h: as NumPy within floats and within integers, a float beside an integer stays."""
    if a == b:
        return a
    if (a in FLOATS) != (b in FLOATS):
        return a if a in FLOATS else b
    if "BF16" in (a, b):
        return "F64" if "F64" in (a, b) else "F32"
    return NAMES[np.promote_types(NUMPY[a], NUMPY[b]).name]


def make_pool(name, wild):
    if name == "BOOL":
        return rng.integers(0, 2, POOL).astype(np.bool_)
    if name in FLOATS:
        values = rng.normal(0, 2, POOL)
        if wild:
            least = {"F16": 2.0 ** -24, "BF16": 2.0 ** -133, "F32": 2.0 ** -149, "F64": 2.0 ** -1074}[name]
            most = {"F16": 65504.0, "BF16": 2.0 ** 127, "F32": 2.0 ** 127, "F64": 2.0 ** 1023}[name]
            specials = [np.nan, np.inf, -np.inf, 0.0, -0.0, least, -least, most, -most, 1.0, -1.0, 0.5, -1.5, 2.5]
            where = rng.random(POOL) < 0.35
            values[where] = rng.choice(specials, where.sum())
        return rounded(name, values)
    limits = np.iinfo(NUMPY[name])
    if wild:
        values = rng.integers(limits.min, limits.max, POOL, dtype=NUMPY[name], endpoint=True)
        for special in (0, 1, limits.min, limits.max):
            values[rng.random(POOL) < 0.05] = special
        return values
    return rng.integers(max(limits.min, -9), 10, POOL).astype(NUMPY[name])


POOLS = {(kind, name): make_pool(name, kind == "wild") for kind in ("plain", "wild") for name in TYPES}
outputs = {name: [] for name in TYPES}
n_outputs = {name: 0 for name in TYPES}
cases = []


def view(shape, name, kind="plain"):
    """A view of that shape into a pool, laid out at random: its values and the steps that lead there."""
    shape = list(shape)
    order = list(rng.permutation(len(shape)))
    steps, base = [], []
    for axis in order:
        step = int(rng.choice([1, 1, 1, 2, -1, -2]))
        extra = int(rng.integers(0, 2))
        length = abs(step) * shape[axis] + extra
        begin = extra if step > 0 else (abs(step) * shape[axis] + extra - 1 if length else 0)
        end = None if step > 0 or shape[axis] > 0 else begin
        base.append(length)
        steps.append((length, begin, end, step))
    n = int(np.prod(base, dtype=np.int64))
    if n > POOL:
        return view_contiguous(shape, name, kind)
    offset = int(rng.integers(0, POOL - n + 1))
    chain = [["slice", 0, offset, offset + n, 1], ["reshape", base]]
    for axis, (length, begin, end, step) in enumerate(steps):
        wanted = shape[order[axis]]
        if (length, step) != (wanted, 1):
            chain.append(["slice", axis, begin, end, step])
            chain.append(["slice", axis, 0, wanted, 1])
    inverse = [int(order.index(i)) for i in range(len(shape))]
    if order != sorted(order):
        chain.append(["permute", inverse])
    return made(chain, name, kind, shape)


def view_contiguous(shape, name, kind="plain"):
    n = int(np.prod(shape, dtype=np.int64))
    offset = int(rng.integers(0, POOL - n + 1))
    return made([["slice", 0, offset, offset + n, 1], ["reshape", list(shape)]], name, kind, shape)


def walk(values, chain):
    for step, *args in chain:
        if step == "slice":
            axis, begin, end, stride = args
            index = [slice(None)] * values.ndim
            index[axis] = slice(begin, end, stride)
            values = values[tuple(index)]
        elif step == "reshape":
            before = values
            values = values.reshape(args[0])
            assert values.size == 0 or np.shares_memory(before, values), "a reshape that copies"
        elif step == "permute":
            values = values.transpose(args[0])
        elif step == "transpose":
            values = np.swapaxes(values, args[0], args[1])
        elif step == "select":
            index = [slice(None)] * values.ndim
            index[args[0]] = args[1]
            values = values[tuple(index)]
        elif step == "broadcast":
            values = np.broadcast_to(values, args[0])
        elif step == "unsqueeze":
            values = np.expand_dims(values, args[0])
        elif step == "squeeze":
            values = np.squeeze(values, args[0])
    return values


def made(chain, name, kind, shape=None):
    values = walk(POOLS[kind, name], chain)
    assert shape is None or list(values.shape) == list(shape), (chain, values.shape, shape)
    return {"values": values, "type": name, "pool": kind, "chain": chain}


def case(op, inputs, name, expected, args=None, rtol=0.0, atol=0.0):
    expected = np.asarray(expected)
    expected = rounded(name, expected) if expected.dtype != numpy_type(name) else expected
    cases.append({"op": op, "in": [[v["pool"], v["type"], v["chain"]] for v in inputs], "args": args or {},
                  "out": [name, n_outputs[name], list(expected.shape)], "tol": [rtol, atol]})
    outputs[name].append(expected.reshape(-1))
    n_outputs[name] += expected.size


def shape_of(rank=None, low=1, most=5):
    rank = int(rng.integers(0, 5)) if rank is None else rank
    shape = [int(rng.integers(low, most + 1)) for _ in range(rank)]
    if rank and rng.random() < 0.06:
        shape[int(rng.integers(0, rank))] = 0
    return shape


def broadcast_pair():
    shape = shape_of()

    def operand():
        cut = int(rng.integers(0, len(shape) + 1)) if rng.random() < 0.4 else 0
        return [1 if rng.random() < 0.25 else n for n in shape[cut:]]
    return operand(), operand()


def kind_of():
    return "wild" if rng.random() < 0.5 else "plain"


def pick(types):
    return str(rng.choice(types))


def cast(v, name):
    return rounded(name, v["values"]) if name != v["type"] else v["values"]


def operand(v, name):
    """As it is computed with: half precision in float, which an integer beside it is not rounded before."""
    return v["values"].astype(np.float32) if name in ("F16", "BF16") else cast(v, name)


# What a float type's results may be off by where the function is not exact: two or three of its last places.
LAST_PLACES = {"F32": 4e-7, "F16": 1.1e-3, "BF16": 8.5e-3, "F64": 1e-15}


def write(path):
    tensors = []
    for (kind, name), values in POOLS.items():
        tensors.append((f"{kind}.{name}", name, values))
    for name, parts in outputs.items():
        tensors.append((f"out.{name}", name, np.concatenate(parts) if parts else np.zeros(0, numpy_type(name))))

    def stored(name, values):
        if name == "BF16":
            bits = values.view(np.uint32) >> 16
            return np.where(np.isnan(values), 0x7fc0, bits).astype(np.uint16).tobytes()
        return values.tobytes()
    tensors.sort(key=lambda t: (-numpy_type(t[1])().itemsize if t[1] != "BF16" else -2, t[0]))
    data, header = b"", {"__metadata__": {"cases": json.dumps(cases, separators=(",", ":"))}}
    for key, name, values in tensors:
        raw = stored(name, values)
        header[key] = {"dtype": name, "shape": [len(values)], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    print(f"{path}: {len(cases)} cases, {8 + len(text) + len(data)} bytes")
