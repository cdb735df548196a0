# SPDX-License-Identifier: Apache-2.0
"""The memory that the plan predicts and the memory that each rank holds, side by side: in `job
get`, `stage get`, `job plan --job` and the coordinator's status page. What is held is what was
predicted within the rounding of allocations; `job set` changes both."""

import json
import time
import unittest
import urllib.request

from cluster import CORPUS, Cluster, job_text

KEY = "pipeline.activation_checkpoint_interval"
KINDS = ("weights", "gradients", "optimizer", "activations")
ROUNDING = 4096  # of one arena
TENSORS_MAX = 64  # of one rank and kind; each begins on a line of the cache
LINE = 64
SECONDS = 60


class Memory(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(stages=2).__enter__()
        self.addCleanup(self.cluster.__exit__, None, None, None)
        self.cluster.write("corpus.txt", CORPUS)

    def ask(self, *words):
        return self.cluster.client("-o", "json", *words).check().json()

    def start(self, name, steps=600):
        """A job that has done a step: each of its ranks has said what it holds."""
        path = self.cluster.write(name + ".yaml", job_text(name=name, steps=steps, layers=6))
        process = self.cluster.client_start("-o", "jsonl", "train", path)
        self.assertTrue(any("loss" in json.loads(line) for line in process.stdout))
        return path, process

    def check(self, predicted, held):
        for kind in KINDS:
            self.assertGreater(predicted[kind], 0, kind)
            self.assertGreaterEqual(held[kind], predicted[kind], kind)
            self.assertLessEqual(held[kind], predicted[kind] + ROUNDING + TENSORS_MAX * LINE, kind)

    def held_after(self, name, before):
        """The job's ranks, as soon as what each of them holds differs from before."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            ranks = self.ask("job", "get", name)["job"]["stages"]
            if all(r["memory_held_bytes"] != b["memory_held_bytes"]
                   for r, b in zip(ranks, before)):
                return ranks
        raise AssertionError("nothing changed: %r" % ranks)

    def test_held_is_what_was_predicted_and_job_set_changes_both(self):
        path, process = self.start("weighed")
        plan = self.ask("job", "plan", path)
        job = self.ask("job", "get", "weighed")["job"]
        self.assertEqual(len(job["stages"]), 2)
        for rank in job["stages"]:
            self.assertEqual(rank["memory_predicted_bytes"],
                             plan["stages"][rank["stage"]]["memory_bytes"])
            self.check(rank["memory_predicted_bytes"], rank["memory_held_bytes"])
            member = self.ask("stage", "get", rank["member_id"])["stage"]
            for key in ("memory_predicted_bytes", "memory_held_bytes"):
                self.assertEqual(member[key], rank[key])
        self.ask("job", "set", "weighed", KEY + "=1")
        after = self.held_after("weighed", job["stages"])
        for rank, before in zip(after, job["stages"]):
            self.check(rank["memory_predicted_bytes"], rank["memory_held_bytes"])
            for key in ("memory_predicted_bytes", "memory_held_bytes"):
                self.assertLess(rank[key]["activations"], before[key]["activations"])
                self.assertEqual(rank[key]["weights"], before[key]["weights"])
        planned = self.ask("job", "plan", "--job", "weighed")
        self.assertEqual(planned["job"]["id"], job["id"])
        self.assertEqual(planned["bounds"], plan["bounds"])
        for one, rank in zip(planned["ranks"], after):
            for key in ("memory_predicted_bytes", "memory_held_bytes"):
                self.assertEqual(one[key], rank[key])
        for stage, rank in zip(planned["stages"], after):
            self.assertEqual(stage["memory_bytes"], rank["memory_predicted_bytes"])
        self.cluster.client("job", "cancel", "weighed").check()
        process.communicate(timeout=SECONDS)

    def test_ended_job_shows_what_it_held(self):
        path = self.cluster.write("short.yaml", job_text(name="short", steps=2))
        self.cluster.train(path).check()
        ranks = self.ask("job", "plan", "--job", "short")["ranks"]
        self.assertEqual(len(ranks), 2)
        for rank in ranks:
            self.check(rank["memory_predicted_bytes"], rank["memory_held_bytes"])
        members = self.ask("stage", "list")["stages"]
        self.assertEqual([m["memory_held_bytes"] for m in members], [None, None])

    def test_plan_of_a_job_has_the_cut_that_was_measured(self):
        path = self.cluster.write("cut.yaml", job_text(name="cut", steps=2, partition="profile"))
        self.cluster.train(path).check()
        job = self.ask("job", "get", "cut")["job"]
        plan = self.ask("job", "plan", "--job", "cut")
        self.assertEqual([plan["bounds"][s:s + 2] for s in range(2)],
                         [stage["layers"] for stage in job["stages"]])
        self.assertNotIn("provisional", plan)
        self.assertAlmostEqual(plan["step_seconds"], job["predicted_step_seconds"], places=9)
        self.assertIn("BUSY/STEP", self.cluster.client("job", "plan", "--job", "cut").check().out)
        for rank in plan["ranks"]:
            self.check(rank["memory_predicted_bytes"], rank["memory_held_bytes"])

    def test_tables_have_both_columns(self):
        path = self.cluster.write("short.yaml", job_text(name="short", steps=2))
        self.cluster.train(path).check()
        for words in (("job", "get", "short"), ("job", "plan", "--job", "short")):
            out = self.cluster.client(*words).check().out
            self.assertIn("PREDICTED", out)
            self.assertIn("HELD", out)
            self.assertNotIn("ACTIVATIONS", out.rsplit("PREDICTED", 1)[1])
            wide = self.cluster.client("-o", "wide", *words).check().out
            self.assertIn("ACTIVATIONS", wide.rsplit("PREDICTED", 1)[1])
        self.assertNotIn("HELD", self.cluster.client("job", "plan", path).check().out)

    def test_status_page_shows_both(self):
        _, process = self.start("paged")
        url = "http://%s/status" % self.cluster.status_address
        shown = []
        end = time.monotonic() + SECONDS
        while len(shown) < 2 and time.monotonic() < end:
            with urllib.request.urlopen(url, timeout=10) as page:
                jobs = json.load(page)["jobs"]
            shown = [s for job in jobs for s in job["stages"] if s["memory_held_bytes"]]
        self.assertEqual(len(shown), 2)
        for stage in shown:
            self.check(stage["memory_bytes"], stage["memory_held_bytes"])
        self.cluster.client("job", "cancel", "paged").check()
        process.communicate(timeout=SECONDS)

    def test_one_of_file_and_job_is_needed(self):
        path = self.cluster.write("job.yaml", job_text())
        for words in ((), (path, "--job", "tiny")):
            self.assertIn("either a job FILE or --job JOB",
                          self.cluster.client("job", "plan", *words).check(2).err)
        self.assertIn("--ranks is for a job FILE", self.cluster.client(
            "job", "plan", "--job", "tiny", "--ranks", "4").check(2).err)
        self.assertIn("nobody", self.cluster.client("job", "plan", "--job", "nobody").check(3).err)


if __name__ == "__main__":
    unittest.main()
