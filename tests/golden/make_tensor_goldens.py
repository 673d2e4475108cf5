#!/usr/bin/env python3
"""Writes tests/data/tensor/goldens.safetensors: what NumPy makes of the operations of src/tensor (python3-numpy 1.24).

    python3 tests/golden/make_tensor_goldens.py tests/data/tensor/goldens.safetensors

The file holds a pool of input values for each type, plain and wild ones (NaN, infinities, zeros of both signs,
subnormals, limits of the type), all expected outputs one after another, and in its metadata the cases: an operation,
its inputs as views of pools (steps that both sides take), arguments, and where the output stands. BF16, which NumPy
lacks, is computed in float32 and float64 here and rounded by arithmetic on its own.
"""
import math
import sys

import numpy as np

from tensor_golden_pools import (FLOATS, LAST_PLACES, NUMPY, POOL, POOLS, TYPES, UNSIGNED, broadcast_pair, case, cast,
                                 kind_of, made, operand, pick, promote, rng, rounded, shape_of, view, view_contiguous,
                                 walk, write)


def views():
    for name in TYPES:
        for _ in range(5):
            v = view(shape_of(), name, kind_of())
            case("copy", [v], name, v["values"])
    for _ in range(60):  # steps at random, as long as they lead somewhere
        chain = [["slice", 0, 0, 360, 1], ["reshape", [3, 4, 5, 6]]]
        values = walk(POOLS["plain", "I32"], chain)
        for _ in range(int(rng.integers(1, 6))):
            rank = values.ndim
            if rank == 0:
                break
            axis = int(rng.integers(-rank, rank))
            n = values.shape[axis]
            options = [["slice", axis, *(None if rng.random() < 0.4 else int(rng.integers(-n - 2, n + 3)) for _ in "be"),
                        int(rng.choice([-3, -2, -1, 1, 2, 3, 7]))],
                       ["permute", [int(i) for i in rng.permutation(rank)]],
                       ["transpose", axis, int(rng.integers(-rank, rank))],
                       ["unsqueeze", int(rng.integers(-rank - 1, rank + 1))],
                       ["broadcast", [2, *[3 if m == 1 else m for m in values.shape]]]]
            if n:
                options.append(["select", axis, int(rng.integers(-n, n))])
            if n == 1:
                options.append(["squeeze", axis])
            step = options[int(rng.integers(0, len(options)))]
            if step[0] == "broadcast" and values.size > 400:
                continue
            chain.append(step)
            values = walk(values, [step])
        case("copy", [made(chain, "I32", "plain")], "I32", values)


def creation():
    for name, begin, end, step in [("F32", 0, 5, 0.25), ("I64", -3, 9, 2), ("F64", 1, -1, -0.125), ("U8", 3, 3, 1),
                                   ("F16", 0, 1, 0.1), ("BF16", 0, 3, 0.3), ("I32", 10, 0, -3)]:
        n = max(0, math.ceil((end - begin) / step))
        case("arange", [], name, np.asarray([begin + i * step for i in range(n)], np.float64),
             {"type": name, "begin": begin, "end": end, "step": step})
    mask = (1 << 64) - 1

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xbf58476d1ce4e5b9) & mask
        z = ((z ^ (z >> 27)) * 0x94d049bb133111eb) & mask
        return z ^ (z >> 31)

    def bits(key, i):
        return mix((key + (i + 1) * 0x9e3779b97f4a7c15) & mask)
    for name, seed, stream in [("F32", 7, 0), ("F64", 2 ** 63 + 5, 3), ("F16", 1, 1), ("BF16", 0, 9)]:
        key = mix(seed ^ mix((stream + 0x9e3779b97f4a7c15) & mask))
        uniform = np.asarray([(bits(key, i) >> 11) * 2.0 ** -53 for i in range(60)]).reshape(3, 4, 5)
        case("uniform", [], name, uniform, {"type": name, "shape": [3, 4, 5], "seed": seed, "stream": stream})
        normal = [math.sqrt(-2 * math.log(((bits(key, 2 * i) >> 11) + 1) * 2.0 ** -53)) *
                  math.cos(2 * math.pi * (bits(key, 2 * i + 1) >> 11) * 2.0 ** -53) for i in range(60)]
        case("normal", [], name, np.asarray(normal).reshape(3, 20),
             {"type": name, "shape": [3, 20], "seed": seed, "stream": stream}, 2 * LAST_PLACES[name], 1e-15)


