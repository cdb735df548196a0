# SPDX-License-Identifier: Apache-2.0
"""Tensors put aside (skip connections), to the bit, across real processes.

Method: a small model whose layers put tensors aside by name and take them several layers later is
trained whole and cut so that a tensor is taken on its own stage, on the next one, and behind a
stage that has nothing to do with it; two of them cross the same link. Losses, norm and checkpoint
bytes are those of one stage, with every schedule, with recomputation, with replicas, in bf16, after
a stop; and what is drawn from the trained model is the same text."""

import os
import shutil
import unittest

from checkpoint_files import digests, step_folder
from cluster import CORPUS, Cluster

STEPS = 6
JOB = """schema: millrace.job/v1
name: %(name)s
model:
  layers:
    - {type: embedding, vocab: 256, dim: 32, positions: 16, put: tokens}
    - {type: transformer_block, dim: 32, heads: 2, dropout: 0.1}
    - {type: linear, in: 32, out: 32, put: middle%(frozen)s}
    - {type: gelu}
    - {type: layernorm, dim: 32}
    - {type: add, take: middle}
    - {type: add, take: tokens}
    - {type: transformer_block, dim: 32, heads: 2}
    - {type: add, take: tokens, put: late}
    - {type: layernorm, dim: 32}
    - {type: add, take: late}
    - {type: lm_head, dim: 32, vocab: 256}
pipeline: {topology: {pipe: %(pipe)d, data: %(data)d}, partition: %(partition)s%(more)s}
batch: {micro_batch_size: 2, micro_batches: 4, sequence_length: 16}
optimizer: {type: adamw, lr: 1e-2, grad_clip: 1.0}
lr_schedule: {type: constant, total_steps: 6}
precision: %(precision)s
data: {format: bytes, train: corpus.txt, shuffle: true}
checkpoint: {dir: %(directory)s, every_steps: 2}
"""


class AsideLaw1(unittest.TestCase):
    maxDiff = None

    def train(self, cluster, name, pipe, partition="uniform", more="", precision="fp32", data=1,
              resume=None, frozen=""):
        directory = resume or os.path.join(cluster.folder, "checkpoints-" + name)
        path = cluster.write(name + ".yaml", JOB % {
            "name": name, "pipe": pipe, "partition": partition, "more": more, "data": data,
            "precision": precision, "directory": directory, "frozen": frozen})
        run = cluster.train(path, *(["--resume"] if resume else [])).check()
        last = cluster.client("-o", "json", "job", "get", name).check().json()["job"]
        bits = [(s["loss"], s["grad_norm"]) for s in run.steps()]
        bits.append((repr(last["loss"]), repr(last["gradient_norm"])))
        return bits, digests(step_folder(directory, STEPS)), directory

    def check_cuts(self, cluster, name, **options):
        bits, files, directory = self.train(cluster, name + "-whole", 1, **options)
        self.assertLess(bits[STEPS - 1][0], bits[0][0])
        again = ", activation_checkpoint_interval: %d, schedule: %s"
        for number, (pipe, partition, more) in enumerate((
                (2, "uniform", ""), (3, "[0, 1, 5, 12]", ", schedule: gpipe"),
                (4, "[0, 3, 4, 8, 12]", ""), (4, "[0, 1, 2, 11, 12]", again % (2, "1f1b")),
                (1, "uniform", again % (1, "gpipe")), (2, "profile", ""),
                (3, "[0, 6, 8, 12]", again % (3, "gpipe")))):
            with self.subTest(partition=partition, more=more):
                other, same, _ = self.train(cluster, "%s-%d" % (name, number), pipe, partition,
                                            more, **options)
                self.assertEqual((other, same), (bits, files))
        return bits, files, directory

    def test_every_cut_gives_the_same_bits_and_goes_on_after_a_stop(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            bits, files, directory = self.check_cuts(cluster, "f32")
            copy = os.path.join(cluster.folder, "stopped")
            os.mkdir(copy)
            shutil.copytree(step_folder(directory, 2), step_folder(copy, 2))
            other, same, _ = self.train(cluster, "f32-whole", 4, "[0, 2, 3, 7, 12]", resume=copy)
            self.assertEqual((other, same), (bits[2:], files))

    def test_bf16_gives_the_same_bits_in_every_cut(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            self.check_cuts(cluster, "bf16", precision="bf16")

    def test_replicas_and_frozen_layers_keep_to_it(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for name, options in {"plain": {}, "held": {"frozen": ", frozen: true"}}.items():
                one = self.train(cluster, name + "-1", 1, data=2, **options)
                two = self.train(cluster, name + "-2", 2, "[0, 4, 12]", data=2, **options)
                self.assertEqual(two[:2], one[:2])

    def test_text_is_drawn_the_same_way_through_any_cut(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            _, _, directory = self.train(cluster, "text", 1)
            texts = set()
            for pipe, partition in ((1, "uniform"), (3, "[0, 1, 5, 12]")):
                path = cluster.write("text.yaml", JOB % {
                    "name": "text", "pipe": pipe, "partition": partition, "more": "",
                    "data": 1, "precision": "fp32", "directory": directory, "frozen": ""})
                texts.add(cluster.client("generate", path, "--prompt", "water", "--tokens",
                                         "12").check().out)
            self.assertEqual(len(texts), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
