# SPDX-License-Identifier: Apache-2.0
"""Law 1 with a model axis, across real processes. The width of the axis is the one thing that may
change bits, because it cuts sums: in fp32 losses and norms stay within 1e-5 (relative) of one
rank's over 20 steps. For one width everything else changes nothing, to the bit: stages, schedule,
activation checkpointing (which the field's grid cannot serve: deepspeed.md 130), threads, a stop
and a start; in fp32, bf16 and fp16, with dropout, whose
masks do not know the width, with an odd vocabulary, whose shares are uneven, and with frozen
parameters, which no rank changes.
Method: one tiny GPT, trained anew for each case; losses and norms of all steps (9 digits) and the
SHA-256 of each layer file of the last checkpoint are compared.
"""

import os
import shutil
import unittest

from cluster import CORPUS, Cluster, job_text
from law_1_test import digests, last_checkpoint

STEPS = 20
TOLERANCE = 1e-5  # relative, each step, fp32
HALF_TOLERANCE = 1e-3  # bf16 and fp16


class ModelAxis(unittest.TestCase):
    maxDiff = None

    def run_job(self, cluster, name, pipe, model, resume_from=None, edits=(), **options):
        directory = resume_from or os.path.join(cluster.folder, "checkpoints-" + name)
        text = job_text(name=name, stages=pipe, steps=STEPS, heads=4, dropout=0.1,
                        directory=directory, **options)
        text = text.replace("{stages: %d," % pipe,
                            "{topology: {pipe: %d, data: 1, model: %d}," % (pipe, model))
        text = text.replace("vocab: 256", "vocab: 257")
        for old, new in edits:
            self.assertIn(old, text)
            text = text.replace(old, new)
        path = cluster.write(name + ".yaml", text)
        steps = cluster.train(path, *(["--resume"] if resume_from else [])).check().steps()
        return [(s["loss"], s["grad_norm"]) for s in steps], digests(last_checkpoint(directory))

    def assert_close(self, got, wanted, tolerance):
        self.assertEqual(len(got), len(wanted))
        for one, other in zip(got, wanted):
            for value, reference in zip(one, other):
                self.assertLess(abs(value - reference), tolerance * abs(reference), (one, other))

    def test_every_width_gives_the_same_training_within_rounding(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for precision, tolerance in (("fp32", TOLERANCE), ("bf16", HALF_TOLERANCE),
                                         ("fp16", HALF_TOLERANCE)):
                alone, _ = self.run_job(cluster, "one-" + precision, 1, 1, precision=precision)
                self.assertEqual(len(alone), STEPS)
                for model in (2, 4):
                    with self.subTest(precision=precision, model=model):
                        name = "m%d-%s" % (model, precision)
                        bits, files = self.run_job(cluster, name, 1, model, precision=precision)
                        self.assertEqual(len(files), 12 * model)
                        self.assert_close(bits, alone, tolerance)

    def test_nothing_but_the_width_changes_a_bit(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for precision in ("fp32", "bf16", "fp16"):
                bits, files = self.run_job(cluster, "axis-" + precision, 1, 2, precision=precision)
                for pipe, schedule, interval in ((1, "gpipe", 2), (2, "1f1b", 0), (2, "gpipe", 1),
                                                 (2, "1f1b", 3)):
                    name = "%s-s%d-%s-k%d" % (precision, pipe, schedule, interval)
                    with self.subTest(name):
                        other = self.run_job(cluster, name, pipe, 2, precision=precision,
                                             schedule=schedule, interval=interval)
                        self.assertEqual(other, (bits, files))

    def test_frozen_parameters_stay_on_every_rank(self):
        frozen = (("positions: 16}", "positions: 16, frozen: [wpe.weight]}"),
                  ("dropout: 0.1}", "dropout: 0.1, frozen: [attn.qkv.weight, ln_1.bias]}"))
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            alone, _ = self.run_job(cluster, "held-1", 1, 1, edits=frozen)
            bits, files = self.run_job(cluster, "held-2", 1, 2, edits=frozen)
            self.assert_close(bits, alone, TOLERANCE)
            self.assertEqual(self.run_job(cluster, "held-2x2", 2, 2, edits=frozen), (bits, files))

    def test_threads_and_a_stop_change_no_bit(self):
        seen = []
        for threads in (1, 3):
            with Cluster(stages=4, threads=threads) as cluster:
                cluster.write("corpus.txt", CORPUS)
                bits, files = self.run_job(cluster, "axis", 2, 2, every=10)
                seen.append((bits, files))
                copy = os.path.join(cluster.folder, "stopped")
                os.mkdir(copy)
                shutil.copytree(last_checkpoint(os.path.join(cluster.folder, "checkpoints-axis"),
                                                10), last_checkpoint(copy, 10))
                rest, rest_files = self.run_job(cluster, "axis", 1, 2, resume_from=copy)
                self.assertEqual((rest, rest_files), (bits[10:], files))
        self.assertEqual(seen[0], seen[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