def casting():
    for source in TYPES:
        for target in TYPES:
            wild = source in FLOATS and target in FLOATS + ["BOOL"] or source not in FLOATS
            v = view(shape_of(2), source, "wild" if wild else "plain")
            values = v["values"]
            if source in FLOATS and target in UNSIGNED:  # what does not fit is ours to define: tensor_test.cc
                v = view([4, 3], "U8", "plain")
                values, v["type"] = v["values"], "U8"
            case("cast", [v], target, rounded(target, values) if target == "BF16" else values.astype(NUMPY[target]),
                 {"type": target})
    for name in TYPES:
        parts = [view([2, int(rng.integers(0, 4)), 3], pick([name, name, "I32"]), "plain") for _ in range(3)]
        kind = parts[0]["type"]
        for part in parts[1:]:
            kind = promote(kind, part["type"])
        case("concatenate", parts, kind, np.concatenate([cast(p, kind) for p in parts], 1), {"axis": 1})


BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
          "floor_divide": np.floor_divide, "remainder": np.remainder, "power": np.power, "minimum": np.minimum,
          "maximum": np.maximum}


def pair(types=TYPES):
    a, b = pick(types), pick(types)
    if rng.random() < 0.4:
        b = a
    shape_a, shape_b = broadcast_pair()
    return view(shape_a, a, kind_of()), view(shape_b, b, kind_of())


def binary():
    for op, function in BINARY.items():
        for _ in range(34):
            a, b = pair()
            name = promote(a["type"], b["type"])
            if name == "BOOL" and op in ("subtract", "floor_divide", "remainder", "power"):
                continue
            if op == "power" and name not in FLOATS:
                b = view(b["values"].shape, pick(UNSIGNED[:1] + ["BOOL"]), "plain")
                name = promote(a["type"], b["type"])
                if name == "BOOL":
                    continue
            out = "F64" if op == "divide" and name not in FLOATS else name
            x, y = operand(a, name), operand(b, name)
            if op == "power" and name in FLOATS:
                expected, rtol = rounded(name, function(x.astype(np.float64), y.astype(np.float64))), LAST_PLACES[name]
                case(op, [a, b], out, expected, {}, rtol, 1e-300)
                continue
            expected = function(x, y)
            case(op, [a, b], out, rounded(out, expected) if name == "BF16" else expected)
    for name, number in [("U8", 2), ("I8", 300), ("F16", 0.1), ("I32", 0.5), ("F32", 3), ("BF16", 1.5), ("I64", -1)]:
        v = view(shape_of(3), name)
        if name in FLOATS:
            kind, n = name, rounded(name, np.float64(number))
        else:
            limits = np.iinfo(NUMPY[name])
            fits = number == int(number) and limits.min <= number <= limits.max
            kind = name if fits else promote(name, "I64") if number == int(number) else "F64"
            n = rounded(kind, np.float64(number))
        expected = cast(v, kind) * n
        case("multiply_number", [v], kind, rounded(kind, expected), {"number": number})


COMPARE = {"equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
           "greater": np.greater, "greater_equal": np.greater_equal}


def logic():
    for op, function in COMPARE.items():
        for _ in range(14):
            a, b = pair()
            name = promote(a["type"], b["type"])
            case(op, [a, b], "BOOL", function(operand(a, name), operand(b, name)))
    for _ in range(12):
        a, b = pair()
        case("logical_and", [a, b], "BOOL", np.logical_and(a["values"], b["values"]))
        case("logical_or", [a, b], "BOOL", np.logical_or(a["values"], b["values"]))
        case("logical_not", [a], "BOOL", np.logical_not(a["values"]))
        case("is_nan", [a], "BOOL", np.isnan(a["values"]) if a["type"] in FLOATS else np.zeros(a["values"].shape, bool))
        case("is_finite", [b], "BOOL",
             np.isfinite(b["values"]) if b["type"] in FLOATS else np.ones(b["values"].shape, bool))
        condition = view(a["values"].shape, pick(["BOOL", "F32", "I8"]), kind_of())
        name = promote(a["type"], b["type"])
        case("where", [condition, a, b], name, np.where(condition["values"] != 0, operand(a, name), operand(b, name)))
    for name, low, high in [("F32", -1, 1.5), ("I8", -100, 3), ("F16", 0, 0.5), ("U8", 2, 7), ("F64", -0.25, 0.25)]:
        v = view(shape_of(3), name, "wild")
        case("clip", [v], name, np.minimum(np.maximum(v["values"], NUMPY[name](low)), NUMPY[name](high)),
             {"low": low, "high": high})


vector = np.vectorize
UNARY_EXACT = {"negative": np.negative, "absolute": np.abs, "sign": np.sign, "square": np.square, "floor": np.floor,
               "ceil": np.ceil, "round": np.rint, "truncate": np.trunc}
