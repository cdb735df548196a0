# SPDX-License-Identifier: Apache-2.0
"""Law 1, to the bit, across real processes: the pipeline changes nothing.

Method: one tiny GPT with dropout, 20 steps, trained by 1, 2 and 3 stage daemons, with 1F1B and
GPipe, with uniform and parameters partitions, with one and two threads, and stopped at step 10 and
resumed at another number of stages. Each step's loss and gradient norm (9 significant digits), the
last step's with all bits of the doubles, and the SHA-256 of each layer file of the last checkpoint,
weights and moments, must equal the first run's. (In the field a norm in fp32 leaves out all stages
but the first, deepspeed.md 91, and GPipe cannot be, as the last stage keeps one loss,
deepspeed.md 89.)
Adam, SGD and Lion keep it as well, with the state tensors of each and no others in the files.
The same holds with activation checkpointing, at any interval and with any list of layers.
In bf16 the same holds among bf16 runs; their loss stays close to fp32's, and a checkpoint, which is
fp32 in either precision, goes from one to the other.
"""

import hashlib
import json
import os
import shutil
import unittest

from cluster import CORPUS, Cluster, job_text

STEPS = 20
BF16_LOSS_ERROR = 2e-2  # relative, each step


def digests(folder):
    """SHA-256 of each layer file of a checkpoint."""
    result = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("layer_"):
            with open(os.path.join(folder, name), "rb") as file:
                result[name] = hashlib.sha256(file.read()).hexdigest()
    return result


