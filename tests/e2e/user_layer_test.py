# SPDX-License-Identifier: Apache-2.0
"""A layer type that a user registers from C: the example of deploy/examples/user_layer.

Method: the example's own millraced and millrace train its job file, cut in several ways: losses,
norm and checkpoint bytes are the same (law 1), its parameters have their names in the checkpoint
and may be tied and frozen. Its keys are read as strictly as any; validate and plan know it without
a server; the stock client, which was not built with it, refuses it by name."""

import hashlib
import os
import subprocess
import unittest

import cluster
from cluster import CORPUS, Cluster, run_client

STOCK_CLIENT = cluster.MILLRACE
EXAMPLE = os.path.join(cluster.ROOT, "deploy/examples/user_layer")
BUILT = os.path.join(cluster.ROOT, cluster.PREFIX, "deploy/examples/user_layer")
STEPS = 8


def setUpModule():
    cluster.MILLRACE = os.path.join(BUILT, "millrace")
    cluster.MILLRACED = os.path.join(BUILT, "millraced")


def job(name, directory, stages=2, partition="parameters", more="", **changed):
    """The example's job, shorter and smaller."""
    with open(os.path.join(EXAMPLE, "adapter-gpt.yaml")) as file:
        text = file.read()
    for old, new in {
            "name: adapter-gpt": "name: " + name,
            "{stages: 2}": "{stages: %d, partition: %s%s}" % (stages, partition, more),
            "total_steps: 100": "total_steps: %d" % STEPS,
            "../corpus.txt": "corpus.txt",
            "{dir: checkpoints, every_steps: 50}": "{dir: %s, initial: true}" % directory,
            **changed}.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class UserLayer(unittest.TestCase):
    maxDiff = None

    def train(self, servers, name, **options):
        directory = os.path.join(servers.folder, "checkpoints-" + name)
        path = servers.write(name + ".yaml", job(name, directory, **options))
        run = servers.train(path).check()
        last = servers.client("-o", "json", "job", "get", name).check().json()["job"]
        bits = [(s["loss"], s["grad_norm"]) for s in run.steps()]
        bits.append((repr(last["loss"]), repr(last["gradient_norm"])))
        return bits, self.files(os.path.join(directory, "step-%012d" % STEPS))

    def files(self, folder):
        digests = {}
        for name in sorted(os.listdir(folder)):
            if name.startswith("layer_"):
                with open(os.path.join(folder, name), "rb") as file:
                    digests[name] = hashlib.sha256(file.read()).hexdigest()
        return digests

    def test_every_cut_gives_the_same_bits(self):
        with Cluster(stages=3) as servers:
            servers.write("corpus.txt", CORPUS)
            one = self.train(servers, "one", stages=1)
            self.assertEqual(len(one[0]), STEPS + 1)
            self.assertLess(one[0][STEPS - 1][0], one[0][0][0])
            for name, options in {
                    "two": {"stages": 2}, "three": {"stages": 3, "partition": "uniform"},
                    "around": {"stages": 3, "partition": "[0, 2, 3, 7]"},
                    "again": {"stages": 2, "more": ", activation_checkpoint_interval: 1"}}.items():
                with self.subTest(name):
                    self.assertEqual(self.train(servers, name, **options), one)
            shown = servers.client("checkpoint", "inspect", os.path.join(
                servers.folder, "checkpoints-one", "step-%012d" % STEPS)).check().out
            self.assertIn("down.weight", shown)
            self.assertIn("exp_avg.up.weight", shown)

    def test_a_seed_function_keys_the_layers_whatever_the_cut(self):
        with Cluster(stages=2) as servers:
            servers.write("corpus.txt", CORPUS)
            seeded = {"  loss: cross_entropy": "  loss: cross_entropy\n  seed_fn: mixed"}
            plain = self.train(servers, "plain", stages=1)
            one = self.train(servers, "mixed-1", stages=1, **seeded)
            self.assertNotEqual(one[0], plain[0])
            self.assertEqual(self.train(servers, "mixed-2", stages=2, more=(
                ", activation_checkpoint_interval: 2"), **seeded), one)
            # The field reads this key and never uses it: deepspeed.md 22.
            ordered = {"  loss: cross_entropy": "  loss: cross_entropy\n  seed_layers: false"}
            one = self.train(servers, "ordered-1", stages=1, **ordered)
            self.assertNotEqual(one[0], plain[0])
            self.assertEqual(self.train(servers, "ordered-2", stages=2, **ordered), one)

    def test_its_parameters_are_tied_and_frozen_like_any(self):
        again = "{type: adapter, dim: 64, rank: 16, activation: silu, dropout: 0.1"
        with Cluster(stages=2) as servers:
            servers.write("corpus.txt", CORPUS)
            tied = {again: again + ", tie: adapt, frozen: [down.weight]"}
            one = self.train(servers, "tied-1", stages=1, **tied)
            two = self.train(servers, "tied-2", stages=2, partition="[0, 3, 7]", **tied)
            self.assertEqual(two, one)
            self.assertEqual(one[1]["layer_02-model_states.safetensors"],
                             one[1]["layer_04-model_states.safetensors"])

    def test_it_shares_a_built_in_layers_parameter_and_the_groups_are_shown(self):
        with Cluster(stages=2) as servers:
            servers.write("corpus.txt", CORPUS)
            line = "    - {type: layernorm, dim: 64}"
            whole = "{type: adapter, dim: 64, rank: 64, tie: {key: wide, parameters: [up.weight]}}"
            shared = {line: "    - %s\n    - {type: linear, in: 64, out: 64, "
                            "tie: {key: wide, parameters: [weight]}}\n%s" % (whole, line)}
            one = self.train(servers, "shared-1", stages=1, **shared)
            two = self.train(servers, "shared-2", stages=2, partition="[0, 6, 9]", **shared)
            self.assertEqual(two, one)
            job = servers.client("-o", "json", "job", "get", "shared-2").check().json()["job"]
            tied = {group["key"]: group for group in job["groups"] if group["kind"] == "tied"}
            self.assertEqual({key: group["ranks"] for key, group in tied.items()},
                             {"embed": [0, 1], "wide": [0, 1]})
            self.assertEqual(len({group["id"] for group in job["groups"]}), len(job["groups"]))

    def refused(self, client, text, *parts):
        folder = cluster.temporary_folder("refused")
        path = os.path.join(folder, "job.yaml")
        with open(path, "w") as file:
            file.write(text)
        run = subprocess.run([client, "job", "validate", path], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertNotEqual(run.returncode, 0)
        for part in parts:
            self.assertIn(part, run.stdout)

    def test_its_keys_are_read_strictly(self):
        client = cluster.MILLRACE
        entry = "rank: 16, activation: silu, dropout: 0.1}\n    - {type: transformer"
        for wrong, message in {
                "rank: 0": "model.layers[2].rank is 0; it must be 1 to 16777216",
                "rank: 65": "model.layers[2].rank is 65; it must be at most dim, 64",
                "rnak: 6": "model.layers[2].rnak is not a key of a layer of type adapter; did you "
                           "mean rank?",
                "activation: tanh": "model.layers[2].activation is tanh; it must be relu, gelu or "
                                    "silu",
                "dropout: 1": "model.layers[2].dropout is 1",
                "frozen: [side.weight]": "frozen has side.weight, which is no parameter of "
                                         "adapter; known: down.weight, up.weight"}.items():
            with self.subTest(wrong):
                self.refused(client, job("bad", "x", **{
                    entry: wrong + "}\n    - {type: transformer"}), "job.yaml:9: ", message)

    def test_a_client_without_it_refuses_it_by_name(self):
        self.refused(STOCK_CLIENT, job("stock", "x"),
                     "model.layers[2].type is adapter; it must be embedding, transformer_block")

    def test_the_plan_counts_it(self):
        folder = cluster.temporary_folder("plan")
        path = os.path.join(folder, "job.yaml")
        with open(path, "w") as file:
            file.write(job("plan", "x", stages=7, partition="uniform"))
        plan = run_client(["-o", "json", "job", "plan", path], folder).check().json()
        adapter, block = plan["stages"][2], plan["stages"][1]
        self.assertEqual(adapter["params"], 2 * 64 * 16)
        self.assertEqual(adapter["memory_bytes"]["gradients"], 4 * 2 * 64 * 16)
        self.assertEqual(block["memory_bytes"]["gradients"], 0)
        self.assertEqual(plan["ranks"][2]["layer_files"], ["layer_02-model_states.safetensors"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
