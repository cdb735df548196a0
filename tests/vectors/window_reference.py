#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reference values of convolution and pooling: outputs and every gradient.

Independent of the daemon: float64, by definition. An output is the sum (or the largest) over what
lies under the window, index by index; no product, no gathered columns. A gradient is taken from the
outputs alone: p = sum dy_i y_i is linear in x, in w and in b by themselves, so its derivative by one
element is what p becomes when that element is one and all others of its tensor are zero; pooling is
linear between corners, and there it is a difference quotient over a step that meets no corner. All
inputs are float32 values, so that the C test starts from the very same numbers.

Writes window_reference.json beside itself; needs Python alone.
    python3 tests/vectors/window_reference.py
"""
import itertools
import json
import os
import random


def positions(size, keys):
    return (size + 2 * keys["padding"] - keys["kernel"]) // keys["stride"] + 1


def under(keys, shape, at):
    """Indices (h, w) of the input under the window at output position at, with (i, j) in it."""
    for i, j in itertools.product(range(keys["kernel"]), repeat=2):
        h = at[0] * keys["stride"] + i - keys["padding"]
        w = at[1] * keys["stride"] + j - keys["padding"]
        if 0 <= h < shape[2] and 0 <= w < shape[3]:
            yield h, w, i, j


def index(shape, *at):
    flat = 0
    for size, part in zip(shape, at):
        flat = flat * size + part
    return flat


def convolve(keys, shape, x, w, b):
    n, channels, height, width = shape
    out = []
    for s, o in itertools.product(range(n), range(keys["out"])):
        for at in itertools.product(range(positions(height, keys)), range(positions(width, keys))):
            total = b[o] if b else 0.0
            for c in range(channels):
                for h, v, i, j in under(keys, shape, at):
                    kernel = (keys["out"], channels, keys["kernel"], keys["kernel"])
                    total += x[index(shape, s, c, h, v)] * w[index(kernel, o, c, i, j)]
            out.append(total)
    return out


def pool(keys, shape, x):
    n, channels, height, width = shape
    return [max(x[index(shape, s, c, h, v)] for h, v, _, _ in under(keys, shape, at))
            for s, c in itertools.product(range(n), range(channels))
            for at in itertools.product(range(positions(height, keys)),
                                        range(positions(width, keys)))]


def dot(a, b):
    return sum(p * q for p, q in zip(a, b))


def one(count, at):
    return [1.0 if i == at else 0.0 for i in range(count)]


def numbers(generator, count):
    """Multiples of 2^-6 in (-1, 1): float32 holds them."""
    return [generator.randrange(-63, 64) / 64 for _ in range(count)]


def conv_case(generator, shape, bias, **keys):
    n, channels, height, width = shape
    weights = keys["out"] * channels * keys["kernel"] ** 2
    x = numbers(generator, n * channels * height * width)
    w = numbers(generator, weights)
    b = numbers(generator, keys["out"]) if bias else []
    y = convolve(keys, shape, x, w, b)
    dy = numbers(generator, len(y))
    zero = [0.0] * len(b)
    no_x = [0.0] * len(x)
    return {
        "type": "conv2d", "keys": keys, "bias": bias, "input": shape, "x": x, "dy": dy, "y": y,
        "weight": w, "bias_values": b,
        "dx": [dot(dy, convolve(keys, shape, one(len(x), i), w, zero)) for i in range(len(x))],
        "dweight": [dot(dy, convolve(keys, shape, x, one(weights, i), zero))
                    for i in range(weights)],
        "dbias": [dot(dy, convolve(keys, shape, no_x, w, one(len(b), i))) for i in range(len(b))],
    }


def pool_case(generator, shape, **keys):
    n, channels, height, width = shape
    count = n * channels * height * width
    x = [(i - count // 2) / 8 for i in range(count)]
    generator.shuffle(x)
    y = pool(keys, shape, x)
    dy = numbers(generator, len(y))
    step = 1 / 64

    def moved(at, by):
        return dot(dy, pool(keys, shape, x[:at] + [x[at] + by] + x[at + 1:]))
    return {
        "type": "maxpool2d", "keys": keys, "input": shape, "x": x, "dy": dy, "y": y,
        "dx": [(moved(i, step) - moved(i, -step)) / (2 * step) for i in range(count)],
    }


def main():
    generator = random.Random(20)
    cases = [
        conv_case(generator, (2, 3, 6, 5), True, out=4, kernel=3, stride=1, padding=1),
        conv_case(generator, (1, 2, 9, 7), True, out=3, kernel=5, stride=2, padding=2),
        conv_case(generator, (2, 1, 5, 8), False, out=2, kernel=2, stride=3, padding=1),
        conv_case(generator, (3, 4, 3, 3), True, out=5, kernel=1, stride=1, padding=0),
        pool_case(generator, (2, 3, 6, 4), kernel=2, stride=2, padding=0),
        pool_case(generator, (1, 2, 7, 8), kernel=3, stride=2, padding=1),
        pool_case(generator, (2, 1, 5, 5), kernel=3, stride=1, padding=0),
    ]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "window_reference.json")
    with open(path, "w", encoding="ascii") as file:
        json.dump({"about": "written by window_reference.py", "cases": cases}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
