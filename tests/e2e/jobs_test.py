# SPDX-License-Identifier: Apache-2.0
"""The life of jobs, from outside: the queue when members are too few, the checkpoints that stay and
the ones that go, resuming from a tag, what an inference job leaves behind, and the memory that a
stage says it holds."""

import json
import os
import time
import unittest
import urllib.request

from cluster import CORPUS, Cluster, job_text

SLOW = dict(dim=128, heads=4, length=64, batch=4, micro_batches=8, layers=4)


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(stages=2)
        cls.cluster.__enter__()
        cls.cluster.write("corpus.txt", CORPUS)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def job(self, name):
        return self.cluster.client("-o", "json", "job", "get", name).check().json()["job"]

    def tags(self, directory):
        listed = self.cluster.client("-o", "json", "checkpoint", "list", directory).check().json()
        return [c["tag"] for c in listed["checkpoints"]]

    def test_jobs_wait_in_order_when_members_are_too_few(self):
        running = self.cluster.write("first.yaml", job_text(name="first", steps=200, **SLOW))
        process = self.cluster.client_start("-o", "jsonl", "train", running)
        process.stdout.readline()
        for name in ("second", "third"):
            path = self.cluster.write(name + ".yaml", job_text(name=name, steps=1))
            self.cluster.client("job", "submit", path).check()
        second, third = self.job("second"), self.job("third")
        self.assertEqual((second["state"], second["queue_position"]), ("QUEUED", 1))
        self.assertEqual((third["state"], third["queue_position"]), ("QUEUED", 2))
        self.assertIn("2", second["reason"])
        self.cluster.client("job", "cancel", "first").check()
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 9)
        # The second takes the members that the first gives back; a job that waits can be cancelled.
        watch = self.cluster.client_start("job", "watch", "second")
        said = []
        for line in watch.stderr:
            said.append(line)
            if "RUNNING" in line:
                break
        self.assertIn("RUNNING", said[-1])
        watch.kill()
        watch.communicate()
        for name in ("third", "second"):
            self.cluster.client("job", "cancel", name).check()
            self.assertEqual(self.job(name)["state"], "CANCELLED")

    def test_ranks_close_what_the_job_file_leaves_open(self):
        with Cluster(stages=4) as cluster:
            cluster.write("corpus.txt", CORPUS)
            text = job_text(name="open", steps=3, micro_batches=2)
            runs = []
            for name, ranks in (("open", ["--ranks", "4"]), ("given", [])):
                if not ranks:
                    text = text.replace("{stages: 2,", "{topology: {pipe: 2, data: 2},")
                path = cluster.write(name + ".yaml", text.replace("name: open", "name: " + name))
                runs.append([(s["loss"], s["grad_norm"], s["tokens"])
                             for s in cluster.train(path, *ranks).check().steps()])
            self.assertEqual(len(runs[0]), 3)
            self.assertEqual(runs[0], runs[1])
            refused = cluster.train(cluster.write("five.yaml", job_text()), "--ranks", "5")
            self.assertIn("5 ranks do not divide over pipe 2", refused.check(2).err)

    def test_a_job_that_needs_more_stages_than_there_are_says_so(self):
        path = self.cluster.write("wide.yaml", job_text(name="wide", stages=4, steps=1))
        self.cluster.client("job", "submit", path).check()
        job = self.job("wide")
        self.assertEqual(job["state"], "QUEUED")
        self.assertIn("needs 4", job["reason"])
        self.cluster.client("job", "cancel", "wide").check()

    def test_only_the_newest_checkpoints_are_kept_and_the_first_is_saved_when_asked(self):
        directory = os.path.join(self.cluster.folder, "kept")
        text = job_text(name="keeper", steps=9, directory=directory, every=2)
        path = self.cluster.write("keeper.yaml", text.replace("keep: 0", "keep: 2"))
        self.cluster.train(path).check()
        self.assertEqual(self.tags(directory), ["step-000000000008", "step-000000000009"])
        self.assertEqual(sorted(os.listdir(directory)),
                         ["latest", "step-000000000008", "step-000000000009"])
        with open(os.path.join(directory, "latest")) as latest:
            self.assertEqual(latest.read().strip(), "step-000000000009")
        directory = os.path.join(self.cluster.folder, "initial")
        text = job_text(name="initial", steps=2, directory=directory)
        path = self.cluster.write("initial.yaml", text.replace("keep: 0", "initial: true"))
        self.cluster.train(path).check()
        self.assertEqual(self.tags(directory), ["step-000000000000", "step-000000000002"])

    def test_a_run_goes_on_from_a_named_checkpoint(self):
        directory = os.path.join(self.cluster.folder, "named")
        path = self.cluster.write("named.yaml", job_text(name="named", steps=6,
                                                         directory=directory, every=2))
        whole = self.cluster.train(path).check().steps()
        again = self.cluster.train(path, "--resume=step-000000000004").check().steps()
        self.assertEqual([(s["step"], s["loss"]) for s in again],
                         [(s["step"], s["loss"]) for s in whole[4:]])
        run = self.cluster.train(path, "--resume=step-000000000005").check(3)
        self.assertIn("step-000000000005", run.err)

    def test_a_checkpoint_of_another_optimizer_is_refused_with_both_names(self):
        directory = os.path.join(self.cluster.folder, "kinds")
        path = self.cluster.write("kinds.yaml", job_text(
            name="kinds", steps=2, directory=directory, optimizer="type: sgd, momentum: 0.9"))
        self.cluster.train(path).check()
        with open(os.path.join(directory, "step-000000000002", "manifest.json")) as file:
            self.assertEqual(json.load(file)["optimizer"]["type"], "sgd")
        path = self.cluster.write("kinds.yaml", job_text(
            name="kinds", steps=4, directory=directory, optimizer="type: lion"))
        run = self.cluster.train(path, "--resume=step-000000000002")
        self.assertNotEqual(run.code, 0)
        self.assertIn("optimizer.type is lion but checkpoint step-000000000002 has the state of "
                      "sgd", run.err)
        # Weights alone do not care.
        self.cluster.client("generate", path, "--tokens", "4").check()

    def test_generating_needs_a_checkpoint_and_leaves_the_members_free(self):
        directory = os.path.join(self.cluster.folder, "empty")
        path = self.cluster.write("empty.yaml", job_text(name="empty", steps=2,
                                                         directory=directory))
        run = self.cluster.client("generate", path, "--tokens", "4").check(3)
        self.assertIn("checkpoint", run.err)
        self.cluster.train(path).check()
        run = self.cluster.client("generate", path, "--tokens", "4", "--temperature", "0").check()
        self.assertTrue(run.out)
        members = self.cluster.client("-o", "json", "stage", "list").check().json()["stages"]
        self.assertEqual({m["job_id"] for m in members}, {None})

    def stage_status(self, stage):
        address = self.cluster.stages[stage].ready["status_address"]
        with urllib.request.urlopen("http://%s/status" % address, timeout=5) as answer:
            return json.load(answer)

    def held(self, interval):
        """Bytes of activations that each stage of a running job holds, by stage."""
        name = "memory-%d" % interval
        path = self.cluster.write(name + ".yaml", job_text(
            name=name, steps=200, schedule="gpipe", interval=interval, **SLOW))
        process = self.cluster.client_start("-o", "jsonl", "train", path)
        for _ in range(3):
            process.stdout.readline()
        # The page is written anew once a second.
        deadline = time.monotonic() + 20
        while True:
            pages = [self.stage_status(stage) for stage in range(2)]
            if all(p.get("job", {}).get("name") == name and
                   p["job"]["memory_held_bytes"]["activations"] for p in pages):
                # The first step may still have allocated.
                if any("last_step" in p and p["job"]["next_step"] > 1 for p in pages):
                    break
            self.assertLess(time.monotonic(), deadline, pages)
            time.sleep(0.1)
        self.cluster.client("job", "cancel", name).check()
        process.communicate(timeout=30)
        plan = self.cluster.client("-o", "json", "job", "plan", path).check().json()
        result = {}
        for page in pages:
            job = page["job"]
            predicted, held = job["memory_bytes"], job["memory_held_bytes"]
            self.assertEqual(predicted, plan["stages"][job["stage"]]["memory_bytes"])
            self.assertEqual(held["activations"], predicted["activations"])
            for kind in ("weights", "gradients", "optimizer"):
                self.assertGreaterEqual(held[kind], predicted[kind])
                self.assertLess(held[kind], predicted[kind] * 1.01 + 4096)
            self.assertEqual(page.get("last_step", {}).get("allocations", 0), 0)
            result[job["stage"]] = held["activations"]
        return result

    def test_a_stage_shows_the_memory_that_was_predicted_and_that_it_holds(self):
        kept, again = self.held(0), self.held(1)
        for stage in range(2):
            self.assertLess(again[stage], kept[stage] / 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
