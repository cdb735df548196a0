# SPDX-License-Identifier: Apache-2.0
"""Frozen parameters and ties, to the bit, across real processes.

Method: a tiny GPT whose layers are frozen whole, by name, or tied in several ways is trained by 1,
2 and 3 stage daemons; loss, gradient norm and all bytes of the last checkpoint must be those of one
stage, and so after a stop and on another number of stages. One step of plain SGD shows that a
frozen parameter stays what it was, that it has no state, and that every other parameter moves to
the very bits that it has when nothing is frozen. A tied parameter is one: equal bytes in all its
layers' files, after every step."""

import os
import re
import shutil
import unittest

from checkpoint_files import digests, step_folder, tensors
from cluster import CORPUS, Cluster

STEPS = 6
FROZEN = """    - {type: embedding, vocab: 256, dim: 32, positions: 16, frozen: [wte.weight]}
    - {type: transformer_block, dim: 32, heads: 2, dropout: 0.1, frozen: true}
    - {type: transformer_block, dim: 32, heads: 2, frozen: [attn.qkv.weight, ln_2.bias,
       ln_1.weight]}
    - {type: layernorm, dim: 32, frozen: true}
    - {type: lm_head, vocab: 256, dim: 32}
"""
TIED = """    - {type: embedding, vocab: 256, dim: 32, positions: 16, tie: %(embed)s}
    - {type: transformer_block, repeat: 2, dim: 32, heads: 2, tie: block}
    - {type: layernorm, dim: 32, tie: {key: norm, parameters: [bias]}}
    - {type: linear, in: 32, out: 32, tie: {key: lin, parameters: [weight]}}
    - {type: layernorm, dim: 32, tie: {key: norm, parameters: [bias]}}
    - {type: linear, in: 32, out: 32, bias: false, tie: lin%(frozen)s}
    - {type: lm_head, tie: embed%(frozen)s}
"""


def job(name, layers, stages, directory, optimizer="type: adamw, grad_clip: 1.0", steps=STEPS,
        every=2, more=""):
    place = more if "}" in more else more + "}"
    if "partition" not in place:
        place += ", partition: uniform"
    return """schema: millrace.job/v1
name: %s
model:
  layers:
%spipeline: {topology: {pipe: %d%s}
batch: {micro_batch_size: 2, micro_batches: 4, sequence_length: 16}
optimizer: {%s, lr: 1e-2}
lr_schedule: {type: constant, total_steps: %d}
data: {format: bytes, train: corpus.txt, shuffle: true}
checkpoint: {dir: %s, every_steps: %d, initial: true}
""" % (name, layers, stages, place, optimizer, steps, directory, every)


