# SPDX-License-Identifier: Apache-2.0
"""torch_writer.py: files in the form of torch.save, without torch: a zip of one pickle and the
bytes of the storages. A test of the reader needs files whose every part it can choose."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

KINDS = {"FloatStorage": ("f", 4), "HalfStorage": ("e", 2), "DoubleStorage": ("d", 8),
         "LongStorage": ("q", 8), "BFloat16Storage": (None, 2)}


def _modules():
    """Modules of torch's names for the pickler to refer to."""
    torch = types.ModuleType("torch")
    utils = types.ModuleType("torch._utils")
    for kind in KINDS:
        setattr(torch, kind, type(kind, (), {"__module__": "torch", "__qualname__": kind}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        def function(*_arguments):
            raise AssertionError("only referred to")
        function.__module__ = "torch._utils"
        function.__name__ = function.__qualname__ = name
        setattr(utils, name, function)
    return {"torch": torch, "torch._utils": utils}


MODULES = _modules()


class Storage:
    def __init__(self, values, kind="FloatStorage"):
        self.kind = kind
        self.count = len(values)
        code, _ = KINDS[kind]
        if code is None:  # bf16: the upper half of f32
            data = struct.pack("<%df" % self.count, *values)
            self.data = b"".join(data[i + 2:i + 4] for i in range(0, len(data), 4))
        else:
            self.data = struct.pack("<%d%s" % (self.count, code), *values)


class Tensor:
    """A view of a storage; stride None: C order."""

    def __init__(self, storage, shape, stride=None, offset=0, parameter=False):
        self.storage = storage if isinstance(storage, Storage) else Storage(storage)
        self.shape = tuple(shape)
        self.offset = offset
        self.parameter = parameter
        self.stride = stride
        if stride is None:
            self.stride, step = (), 1
            for n in reversed(self.shape):
                self.stride = (step,) + self.stride
                step *= n

    def __reduce__(self):
        utils = MODULES["torch._utils"]
        plain = (utils._rebuild_tensor_v2, (self.storage, self.offset, self.shape, self.stride,
                                            False, collections.OrderedDict()))
        if not self.parameter:
            return plain
        return utils._rebuild_parameter, (Tensor(self.storage, self.shape, self.stride,
                                                 self.offset), True, collections.OrderedDict())


class _Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        if value not in self.storages:
            self.storages.append(value)
        return ("storage", getattr(MODULES["torch"], value.kind),
                str(self.storages.index(value)), "cpu", value.count)


def save(path, state, byteorder=b"little", pickled=None, cut=0):
    """state: {name: Tensor} or anything; pickled: these bytes instead; cut: bytes that the first
    storage lacks."""
    buffer = io.BytesIO()
    saved = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    try:
        pickler = _Pickler(buffer)
        pickler.dump(state)
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue() if pickled is None else pickled)
        if byteorder is not None:
            archive.writestr("archive/byteorder", byteorder)
        for key, storage in enumerate(pickler.storages):
            data = storage.data[:len(storage.data) - (cut if key == 0 else 0)]
            archive.writestr("archive/data/%d" % key, data)
        archive.writestr("archive/version", b"3\n")
