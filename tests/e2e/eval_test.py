# SPDX-License-Identifier: Apache-2.0
"""millrace eval: the loss of a checkpoint on data is what training says of the same samples, on any
pipeline to the bit, for other batch sizes within rounding; its logits, those of every microbatch
(the field keeps the last one's: deepspeed.md 92), are those that the loss was computed from; a
stage that is lost on the way is named; what cannot be is refused by name."""

import math
import os
import signal
import struct
import unittest

from cluster import CORPUS, Cluster, job_text


def read_npy(path):
    """Shape and numbers of a .npy file of format 1.0, little-endian f32."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:8]
    start = 10 + struct.unpack("<H", data[8:10])[0]
    header = eval(data[10:start], {"__builtins__": {}})  # a Python literal, as the format says
    assert header["descr"] == "<f4" and not header["fortran_order"] and start % 64 == 0
    count = math.prod(header["shape"])
    assert len(data) == start + 4 * count
    return header["shape"], struct.unpack("<%df" % count, data[start:])


def cross_entropy(shape, logits, text):
    """Mean over all tokens: sample k is text[kT, kT + T], the last T of it labels."""
    samples, length, vocab = shape
    total = 0.0
    for k in range(samples):
        for t in range(length):
            at = (k * length + t) * vocab
            row = logits[at:at + vocab]
            top = max(row)
            total += top + math.log(sum(math.exp(x - top) for x in row)) - row[
                text[k * length + t + 1]]
    return total / (samples * length)


class Eval(unittest.TestCase):
    def test_eval_says_what_training_says(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            text = CORPUS.encode()
            directory = os.path.join(cluster.folder, "checkpoints")
            job = job_text(stages=2, steps=6, directory=directory, every=2, dropout=0.1)
            train = cluster.write("train.yaml", job)
            cluster.train(train).check()
            losses = set()
            for stages in (1, 2, 3):
                for batch in ((), ("--micro-batches", "2"), ("--micro-batch-size", "1"),
                              ("--sequence-length", "8", "--micro-batches", "7")):
                    path = cluster.write("eval.yaml", job.replace("stages: 2",
                                                                  "stages: %d" % stages))
                    answer = cluster.client("-o", "json", "eval", path, "--checkpoint",
                                            "step-000000000004", "--data", "corpus.txt",
                                            "--steps", "5", *batch).check().json()["evaluation"]
                    self.assertEqual(answer["steps"], 5)
                    losses.add((batch, answer["loss"]))
            self.assertEqual(len(losses), 4, losses)

            path = os.path.join(cluster.folder, "logits.npy")
            answer = cluster.client("-o", "json", "eval", train, "--steps", "2", "--logits",
                                    path).check().json()["evaluation"]
            self.assertEqual(answer["trained_steps"], 6)
            shape, logits = read_npy(path)
            self.assertEqual(shape, (2 * 4 * 2, 16, 256))
            self.assertAlmostEqual(cross_entropy(shape, logits, text), answer["loss"], places=5)
            whole = cluster.client("-o", "jsonl", "eval", "--job", "tiny").check().steps()
            self.assertEqual(len(whole) - 1, (len(text) - 1) // 16 // 8)
            mean = sum(line["loss"] for line in whole[:-1]) / (len(whole) - 1)
            self.assertAlmostEqual(whole[-1]["evaluation"]["loss"], mean, places=7)
            self.assertIn("perplexity", cluster.client("eval", train, "--steps", "1").check().out)

    def test_loss_of_fresh_weights_is_the_first_steps(self):
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            job = job_text(steps=2, directory=directory).replace("shuffle: true", "shuffle: false")
            job = job.replace("every_steps: 0", "initial: true")
            train = cluster.write("train.yaml", job)
            first = cluster.train(train).check().steps()[0]
            line = cluster.client("-o", "jsonl", "eval", train, "--checkpoint",
                                  "step-000000000000", "--steps", "1").check().steps()[0]
            self.assertEqual(line["loss"], first["loss"])

    def test_a_lost_stage_is_named_and_the_next_eval_runs(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            job = cluster.write("train.yaml", job_text(steps=2, directory=directory))
            cluster.train(job).check()
            running = cluster.client_start("-o", "jsonl", "eval", job, "--steps", "100000")
            self.assertTrue(running.stdout.readline().startswith('{"step":1,'))
            listed = cluster.client("-o", "json", "stage", "list").check().json()["stages"]
            busy = {member["process_id"] for member in listed if member["state"] == "running"}
            victim = next(s for s in cluster.stages if s.process.pid in busy)
            victim.stop(signal.SIGKILL)
            _, err = running.communicate(timeout=120)
            self.assertEqual(running.returncode, 8, err)
            self.assertIn("FAILED", err)
            cluster.client("eval", job, "--steps", "2").check()

    def test_what_cannot_be_is_refused(self):
        with Cluster(stages=1) as cluster:
            cluster.write("corpus.txt", CORPUS)
            cluster.write("short.txt", "too short")
            directory = os.path.join(cluster.folder, "checkpoints")
            job = job_text(stages=1, steps=2, directory=directory)
            path = cluster.write("train.yaml", job)
            nothing = cluster.client("eval", path).check(3)
            self.assertIn("checkpoint", nothing.err)
            cluster.train(path).check()
            cases = (
                (("--data", "short.txt"), "--data"),
                (("--data", "missing.txt"), "missing.txt"),
                (("--micro-batches", "4000"), "one step takes"),
                (("--micro-batches", "60000"), "batch.micro_batches"),
                (("--micro-batches", "0"), "--micro-batches"),
                (("--sequence-length", "17"), "positions"),
                (("--checkpoint", "step-000000000009"), "step-000000000009"),
                (("--logits", "/nowhere/x.npy", "--steps", "1"), "/nowhere/x.npy"),
                (("--logits", "x.npy", "--micro-batches", "240", "--micro-batch-size", "8",
                  "--steps", "1"), "fewer --micro-batches"),
                (("--job", "tiny"), "either a job FILE or --job JOB"),
            )
            for options, text in cases:
                refused = cluster.client("eval", path, *options)
                self.assertIn(refused.code, (1, 2, 3, 4), refused.err)
                self.assertIn(text, refused.err)
            lossless = cluster.write("none.yaml", job.replace("loss: cross_entropy", "loss: none"))
            self.assertIn("model.loss is none", cluster.client("eval", lossless).check(2).err)
            cluster.client("eval", path, "--steps", "1").check()


if __name__ == "__main__":
    unittest.main()
