# SPDX-License-Identifier: Apache-2.0
"""Layer files of a DeepSpeed pipeline become a checkpoint that a job starts from. A trained job's
weights are put into the field's form (Megatron's names, two model ranks, each of the three orders
of query_key_value, a padded vocabulary, a callable among the layers), converted and imported: the
job that loads them holds the very bytes. Every pickle that asks for more than tensors is refused by
the name it asks for, and what is damaged by what is wrong. Where torch can be imported, files that
it wrote itself are read too. Defects named: 112 (ranks sorted as text), 116 and 118 (keys by part
of a word; files of an embedding or a norm alone; what is split but not merged)."""

import json
import os
import pickle
import struct
import subprocess
import sys
import unittest
import zipfile

from cluster import CORPUS, ROOT, Cluster, job_text, run_client, temporary_folder

CONVERT = os.path.join(ROOT, "deploy/convert/convert_pt.py")
sys.path.insert(0, os.path.dirname(CONVERT))

import convert_pt  # noqa: E402: found beside the converter
import megatron  # noqa: E402: found beside the converter
import torch_file  # noqa: E402
import torch_writer  # noqa: E402

HEADS = 4
NAMES = {"attn.qkv": "self_attention.query_key_value", "attn.proj": "self_attention.dense",
         "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm",
         "mlp.fc": "mlp.dense_h_to_4h", "mlp.proj": "mlp.dense_4h_to_h",
         "wte": "word_embeddings", "wpe": "position_embeddings"}


def read_safetensors(path):
    """{name: (shape, tuple of f32)}."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["shape"], struct.unpack(
        "<%df" % ((entry["data_offsets"][1] - entry["data_offsets"][0]) // 4),
        data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]]))
        for name, entry in header.items()}


def rows_of(shape, values):
    width = len(values) // shape[0]
    return [values[i * width:(i + 1) * width] for i in range(shape[0])]


def flat(rows):
    return [v for row in rows for v in row]


def field_order(rows, version):
    """query_key_value's rows from all of Q, then K, then V."""
    size = len(rows) // 3 // HEADS
    at = lambda part, head, number: rows[(part * HEADS + head) * size + number]
    if version == "1.0":
        return [at(p, h, n) for h in range(HEADS) for n in range(size) for p in range(3)]
    if version == "2.0":
        return [at(p, h, n) for h in range(HEADS) for p in range(3) for n in range(size)]
    return list(rows)


