# SPDX-License-Identifier: Apache-2.0
"""millrace job set: a running job keeps other activations from its next step on. Not a bit of what
it computes changes, its memory does, as predicted; the setting lasts; what cannot be set is
named. (In the field the call had no effect for years: deepspeed.md 27.)"""

import json
import os
import time
import unittest
import urllib.request

from cluster import CORPUS, Cluster, job_text

KEY = "pipeline.activation_checkpoint_interval"


def stage_job(stage):
    """The job on the status page, which is written anew with each heartbeat."""
    url = "http://%s/status" % stage.ready["status_address"]
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with urllib.request.urlopen(url, timeout=10) as page:
            job = json.load(page).get("job")
        if job is not None and job["memory_held_bytes"]["activations"] > 0:
            return job
        time.sleep(0.02)
    raise AssertionError("the status page shows no job")


class Set(unittest.TestCase):
    def test_interval_changes_memory_and_not_a_bit(self):
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            text = job_text(steps=600, layers=6, dropout=0.1, directory=directory)
            plain = cluster.write("plain.yaml", text)
            expected = cluster.train(plain).check().steps()
            changed = cluster.write("changed.yaml", text.replace("name: tiny", "name: changed")
                                    .replace("checkpoints", "others"))
            running = cluster.client_start("-o", "jsonl", "train", changed)
            lines = [running.stdout.readline() for _ in range(3)]
            before = [stage_job(stage) for stage in cluster.stages]
            after = []
            for value in ("1", "2"):
                marks = [len(stage.lines) for stage in cluster.stages]
                job = cluster.client("-o", "json", "job", "set", "changed",
                                     KEY + "=" + value).check().json()["job"]
                self.assertEqual(job["name"], "changed")
                for stage, mark in zip(cluster.stages, marks):
                    said = stage.wait_message("activation checkpointing", after=mark)
                    self.assertEqual(said["interval"], int(value))
                    after.append(said["activation_bytes"])
            lines += running.stdout.read().splitlines(keepends=True)
            self.assertEqual(running.wait(120), 0, running.stderr.read())
            running.stdout.close()
            running.stderr.close()
            steps = [json.loads(line) for line in lines]
            self.assertEqual([(s["loss"], s["grad_norm"]) for s in steps],
                             [(s["loss"], s["grad_norm"]) for s in expected])
            for stage in range(2):
                held = before[stage]["memory_held_bytes"]["activations"]
                self.assertEqual(before[stage]["activation_checkpoint_interval"], 0)
                self.assertGreaterEqual(held, before[stage]["memory_bytes"]["activations"])
                self.assertLess(after[stage], held)
            kept = cluster.client("-o", "json", "job", "get", "changed").check().json()["job"]
            self.assertIn("activation_checkpoint_interval: 2", kept["job_file"])

    def test_what_cannot_be_set_is_named(self):
        with Cluster(stages=1) as cluster:
            cluster.write("corpus.txt", CORPUS)
            job = cluster.write("job.yaml", job_text(stages=1, steps=2))
            queued = cluster.write("queued.yaml", job_text(name="queued", stages=2, steps=2))
            cluster.train(job).check()
            cluster.client("job", "submit", queued).check()
            cases = (
                ("tiny", KEY + "=1", 4, "SUCCEEDED"),
                ("nobody", KEY + "=1", 3, "nobody"),
                ("queued", "optimizer.lr=1", 2, KEY),
                ("queued", KEY + "=-1", 2, "activation_checkpoint_interval"),
                ("queued", KEY + "=many", 2, "activation_checkpoint_interval"),
                ("queued", KEY, 2, "KEY=VALUE"),
            )
            for name, change, code, text in cases:
                self.assertIn(text, cluster.client("job", "set", name, change).check(code).err)
            cluster.client("job", "set", "queued", KEY + "=3").check()
            kept = cluster.client("-o", "json", "job", "get", "queued").check().json()["job"]
            self.assertIn("activation_checkpoint_interval: 3", kept["job_file"])


if __name__ == "__main__":
    unittest.main()