UNARY = {"sqrt": np.sqrt, "reciprocal": lambda x: 1.0 / x, "exp": np.exp, "expm1": np.expm1, "log": np.log,
         "log2": np.log2, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinh": np.sinh,
         "cosh": np.cosh, "tanh": np.tanh, "erf": vector(math.erf, otypes=[np.float64])}


def unary():
    for op, function in UNARY_EXACT.items():
        for name in TYPES:
            if name == "BOOL" and op in ("negative", "sign", "square"):
                continue
            v = view([4, 3, 5], name, "wild")
            keeps = op in ("floor", "ceil", "round", "truncate") and name not in FLOATS
            expected = v["values"] if keeps else function(v["values"])
            case(op, [v], name, rounded(name, expected) if name == "BF16" else expected)
    for op, function in UNARY.items():
        for name in ["F32", "F64", "F16", "BF16", "I32", "U8", "F32", "F64"]:
            out = name if name in FLOATS else "F64"
            # Sines of huge numbers are as good as the C library's, which is ours.
            v = view(shape_of(), name, "plain" if op in ("sin", "cos", "tan") else "wild")
            x = v["values"].astype(np.float64)
            case(op, [v], out, rounded(out, function(x)), {}, LAST_PLACES[out], 1e-300)


def reduced(v, axes, keep, function, dtype=None):
    values = v["values"] if dtype is None else v["values"].astype(dtype)
    return function(values, tuple(axes) if axes else None, keep)


def random_axes(rank):
    axes = [int(i) for i in rng.permutation(rank)[:int(rng.integers(0, rank + 1))]]
    return [a - rank if rng.random() < 0.3 else a for a in axes]


