#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""convert_pt.py: layer files of a DeepSpeed pipeline checkpoint become files that `millrace
checkpoint import` takes. Needs Python 3 and nothing else; see README.md beside this file.

    convert_pt.py FOLDER OUT [--heads N] [--qkv 2.0] [--vocab N] [--layers FROM=TO,...]
"""

import argparse
import json
import os
import re
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import megatron  # noqa: E402: its folder is the script's
import torch_file  # noqa: E402

LAYER_FILE = re.compile(r"layer_(\d{2,9})(?:-model_(\d{2,9}))?-model_states\.pt")


class UsageError(Exception):
    """What is wrong with the folder or the options: one sentence."""


def layer_files(folder):
    """{layer: [path by model rank]}; layers and ranks count as numbers, however many digits."""
    found = {}
    for name in os.listdir(folder):
        match = LAYER_FILE.fullmatch(name)
        if match:
            ranks = found.setdefault(int(match[1]), {})
            rank = None if match[2] is None else int(match[2])
            if rank in ranks:
                raise UsageError("%s and %s are the same layer and rank" % (name, ranks[rank]))
            ranks[rank] = name
    if not found:
        raise UsageError("%s has no file layer_NN-model_states.pt" % folder)
    layers = {}
    for layer, ranks in sorted(found.items()):
        if None in ranks and len(ranks) > 1:
            raise UsageError("layer %d: %s stands beside files of single model ranks"
                             % (layer, ranks[None]))
        wanted = [None] if None in ranks else list(range(len(ranks)))
        for rank in wanted:
            if rank not in ranks:
                raise UsageError("layer %d has files of %d model ranks but none of rank %d"
                                 % (layer, len(ranks), rank))
        layers[layer] = [os.path.join(folder, ranks[rank]) for rank in wanted]
    widths = {len(paths) for paths in layers.values()}
    if len(widths) > 1:
        raise UsageError("layers have files of %s model ranks; all must have the same"
                         % " and ".join(str(w) for w in sorted(widths)))
    return layers


def layer_numbers(text):
    """{from: to} of "3=1,4=2" or "3-26=1" (a run, counted on)."""
    numbers = {}
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?=(\d{1,9})", part)
        if not match or (match[2] is not None and int(match[2]) < int(match[1])):
            raise UsageError("--layers has %r; it must be FROM=TO or FIRST-LAST=TO" % part)
        first = int(match[1])
        for i in range(int(match[2] or first) - first + 1):
            if first + i in numbers:
                raise UsageError("--layers names layer %d twice" % (first + i))
            numbers[first + i] = int(match[3]) + i
    if len(set(numbers.values())) != len(numbers):
        raise UsageError("--layers gives two layers one number")
    return numbers


def write_safetensors(path, tensors):
    header = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [begin, begin + len(tensor.data)]}
        begin += len(tensor.data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.data)


def convert_folder(folder, out, version, heads, vocabulary, numbers):
    """Writes the layers; returns how many."""
    layers = layer_files(folder)
    for layer in numbers or {}:
        if layer not in layers:
            raise UsageError("--layers names layer %d; the folder has no file of it" % layer)
    os.makedirs(out, exist_ok=True)
    if os.listdir(out):
        raise UsageError("%s is not empty" % out)
    written = 0
    for layer, paths in layers.items():
        if numbers is not None and layer not in numbers:
            print("layer %d is left out: --layers does not name it" % layer, file=sys.stderr)
            continue
        ranks = [torch_file.read_tensors(path) for path in paths]
        try:
            tensors = megatron.convert(ranks, version, heads, vocabulary)
        except megatron.LayerError as error:
            raise UsageError("layer %d: %s" % (layer, error)) from None
        number = layer if numbers is None else numbers[layer]
        if tensors:
            name = "layer_%02d-model_states.safetensors" % number
            write_safetensors(os.path.join(out, name), tensors)
            written += 1
    return written


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", help="the checkpoint's folder with layer_*-model_states.pt")
    parser.add_argument("out", help="folder to write to; must not exist or be empty")
    parser.add_argument("--heads", type=int, help="attention heads; needed for --qkv 1.0 and 2.0")
    parser.add_argument("--qkv", choices=megatron.VERSIONS, default="2.0",
                        help="order of query_key_value rows; layer files have 2.0 (default)")
    parser.add_argument("--vocab", type=int, help="rows of the vocabulary without its padding")
    parser.add_argument("--layers", help="FROM=TO or FIRST-LAST=TO, comma between; default: as is")
    options = parser.parse_args(arguments)
    for name in ("heads", "vocab"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error("--%s is %d; it must be at least 1" % (name, value))
    try:
        numbers = None if options.layers is None else layer_numbers(options.layers)
        written = convert_folder(options.folder, options.out, options.qkv, options.heads,
                                 options.vocab, numbers)
    except (UsageError, torch_file.TorchFileError, OSError) as error:
        print("convert_pt: %s" % error, file=sys.stderr)
        return 1
    print("%d layers written to %s" % (written, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
