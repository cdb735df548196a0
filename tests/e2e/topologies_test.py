# SPDX-License-Identifier: Apache-2.0
"""Every topology (pipe, data, model) of {1, 2, 4} x {1, 2} x {1, 2} that eight processes can be,
as real processes. Any number of stages gives the same bits as one, losses, norms and files; another
data or model width takes the same steps with sums in another order, and so the same losses and
norms within a bound of rounding. A job with a model axis goes on from its checkpoint at any other
topology, is evaluated, writes text, and names the rank of its axis that dies."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import unittest

from cluster import CORPUS, Cluster, job_text

RANKS = 8
STEPS = 20
TOLERANCE = 1e-5  # relative, of losses and norms over all steps
MICRO_BATCHES = 4  # of the whole step


def text(name, topology, zero=0, **options):
    pipe, data, model = topology
    return job_text(name=name, stages=1, layers=2, micro_batches=MICRO_BATCHES // data, dropout=0.1,
                    steps=STEPS, **options).replace(
                        "{stages: 1,",
                        "{topology: {pipe: %d, data: %d, model: %d}, zero_stage: %d,"
                        % (pipe, data, model, zero))


def files(folder):
    """SHA-256 of each layer file of a checkpoint."""
    digests = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("layer_"):
            with open(os.path.join(folder, name), "rb") as file:
                digests[name] = hashlib.sha256(file.read()).hexdigest()
    return digests


class Topologies(unittest.TestCase):
    maxDiff = None

    def train(self, cluster, name, topology, *arguments, **options):
        path = cluster.write(name + ".yaml", text(name, topology, **options))
        run = cluster.train(path, *arguments).check()
        return [(s["step"], s["loss"], s["grad_norm"], s["tokens"]) for s in run.steps()]

    def assert_close(self, got, wanted):
        self.assertEqual([g[0] for g in got], [w[0] for w in wanted])
        for one, other in zip(got, wanted):
            self.assertEqual(one[3], other[3])
            for i in (1, 2):
                self.assertLess(abs(one[i] - other[i]), TOLERANCE * abs(other[i]), (one, other))

    def test_every_topology_gives_the_same_training(self):
        alone = {}
        with Cluster(stages=RANKS) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for topology in itertools.product((1, 2, 4), (1, 2), (1, 2)):
                pipe, data, model = topology
                if pipe * data * model > RANKS:
                    continue
                with self.subTest(topology):
                    name = "t%d%d%d" % topology
                    directory = os.path.join(cluster.folder, name)
                    steps = self.train(cluster, name, topology, directory=directory)
                    self.assertEqual(len(steps), STEPS)
                    saved = files(os.path.join(directory, "step-%012d" % STEPS))
                    self.assertEqual(len(saved), 2 * 5 * model)
                    if pipe == 1:
                        alone[data, model] = (steps, saved)
                    self.assertEqual((steps, saved), alone[data, model])
                    self.assert_close(steps, alone[1, 1][0])

    def test_replicas_of_a_model_axis_split_their_state_to_the_same_bits(self):
        with Cluster(stages=RANKS) as cluster:
            cluster.write("corpus.txt", CORPUS)
            results = []
            for pipe, zero in ((1, 0), (1, 1), (2, 1)):
                name = "zero-%d-%d" % (pipe, zero)
                directory = os.path.join(cluster.folder, name)
                steps = self.train(cluster, name, (pipe, 2, 2), zero=zero, directory=directory)
                results.append((steps, files(os.path.join(directory, "step-%012d" % STEPS))))
            self.assertEqual(results[1], results[0])
            self.assertEqual(results[2], results[0])

    def test_linears_cut_by_hand_pass_shares_over_links_and_gather_what_is_needed_whole(self):
        layers = """    - {type: embedding, tie: embed, vocab: 256, dim: 32, positions: 16}
    - {type: linear, in: 32, out: 64, parallel: column}
    - {type: gelu}
    - {type: dropout, p: 0.1}
    - {type: linear, in: 64, out: 48, parallel: row}
    - {type: linear, in: 48, out: 32, parallel: column}
    - {type: layernorm, dim: 32}
    - {type: lm_head, tie: embed}
