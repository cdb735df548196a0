# SPDX-License-Identifier: Apache-2.0
"""A checkpoint knows neither how many stages, replicas nor model ranks wrote it: what (pipe, data,
model) = (2,2,1) saved goes on at (3,1,1), (4,1,1) and (1,1,2), and what (1,1,2) saved at one rank
and at four. Without a model axis on either side the going on is the same to the bit whatever the
stages; with it within the bound that the model axis has at all. `checkpoint reshape` gives, without
a server, the very bytes that ranks of the new width would load, and back the old ones. (The field's
own merging takes some parameters of one rank only, and its offline tool reads the first rank's
file: deepspeed.md 126.)"""

import glob
import hashlib
import os
import shutil
import unittest

from cluster import CORPUS, Cluster, job_text, run_client

TOLERANCE = 1e-5  # relative: sums over model ranks and replicas are taken in another order
STEPS = 10


def text(name, pipe, data, model, directory, **options):
    return job_text(name=name, stages=1, heads=4, layers=3, steps=STEPS,
                    micro_batches=8 // data, directory=directory, every=5, **options).replace(
                        "{stages: 1,", "{topology: {pipe: %d, data: %d, model: %d},"
                        % (pipe, data, model))


def digests(folder):
    return {os.path.basename(path): hashlib.sha256(open(path, "rb").read()).hexdigest()
            for path in glob.glob(os.path.join(folder, "*.safetensors"))}


class CheckpointWidths(unittest.TestCase):
    def train(self, cluster, name, topology, directory, resume=False):
        path = cluster.write("%s-%d-%d-%d.yaml" % ((name,) + topology),
                             text(name, *topology, directory))
        steps = cluster.train(path, *(["--resume"] if resume else [])).check().steps()
        return [(s["step"], s["loss"], s["grad_norm"]) for s in steps]

    def go_on(self, cluster, name, topology, saved):
        """The steps after step 5 of saved, in a folder of their own."""
        directory = os.path.join(cluster.folder, "on-%s-%d-%d-%d" % ((name,) + topology))
        shutil.copytree(saved, directory)
        steps = self.train(cluster, name, topology, directory, resume=True)
        self.assertEqual([s[0] for s in steps], list(range(6, STEPS + 1)))
        return steps

    def assert_close(self, got, wanted):
        for one, other in zip(got, wanted):
            for i in (1, 2):
                self.assertLess(abs(one[i] - other[i]), TOLERANCE * abs(other[i]), (one, other))

    def first_half(self, cluster, name, topology):
        """A folder with step 5 of a training at that topology, and nothing newer."""
        directory = os.path.join(cluster.folder, "saved-" + name)
        self.train(cluster, name, topology, directory)
        shutil.rmtree(os.path.join(directory, "step-%012d" % STEPS))
        return directory

    def test_what_stages_and_replicas_saved_goes_on_at_any_topology(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            saved = self.first_half(cluster, "wide", (2, 2, 1))
            alone = self.go_on(cluster, "wide", (1, 1, 1), saved)
            self.assertEqual(self.go_on(cluster, "wide", (3, 1, 1), saved), alone)
            self.assertEqual(self.go_on(cluster, "wide", (4, 1, 1), saved), alone)
            self.assert_close(self.go_on(cluster, "wide", (1, 1, 2), saved), alone)

    def test_what_model_ranks_saved_goes_on_at_other_widths(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            saved = self.first_half(cluster, "cut", (1, 1, 2))
            same = self.go_on(cluster, "cut", (1, 1, 2), saved)
            self.assertEqual(self.go_on(cluster, "cut", (2, 1, 2), saved), same)
            alone = self.go_on(cluster, "cut", (1, 1, 1), saved)
            self.assert_close(alone, same)
            self.assert_close(self.go_on(cluster, "cut", (1, 1, 4), saved), same)
            self.check_reshaped(cluster, saved, alone)

    def check_reshaped(self, cluster, saved, alone):
        """Offline: 2 -> 1 -> 2 gives the old bytes, and the merged one goes on as the loader's."""
        tag = "step-%012d" % 5
        merged = os.path.join(cluster.folder, "merged")
        again = os.path.join(cluster.folder, "again")
        run = lambda *arguments: run_client(list(arguments), cluster.folder)
        run("checkpoint", "merge", os.path.join(saved, tag), os.path.join(merged, tag)).check()
        back = run("-o", "json", "checkpoint", "reshape", os.path.join(merged, tag),
                   os.path.join(again, tag), "--model", "2").check().json()["checkpoint"]
        self.assertEqual((back["model_ranks_before"], back["model_ranks"]), (1, 2))
        self.assertEqual(digests(os.path.join(again, tag)), digests(os.path.join(saved, tag)))
        for folder in (merged, again):
            run("checkpoint", "verify", os.path.join(folder, tag)).check()
        self.assertEqual(self.go_on(cluster, "cut", (2, 1, 1), merged), alone)
        self.check_inspect(run, saved, merged, tag)
        refused = run("checkpoint", "merge", os.path.join(saved, tag), os.path.join(merged, tag))
        self.assertNotEqual(refused.code, 0)
        self.assertIn("stands already", refused.err)
        refused = run("checkpoint", "reshape", os.path.join(saved, tag), "x")
        self.assertEqual(refused.code, 2, refused.err)
        self.assertIn("--model", refused.err)

    def check_inspect(self, run, saved, merged, tag):
        """Both show the same model: ranks, whole elements, and norms that add up."""
        two, one = (run("-o", "json", "checkpoint", "inspect", os.path.join(folder, tag)).check()
                    .json()["checkpoint"] for folder in (saved, merged))
        self.assertEqual((two["model_ranks"], one["model_ranks"]), (2, 1))
        self.assertEqual(two["totals"]["model_elements"], one["totals"]["model_elements"])
        block = [layer for layer in two["layers"] if layer["layer"] == 1][0]
        ranks = [file["model_rank"] for file in block["files"] if file["kind"] == "model"]
        self.assertEqual(ranks, [0, 1])

        def square(document, name):
            files = [f for layer in document["layers"] if layer["layer"] == 1
                     for f in layer["files"] if f["kind"] == "model"]
            return sum(t["norm"] ** 2 for f in files for t in f["tensors"] if t["name"] == name)
        whole = square(one, "attn.qkv.weight")
        self.assertLess(abs(square(two, "attn.qkv.weight") - whole), 1e-9 * whole)


if __name__ == "__main__":
    unittest.main()
