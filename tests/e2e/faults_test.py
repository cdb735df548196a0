# SPDX-License-Identifier: Apache-2.0
"""What happens when something is killed: each test kills one thing in the middle of a step of a
real two-stage job and checks who says what, how soon, that nothing hangs, and that the cluster goes
on.

Method: the job is large enough that a step takes some tenths of a second; "in the middle" is
reached by waiting for a step's line on the client's stdout and then acting at once.
"""

import json
import os
import signal
import time
import unittest
import urllib.request

from cluster import CORPUS, Cluster, job_text

SLOW = dict(dim=128, heads=4, length=64, batch=4, micro_batches=8, layers=4)


def wait_for_step(process, step):
    """Reads the client's lines until this step is done; returns them."""
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["step"] >= step:
            return seen
    raise AssertionError("the run ended before step %d: %s" % (step, process.stderr.read()))


def readyz(address):
    try:
        with urllib.request.urlopen("http://%s/readyz" % address, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


class Faults(unittest.TestCase):
    def start(self, cluster, steps=200, every=0, name="victim"):
        cluster.write("corpus.txt", CORPUS)
        self.directory = os.path.join(cluster.folder, "checkpoints")
        path = cluster.write(name + ".yaml", job_text(
            name=name, steps=steps, directory=self.directory, every=every, **SLOW))
        process = cluster.client_start("-o", "jsonl", "train", path)
        return path, process

    def job(self, cluster, name="victim"):
        return cluster.client("-o", "json", "job", "get", name).check().json()["job"]

    def wait_idle(self, cluster, count, seconds=10):
        """The coordinator's own list says how many members are idle; it changes by events that the
        client cannot subscribe to, so it is asked, at most seconds long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            members = cluster.client("-o", "json", "stage", "list").check().json()["stages"]
            if sum(1 for m in members if m["state"] == "idle") == count:
                return members
            time.sleep(0.1)
        raise AssertionError("not %d idle members: %s" % (count, members))

    def small_job_runs(self, cluster):
        path = cluster.write("after.yaml", job_text(name="after", steps=2))
        self.assertEqual(len(cluster.train(path).check().steps()), 2)

    def test_a_stage_killed_in_mid_step_fails_its_job_by_name_and_resume_continues(self):
        with Cluster(stages=2) as cluster:
            path, process = self.start(cluster, steps=12, every=4)
            wait_for_step(process, 5)
            killed = time.monotonic()
            cluster.stages[1].stop(signal.SIGKILL)
            out, err = process.communicate(timeout=30)
            self.assertLess(time.monotonic() - killed, 10)
            self.assertEqual(process.returncode, 8, err)
            self.assertIn("stage 1", err)
            job = self.job(cluster)
            self.assertEqual(job["state"], "FAILED")
            self.assertIn("stage 1", job["reason"])
            self.wait_idle(cluster, 1)
            cluster.start_stage().wait_message("attached")
            steps = cluster.train(path, "--resume").check().steps()
            self.assertEqual([s["step"] for s in steps], list(range(steps[0]["step"], 13)))
            self.assertIn(steps[0]["step"], (5, 9))

    def test_sigterm_to_a_stage_in_mid_step_ends_it_within_five_seconds(self):
        for victim in (0, 1):
            with self.subTest(stage=victim), Cluster(stages=2) as cluster:
                _, process = self.start(cluster)
                wait_for_step(process, 2)
                self.assertEqual(cluster.stages[victim].stop(signal.SIGTERM, seconds=5), 0)
                out, err = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 8, err)
                self.wait_idle(cluster, 1)

    def test_sigterm_to_the_coordinator_in_mid_step_ends_it_and_frees_the_stages(self):
        with Cluster(stages=2) as cluster:
            _, process = self.start(cluster)
            wait_for_step(process, 2)
            self.assertEqual(cluster.coordinator.stop(signal.SIGTERM, seconds=5), 0)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 5)
            for stage in cluster.stages:
                stage.wait_message("job released")
                self.assertEqual(readyz(stage.ready["status_address"]), 503)
            # A coordinator that comes back at its address knows the job, and the stages come to it.
            lines = [len(stage.lines) for stage in cluster.stages]
            cluster.start_coordinator(listen=cluster.address)
            for stage, line in zip(cluster.stages, lines):
                stage.wait_message("attached", after=line)
            job = self.job(cluster)
            self.assertEqual(job["state"], "FAILED")
            self.assertIn("coordinator", job["reason"])
            self.small_job_runs(cluster)

    def test_a_client_killed_in_mid_stream_leaves_the_daemons_alive(self):
        with Cluster(stages=2) as cluster:
            _, process = self.start(cluster)
            wait_for_step(process, 2)
            process.kill()
            process.communicate()
            job = self.job(cluster)
            self.assertEqual(job["state"], "RUNNING")
            cluster.client("job", "cancel", "victim").check()
            self.wait_idle(cluster, 2)
            self.small_job_runs(cluster)

    def test_an_interrupted_client_cancels_its_job(self):
        with Cluster(stages=2) as cluster:
            _, process = self.start(cluster)
            wait_for_step(process, 2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 130, err)
            self.assertEqual(self.job(cluster)["state"], "CANCELLED")
            self.wait_idle(cluster, 2)

    def test_pause_resume_and_save_in_the_middle(self):
        with Cluster(stages=2) as cluster:
            path, process = self.start(cluster, steps=12)
            wait_for_step(process, 2)
            cluster.client("job", "pause", "victim").check()
            cluster.client("checkpoint", "save", "victim", "by-hand").check()
            self.assertEqual(self.job(cluster)["state"], "PAUSED")
            cluster.client("job", "resume", "victim").check()
            out, err = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 0, err)
            listed = cluster.client("-o", "json", "checkpoint", "list", self.directory)
            listed = listed.check().json()
            tags = [c["tag"] for c in listed["checkpoints"]]
            self.assertIn("by-hand", tags)
            self.assertIn("step-000000000012", tags)
            cluster.client("checkpoint", "verify", os.path.join(self.directory, "by-hand")).check()

    def test_a_full_disk_during_a_save_leaves_the_job_and_the_old_checkpoint(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small file system needs root")
        with Cluster(stages=2) as cluster:
            small = os.path.join(cluster.folder, "small")
            os.mkdir(small)
            if os.system("mount -t tmpfs -o size=20m tmpfs %s" % small) != 0:
                self.skipTest("a tmpfs cannot be mounted here")
            try:
                cluster.write("corpus.txt", CORPUS)
                path = cluster.write("full.yaml", job_text(
                    name="full", steps=6, directory=small, every=2, **SLOW))
                run = cluster.train(path)
                self.assertEqual(len(run.steps()), 6)
                listed = cluster.client("-o", "json", "checkpoint", "list", small).check().json()
                self.assertEqual([c["step"] for c in listed["checkpoints"]][:1], [2])
                cluster.client("checkpoint", "verify", small).check()
                self.wait_idle(cluster, 2)
            finally:
                os.system("umount %s" % small)


if __name__ == "__main__":
    unittest.main(verbosity=2)
