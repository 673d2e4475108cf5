#!/usr/bin/env python3
"""The byte model of docs/training.md in PyTorch, as quantisation-aware training is written there: weights and inputs of
every linear are quantised on the way, in float32. Prints the tokens/s of its training steps.

    apt-get install python3-torch
    bench/pytorch_byte_model.py TEXT [--threads 2] [--batch 8] [--steps 10]
"""
import argparse
import math
import time

import torch
import torch.nn.functional as F

D_MODEL, N_LAYERS, N_HEADS, D_FF, VOCAB, N_CTX = 384, 6, 6, 1024, 256, 256
HEAD_DIM = D_MODEL // N_HEADS


def quantize_input(x):
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp_(min=1e-5)
    return x + ((x * scale).round().clamp_(-128, 127) / scale - x).detach()


def quantize_weight(w):
    scale = 1 / w.abs().mean().clamp_(min=1e-5)
    return w + ((w * scale).round().clamp_(-1, 1) / scale - w).detach()


class RmsNorm(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(n))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class BitLinear(torch.nn.Linear):
    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x):
        return F.linear(quantize_input(x), quantize_weight(self.weight))


def rotate(x, cos, sin):
    a, b = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm, self.attn_sub_norm = RmsNorm(D_MODEL), RmsNorm(D_MODEL)
        self.ffn_norm, self.ffn_sub_norm = RmsNorm(D_MODEL), RmsNorm(D_FF)
        self.q, self.k, self.v, self.o = (BitLinear(D_MODEL, D_MODEL) for _ in range(4))
        self.gate, self.up, self.down = BitLinear(D_MODEL, D_FF), BitLinear(D_MODEL, D_FF), BitLinear(D_FF, D_MODEL)

    def forward(self, x, cos, sin, mask):
        batch, n, _ = x.shape
        h = self.attn_norm(x)
        q, k, v = (w(h).view(batch, n, N_HEADS, HEAD_DIM).transpose(1, 2) for w in (self.q, self.k, self.v))
        scores = rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2) / math.sqrt(HEAD_DIM) + mask
        attn = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, n, D_MODEL)
        x = x + self.o(self.attn_sub_norm(attn))
        h = self.ffn_norm(x)
        return x + self.down(self.ffn_sub_norm(F.relu(self.gate(h)).square() * self.up(h)))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCAB, D_MODEL)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(N_LAYERS))
        self.norm = RmsNorm(D_MODEL)
        for p in self.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.02)
        angles = torch.outer(torch.arange(N_CTX), 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.cos, self.sin = angles.cos(), angles.sin()
        self.mask = torch.full((N_CTX, N_CTX), -math.inf).triu(1)

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, self.mask)
        return F.cross_entropy(F.linear(self.norm(x), self.embedding.weight).flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    with open(args.text, "rb") as f:
        data = torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).long()
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.1)
    seconds = []
    for step in range(args.steps + 2):
        begin = time.perf_counter()
        at = torch.randint(len(data) - N_CTX - 1, (args.batch,))
        ids = torch.stack([data[i : i + N_CTX] for i in at])
        loss = model(ids, torch.stack([data[i + 1 : i + N_CTX + 1] for i in at]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    median = sorted(seconds[2:])[args.steps // 2]
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"{n_parameters} parameters, loss {loss.item():.3f}, {args.batch * N_CTX / median:.0f} tokens/s")


if __name__ == "__main__":
    main()