class FrozenLaw1(unittest.TestCase):
    maxDiff = None

    def train(self, cluster, name, layers, stages, resume=None, **options):
        directory = resume or os.path.join(cluster.folder, "checkpoints-" + name)
        path = cluster.write(name + ".yaml", job(name, layers, stages, directory, **options))
        run = cluster.train(path, *(["--resume"] if resume else [])).check()
        last = cluster.client("-o", "json", "job", "get", name).check().json()["job"]
        bits = [(s["loss"], s["grad_norm"]) for s in run.steps()]
        bits.append((repr(last["loss"]), repr(last["gradient_norm"])))
        return bits, digests(step_folder(directory, options.get("steps", STEPS))), directory

    def check_every_cut(self, cluster, name, layers):
        bits, files, directory = self.train(cluster, name + "-1", layers, 1)
        self.assertLess(bits[STEPS - 1][0], bits[0][0])
        for stages in (2, 3):
            with self.subTest(stages=stages):
                other_bits, other_files, _ = self.train(
                    cluster, "%s-%d" % (name, stages), layers, stages)
                self.assertEqual((other_bits, other_files), (bits, files))
        copy = os.path.join(cluster.folder, name + "-stopped")
        os.mkdir(copy)
        shutil.copytree(step_folder(directory, 2), step_folder(copy, 2))
        other_bits, other_files, _ = self.train(cluster, name + "-1", layers, 2, resume=copy)
        self.assertEqual((other_bits, other_files), (bits[2:], files))
        return directory

    def test_frozen_parameters_stay_and_every_cut_gives_the_same_bits(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = self.check_every_cut(cluster, "frozen", FROZEN)
            first, last = step_folder(directory, 0), step_folder(directory, STEPS)
            kept = {name for layer in range(5)
                    for name, data in tensors(last, layer).items()
                    if tensors(first, layer)[name] == data and layer != 1}
            self.assertEqual(kept, {"wte.weight", "attn.qkv.weight", "ln_2.bias", "ln_1.weight",
                                    "weight", "bias"})
            self.assertEqual(tensors(last, 1), tensors(first, 1))
            self.assertEqual(tensors(last, 1, "optim"), {})
            self.assertEqual(set(tensors(last, 0, "optim")),
                             {"exp_avg.wpe.weight", "exp_avg_sq.wpe.weight"})
            states = tensors(last, 2, "optim")
            self.assertNotIn("exp_avg.attn.qkv.weight", states)
            self.assertIn("exp_avg.attn.qkv.bias", states)

    def test_what_is_not_frozen_moves_as_if_nothing_were(self):
        layers = FROZEN.replace(", dropout: 0.1", "")
        free = re.sub(r", frozen: (true|\[[^]]*\])", "", layers)
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            options = {"optimizer": "type: sgd, weight_decay: 0", "steps": 1, "every": 1}
            _, _, some = self.train(cluster, "some", layers, 2, **options)
            _, _, none = self.train(cluster, "none", free, 2, **options)
            for layer in range(5):
                before = tensors(step_folder(some, 0), layer)
                after = tensors(step_folder(some, 1), layer)
                moved = tensors(step_folder(none, 1), layer)
                for name in after:
                    with self.subTest(layer=layer, name=name):
                        self.assertNotEqual(moved[name], before[name])
                        self.assertIn(after[name], (before[name], moved[name]))
            self.assertEqual(tensors(step_folder(some, 1), 4), tensors(step_folder(none, 1), 4))

    def check_ties(self, directory):
        folder = step_folder(directory, STEPS)
        layers = [tensors(folder, layer) for layer in range(8)]
        self.assertEqual(layers[1], layers[2])
        self.assertEqual(layers[3]["bias"], layers[5]["bias"])
        self.assertNotEqual(layers[3]["weight"], layers[5]["weight"])
        self.assertEqual(layers[4]["weight"], layers[6]["weight"])
        self.assertEqual(layers[0]["wte.weight"], layers[7]["wte.weight"])

    def test_ties_of_several_parameters_and_keys_give_the_same_bits_in_every_cut(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            layers = TIED % {"embed": "{key: embed, parameters: [wte.weight]}", "frozen": ""}
            self.check_ties(self.check_every_cut(cluster, "tied", layers))

    def test_a_frozen_tie_is_no_more_than_its_weight(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            layers = TIED % {"embed": "embed, frozen: [wte.weight]", "frozen": ", frozen: true"}
            layers = layers.replace("parameters: [weight]}}", "parameters: [weight]}, "
                                                              "frozen: [weight]}")
            directory = self.check_every_cut(cluster, "held", layers)
            self.check_ties(directory)
            for layer, name in ((0, "wte.weight"), (4, "weight")):
                self.assertEqual(tensors(step_folder(directory, STEPS), layer)[name],
                                 tensors(step_folder(directory, 0), layer)[name])

    def test_ranks_that_share_layers_keep_to_it_in_every_cut(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for name, layers in (("frozen", FROZEN), ("tied", TIED % {
                    "embed": "{key: embed, parameters: [wte.weight]}", "frozen": ""})):
                with self.subTest(name):
                    one = self.train(cluster, name + "-m1", layers, 1, more=", model: 2")
                    two = self.train(cluster, name + "-m2", layers, 2, more=", model: 2")
                    self.assertEqual(two[:2], one[:2])
                    whole = self.train(cluster, name + "-m0", layers, 1)
                    for (loss, _), (other, _) in list(zip(one[0], whole[0]))[:STEPS]:
                        self.assertLess(abs(loss - other), 1e-4 * other)

    def test_a_stage_that_trains_nothing_passes_gradients_on(self):
        """And a model that trains nothing has a norm of 0. (In the field a floating tensor without
        a gradient ends the sender: deepspeed.md 99.)"""
        layers = FROZEN.replace(", frozen: [wte.weight]", "")
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            one = self.train(cluster, "alone-1", layers, 1)
            three = self.train(cluster, "alone-3", layers, 3,
                               more="}, schedule: gpipe, partition: [0, 1, 2, 5]")
            self.assertEqual(three[:2], one[:2])
            free = re.sub(r", frozen: (true|\[[^]]*\])", "", FROZEN)
            held = free.replace("}\n", ", frozen: true}\n")
            none = self.train(cluster, "none", held, 3)
            self.assertEqual([norm for _, norm in none[0][:STEPS]], [0] * STEPS)

    def test_replicas_leave_frozen_parameters_alone(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for name, layers in (("frozen", FROZEN), ("tied", TIED % {
                    "embed": "embed, frozen: [wte.weight]", "frozen": ", frozen: true"})):
                layers = layers.replace("parameters: [weight]}}", "parameters: [weight]}, "
                                                                  "frozen: [weight]}")
                with self.subTest(name):
                    one, files, _ = self.train(cluster, name + "-p1", layers, 1, more=", data: 2")
                    two, same, _ = self.train(cluster, name + "-p2", layers, 2, more=", data: 2")
                    self.assertEqual((two, same), (one, files))
                    split, same, _ = self.train(cluster, name + "-zero", layers, 2,
                                                more=", data: 2}, zero_stage: 1, schedule: gpipe")
                    self.assertEqual((split, same), (one, files))


if __name__ == "__main__":
    unittest.main(verbosity=2)
