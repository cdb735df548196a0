# SPDX-License-Identifier: Apache-2.0
"""megatron.py: layers of the Megatron family: how their model ranks share each tensor, and what the
tensors are called in Millrace.

A tensor is known by the whole parts of its name from the end ("attention.dense.weight" in
"self_attention.attention.dense.weight", never in "my_attention.dense.weight2"); what is not known
here must be the same on all ranks. So whatever was split is merged, and a tensor that ranks hold in
different values is an error, not the first rank's.
"""

from torch_file import Tensor

ROWS = ("mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.bias", "word_embeddings.weight",
        "final_linear.weight", "lm_head.weight")
COLUMNS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")
QKV = ("attention.query_key_value.weight", "attention.query_key_value.bias")
VERSIONS = ("0", "1.0", "2.0")

# Megatron's names by their ends, the longer ones first, and Millrace's.
NAMES = (
    ("attention.query_key_value", "attn.qkv"),
    ("attention.dense", "attn.proj"),
    ("post_attention_layernorm", "ln_2"),
    ("input_layernorm", "ln_1"),
    ("mlp.dense_h_to_4h", "mlp.fc"),
    ("mlp.dense_4h_to_h", "mlp.proj"),
    ("word_embeddings", "wte"),
    ("position_embeddings", "wpe"),
    ("final_layernorm", ""),
    ("final_linear", ""),
    ("lm_head", ""),
    ("norm", ""),
)


class LayerError(Exception):
    """What is wrong with a layer: one sentence."""


def ends_with(name, end):
    """Do the last parts of name equal end, or end with "self_" before it ("self_attention")?"""
    parts = name.split(".")
    wanted = end.split(".")
    tail = parts[-len(wanted):]
    return tail[1:] == wanted[1:] and len(tail) == len(wanted) and \
        (tail[0] == wanted[0] or tail[0] == "self_" + wanted[0])


def _is(name, ends):
    return any(ends_with(name, end) for end in ends)


def _row_bytes(tensor):
    count = 4
    for n in tensor.shape[1:]:
        count *= n
    return count


def concatenate_rows(tensors):
    shape = tensors[0].shape
    if any(t.shape[1:] != shape[1:] for t in tensors):
        raise LayerError("shapes %s cannot be put below each other"
                         % ", ".join(str(list(t.shape)) for t in tensors))
    return Tensor((sum(t.shape[0] for t in tensors),) + shape[1:],
                  b"".join(t.data for t in tensors))


def concatenate_columns(tensors):
    rows = tensors[0].shape[0]
    if any(len(t.shape) != 2 or t.shape[0] != rows for t in tensors):
        raise LayerError("shapes %s cannot be put beside each other"
                         % ", ".join(str(list(t.shape)) for t in tensors))
    widths = [_row_bytes(t) for t in tensors]
    data = b"".join(t.data[i * w:(i + 1) * w] for i in range(rows)
                    for t, w in zip(tensors, widths))
    return Tensor((rows, sum(t.shape[1] for t in tensors)), data)


def _thirds(tensor):
    if tensor.shape[0] % 3 != 0:
        raise LayerError("query_key_value has %d rows; it must be three equal parts"
                         % tensor.shape[0])
    rows = tensor.shape[0] // 3
    size = rows * _row_bytes(tensor)
    return [Tensor((rows,) + tensor.shape[1:], tensor.data[i * size:(i + 1) * size])
            for i in range(3)]


def merge(name, tensors, version):
    """The whole tensor from those of all model ranks, in their order."""
    if any(t.data is None for t in tensors):
        raise LayerError("%s is of integers; a weight must be of floating-point numbers" % name)
    if _is(name, QKV) and version == "0":
        parts = zip(*[_thirds(t) for t in tensors])
        return concatenate_rows([concatenate_rows(part) for part in parts])
    if _is(name, QKV) or _is(name, ROWS):
        return concatenate_rows(tensors)
    if _is(name, COLUMNS):
        return concatenate_columns(tensors)
    for rank, tensor in enumerate(tensors):
        if tensor != tensors[0]:
            raise LayerError("%s differs between model ranks 0 and %d, and is not known as one "
                             "that they share out" % (name, rank))
    return tensors[0]


def order_qkv(tensor, heads, version):
    """Rows of all of Q, then K, then V, from whole rows in a version's order: 0 has that order; in
    1.0 each number of a head has its q, k and v together, in 2.0 each head has."""
    if version == "0":
        return tensor
    if heads is None:
        raise LayerError("query_key_value of version %s is ordered by heads: give --heads N"
                         % version)
    rows = tensor.shape[0]
    if rows % (3 * heads) != 0:
        raise LayerError("query_key_value has %d rows; 3 times %d heads must divide it"
                         % (rows, heads))
    size = rows // (3 * heads)
    width = _row_bytes(tensor)

    def row_of(part, head, number):
        if version == "1.0":
            return (head * size + number) * 3 + part
        return (head * 3 + part) * size + number
    order = (row_of(part, head, number) for part in range(3) for head in range(heads)
             for number in range(size))
    return Tensor(tensor.shape, b"".join(tensor.data[r * width:(r + 1) * width] for r in order))


def rename(name):
    """Millrace's name; a name that is not known stays."""
    stem, point, last = name.rpartition(".")
    for theirs, ours in NAMES:
        if point and ends_with(stem, theirs):
            return ours + "." + last if ours else last
    return name


def convert(ranks, version, heads=None, vocabulary=None):
    """{Millrace's name: whole tensor} of one layer from the {name: tensor} of its model ranks."""
    names = list(ranks[0])
    for rank, tensors in enumerate(ranks):
        if sorted(tensors) != sorted(names):
            odd = sorted(set(tensors) ^ set(names))
            raise LayerError("model ranks 0 and %d do not have the same tensors: %s"
                             % (rank, ", ".join(odd)))
    layer = {}
    for name in names:
        whole = merge(name, [tensors[name] for tensors in ranks], version)
        if _is(name, QKV):
            whole = order_qkv(whole, heads, version)
        if vocabulary is not None and _is(name, ("word_embeddings.weight", "final_linear.weight",
                                                 "lm_head.weight")):
            whole = cut_rows(name, whole, vocabulary)
        ours = rename(name)
        if ours in layer:
            raise LayerError("two tensors would be called %s, one of them %s" % (ours, name))
        layer[ours] = whole
    return layer


def cut_rows(name, tensor, rows):
    """Without the rows that only pad a vocabulary."""
    if tensor.shape[0] < rows:
        raise LayerError("%s has %d rows; --vocab %d is more" % (name, tensor.shape[0], rows))
    return Tensor((rows,) + tensor.shape[1:], tensor.data[:rows * _row_bytes(tensor)])
