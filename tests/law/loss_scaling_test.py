# SPDX-License-Identifier: Apache-2.0
"""The loss is scaled exactly once (law 7), in real stages: deepspeed.md 88. The field summed
gradients over microbatches in one release and divided by their number once for each stage in
another.

Method: its own case, two linear layers of one weight each, weight 1, input 1, target 0, squared
error, two microbatches, SGD with lr 0.1: both weights are 0.8 after one step, whichever stage holds
them; divided on each stage the first would be 0.9, summed both would be 0.6. The same weights for
1 x 16 and 16 x 1 microbatches, to the bit where every term is the same power of two. Then a small
GPT whose steps are one microbatch of 16 samples, 16 of one, and two of four on each of two
replicas: the same samples, and the same weights within the rounding of the sums."""

import os
import struct
import unittest

from checkpoint_files import step_folder, tensors
from cluster import CORPUS, Cluster
from feeding import feed_job

STEPS, LAYERS = 3, 5
TOLERANCE = 2e-6

PAIR = """schema: millrace.job/v1
name: %(name)s
model:
  layers:
    - {type: linear, in: 1, out: 1, bias: false}
    - {type: linear, in: 1, out: 1, bias: false}
  loss: mse
pipeline: {stages: %(stages)d, partition: uniform}
batch: {micro_batch_size: %(size)d, micro_batches: %(count)d, sequence_length: 1}
optimizer: {type: sgd, lr: 0.1}
lr_schedule: {type: constant, total_steps: 1}
checkpoint: {dir: %(directory)s, load: {path: ones/start}}
"""

GPT = """schema: millrace.job/v1
name: %(name)s
seed: 7
model:
  layers:
    - {type: embedding, tie: embed, vocab: 256, dim: 16, positions: 16}
    - {type: transformer_block, repeat: 2, dim: 16, heads: 2}
    - {type: layernorm, dim: 16}
    - {type: lm_head, tie: embed}
pipeline: {topology: {pipe: %(stages)d, data: %(replicas)d}, partition: uniform}
batch: {micro_batch_size: %(size)d, micro_batches: %(count)d, sequence_length: 16}
optimizer: {type: sgd, lr: 0.5, grad_clip: 1.0}
lr_schedule: {type: constant, total_steps: 3}
data: {format: bytes, train: corpus.txt, shuffle: false}
checkpoint: {dir: %(directory)s}
"""


def floats(folder, layer):
    return {name: struct.unpack("<%df" % (len(data) // 4), data)
            for name, data in tensors(folder, layer).items()}


def write_one(path):
    """A safetensors file of one weight, 1."""
    header = b'{"weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}'
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0))


class LossScaling(unittest.TestCase):
    def start_from_ones(self, cluster):
        os.mkdir(os.path.join(cluster.folder, "loose"))
        for layer in (0, 1):
            write_one(os.path.join(cluster.folder, "loose",
                                   "layer_%02d-model_states.safetensors" % layer))
        job = cluster.write("ones.yaml", PAIR % {"name": "ones", "stages": 1, "size": 1,
                                                 "count": 1, "directory": "unused"})
        cluster.client("checkpoint", "import", "loose", "ones/start", "--job", job).check()

    def pair(self, cluster, stages, size, count):
        """The job's answer and the two weights after its step."""
        name = "pair-%d-%d-%d" % (stages, size, count)
        directory = os.path.join(cluster.folder, name)
        run = feed_job(cluster, PAIR % {"name": name, "stages": stages, "size": size,
                                        "count": count, "directory": directory}, 1, 1, count,
                       lambda step, number: [("inputs", "F32", (size, 1), [1.0] * size),
                                             ("labels", "F32", (size, 1), [0.0] * size)])
        self.assertEqual(run.job["state"], "JOB_STATE_SUCCEEDED", run.job)
        folder = step_folder(directory, 1)
        return run, [tensors(folder, layer)["weight"] for layer in (0, 1)]

    def test_one_over_the_microbatches_is_applied_once_deepspeed_88(self):
        wanted = [struct.pack("<f", 0.8)] * 2
        with Cluster(stages=2) as cluster:
            self.start_from_ones(cluster)
            for stages in (1, 2):
                for size, count in ((1, 2), (1, 16), (16, 1)):
                    with self.subTest(stages=stages, size=size, count=count):
                        run, weights = self.pair(cluster, stages, size, count)
                        self.assertEqual(run.job["gradient_norm"], 8 ** 0.5)
                        self.assertEqual([float(loss) for loss in run.losses], [1.0])
                        self.assertEqual(weights, wanted)

    def gpt(self, cluster, stages, replicas, size, count):
        name = "gpt-%d-%d-%d-%d" % (stages, replicas, size, count)
        directory = os.path.join(cluster.folder, name)
        path = cluster.write(name + ".yaml", GPT % {
            "name": name, "stages": stages, "replicas": replicas, "size": size, "count": count,
            "directory": directory})
        steps = cluster.train(path).check().steps()
        folder = step_folder(directory, STEPS)
        return ([(s["loss"], s["grad_norm"]) for s in steps],
                [floats(folder, layer) for layer in range(LAYERS)])

    def check_close(self, got, wanted):
        for one, other in zip(got[0], wanted[0]):
            for a, b in zip(one, other):
                self.assertLess(abs(a - b), TOLERANCE * abs(b))
        for one, other in zip(got[1], wanted[1]):
            self.assertEqual(one.keys(), other.keys())
            for name, values in one.items():
                for a, b in zip(values, other[name]):
                    self.assertLess(abs(a - b), TOLERANCE * max(1, abs(b)), name)

    def test_one_times_16_gives_the_weights_of_16_times_one(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            whole = self.gpt(cluster, 1, 1, 16, 1)
            self.assertEqual(len(whole[0]), STEPS)
            self.assertLess(whole[0][-1][0], whole[0][0][0])
            single = self.gpt(cluster, 1, 1, 1, 16)
            self.check_close(single, whole)
            self.assertEqual(self.gpt(cluster, 2, 1, 1, 16), single)
            self.assertEqual(self.gpt(cluster, 2, 1, 16, 1), whole)
            self.check_close(self.gpt(cluster, 2, 2, 4, 2), whole)


if __name__ == "__main__":
    unittest.main(verbosity=2)