def reductions():
    simple = {"sum": lambda x, a, k: np.sum(x, axis=a, keepdims=k),
              "product": lambda x, a, k: np.prod(x, axis=a, keepdims=k),
              "min": lambda x, a, k: np.min(x, axis=a, keepdims=k),
              "max": lambda x, a, k: np.max(x, axis=a, keepdims=k),
              "mean": lambda x, a, k: np.mean(x, axis=a, keepdims=k),
              "variance": lambda x, a, k: np.var(x, axis=a, keepdims=k),
              "standard_deviation": lambda x, a, k: np.std(x, axis=a, keepdims=k),
              "count_nonzero": lambda x, a, k: np.count_nonzero(x, axis=a, keepdims=k),
              "any": lambda x, a, k: np.any(x, axis=a, keepdims=k),
              "all": lambda x, a, k: np.all(x, axis=a, keepdims=k),
              "median": lambda x, a, k: np.median(x, axis=a, keepdims=k)}
    exact = ("min", "max", "count_nonzero", "any", "all")
    for op, function in simple.items():
        for _ in range(26):
            name = pick(TYPES)
            shape = shape_of() if rng.random() < 0.8 else [3, 60, 2][:int(rng.integers(1, 4))]
            v = view(shape, name, kind_of() if op in exact else "wild" if rng.random() < 0.2 else "plain")
            axes, keep = random_axes(len(shape)), bool(rng.integers(0, 2))
            n = np.prod([shape[a] for a in axes] if axes else shape)
            if op in ("min", "max") and n == 0:
                continue
            args = {"axes": axes, "keep_dims": keep}
            if op in exact:
                out = {"count_nonzero": "I64", "any": "BOOL", "all": "BOOL"}.get(op, name)
                case(op, [v], out, reduced(v, axes, keep, function), args)
            elif op in ("sum", "product") and name not in FLOATS:
                out = "U64" if name == "U64" else "I64"
                case(op, [v], out, reduced(v, axes, keep, function, NUMPY[out]), args)
            else:
                out = name if name in FLOATS else "F64"
                expected = reduced(v, axes, keep, function, np.float64)
                case(op, [v], out, rounded(out, expected), args, max(LAST_PLACES[out], 1e-13), 1e-13)
    for op, function in {"argmin": np.argmin, "argmax": np.argmax}.items():
        for _ in range(26):
            shape = [n or 1 for n in shape_of(int(rng.integers(1, 5)))]
            v = view(shape, pick(TYPES), kind_of())
            axis = int(rng.integers(0, len(shape)))
            keep = bool(rng.integers(0, 2))
            case(op, [v], "I64", function(v["values"], axis=axis, keepdims=keep), {"axes": [axis], "keep_dims": keep})
            case(op, [v], "I64", function(v["values"]), {"axes": [], "keep_dims": False})
    for _ in range(40):
        shape = [n or 2 for n in shape_of()]
        v = view(shape, pick(TYPES[:-1]), kind_of())
        axes, q = random_axes(len(shape)), float(rng.choice([0, 1, 0.5, 0.25, rng.random()]))
        out = v["type"] if v["type"] in FLOATS else "F64"
        values = v["values"].astype(np.float64)
        expected = np.quantile(values, q, axis=tuple(axes) if axes else None)
        case("quantile", [v], out, rounded(out, expected), {"axes": axes, "keep_dims": False, "q": q},
             LAST_PLACES[out], 1e-300)
    for ddof in (1, 2, 5):
        v = view([4, 3, 5], "F32")
        case("variance", [v], "F32", np.var(v["values"].astype(np.float64), axis=(0,), ddof=ddof),
             {"axes": [0], "keep_dims": False, "ddof": ddof}, 4e-7, 0)
    for shape, axes in [([640], [0]), ([2, 320], [0]), ([320, 2], [0]), ([1, 640], [1])]:  # longer than a block
        v = view_contiguous(shape, "F64")
        case("sum", [v], "F64", np.sum(v["values"], axis=tuple(axes)), {"axes": axes, "keep_dims": False}, 1e-12, 1e-12)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def activations():
    erf, erfc = vector(math.erf, otypes=[np.float64]), vector(math.erfc, otypes=[np.float64])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    functions = {"relu": lambda x: np.where(x < 0, 0.0, x), "relu2": lambda x: np.where(x < 0, 0.0, x * x),
                 "gelu": lambda x: 0.5 * x * erfc(-x / math.sqrt(2)), "gelu_tanh": gelu_tanh,
                 "silu": lambda x: x * sigmoid(x), "sigmoid": sigmoid, "tanh": np.tanh}
    for op, function in functions.items():
        for name in ["F32", "F64", "F16", "BF16", "I8", "F32"]:
            out = name if name in FLOATS else "F64"
            v, dy = view(shape_of(3), name, "plain"), None
            x = v["values"].astype(np.float64)
            case(op, [v], out, rounded(out, function(x)), {}, 4 * LAST_PLACES[out], 1e-7 if out != "F64" else 1e-15)
            if name in ("F32", "F64"):  # the gradient by central differences
                dy = view(v["values"].shape, name, "plain")
                away = np.abs(x) > 1e-3 if op in ("relu", "relu2") else np.ones(x.shape, bool)
                if not away.all():
                    continue
                h = 1e-5
                slope = (function(x + h) - function(x - h)) / (2 * h)
                case(op + "_gradient", [v, dy], name, slope * dy["values"].astype(np.float64), {}, 1e-6,
                     3e-7 if name == "F32" else 1e-8)  # terms of size 1 that cancel
    special = view([40], "F32", "wild")
    case("relu", [special], "F32", functions["relu"](special["values"]))
    for name in ["F32", "F64", "F16", "BF16", "F32", "I32"]:
        for _ in range(4):
            shape = [n or 1 for n in shape_of(int(rng.integers(1, 4)))]
            axis = int(rng.integers(-len(shape), len(shape)))
            v = view(shape, name, "plain" if name != "F32" else kind_of())
            out = name if name in FLOATS else "F64"
            x = v["values"].astype(np.float64)
            largest = x.max(axis=axis, keepdims=True)
            e = np.exp(x - largest)
            y = e / e.sum(axis=axis, keepdims=True)
            log_y = (x - largest) - np.log(e.sum(axis=axis, keepdims=True))
            tolerance = 8 * LAST_PLACES[out]
            case("softmax", [v], out, rounded(out, y), {"axis": axis}, tolerance, 1e-300)
            case("log_softmax", [v], out, rounded(out, log_y), {"axis": axis}, tolerance, 1e-14)
            if name not in ("F32", "F64"):
                continue
            dy = view(shape, name)
            p, g = view(shape, name), dy["values"].astype(np.float64)  # any p will do: the rule is linear in dy
            pv = p["values"].astype(np.float64)
            case("softmax_gradient", [p, dy], name, pv * (g - (pv * g).sum(axis=axis, keepdims=True)), {"axis": axis},
                 1e-6, 1e-6 if name == "F32" else 1e-13)
            case("log_softmax_gradient", [p, dy], name, g - np.exp(pv) * g.sum(axis=axis, keepdims=True),
                 {"axis": axis}, 1e-6, 1e-5 if name == "F32" else 1e-11)
    case("softmax", [view([3, 0], "F32")], "F32", np.zeros([3, 0], np.float32), {"axis": 1})


