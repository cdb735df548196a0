#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reference values of a GPT-2-form model: loss, activations and every gradient.

Independent of the daemon: float64 numpy with a small reverse-mode differentiator, so no backward
formula of a layer is written here that could repeat a mistake of the C code. The gradients are
checked against central differences before anything is written. Model: tied token embedding plus
positions, one pre-norm block (tanh GELU, causal attention), final layernorm, tied head, mean cross
entropy. All inputs are float32 values, so that the C test starts from the very same numbers.

Writes gpt2_reference.json beside itself; needs python3-numpy. The test needs only the values.
    python3 tests/vectors/gpt2_reference.py
"""
import json
import os

import numpy as np

B, T, C, NH, F, V, EPS = 2, 5, 12, 3, 48, 11, 1e-5


class Node:
    """A value on the tape: its parents, and how a gradient of it flows to each of them."""

    def __init__(self, value, parents=()):
        self.value = np.asarray(value, dtype=np.float64)
        self.parents = parents
        self.grad = np.zeros_like(self.value)

    def __add__(self, other):
        return binary(self, other, np.add, lambda a, b: (np.ones_like(a), np.ones_like(b)))

    def __sub__(self, other):
        return binary(self, other, np.subtract, lambda a, b: (np.ones_like(a), -np.ones_like(b)))

    def __mul__(self, other):
        return binary(self, other, np.multiply, lambda a, b: (b, a))

    def __truediv__(self, other):
        return binary(self, other, np.divide, lambda a, b: (1 / b, -a / b**2))

    def __matmul__(self, other):
        a, b = self, other
        return Node(a.value @ b.value, (
            (a, lambda g: unbroadcast(g @ np.swapaxes(b.value, -1, -2), a.value.shape)),
            (b, lambda g: unbroadcast(np.swapaxes(a.value, -1, -2) @ g, b.value.shape))))


def unbroadcast(gradient, shape):
    """Sums a gradient over the axes along which numpy repeated an operand of this shape."""
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1 and gradient.shape[axis] != 1:
            gradient = gradient.sum(axis=axis, keepdims=True)
    return gradient


def binary(a, b, function, partials):
    a = a if isinstance(a, Node) else Node(a)
    b = b if isinstance(b, Node) else Node(b)
    full_a, full_b = np.broadcast_arrays(a.value, b.value)
    da, db = partials(full_a, full_b)
    return Node(function(a.value, b.value), (
        (a, lambda g: unbroadcast(g * da, a.value.shape)),
        (b, lambda g: unbroadcast(g * db, b.value.shape))))


def unary(a, value, slope):
    return Node(value, ((a, lambda g: g * slope),))


def exp(a):
    return unary(a, np.exp(a.value), np.exp(a.value))


def log(a):
    return unary(a, np.log(a.value), 1 / a.value)


def sqrt(a):
    return unary(a, np.sqrt(a.value), 0.5 / np.sqrt(a.value))


def tanh(a):
    return unary(a, np.tanh(a.value), 1 - np.tanh(a.value) ** 2)


def total(a, axis):
    return Node(a.value.sum(axis=axis, keepdims=True),
                ((a, lambda g: np.broadcast_to(g, a.value.shape)),))


def reshape(a, *shape):
    return Node(a.value.reshape(shape), ((a, lambda g: g.reshape(a.value.shape)),))


def swap(a, i, j):
    return Node(np.swapaxes(a.value, i, j), ((a, lambda g: np.swapaxes(g, i, j)),))


def take(a, index):
    def scatter(g):
        out = np.zeros_like(a.value)
        np.add.at(out, index, g)
        return out
    return Node(a.value[index], ((a, scatter),))


def backward(root):
    """Fills .grad of everything that root depends on; root is a single number."""
    order, seen = [], set()

    def visit(node):
        if id(node) in seen:
            return
        seen.add(id(node))
        for parent, _ in node.parents:
            visit(parent)
        order.append(node)

    visit(root)
    root.grad = np.ones_like(root.value)
    for node in reversed(order):
        for parent, flow in node.parents:
            parent.grad = parent.grad + flow(node.grad)


def layernorm(x, weight, bias):
    centred = x - total(x, -1) / C
    variance = total(centred * centred, -1) / C
    return centred / sqrt(variance + EPS) * weight + bias


def linear(x, weight, bias):
    return x @ swap(weight, 0, 1) + bias


def gelu(x):
    return x * 0.5 * (tanh((x + x * x * x * 0.044715) * np.sqrt(2 / np.pi)) + 1.0)


def heads(qkv, part):
    columns = take(qkv, (slice(None), slice(None), slice(part * C, (part + 1) * C)))
    return swap(reshape(columns, B, T, NH, C // NH), 1, 2)


def attention(qkv):
    q, k, v = heads(qkv, 0), heads(qkv, 1), heads(qkv, 2)
    scores = q @ swap(k, 2, 3) / np.sqrt(C // NH)
    weights = exp(scores) * np.tril(np.ones((T, T)))
    return reshape(swap(weights / total(weights, -1) @ v, 1, 2), B, T, C)


def model(p, tokens, labels):
    embedded = take(p["0.wte.weight"], tokens) + p["0.wpe.weight"]
    normed = layernorm(embedded, p["1.ln_1.weight"], p["1.ln_1.bias"])
    mixed = attention(linear(normed, p["1.attn.qkv.weight"], p["1.attn.qkv.bias"]))
    residual = embedded + linear(mixed, p["1.attn.proj.weight"], p["1.attn.proj.bias"])
    normed = layernorm(residual, p["1.ln_2.weight"], p["1.ln_2.bias"])
    hidden = gelu(linear(normed, p["1.mlp.fc.weight"], p["1.mlp.fc.bias"]))
    block = residual + linear(hidden, p["1.mlp.proj.weight"], p["1.mlp.proj.bias"])
    final = layernorm(block, p["2.weight"], p["2.bias"])
    logits = final @ swap(p["head"], 0, 1)
    rows = np.arange(B)[:, None], np.arange(T)[None, :], labels
    likelihood = log(total(exp(logits), -1))
    losses = reshape(likelihood, B, T) - take(logits, rows)
    loss = reshape(total(total(losses, 0), 1) / (B * T), 1)
    return loss, {"0": embedded, "1": block, "2": final, "3": logits}


def draw():
    random = np.random.default_rng(20240607)
    shapes = {
        "0.wte.weight": (V, C), "0.wpe.weight": (T, C),
        "1.ln_1.weight": (C,), "1.ln_1.bias": (C,),
        "1.attn.qkv.weight": (3 * C, C), "1.attn.qkv.bias": (3 * C,),
        "1.attn.proj.weight": (C, C), "1.attn.proj.bias": (C,),
        "1.ln_2.weight": (C,), "1.ln_2.bias": (C,),
        "1.mlp.fc.weight": (F, C), "1.mlp.fc.bias": (F,),
        "1.mlp.proj.weight": (C, F), "1.mlp.proj.bias": (C,),
        "2.weight": (C,), "2.bias": (C,),
    }
    values = {}
    for name, shape in shapes.items():
        centre = 1.0 if ("ln_" in name or name == "2.weight") and "weight" in name else 0.0
        value = centre + 0.4 * random.standard_normal(shape)
        values[name] = np.float32(np.round(value, 4)).astype(np.float64)
    return values, random.integers(0, V, (B, T)), random.integers(0, V, (B, T))


def run(values, tokens, labels):
    p = {name: Node(value) for name, value in values.items()}
    # The head has its own leaf with the embedding's value: each use of a tied parameter has its own
    # gradient, as in the daemon.
    p["head"] = Node(values["0.wte.weight"] if "head" not in values else values["head"])
    loss, activations = model(p, tokens, labels)
    return loss, activations, p


def check(values, tokens, labels, p):
    """Every gradient against central differences in float64."""
    values = dict(values, head=values["0.wte.weight"].copy())
    worst, h = 0.0, 1e-5
    for name in values:
        flat = values[name].reshape(-1)
        for i in range(flat.size):
            kept = flat[i]
            flat[i] = kept + h
            up = run(values, tokens, labels)[0].value[0]
            flat[i] = kept - h
            down = run(values, tokens, labels)[0].value[0]
            flat[i] = kept
            worst = max(worst, abs((up - down) / (2 * h) - p[name].grad.reshape(-1)[i]))
    assert worst < 1e-8, worst
    return worst


def numbers(array):
    return [float("%.9g" % value) for value in np.asarray(array).reshape(-1)]


def main():
    values, tokens, labels = draw()
    loss, activations, p = run(values, tokens, labels)
    backward(loss)
    worst = check(values, tokens, labels, p)
    out = {
        "generator": "tests/vectors/gpt2_reference.py",
        "B": B, "T": T, "C": C, "heads": NH, "ffn": F, "V": V, "eps": EPS,
        "tokens": tokens.reshape(-1).tolist(), "labels": labels.reshape(-1).tolist(),
        "loss": float("%.12g" % loss.value[0]),
        "parameters": {name: numbers(value) for name, value in values.items()},
        "outputs": {name: numbers(node.value) for name, node in activations.items()},
        "output_gradients": {name: numbers(node.grad) for name, node in activations.items()},
        "gradients": {name: numbers(p[name].grad) for name in values},
    }
    out["gradients"]["3.wte.weight"] = numbers(p["head"].grad)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gpt2_reference.json")
    with open(path, "w", encoding="ascii") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")
    print("loss %.9g, largest difference to central differences %.2g" % (loss.value[0], worst))


if __name__ == "__main__":
    main()
