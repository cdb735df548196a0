# SPDX-License-Identifier: Apache-2.0
"""torch_file.py: reads the tensors of a `.pt` file (the zip form that torch has written since 1.6)
with Python's own library alone, as plain bytes.

Such a file holds a pickle, and a pickle is a program. Here it may do nothing but name tensors: the
only functions that it can reach are the few that rebuild a tensor, an ordered dictionary or a
parameter, each replaced by one of ours, and every other name ends the reading with an error that
says which. What it says of sizes, offsets and strides is checked against the bytes that are there.
"""

import array
import collections
import io
import math
import pickle
import struct
import sys
import zipfile

PICKLE_BYTES_MAX = 64 << 20
TENSORS_MAX = 65536
DIMENSIONS_MAX = 6


class TorchFileError(Exception):
    """What is wrong with a file: one sentence."""


# Storage classes of torch: element bytes, and how the bytes become f32.
def _from_f32(data):
    return data


def _from_bf16(data):
    out = bytearray(2 * len(data))  # bf16 is the upper half of f32
    out[2::4] = data[0::2]
    out[3::4] = data[1::2]
    return bytes(out)


def _from_f16(data):
    count = len(data) // 2
    return struct.pack("<%df" % count, *struct.unpack("<%de" % count, data))


def _from_f64(data):
    values = array.array("d", data)
    if sys.byteorder != "little":
        values.byteswap()
    count = len(values)
    return struct.pack("<%df" % count, *values)


STORAGES = {
    "FloatStorage": (4, _from_f32),
    "BFloat16Storage": (2, _from_bf16),
    "HalfStorage": (2, _from_f16),
    "DoubleStorage": (8, _from_f64),
    # Of integers nothing becomes a weight; they are read over.
    "LongStorage": (8, None),
    "IntStorage": (4, None),
    "ShortStorage": (2, None),
    "CharStorage": (1, None),
    "ByteStorage": (1, None),
    "BoolStorage": (1, None),
}


class Tensor:
    """shape, and f32 data in C order; data is None for a tensor of integers."""

    def __init__(self, shape, data):
        self.shape = tuple(shape)
        self.data = data

    def __eq__(self, other):
        return self.shape == other.shape and self.data == other.data


class _StorageType:
    def __init__(self, name):
        self.name = name


class _Storage:
    def __init__(self, kind, key, count):
        self.kind = kind
        self.key = key
        self.count = count


class _View:
    """A tensor as the pickle names it: bytes are read later."""

    def __init__(self, storage, offset, shape, stride):
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.stride = stride


def _whole_numbers(values, what):
    if not isinstance(values, tuple) or len(values) > DIMENSIONS_MAX or \
            any(type(v) is not int or v < 0 or v >= 1 << 62 for v in values):
        raise TorchFileError("a tensor's %s is %r; it must be up to %d whole numbers"
                             % (what, values, DIMENSIONS_MAX))
    return values


def _rebuild_tensor(storage, offset, shape, stride, *_rest):
    return _View(storage, offset, shape, stride)


def _rebuild_parameter(data, *_rest):
    return data


def _ordered_dict(*arguments):
    if arguments:
        raise TorchFileError("an OrderedDict is made from arguments; torch makes it empty")
    return collections.OrderedDict()


_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): _ordered_dict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if module == "torch" and name in STORAGES:
            return _StorageType(name)
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise TorchFileError("the pickle asks for %s.%s; only what rebuilds a tensor is allowed"
                             % (module, name))

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or \
                not isinstance(pid[1], _StorageType) or not isinstance(pid[2], str) or \
                type(pid[4]) is not int or pid[4] < 0:
            raise TorchFileError("the pickle names something that is no storage")
        return _Storage(pid[1].name, pid[2], pid[4])


def _check_view(view):
    """Checked when the tensor is read, because a pickle can change an object that it has made."""
    storage = view.storage
    if not isinstance(storage, _Storage) or storage.kind not in STORAGES or \
            not isinstance(storage.key, str) or type(storage.count) is not int:
        raise TorchFileError("a tensor's storage is no storage")
    _whole_numbers(view.shape, "shape")
    _whole_numbers(view.stride, "stride")
    if len(view.shape) != len(view.stride) or type(view.offset) is not int or view.offset < 0:
        raise TorchFileError("a tensor's shape %r, stride %r and offset %r do not go together"
                             % (view.shape, view.stride, view.offset))
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride))
    if 0 not in view.shape and (last >= storage.count or
                                math.prod(view.shape) > storage.count):
        raise TorchFileError("a tensor of shape %r reaches element %d of a storage of %d"
                             % (view.shape, last, storage.count))


def _gather(data, view, size):
    """The view's elements in C order; size: bytes of one."""
    expected = []
    step = 1
    for n in reversed(view.shape):
        expected.insert(0, step)
        step *= n
    plain = all(n <= 1 or s == e for n, s, e in zip(view.shape, view.stride, expected))
    if plain:
        return data[view.offset * size:(view.offset + step) * size]
    offsets = [view.offset]
    for n, s in zip(view.shape, view.stride):
        offsets = [o + i * s for o in offsets for i in range(n)]
    return b"".join(data[o * size:(o + 1) * size] for o in offsets)


class _Archive:
    def __init__(self, path):
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise TorchFileError("%s: %s; it must be a zip file as torch.save writes since 1.6"
                                 % (path, error)) from None
        names = [n for n in self.zip.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise TorchFileError("%s has %d entries data.pkl; it must have one"
                                 % (path, len(names)))
        self.prefix = names[0][:-len("data.pkl")]

    def read(self, name, limit):
        try:
            info = self.zip.getinfo(self.prefix + name)
            if info.file_size > limit:
                raise TorchFileError("%s: %s has %d bytes; the most is %d"
                                     % (self.path, name, info.file_size, limit))
            return self.zip.read(info)
        except KeyError:
            raise TorchFileError("%s lacks %s" % (self.path, name)) from None
        except (zipfile.BadZipFile, EOFError) as error:
            raise TorchFileError("%s: %s: %s" % (self.path, name, error)) from None

    def check_order(self):
        if self.prefix + "byteorder" in self.zip.namelist() and \
                self.read("byteorder", 16) != b"little":
            raise TorchFileError("%s: its numbers are not little-endian" % self.path)

    def tensor(self, view):
        _check_view(view)
        size, widen = STORAGES[view.storage.kind]
        if widen is None:
            return Tensor(view.shape, None)
        wanted = view.storage.count * size
        data = self.read("data/" + view.storage.key, wanted)
        if len(data) != wanted:
            raise TorchFileError("%s: storage %s has %d bytes; %d elements of %s need %d"
                                 % (self.path, view.storage.key, len(data), view.storage.count,
                                    view.storage.kind, wanted))
        return Tensor(view.shape, widen(_gather(data, view, size)))


def read_tensors(path):
    """{name: Tensor} of a file that is one dictionary of tensors (a layer's state)."""
    archive = _Archive(path)
    archive.check_order()
    try:
        root = _Unpickler(io.BytesIO(archive.read("data.pkl", PICKLE_BYTES_MAX))).load()
    except TorchFileError as error:
        raise TorchFileError("%s: %s" % (path, error)) from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise TorchFileError("%s: its pickle is damaged: %s" % (path, error)) from None
    if not isinstance(root, dict) or len(root) > TENSORS_MAX:
        raise TorchFileError("%s is not a dictionary of up to %d tensors" % (path, TENSORS_MAX))
    tensors = {}
    for name, view in root.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise TorchFileError("%s: %r is not a tensor by name" % (path, name))
        tensors[name] = archive.tensor(view)
    return tensors