def products():
    for _ in range(110):
        m, n, k = (int(i) for i in rng.integers(1, 8, 3))
        if rng.random() < 0.08:
            k = 0
        batch_a, batch_b = broadcast_pair()
        batch_a, batch_b = batch_a[-2:], batch_b[-2:]
        a = [k] if rng.random() < 0.15 else [*batch_a, m, k]
        b = [k] if rng.random() < 0.15 else [*batch_b, k, n]
        if np.prod(a) > POOL or np.prod(b) > POOL:
            continue
        kind = pick(["F32", "F32", "F32", "F64", "F16", "BF16", "I8", "I32", "I64", "U8", "BOOL", "U64"])
        other = kind if rng.random() < 0.7 else pick(TYPES)
        va, vb = view(a, kind, "plain"), view(b, other, "plain")
        out = promote(kind, other)
        if out in FLOATS:
            x, y = va["values"].astype(np.float64), vb["values"].astype(np.float64)
            scale = 1e-5 if out == "F32" else 1e-13
            case("matmul", [va, vb], out, rounded(out, np.matmul(x, y)), {}, max(LAST_PLACES[out], 1e-13), scale)
        else:
            case("matmul", [va, vb], out, np.matmul(cast(va, out), cast(vb, out)))
    for m, n, k in [(16, 20, 32), (25, 25, 25), (1, 30, 20), (30, 1, 20)]:
        va, vb = view([m, k], "F32"), view([k, n], "F32")
        expected = np.matmul(va["values"].astype(np.float64), vb["values"].astype(np.float64))
        case("matmul", [va, vb], "F32", expected, {}, 4e-7, 1e-5)


def linear_algebra():
    solvable = []
    while len(solvable) < 14:
        n = int(rng.integers(1, 7))
        a = view([*shape_of(int(rng.integers(0, 2)), most=3), n, n], pick(["F64", "F64", "F32", "I32"]))
        if a["values"].size and np.all(np.linalg.cond(a["values"].astype(np.float64)) < 1e3):
            solvable.append(a)
    for a in solvable:
        x = a["values"].astype(np.float64)
        n, out = x.shape[-1], "F32" if a["type"] == "F32" else "F64"
        rtol = 1e-6 if out == "F32" else 1e-11
        b = view([*x.shape[:-1], 3], "F64")
        case("solve", [a, b], out, np.linalg.solve(x, b["values"]), {}, rtol, rtol)
        case("inverse", [a], out, np.linalg.inv(x), {}, rtol, rtol)
        case("determinant", [a], out, np.linalg.det(x), {}, rtol, rtol)
        case("singular_values", [a], out, np.linalg.svd(x, compute_uv=False), {}, rtol, rtol)
        case("condition_number", [a], out, np.linalg.cond(x), {}, rtol, rtol)
        lower = np.tril(x) + np.swapaxes(np.tril(x, -1), -1, -2)
        case("eigenvalues_symmetric", [a], out, np.linalg.eigvalsh(lower), {}, rtol, rtol)
        if x.ndim == 2:
            v = view([n], "F64")
            case("solve", [a, v], out, np.linalg.solve(x, v["values"]), {}, rtol, rtol)
            values = np.linalg.eigvals(x)
            order = np.lexsort((values.imag, values.real))
            case("eigenvalues_general", [a], out, np.stack([values.real[order], values.imag[order]]), {}, rtol, 10 * rtol)
    for _ in range(14):
        m, n = int(rng.integers(1, 7)), int(rng.integers(1, 7))
        a = view([m, n], "I8")
        x = a["values"].astype(np.float64)
        case("matrix_rank", [a], "I64", np.linalg.matrix_rank(x))
        s = np.linalg.svd(x, compute_uv=False)
        if s[-1] < 0.3:
            continue
        b = view([m, 2], "F64")
        case("least_squares", [a, b], "F64", np.linalg.lstsq(x, b["values"], rcond=None)[0], {}, 1e-10, 1e-10)
    same = made([["slice", 0, 0, 4, 1], ["reshape", [1, 4]], ["broadcast", [5, 4]]], "F64", "plain")  # rank 1
    case("matrix_rank", [same], "I64", np.linalg.matrix_rank(same["values"]))
    b = view([5], "F64")
    case("least_squares", [same, b], "F64", np.linalg.lstsq(same["values"], b["values"], rcond=None)[0], {}, 1e-9, 1e-9)


if __name__ == "__main__":
    for family in (views, creation, casting, binary, logic, unary, reductions, activations, products, linear_algebra):
        family()
    write(sys.argv[1])
