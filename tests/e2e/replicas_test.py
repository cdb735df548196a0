# SPDX-License-Identifier: Apache-2.0
"""Replicas (the data axis) across real processes. With the same data width every number of stages
gives the same bits; another width takes the same samples in the same steps, with the same dropout,
and gives the same losses within rounding (law 7: 2 x 4 microbatches are 1 x 8). A checkpoint does
not know the width, and a stage of another replica that is killed fails the job by name. Gradients
are summed while the pipeline drains, and a save that loses a replica commits nothing."""

import json
import os
import shutil
import signal
import time
import unittest

from cluster import CORPUS, Cluster, job_text
from reduction_trace import reductions

TOLERANCE = 1e-5  # relative, over all steps: sums of gradients are taken in another order
BF16_TOLERANCE = 1e-2  # the same, and a weight may then round to the other neighbour


def text(name, pipe, data, micro_batches, zero=0, **options):
    """A job of pipe x data ranks."""
    return job_text(name=name, stages=1, micro_batches=micro_batches, dropout=0.1,
                    **options).replace(
                        "{stages: 1,", "{topology: {pipe: %d, data: %d}, zero_stage: %d,"
                        % (pipe, data, zero))


class Replicas(unittest.TestCase):
    def losses(self, cluster, name, *arguments, resume=False, **options):
        path = cluster.write(name + ".yaml", text(name, *arguments, **options))
        steps = cluster.train(path, *(["--resume"] if resume else [])).check().steps()
        return [(s["step"], s["loss"], s["grad_norm"], s["tokens"]) for s in steps]

    def holder(self, cluster, rank):
        """The stage that has this rank of the job that was assigned last."""
        for stage in cluster.stages:
            assigned = [line for line in stage.lines if '"message":"job assigned"' in line]
            if assigned and json.loads(assigned[-1])["rank"] == rank:
                return stage
        raise AssertionError("no stage has rank %d" % rank)

    def assert_close(self, got, wanted, tolerance=TOLERANCE):
        self.assertEqual([g[0] for g in got], [w[0] for w in wanted])
        for one, other in zip(got, wanted):
            self.assertEqual(one[3], other[3])
            for i in (1, 2):
                self.assertLess(abs(one[i] - other[i]), tolerance * abs(other[i]), (one, other))

    def test_every_topology_gives_the_same_training(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            alone = self.losses(cluster, "alone", 1, 1, 8, steps=12)
            wide = self.losses(cluster, "wide", 1, 2, 4, steps=12)
            square = self.losses(cluster, "square", 2, 2, 4, steps=12)
            four = self.losses(cluster, "four", 1, 4, 2, steps=12)
            self.assertEqual(wide, square)
            self.assert_close(wide, alone)
            self.assert_close(four, alone)

    def test_in_bf16_the_cut_changes_no_bit_and_the_width_little(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            alone = self.losses(cluster, "alone", 1, 1, 8, steps=12, precision="bf16")
            wide = self.losses(cluster, "wide", 1, 2, 4, steps=12, precision="bf16")
            square = self.losses(cluster, "square", 2, 2, 4, steps=12, precision="bf16")
            self.assertEqual(wide, square)
            self.assert_close(wide, alone, BF16_TOLERANCE)

    def test_a_checkpoint_is_resumed_at_another_width(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            whole = self.losses(cluster, "resized", 1, 1, 8, steps=10)
            self.losses(cluster, "resized", 2, 2, 4, steps=10, directory=directory, every=5)
            shutil.rmtree(os.path.join(directory, "step-%012d" % 10))
            rest = self.losses(cluster, "resized", 3, 1, 8, steps=10, directory=directory,
                               resume=True)
            self.assertEqual(len(rest), 5)
            self.assert_close(rest, whole[5:])
            # Inference takes one replica of whatever the file says.
            path = cluster.write("two.yaml", text("resized", 2, 2, 4, steps=10,
                                                  directory=directory))
            run = cluster.client("generate", path, "--tokens", "5", "--temperature", "0").check()
            self.assertTrue(run.out)

    def test_gradients_are_summed_while_the_pipeline_drains(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("overlap.yaml", text("overlap", 2, 2, 4, steps=12, dim=64,
                                                      heads=4))
            plan = cluster.client("-o", "json", "job", "plan", path).check().json()
            cluster.train(path).check()
            bounds = plan["bounds"]
            orders = [["layer %d" % layer for layer in reversed(range(*bounds[s:s + 2]))] +
                      ["ties"] for s in (0, 1)]
            seen = []
            for stage in cluster.stages:
                steps = reductions(stage)
                self.assertEqual(sorted(steps), list(range(12)))
                order = orders[steps[0]["names"] == orders[1]]
                for step in steps.values():
                    self.assertEqual(step["names"], order)
                seen.append(order)
                # A machine may be so busy that a thread comes late, yet not in every step.
                self.assertGreaterEqual(max(step["early"] for step in steps.values()), 1)
                sums = sum(step["sums"] for step in steps.values())
                exposed = sum(step["exposed"] for step in steps.values())
                print("%s: sums %d us, waited for %d us: %.2f of them"
                      % (stage.name, sums, exposed, exposed / sums))
            self.assertEqual(seen.count(orders[0]), 2)
            self.assertEqual(seen.count(orders[1]), 2)

    def test_a_killed_replica_is_named(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("victim.yaml", text(
                "victim", 2, 2, 4, steps=400, dim=64, heads=4))
            process = cluster.client_start("-o", "jsonl", "train", path)
            for line in process.stdout:
                if json.loads(line)["step"] == 3:
                    break
            self.holder(cluster, 3).stop(signal.SIGKILL)
            _, err = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 8)
            self.assertIn("rank 3", err)
            small = cluster.write("after.yaml", text("after", 1, 2, 2, steps=2))
            self.assertEqual(len(cluster.train(small).check().steps()), 2)

    def test_a_replica_killed_in_the_middle_of_a_save_commits_nothing(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            options = dict(steps=60, dim=64, heads=4, every=5, zero=1)
            whole = os.path.join(cluster.folder, "whole")
            self.losses(cluster, "job", 2, 2, 4, directory=whole, **options)
            directory = os.path.join(cluster.folder, "checkpoints")
            path = cluster.write("job.yaml", text("job", 2, 2, 4, directory=directory, **options))
            process = cluster.client_start("-o", "jsonl", "train", path)
            for line in process.stdout:
                if json.loads(line)["step"] == 7:
                    break
            cluster.client("job", "pause", "job").check()
            # All ranks wait for rank 0; the last one sleeps through what it decides.
            sleeper = self.holder(cluster, 3)
            sleeper.process.send_signal(signal.SIGSTOP)
            save = cluster.client_start("checkpoint", "save", "job", "torn")
            deadline = time.monotonic() + 20
            while not self.layer_files(directory, "torn"):  # of the first stage's replicas
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            sleeper.stop(signal.SIGKILL)
            _, err = save.communicate(timeout=60)
            self.assertNotEqual(save.returncode, 0)
            self.assertIn("rank 3", err)
            self.assertEqual(process.wait(60), 8)
            process.communicate()
            self.assertNotIn("torn", os.listdir(directory))
            cluster.client("checkpoint", "verify", directory).check()
            cluster.stages.remove(sleeper)
            cluster.start_stage().wait_message("attached")
            cluster.train(path, "--resume").check()
            last = "step-%012d" % options["steps"]
            for name in os.listdir(os.path.join(whole, last)):
                if name.startswith("layer_"):
                    with open(os.path.join(whole, last, name), "rb") as one:
                        with open(os.path.join(directory, last, name), "rb") as other:
                            self.assertEqual(one.read(), other.read(), name)

    def layer_files(self, directory, tag):
        """Layer files of a save of that tag that is under way."""
        return [name for folder, _, names in os.walk(directory) for name in names
                if tag in os.path.basename(folder) and name.startswith("layer_")]


if __name__ == "__main__":
    unittest.main(verbosity=2)
