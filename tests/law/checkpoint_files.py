# SPDX-License-Identifier: Apache-2.0
"""What the law tests read of a checkpoint: digests of its layer files, and tensors by name."""

import hashlib
import json
import os


def digests(folder):
    """SHA-256 of each layer file of a checkpoint."""
    result = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("layer_"):
            with open(os.path.join(folder, name), "rb") as file:
                result[name] = hashlib.sha256(file.read()).hexdigest()
    return result


def tensors(folder, layer, kind="model"):
    """Bytes of each tensor of a layer's file, by name; {} where the layer has no such file."""
    path = os.path.join(folder, "layer_%02d-%s_states.safetensors" % (layer, kind))
    if not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        data = file.read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    return {name: data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]]
            for name, entry in header.items() if name != "__metadata__"}


def step_folder(directory, step):
    return os.path.join(directory, "step-%012d" % step)