def split(name, shape, values, version):
    """The tensor on two model ranks, as the field cuts it."""
    rows = rows_of(shape, values)
    half = len(rows) // 2
    if "query_key_value" in name:
        rows = field_order(rows, version)
        if version == "0":
            third, part = len(rows) // 3, len(rows) // 6
            cut = [flat([flat(rows[t * third + r * part:t * third + (r + 1) * part])
                         for t in range(3)]) for r in range(2)]
        else:
            cut = [flat(rows[:half]), flat(rows[half:])]
        return [(cut[r], [shape[0] // 2] + shape[1:]) for r in range(2)]
    if name.endswith(("dense_h_to_4h.weight", "dense_h_to_4h.bias", "word_embeddings.weight")):
        return [(flat(rows[:half]), [half] + shape[1:]), (flat(rows[half:]), [half] + shape[1:])]
    if name.endswith(("self_attention.dense.weight", "dense_4h_to_h.weight")):
        width = shape[1] // 2
        return [(flat([row[r * width:(r + 1) * width] for row in rows]), [shape[0], width])
                for r in range(2)]
    return [(values, shape)] * 2


def theirs(name):
    stem, _, last = name.rpartition(".")
    return "%s.%s" % (NAMES[stem], last) if stem in NAMES else name


class Converted(unittest.TestCase):
    def convert(self, *arguments):
        return subprocess.run([sys.executable, CONVERT] + list(arguments), text=True,
                              capture_output=True, timeout=120)

    def field_folder(self, folder, source, version, kind):
        """The checkpoint at source in the field's form; layer 3 of the pipeline is a callable, and
        the last layer's weight is the embedding's, written by nobody."""
        os.makedirs(folder)
        for layer in range(5):
            tensors = read_safetensors(
                os.path.join(source, "layer_%02d-model_states.safetensors" % layer))
            ranks = [{}, {}]
            for name, (shape, values) in tensors.items():
                name = theirs(name)
                if name == "word_embeddings.weight":
                    values = values + (7.0,) * (4 * shape[1])  # padding
                    shape = [shape[0] + 4] + shape[1:]
                for rank, (part, part_shape) in enumerate(split(name, shape, values, version)):
                    storage = torch_writer.Storage(part, kind)
                    ranks[rank][name] = torch_writer.Tensor(storage, part_shape,
                                                            parameter=len(part_shape) == 1)
            number = layer if layer < 3 else layer + 1
            for rank in range(2):
                torch_writer.save(os.path.join(
                    folder, "layer_%02d-model_%02d-model_states.pt" % (number, rank)),
                    ranks[rank])

    def test_a_job_starts_from_the_very_weights(self):
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "trained")
            text = job_text(name="origin", heads=HEADS, steps=2, directory=directory, every=2)
            cluster.train(cluster.write("origin.yaml", text)).check()
            source = os.path.join(directory, "step-%012d" % 2)
            for version, kind in (("2.0", "FloatStorage"), ("1.0", "DoubleStorage"),
                                  ("0", "FloatStorage")):
                self.check_version(cluster, source, version, kind)

    def check_version(self, cluster, source, version, kind):
        folder = lambda name: os.path.join(cluster.folder, "%s-%s" % (name, version))
        self.field_folder(folder("field"), source, version, kind)
        run = self.convert(folder("field"), folder("plain"), "--heads", str(HEADS), "--vocab",
                           "256", "--qkv", version, "--layers", "0-2=0,4-5=3")
        self.assertEqual(run.returncode, 0, run.stderr)
        own = os.path.join(folder("own"), "step-%012d" % 0)
        text = job_text(name="heir", heads=HEADS, steps=1, extra=(
            "checkpoint: {dir: %s, initial: true, every_steps: 0, load: {path: %s}}\n"
            % (folder("own"), os.path.join(cluster.folder, "imported", "v" + version))))
        job = cluster.write("heir-%s.yaml" % version, text)
        target = os.path.join("imported", "v" + version)
        run_client(["checkpoint", "import", folder("plain"), target, "--job", job],
                   cluster.folder).check()
        run_client(["checkpoint", "verify", target], cluster.folder).check()
        again = run_client(["checkpoint", "import", folder("plain"), target, "--job", job],
                           cluster.folder)
        self.assertIn("stands already", again.err)
        cluster.train(job).check()
        for name in os.listdir(source):
            if name.endswith("-model_states.safetensors"):
                with open(os.path.join(source, name), "rb") as a, \
                        open(os.path.join(own, name), "rb") as b:
                    self.assertEqual(a.read(), b.read(), (version, name))

    def test_import_names_what_does_not_fit_the_job(self):
        folder = temporary_folder("import")
        job = os.path.join(folder, "job.yaml")
        with open(job, "w") as file:
            file.write("schema: millrace.job/v1\nname: pair\nmodel:\n  layers:\n"
                       "    - {type: linear, in: 2, out: 3}\n    - {type: relu}\n"
                       "    - {type: linear, in: 3, out: 1, bias: false}\n  loss: mse\n"
                       "batch: {micro_batch_size: 1, sequence_length: 4}\n")
        plain = os.path.join(folder, "plain")

        def attempt(code, text, **layers):
            os.makedirs(plain, exist_ok=True)
            for name in os.listdir(plain):
                os.remove(os.path.join(plain, name))
            for name, tensors in layers.items():
                field = os.path.join(folder, "field")
                os.makedirs(field, exist_ok=True)
                torch_writer.save(os.path.join(field, "x.pt"), tensors)
                read = torch_file.read_tensors(os.path.join(field, "x.pt"))
                convert_pt.write_safetensors(
                    os.path.join(plain, "layer_%s-model_states.safetensors" % name[1:]), read)
            run = run_client(["checkpoint", "import", plain, os.path.join(folder, "to", "t"),
                              "--job", job], folder)
            self.assertEqual(run.code, code, run.err)
            self.assertIn(text, run.err)
            left = os.listdir(os.path.join(folder, "to")) if code else []
            self.assertFalse(left)
        tensor = lambda *shape: torch_writer.Tensor([1.0] * max(1, shape[0] * (
            shape[1] if len(shape) > 1 else 1)), shape)
        good = {"weight": tensor(3, 2), "bias": tensor(3)}
        last = {"weight": tensor(1, 3)}
        os.makedirs(os.path.join(folder, "to"))
        attempt(3, "layer 2: layer_02-model_states.safetensors is missing", _00=good)
        attempt(4, "layer 0: E_CKPT_MISSING tensor=bias", _00={"weight": tensor(3, 2)}, _02=last)
        attempt(4, "layer 0: E_CKPT_SHAPE tensor=weight want=[3,2] have=[2,3]",
                _00=dict(good, weight=tensor(2, 3)), _02=last)
        attempt(4, "layer 2: bias is not the job's", _00=good, _02=dict(last, bias=tensor(1)))
        attempt(4, "layer_07-model_states.safetensors is no file of a whole layer of the job",
                _00=good, _02=last, _07=last)
        attempt(0, "", _00=good, _02=last)


class Reader(unittest.TestCase):
    def setUp(self):
        self.path = os.path.join(temporary_folder("torch"), "layer.pt")

    def read(self, state, **options):
        torch_writer.save(self.path, state, **options)
        return torch_file.read_tensors(self.path)

    def refused(self, text, state, **options):
        with self.assertRaises(torch_file.TorchFileError) as caught:
            self.read(state, **options)
        self.assertIn(text, str(caught.exception))

    def values(self, tensor):
        return list(struct.unpack("<%df" % (len(tensor.data) // 4), tensor.data))

    def test_types_views_and_strides(self):
        for kind in ("FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage"):
            shared = torch_writer.Storage([float(i) for i in range(12)], kind)
            read = self.read({
                "all": torch_writer.Tensor(shared, (3, 4)),
                "row": torch_writer.Tensor(shared, (4,), offset=4),
                "turned": torch_writer.Tensor(shared, (4, 3), stride=(1, 4)),
                "one": torch_writer.Tensor(shared, (), offset=7),
                "none": torch_writer.Tensor(shared, (0, 4)),
            })
            self.assertEqual(self.values(read["all"]), [float(i) for i in range(12)])
            self.assertEqual(self.values(read["row"]), [4.0, 5.0, 6.0, 7.0])
            self.assertEqual(self.values(read["turned"]),
                             [float(4 * j + i) for i in range(4) for j in range(3)])
            self.assertEqual(self.values(read["one"]), [7.0])
            self.assertEqual(read["none"].data, b"")

    def test_a_pickle_that_asks_for_more_is_refused_by_name(self):
        marker = self.path + ".ran"

        class System:
            def __reduce__(self):
                return os.system, ("touch " + marker,)
        self.refused("asks for posix.system; only what rebuilds a tensor is allowed",
                     {"weight": System()})
        for module, name in (("builtins", "eval"), ("torch", "load"), ("collections", "deque"),
                             ("torch._utils", "_rebuild_tensor_v3"), ("torch.storage", "x")):
            text = b"\x80\x02c%s\n%s\n." % (module.encode(), name.encode())
            self.refused("asks for %s.%s" % (module, name), {}, pickled=text)
        self.assertFalse(os.path.exists(marker))

    def test_sizes_that_lie_are_refused(self):
        storage = torch_writer.Storage([1.0] * 6)
        tensor = lambda *args, **more: {"w": torch_writer.Tensor(storage, *args, **more)}
        self.refused("reaches element 7 of a storage of 6", tensor((2, 4)))
        self.refused("reaches element 6 of a storage of 6", tensor((2, 3), offset=1))
        self.refused("of a storage of 6", tensor((1 << 20, 1 << 20), stride=(0, 0)))
        self.refused("shape", tensor((-1,), stride=(1,)))
        self.refused("do not go together", tensor((2, 3), stride=(1,)))
        self.refused("6 elements of FloatStorage need 24",
                     tensor((2, 3)), cut=1)
        self.refused("not little-endian", tensor((6,)), byteorder=b"big")
        self.refused("is not a tensor by name", {"w": 3})
        self.refused("is not a dictionary", [1, 2])
        self.refused("its pickle is damaged", {}, pickled=b"\x80\x02}q")
        with open(self.path, "wb") as file:
            file.write(b"no zip")
        with self.assertRaisesRegex(torch_file.TorchFileError, "must be a zip file"):
            torch_file.read_tensors(self.path)

    def test_an_object_changed_after_its_making_is_checked_when_it_is_read(self):
        """A pickle may set what it likes on an object that it has made (BUILD)."""
        torch_writer.save(self.path, {"w": torch_writer.Tensor([1.0] * 4, (4,))})
        with zipfile.ZipFile(self.path) as archive:
            text = archive.read("archive/data.pkl")
        place = text.rindex(b"R")  # the tensor is made; its state follows
        state = pickle.dumps({"offset": 1 << 40}, protocol=2)[2:-1]
        self.refused("of a storage of 4", {"w": torch_writer.Tensor([1.0] * 4, (4,))},
                     pickled=text[:place + 1] + state + b"b" + text[place + 1:])

    def test_files_that_torch_wrote_are_read(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed here")
        whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
        torch.save({"a": whole, "t": whole.t(), "h": whole[1:3].half(), "b": whole.bfloat16(),
                    "p": torch.nn.Parameter(whole[0])}, self.path)
        read = torch_file.read_tensors(self.path)
        self.assertEqual(self.values(read["a"]), whole.flatten().tolist())
        self.assertEqual(self.values(read["t"]), whole.t().flatten().tolist())
        self.assertEqual(self.values(read["h"]), whole[1:3].flatten().tolist())
        self.assertEqual(self.values(read["b"]), whole.flatten().tolist())
        self.assertEqual(self.values(read["p"]), whole[0].tolist())
        torch.save(torch.nn.Linear(3, 2).state_dict(), self.path)
        self.assertEqual(sorted(torch_file.read_tensors(self.path)), ["bias", "weight"])


class Rules(unittest.TestCase):
    def tensor(self, value):
        rows = [row if isinstance(row, list) else [row] for row in value]
        shape = (len(value), len(rows[0])) if isinstance(value[0], list) else (len(value),)
        data = struct.pack("<%df" % (len(rows) * len(rows[0])), *flat(rows))
        return torch_file.Tensor(shape, data)

    def vectors(self, name):
        with open(os.path.join(ROOT, "tests/vectors/partition.json")) as file:
            return json.load(file)[name]

    def test_what_the_field_splits_is_merged_defect_118(self):
        for case in self.vectors("megatron_tp"):
            version = "0" if case["checkpoint_version"] == 0 else "2.0"
            for key, value in case["input"].items():
                for versions in ({version} | ({"1.0"} if version == "2.0" else set())):
                    merged = megatron.merge(key, [self.tensor(half[key]) for half in
                                                  case["split"]], versions)
                    self.assertEqual(merged, self.tensor(value), key)

    def test_files_of_an_embedding_or_a_norm_alone_defect_118(self):
        for case in self.vectors("megatron_tp_edge"):
            for key, value in case.get("input", {}).items():
                merged = megatron.merge(key, [self.tensor(half[key]) for half in case["result"]],
                                        "2.0")
                self.assertEqual(merged, self.tensor(value), key)

    def test_a_part_of_a_word_is_no_key_defect_116(self):
        one, two = self.tensor([[1.0]]), self.tensor([[2.0]])
        for name in ("my_attention.dense.weight", "attention.dense.weight.scale", "xmlp.dense"):
            with self.assertRaisesRegex(megatron.LayerError, "differs between model ranks 0 and 1"):
                megatron.merge(name, [one, two], "2.0")
        self.assertEqual(megatron.rename("my_attention.dense.weight"), "my_attention.dense.weight")
        self.assertEqual(megatron.rename("transformer.self_attention.dense.bias"),
                         "attn.proj.bias")

    def test_layers_and_ranks_count_as_numbers_defect_112(self):
        folder = temporary_folder("names")
        for layer in (9, 100, 11):
            for rank in range(101):
                open(os.path.join(folder, "layer_%02d-model_%02d-model_states.pt" % (layer, rank)),
                     "w").close()
        layers = convert_pt.layer_files(folder)
        self.assertEqual(list(layers), [9, 11, 100])
        self.assertTrue(layers[100][100].endswith("layer_100-model_100-model_states.pt"))
        self.assertTrue(layers[9][11].endswith("layer_09-model_11-model_states.pt"))
        os.remove(layers[11][50])
        with self.assertRaisesRegex(convert_pt.UsageError, "layer 11 has files of 100 model ranks "
                                                           "but none of rank 50"):
            convert_pt.layer_files(folder)

    def test_options_that_cannot_be_are_refused(self):
        self.assertEqual(convert_pt.layer_numbers("0=0,3-5=1"), {0: 0, 3: 1, 4: 2, 5: 3})
        for text in ("", "1", "a=1", "3-1=0", "1=2,1=3", "1=2,3=2"):
            with self.assertRaises(convert_pt.UsageError):
                convert_pt.layer_numbers(text)
        qkv = self.tensor([[1.0]] * 6)
        with self.assertRaisesRegex(megatron.LayerError, "give --heads N"):
            megatron.order_qkv(qkv, None, "2.0")
        with self.assertRaisesRegex(megatron.LayerError, "3 times 4 heads must divide it"):
            megatron.order_qkv(qkv, 4, "2.0")


if __name__ == "__main__":
    unittest.main()
