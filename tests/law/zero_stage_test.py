# SPDX-License-Identifier: Apache-2.0
"""Law 1 for split optimizer state, to the bit, across real processes: zero_stage 1 changes nothing.

Method: one tiny GPT with dropout and a tie that goes across stages, trained at one data width with
the state whole and split, at every cut, with every optimizer, in bf16 and with activation
checkpointing; each step's loss and norm and the SHA-256 of each layer file of the last checkpoint
must be equal. Then a run at (pipe, data) = (2, 2) with split state is stopped, and its checkpoint
goes on at (1, 1), (2, 1) and (1, 3), whole and split: runs of one width must be equal to the bit
whatever the cut and the split, and the width of the save itself must give the uninterrupted run.
The memory that the stages hold is the memory that the plan says, and is less by what it says.
"""

import hashlib
import json
import os
import shutil
import time
import unittest
import urllib.request

from cluster import CORPUS, Cluster, job_text

STEPS = 12
BATCHES = 12  # microbatches of a step, of all replicas together


def digests(folder):
    """SHA-256 of each layer file of a checkpoint."""
    result = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("layer_"):
            with open(os.path.join(folder, name), "rb") as file:
                result[name] = hashlib.sha256(file.read()).hexdigest()
    return result


def at_step(folder, step):
    return os.path.join(folder, "step-%012d" % step)


def text(name, pipe, data, zero, **options):
    """A job of pipe x data ranks whose step is the same samples at every width."""
    options = {"dropout": 0.1, "steps": STEPS, "micro_batches": BATCHES // data, **options}
    return job_text(name=name, stages=1, **options).replace(
        "{stages: 1,", "{topology: {pipe: %d, data: %d}, zero_stage: %d," % (pipe, data, zero))


class ZeroStage(unittest.TestCase):
    maxDiff = None

    def run_job(self, cluster, name, pipe, data, zero, directory=None, resume=False, **options):
        directory = directory or os.path.join(cluster.folder, "checkpoints-" + name)
        path = cluster.write("job.yaml", text(name, pipe, data, zero, directory=directory,
                                              **options))
        steps = cluster.train(path, *(["--resume"] if resume else [])).check().steps()
        self.assertEqual(steps[-1]["step"], STEPS)
        return ([(s["step"], s["loss"], s["grad_norm"]) for s in steps],
                digests(at_step(directory, STEPS)))

    def test_split_state_gives_the_same_bits_at_every_cut_and_width(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for data, cuts in ((2, (1, 2)), (3, (1,)), (4, (1,))):
                wanted = self.run_job(cluster, "whole-%d" % data, 1, data, 0)
                self.assertEqual(len(wanted[1]), 12)
                self.assertLess(wanted[0][-1][1], wanted[0][0][1])
                for pipe in cuts:
                    with self.subTest(pipe=pipe, data=data):
                        found = self.run_job(cluster, "split-%d-%d" % (pipe, data), pipe, data, 1)
                        self.assertEqual(found, wanted)

    def test_split_state_gives_the_same_bits_with_every_optimizer_precision_and_recomputation(self):
        cases = {"adam": {"optimizer": "type: adam, weight_decay: 0.1"},
                 "sgd": {"optimizer": "type: sgd"},
                 "momentum": {"optimizer": "type: sgd, momentum: 0.9, nesterov: true, "
                                           "weight_decay: 0.1"},
                 "lion": {"optimizer": "type: lion, weight_decay: 0.1"},
                 "bf16": {"precision": "bf16"},
                 "bf16-lion": {"precision": "bf16", "optimizer": "type: lion"},
                 "again": {"interval": 1},
                 "bf16-again": {"interval": 2, "precision": "bf16", "schedule": "gpipe"}}
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            for name, options in cases.items():
                with self.subTest(name):
                    wanted = self.run_job(cluster, "whole-" + name, 1, 2, 0, **options)
                    found = self.run_job(cluster, "split-" + name, 2, 2, 1, **options)
                    self.assertEqual(found, wanted)

    def test_a_checkpoint_of_split_state_goes_on_at_every_width(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            saved = os.path.join(cluster.folder, "saved")
            whole = self.run_job(cluster, "job", 2, 2, 1, directory=saved, every=6)

            def go_on(pipe, data, zero):
                copy = os.path.join(cluster.folder, "copy-%d-%d-%d" % (pipe, data, zero))
                os.mkdir(copy)
                shutil.copytree(at_step(saved, 6), at_step(copy, 6))
                bits, files = self.run_job(cluster, "job", pipe, data, zero, directory=copy,
                                           resume=True)
                self.assertEqual(len(bits), STEPS - 6)
                return bits, files

            rest = (whole[0][6:], whole[1])
            self.assertEqual(go_on(2, 2, 0), rest)
            self.assertEqual(go_on(1, 2, 1), rest)
            alone = go_on(1, 1, 0)
            self.assertEqual(go_on(2, 1, 1), alone)
            self.assertEqual(go_on(1, 3, 1), go_on(1, 3, 0))
            for (step, loss, norm), (_, want, want_norm) in zip(alone[0], rest[0]):
                self.assertLess(abs(loss - want), 1e-5 * want, step)
                self.assertLess(abs(norm - want_norm), 1e-4 * want_norm, step)

    def status(self, stage):
        with urllib.request.urlopen("http://%s/status" % stage.ready["status_address"],
                                    timeout=5) as answer:
            return json.load(answer)

    def held(self, cluster, zero):
        """Bytes of optimizer state that each rank of a (2, 2) job holds, and the job's plan."""
        name = "memory-%d" % zero
        path = cluster.write(name + ".yaml", text(name, 2, 2, zero, dim=64, layers=4, steps=400))
        plan = cluster.client("-o", "json", "job", "plan", path).check().json()
        process = cluster.client_start("-o", "jsonl", "train", path)
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while True:  # the pages are written anew twice a second
            jobs = [self.status(stage).get("job", {}) for stage in cluster.stages]
            if all(job.get("name") == name and job["memory_held_bytes"]["optimizer"]
                   for job in jobs):
                break
            self.assertLess(time.monotonic(), deadline, jobs)
            time.sleep(0.1)
        cluster.client("job", "cancel", name).check()
        process.communicate(timeout=30)
        return {job["rank"]: job["memory_held_bytes"]["optimizer"] for job in jobs}, plan

    def test_each_replica_holds_the_share_that_the_plan_says(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            whole, whole_plan = self.held(cluster, 0)
            split, plan = self.held(cluster, 1)
            for rank in plan["ranks"]:
                self.assertEqual(split[rank["rank"]], rank["optimizer_bytes"])
                stage = plan["stages"][rank["pipe"]]
                self.assertGreaterEqual(stage["memory_bytes"]["optimizer"],
                                        rank["optimizer_bytes"])
                # Half, but for the alignment of each parameter.
                self.assertLess(abs(2 * split[rank["rank"]] - whole[rank["rank"]]), 256)
                before = whole_plan["stages"][rank["pipe"]]
                self.assertEqual(before["zero_saved_bytes"], 0)
                self.assertEqual(stage["memory_bytes"]["optimizer"] + stage["zero_saved_bytes"],
                                 before["memory_bytes"]["optimizer"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
