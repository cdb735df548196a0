# SPDX-License-Identifier: Apache-2.0
"""Side losses: named, summed along the stages, scaled once, the same bits on any pipeline.

Method: the example's penalty layer, weight times the mean square of what passes it, stands three
times in a small model, twice under one name. Every cut gives the losses, the named sums, the norm
and the checkpoint bytes of one stage; what is reported adds up; one row in each of 8 microbatches
is 8 rows in one, so nothing is scaled twice (law 7); a weight of 0 leaves the model's loss and norm
as they are without the layer; and the penalty works: it makes what it measures smaller."""

import os
import unittest

import cluster
from checkpoint_files import digests, step_folder
from cluster import CORPUS, Cluster

BUILT = os.path.join(cluster.ROOT, cluster.PREFIX, "deploy/examples/user_layer")
STEPS = 6
JOB = """schema: millrace.job/v1
name: %(name)s
model:
  layers:
    - {type: embedding, vocab: 256, dim: 32, positions: 16}
%(first)s
    - {type: transformer_block, dim: 32, heads: 2, dropout: %(dropout)s}
%(second)s
    - {type: transformer_block, dim: 32, heads: 2}
%(third)s
    - {type: layernorm, dim: 32}
    - {type: lm_head, dim: 32, vocab: 256}
pipeline: {topology: {pipe: %(pipe)d, data: %(data)d}, partition: %(partition)s%(more)s}
batch: {micro_batch_size: %(rows)d, micro_batches: %(micro_batches)d, sequence_length: 16}
optimizer: {type: adamw, lr: 1e-2, grad_clip: 1.0}
lr_schedule: {type: constant, total_steps: 6}
precision: %(precision)s
data: {format: bytes, train: corpus.txt, shuffle: true}
checkpoint: {dir: %(directory)s, every_steps: 6}
"""
PENALTY = "    - {type: penalty, weight: %g, side_loss: %s}"


def setUpModule():
    cluster.MILLRACE = os.path.join(BUILT, "millrace")
    cluster.MILLRACED = os.path.join(BUILT, "millraced")


class SideLossLaw1(unittest.TestCase):
    maxDiff = None

    def train(self, servers, name, pipe=1, weights=(0.5, 30, 2), names=("early", "stream", "early"),
              **options):
        directory = os.path.join(servers.folder, "checkpoints-" + name)
        layers = [PENALTY % pair for pair in zip(weights, names)]
        path = servers.write(name + ".yaml", JOB % {
            "pipe": pipe, "partition": "uniform", "more": "", "precision": "fp32", "data": 1,
            "rows": 2, "micro_batches": 4, "dropout": 0.1, "first": layers[0], "second": layers[1],
            "third": layers[2], **options, "name": name, "directory": directory})
        run = servers.train(path).check()
        steps = [(s["loss"], s["total_loss"], s["side_losses"], s["grad_norm"])
                 for s in run.steps()]
        self.assertEqual(len(steps), STEPS)
        return steps, digests(step_folder(directory, STEPS))

    def test_every_cut_gives_the_same_bits(self):
        with Cluster(stages=4) as servers:
            servers.write("corpus.txt", CORPUS)
            for precision in ("fp32", "bf16"):
                whole = self.train(servers, precision, precision=precision)
                self.assertEqual([list(step[2]) for step in whole[0]],
                                 [["early", "stream"]] * STEPS)
                for loss, total, sides, _ in whole[0]:
                    self.assertGreater(min(sides.values()), 0)
                    self.assertAlmostEqual(total, loss + sum(sides.values()), delta=1e-7 * total)
                again = ", activation_checkpoint_interval: %d, schedule: %s"
                for number, (pipe, partition, more) in enumerate((
                        (2, "uniform", ""), (3, "[0, 2, 5, 8]", ", schedule: gpipe"),
                        (4, "[0, 1, 3, 4, 8]", again % (1, "1f1b")),
                        (1, "uniform", again % (2, "gpipe")))):
                    with self.subTest(precision, partition=partition, more=more):
                        self.assertEqual(self.train(
                            servers, "%s-%d" % (precision, number), pipe, partition=partition,
                            more=more, precision=precision), whole)

    def test_replicas_sum_theirs_in_any_cut(self):
        with Cluster(stages=4) as servers:
            servers.write("corpus.txt", CORPUS)
            one = self.train(servers, "replicas-1", data=2)
            two = self.train(servers, "replicas-2", 2, data=2, partition="[0, 4, 8]")
            self.assertEqual(two, one)

    def test_it_is_scaled_once_whatever_the_microbatches(self):
        with Cluster(stages=2) as servers:
            servers.write("corpus.txt", CORPUS)
            many = self.train(servers, "many", 2, rows=1, micro_batches=8, dropout=0)[0]
            for name, options in {"one": {"rows": 8, "micro_batches": 1},
                                  "replicas": {"rows": 2, "micro_batches": 2, "data": 2}}.items():
                few = self.train(servers, name, dropout=0, **options)[0]
                for a, b in zip(many, few):
                    for x, y in ((a[0], b[0]), (a[1], b[1]), (a[3], b[3]),
                                 (a[2]["early"], b[2]["early"]), (a[2]["stream"], b[2]["stream"])):
                        self.assertAlmostEqual(x, y, delta=2e-4 * abs(x))

    def test_weight_0_changes_nothing_and_a_weight_presses_down(self):
        with Cluster(stages=2) as servers:
            servers.write("corpus.txt", CORPUS)
            none = self.train(servers, "none", weights=(0, 0, 0))[0]
            self.assertEqual(none[-1][0], none[-1][1])
            self.assertEqual(set(none[-1][2].values()), {0})
            path = servers.write("plain.yaml", JOB % {
                "name": "plain", "pipe": 2, "partition": "uniform", "more": "", "data": 1,
                "precision": "fp32", "rows": 2, "micro_batches": 4, "dropout": 0.1,
                "first": "    - {type: identity}", "second": "    - {type: identity}",
                "third": "    - {type: identity}", "directory": "plain"})
            plain = servers.train(path).check().steps()
            self.assertEqual([(s["loss"], s["grad_norm"]) for s in plain],
                             [(s[0], s[3]) for s in none])
            self.assertFalse([s for s in plain if "side_losses" in s or "total_loss" in s])
            light = self.train(servers, "light", weights=(0, 1e-6, 0))[0]
            heavy = self.train(servers, "heavy", weights=(0, 1e3, 0))[0]
            self.assertLess(heavy[-1][2]["stream"] / 1e3, 0.8 * light[-1][2]["stream"] / 1e-6)

    def test_a_name_too_many_is_refused_by_name(self):
        with Cluster(stages=1) as servers:
            servers.write("corpus.txt", CORPUS)
            many = "\n".join(PENALTY % (1, "side%d" % i) for i in range(9))
            path = servers.write("many.yaml", JOB % {
                "name": "many", "pipe": 1, "partition": "uniform", "more": "", "data": 1,
                "precision": "fp32", "rows": 2, "micro_batches": 4, "dropout": 0, "first": many,
                "second": "    - {type: identity}", "third": "    - {type: identity}",
                "directory": "many"})
            run = servers.client("job", "validate", path)
            self.assertNotEqual(run.code, 0)
            self.assertIn("the side loss side8 is one name too many; at most 8", run.err + run.out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
