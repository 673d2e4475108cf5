#!/usr/bin/env python3
"""Writes tests/data/microsoft/tiny: a model_state_int2.pt as Microsoft's GPU scripts save it, and golden.safetensors
with the logits that PyTorch computes in float32 from the same weights (PyTorch 2.11, safetensors).

    make_microsoft_golden.py OUT

OUT also gets model_state_fp16.pt and the latent model_state.pt. Attention turns neighbouring rows, as those files order
them, so that the logits test the order too.
"""
import sys

import torch
from safetensors.torch import save_file
from torch.nn.functional import scaled_dot_product_attention

OUT = sys.argv[1] + "/"
D, HEADS, KV_HEADS, FF, VOCAB, TOKENS, HEAD = 256, 2, 1, 256, 96, 33, 128
BF16 = torch.bfloat16
generator = torch.Generator().manual_seed(7)


def random(*shape, sd=1.0, mean=0.0):
    return (torch.randn(*shape, generator=generator) * sd + mean).to(BF16)


def interleave(w, heads):
    return w.view(heads, 2, HEAD // 2, D).transpose(1, 2).reshape(heads * HEAD, D)


embedding = random(VOCAB, D)
rows = D, KV_HEADS * HEAD, KV_HEADS * HEAD, D, FF, FF, D
q, k, v, o, gate, up, down = [random(n, D, sd=0.03 * (i + 2)) for i, n in enumerate(rows)]
LAYER = "layers.0."
ATTENTION, FFN = LAYER + "attention.", LAYER + "feed_forward."
NORMS = (LAYER + "attention_norm.weight", LAYER + "ffn_norm.weight", ATTENTION + "attn_sub_norm.weight",
         FFN + "ffn_sub_norm.weight", "norm.weight")
norms = {name: random(D, sd=0.1, mean=1.0) for name in NORMS}
parts = {ATTENTION + "wqkv.weight": [interleave(q, HEADS), interleave(k, KV_HEADS), v], ATTENTION + "wo.weight": [o],
         FFN + "w13.weight": [gate, up], FFN + "w2.weight": [down]}

# Words of a tile of 16 rows and 32 columns: the row of each, its 16 columns, and where their values go.
word, value = torch.arange(32)[:, None], torch.arange(16)[None]
ROW, COLUMN = word // 16 * 8 + word % 8 + 0 * value, word // 8 % 2 * 16 + value
SHIFT = value % 4 * 8 + value // 4 * 2


def pack(w):
    n, m = w.shape
    tiles = (w.long() + 2).view(n // 16, 16, m // 32, 32).permute(0, 2, 1, 3)[:, :, ROW, COLUMN]
    words = (tiles << SHIFT).sum(-1).to(torch.int32)
    return words.contiguous().view(torch.int8).reshape(n, m // 4)


latent, int2, floats, linears = dict(norms), {}, {}, {}
for name, weights in parts.items():
    latent[name] = torch.cat(weights)
    inverse = [1.0 / w.abs().mean().clamp_(min=1e-5) for w in weights]
    ternary = [(w * s).round().clamp(-1, 1) for w, s in zip(weights, inverse)]
    scales = [(1.0 / s).to(BF16).reshape(1) for s in inverse]
    int2[name] = pack(torch.cat(ternary).to(torch.int8))
    int2[name + "_scale"] = torch.cat(scales + [torch.zeros(1, dtype=BF16)] * (4 - len(scales)))
    floats[name] = torch.cat([w / s for w, s in zip(ternary, inverse)])
    linears[name] = [(w.float(), s.float()) for w, s in zip(ternary, scales)]
for name in norms:
    int2[name] = norms[name].clone()
    floats[name] = norms[name].clone()
latent["tok_embeddings.weight"] = latent["output.weight"] = embedding
for tensors in (int2, floats):
    tensors["tok_embeddings.weight"] = embedding.clone()
    tensors["output.weight"] = embedding.clone()
torch.save(int2, OUT + "model_state_int2.pt")
torch.save(floats, OUT + "model_state_fp16.pt")
torch.save(latent, OUT + "model_state.pt")


def linear(x, name):
    s = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    x = (x * s).round().clamp(-128, 127)
    return [x @ w.T / s * scale for w, scale in linears[name]]


def norm(x, name):
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * norms[name].float()


def rotate(x):
    """Neighbours as complex numbers; heads first."""
    pairs = torch.view_as_complex(x.view(TOKENS, -1, HEAD // 2, 2)) * turns
    return torch.view_as_real(pairs).reshape(TOKENS, -1, HEAD).transpose(0, 1)


ids = torch.randint(VOCAB, (TOKENS,), generator=generator)
angles = torch.arange(TOKENS)[:, None] * 500000.0 ** (-torch.arange(HEAD // 2) / (HEAD / 2)).double()[None]
turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None]
x = embedding.float()[ids]
q, k, v = linear(norm(x, LAYER + "attention_norm.weight"), ATTENTION + "wqkv.weight")
y = scaled_dot_product_attention(rotate(q), rotate(k).expand(HEADS, -1, -1),
                                 v.view(1, TOKENS, HEAD).expand(HEADS, -1, -1), is_causal=True)
y = y.transpose(0, 1).reshape(TOKENS, D)
x = x + linear(norm(y, ATTENTION + "attn_sub_norm.weight"), ATTENTION + "wo.weight")[0]
gate, up = linear(norm(x, LAYER + "ffn_norm.weight"), FFN + "w13.weight")
x = x + linear(norm(gate.relu() ** 2 * up, FFN + "ffn_sub_norm.weight"), FFN + "w2.weight")[0]
logits = (norm(x, "norm.weight") @ embedding.float().T).contiguous()
save_file({"ids": ids.int(), "logits": logits}, OUT + "golden.safetensors")