def state_names(folder):
    """Names of the optimizer's states in a checkpoint: what stands before a parameter's name."""
    names = set()
    for name in os.listdir(folder):
        if name.endswith("-optim_states.safetensors"):
            with open(os.path.join(folder, name), "rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            names.update(tensor.split(".")[0] for tensor in header if tensor != "__metadata__")
    return sorted(names)


def last_checkpoint(folder, step=STEPS):
    return os.path.join(folder, "step-%012d" % step)


class Law1(unittest.TestCase):
    maxDiff = None

    def run_job(self, cluster, name, stages, resume_from=None, steps=STEPS, **options):
        directory = resume_from or os.path.join(cluster.folder, "checkpoints-" + name)
        path = cluster.write(name + ".yaml", job_text(
            name=name, stages=stages, steps=STEPS,
            dropout=0.1, directory=directory, **options))
        arguments = ["--resume"] if resume_from else []
        run = cluster.train(path, *arguments).check()
        steps_done = run.steps()
        self.assertEqual([s["step"] for s in steps_done], list(range(STEPS - len(steps_done) + 1,
                                                                     STEPS + 1)))
        bits = [(s["loss"], s["grad_norm"]) for s in steps_done]
        job = cluster.client("-o", "json", "job", "get", name).check().json()["job"]
        bits.append((repr(job["loss"]), repr(job["gradient_norm"])))
        return bits, digests(last_checkpoint(directory)), directory

    def test_every_cut_and_schedule_gives_the_same_bits(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            bits, files, _ = self.run_job(cluster, "one", 1, every=10)
            self.assertEqual(len(bits), STEPS + 1)
            self.assertLess(bits[-2][0], bits[0][0])
            self.assertEqual(len(files), 12)
            for stages in (1, 2, 3):
                for schedule in ("1f1b", "gpipe"):
                    for partition in ("uniform", "parameters"):
                        name = "s%d-%s-%s" % (stages, schedule, partition)
                        with self.subTest(name):
                            other_bits, other_files, _ = self.run_job(
                                cluster, name, stages, schedule=schedule, partition=partition)
                            self.assertEqual(other_bits, bits)
                            self.assertEqual(other_files, files)

    def test_every_checkpoint_interval_gives_the_same_bits(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for precision in ("fp32", "bf16"):
                bits, files, _ = self.run_job(cluster, "kept-" + precision, 1,
                                              precision=precision)
                for stages, schedule, interval, again in (
                        (1, "1f1b", 1, ()), (1, "gpipe", 2, ()), (1, "1f1b", 6, ()),
                        (2, "1f1b", 1, ()), (2, "gpipe", 2, ("transformer_block", "embedding")),
                        (2, "1f1b", 3, ()), (3, "1f1b", 1, ("transformer_block",)),
                        (3, "gpipe", 2, ()), (3, "1f1b", 4, ())):
                    name = "again-%s-s%d-%s-k%d-%d" % (precision, stages, schedule, interval,
                                                       len(again))
                    with self.subTest(name):
                        other_bits, other_files, _ = self.run_job(
                            cluster, name, stages, schedule=schedule, interval=interval,
                            again=again, precision=precision)
                        self.assertEqual(other_bits, bits)
                        self.assertEqual(other_files, files)

    def test_every_number_of_threads_gives_the_same_bits(self):
        seen = []
        for threads in (1, 2, 3):
            with Cluster(stages=2, threads=threads) as cluster:
                cluster.write("corpus.txt", CORPUS)
                bits, files, _ = self.run_job(cluster, "threads", 2)
                seen.append((bits, files))
        self.assertEqual(seen[1], seen[0])
        self.assertEqual(seen[2], seen[0])

    def test_bf16_gives_the_same_bits_in_every_cut_and_stays_close_to_fp32(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            wide, wide_files, directory = self.run_job(cluster, "wide", 1, every=10)
            bits, files, _ = self.run_job(cluster, "narrow", 1, precision="bf16")
            self.assertNotEqual(bits, wide)
            self.assertEqual(sorted(files), sorted(wide_files))
            for (loss, _), (wide_loss, _) in list(zip(bits, wide))[:STEPS]:
                self.assertLess(abs(loss - wide_loss), BF16_LOSS_ERROR * wide_loss)
            for stages in (1, 2, 3):
                for schedule in ("1f1b", "gpipe"):
                    name = "narrow-s%d-%s" % (stages, schedule)
                    with self.subTest(name):
                        other_bits, other_files, _ = self.run_job(
                            cluster, name, stages, schedule=schedule, precision="bf16")
                        self.assertEqual(other_bits, bits)
                        self.assertEqual(other_files, files)
            with self.subTest("an fp32 checkpoint goes on in bf16"):
                copy = os.path.join(cluster.folder, "stopped-wide")
                os.mkdir(copy)
                shutil.copytree(last_checkpoint(directory, 10), last_checkpoint(copy, 10))
                resumed, _, _ = self.run_job(cluster, "wide", 2, resume_from=copy,
                                             precision="bf16")
                for (loss, _), (wide_loss, _) in list(zip(resumed, wide[10:]))[:STEPS - 10]:
                    self.assertLess(abs(loss - wide_loss), BF16_LOSS_ERROR * wide_loss)

    def test_bf16_stopped_and_resumed_at_another_stage_count_gives_the_same_bits(self):
        with Cluster(stages=3, threads=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            bits, files, directory = self.run_job(cluster, "narrow", 2, every=10,
                                                  precision="bf16")
            copy = os.path.join(cluster.folder, "stopped")
            os.mkdir(copy)
            shutil.copytree(last_checkpoint(directory, 10), last_checkpoint(copy, 10))
            other_bits, other_files, _ = self.run_job(cluster, "narrow", 3, resume_from=copy,
                                                      precision="bf16")
            self.assertEqual(other_bits, bits[10:])
            self.assertEqual(other_files, files)

    def test_other_optimizers_give_the_same_bits_in_every_cut_and_after_a_stop(self):
        kinds = {"adam": ("type: adam, weight_decay: 0.1", ["exp_avg", "exp_avg_sq"]),
                 "sgd": ("type: sgd", []),
                 "momentum": ("type: sgd, momentum: 0.9, nesterov: true, weight_decay: 0.1",
                              ["momentum"]),
                 "lion": ("type: lion, weight_decay: 0.1", ["exp_avg"])}
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for name, (optimizer, states) in kinds.items():
                with self.subTest(name):
                    bits, files, directory = self.run_job(cluster, name, 1, every=10,
                                                          optimizer=optimizer)
                    self.assertEqual(len(files), 12 if states else 6)
                    self.assertEqual(state_names(last_checkpoint(directory)), states)
                    other_bits, other_files, _ = self.run_job(
                        cluster, name + "-3", 3, schedule="gpipe", optimizer=optimizer)
                    self.assertEqual((other_bits, other_files), (bits, files))
                    copy = os.path.join(cluster.folder, "stopped-" + name)
                    os.mkdir(copy)
                    shutil.copytree(last_checkpoint(directory, 10), last_checkpoint(copy, 10))
                    other_bits, other_files, _ = self.run_job(cluster, name, 2, resume_from=copy,
                                                              optimizer=optimizer)
                    self.assertEqual((other_bits, other_files), (bits[10:], files))

    def test_a_run_stopped_and_resumed_at_another_stage_count_gives_the_same_bits(self):
        with Cluster(stages=3, threads=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            bits, files, directory = self.run_job(cluster, "whole", 2, every=10)
            for stages in (1, 3):
                with self.subTest(stages=stages):
                    # The run as it stood after step 10: its later checkpoint goes away.
                    copy = os.path.join(cluster.folder, "stopped-%d" % stages)
                    os.mkdir(copy)
                    shutil.copytree(last_checkpoint(directory, 10), last_checkpoint(copy, 10))
                    other_bits, other_files, _ = self.run_job(
                        cluster, "whole", stages, resume_from=copy)
                    self.assertEqual(other_bits, bits[10:])
                    self.assertEqual(other_files, files)


if __name__ == "__main__":
    unittest.main(verbosity=2)