"""
        def job(name, topology, partition, precision):
            lines = text(name, topology, partition=partition, precision=precision)
            first = lines.index("    - {type: embedding")
            return lines[:first] + layers + lines[lines.index("  loss:"):]
        results = {}
        with Cluster(stages=RANKS) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for topology, partition, precision in (
                    ((1, 1, 1), "uniform", "fp32"), ((1, 1, 2), "uniform", "fp32"),
                    ((4, 1, 2), "[0, 2, 4, 6, 8]", "fp32"), ((4, 1, 2), "[0, 1, 3, 7, 8]", "fp32"),
                    ((1, 1, 2), "uniform", "bf16"), ((4, 1, 2), "[0, 2, 3, 6, 8]", "bf16")):
                with self.subTest((topology, partition, precision)):
                    path = cluster.write("linears.yaml", job("linears", topology, partition,
                                                             precision))
                    steps = [(s["step"], s["loss"], s["grad_norm"], s["tokens"])
                             for s in cluster.train(path).check().steps()]
                    key = (topology[2], precision)
                    self.assertEqual(steps, results.setdefault(key, steps))
        self.assert_close(results[2, "fp32"], results[1, "fp32"])

    def test_a_job_goes_on_at_any_other_topology(self):
        with Cluster(stages=RANKS) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            whole = self.train(cluster, "whole", (2, 1, 2), directory=directory, every=10)
            last = files(os.path.join(directory, "step-%012d" % STEPS))
            shutil.rmtree(os.path.join(directory, "step-%012d" % STEPS))
            for topology in ((4, 1, 2), (1, 2, 2), (1, 1, 1), (2, 2, 1)):
                copy = os.path.join(cluster.folder, "copy-%d%d%d" % topology)
                shutil.copytree(directory, copy)
                rest = self.train(cluster, "whole", topology, "--resume", directory=copy, every=10)
                if topology[1:] == (1, 2):
                    self.assertEqual(rest, whole[10:])
                    self.assertEqual(files(os.path.join(copy, "step-%012d" % STEPS)), last)
                self.assert_close(rest, whole[10:])

    def test_a_model_axis_evaluates_and_generates_as_one_rank_does(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            losses = {}
            texts = {}
            for width in (1, 2):
                directory = os.path.join(cluster.folder, "width-%d" % width)
                self.train(cluster, "axis-%d" % width, (1, 1, width), directory=directory)
                for pipe in (1, 2):
                    path = cluster.write("again.yaml", text(
                        "axis-%d" % width, (pipe, 1, width), directory=directory))
                    run = cluster.client("-o", "json", "eval", path, "--data", "corpus.txt",
                                         "--steps", "3").check()
                    losses[width, pipe] = run.json()["evaluation"]["loss"]
                    run = cluster.client("generate", path, "--prompt", "It is a ", "--tokens", "12",
                                         "--temperature", "0").check()
                    texts[width, pipe] = run.out
            self.assertEqual(losses[1, 1], losses[1, 2])
            self.assertEqual(losses[2, 1], losses[2, 2])
            self.assertLess(abs(losses[2, 1] - losses[1, 1]), TOLERANCE * losses[1, 1])
            self.assertEqual(len(set(texts.values())), 1, texts)

    def test_a_killed_rank_of_the_model_axis_is_named(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("victim.yaml", text("victim", (2, 1, 2)).replace(
                "total_steps: %d" % STEPS, "total_steps: 2000"))
            process = cluster.client_start("-o", "jsonl", "train", path)
            for line in process.stdout:
                if json.loads(line)["step"] == 3:
                    break
            listed = cluster.client("-o", "json", "stage", "list").check().json()["stages"]
            victim = cluster.stages[3]  # which rank it has is the order of attaching
            rank = next(member["rank"] for member in listed
                        if member["process_id"] == victim.process.pid)
            victim.stop(signal.SIGKILL)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 8)
            self.assertIn("rank %d" % rank, err)
            self.assertEqual(len(self.train(cluster, "after", (1, 1, 2))), STEPS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
