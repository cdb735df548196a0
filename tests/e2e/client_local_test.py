# SPDX-License-Identifier: Apache-2.0
"""Goal: millrace up gives a working cluster in one command that every later command finds, and
millrace down ends it and puts back what was; the same tokens train to the same losses from every
data format. Method: real daemons below a temporary home; everything that was started is looked for
after the end."""

import glob
import json
import os
import select
import signal
import subprocess
import unittest

from cluster import CORPUS, MILLRACE, MILLRACED, job_text, temporary_folder

SECONDS = 240
FORMS = ("table", "wide", "json", "jsonl", "name")


class Local(unittest.TestCase):
    def setUp(self):
        self.folder = temporary_folder("local")
        keep = {name: os.environ[name] for name in ("PATH", "ASAN_OPTIONS", "TSAN_OPTIONS")
                if name in os.environ}
        self.environment = dict(keep, HOME=self.folder, TERM="dumb")

    def tearDown(self):
        self.run_client("down", "--yes", code=None)

    def run_client(self, *words, code=0, **environment):
        done = subprocess.run([MILLRACE] + list(words), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS,
                              cwd=self.folder, env=dict(self.environment, **environment))
        if code is not None:
            self.assertEqual(done.returncode, code, "%s: %s" % (words, done.stderr))
        return done

    def up(self, *words):
        done = self.run_client("-o", "json", "up", "--millraced", MILLRACED, *words)
        return json.loads(done.stdout)["cluster"]

    def config(self, name):
        done = self.run_client("-o", "json", "config", "show")
        for setting in json.loads(done.stdout)["settings"]:
            if setting["setting"] == name:
                return setting["value"]
        return None

    def daemons(self, cluster):
        return [cluster["coordinator"]["process_id"]] + [stage["process_id"]
                                                         for stage in cluster["stages"]]

    def alive(self, process):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        with open("/proc/%d/stat" % process) as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"

    def left_over(self):
        """Command lines of processes that name this test's folder."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    line = file.read()
            except OSError:  # it has ended meanwhile
                continue
            if self.folder.encode() in line:
                found.append(line)
        return found

    def test_up_is_found_by_later_commands_and_down_ends_it(self):
        self.run_client("config", "set-context", "other", "--server", "10.0.0.1:9700", "--use")
        cluster = self.up("--stages", "2", "--threads", "1")
        self.assertEqual(self.config("server"), cluster["address"])
        self.assertTrue(all(self.alive(process) for process in self.daemons(cluster)))
        listed = json.loads(self.run_client("-o", "json", "stage", "list").stdout)["stages"]
        self.assertEqual([stage["state"] for stage in listed], ["idle", "idle"])
        again = self.run_client("up", "--millraced", MILLRACED, code=4)
        self.assertIn(cluster["address"], again.stderr)
        with open(os.path.join(self.folder, "corpus.txt"), "w") as file:
            file.write(CORPUS)
        with open(os.path.join(self.folder, "tiny.yaml"), "w") as file:
            file.write(job_text(steps=3))
        events = subprocess.Popen(
            [MILLRACE, "-o", "jsonl", "cluster", "events", "-f", "--interval", "100ms"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=self.folder,
            env=self.environment)
        done = self.run_client("-o", "jsonl", "train", "tiny.yaml")
        self.assertEqual(len(done.stdout.splitlines()), 3)
        seen = []
        while "SUCCEEDED" not in seen:  # it is there before the job or follows it; both tell
            seen.append(json.loads(events.stdout.readline())["event"])
        events.send_signal(signal.SIGINT)
        events.communicate(timeout=SECONDS)
        self.assertEqual(events.returncode, 130)
        self.run_client("cluster", "health")
        self.check_trace(cluster)
        self.run_client("-o", "name", "down")
        self.assertFalse(any(self.alive(process) for process in self.daemons(cluster)))
        self.assertEqual(self.left_over(), [])
        self.assertEqual(self.config("server"), "10.0.0.1:9700")
        self.assertEqual(self.config("context"), "other")
        self.run_client("down", code=3)

    def check_trace(self, cluster):
        """The trace of the job that ran: both ranks, and their forward passes in order."""
        for form in FORMS:
            done = self.run_client("-o", form, "trace", "fetch", "tiny", "--steps", "2")
            if form == "name":
                self.assertEqual(done.stdout.split("\n")[1:], [""])
                continue
            trace = json.loads(done.stdout)
            self.assertEqual(trace["otherData"]["schema"], "millrace.trace/v1")
            spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
            self.assertEqual({span["args"]["step"] for span in spans}, {1, 2})
            first = {rank: min(span["ts"] for span in spans
                               if span["pid"] == rank and span["name"] == "F0")
                     for rank in (0, 1)}
            self.assertLess(first[0], first[1], "stage 0 goes first, on one clock")
        for stage in cluster["stages"]:
            os.kill(stage["process_id"], signal.SIGSTOP)
        done = self.run_client("--timeout", "0.5", "trace", "fetch", "tiny", code=7)
        for stage in cluster["stages"]:
            os.kill(stage["process_id"], signal.SIGCONT)
        self.assertIn("did not answer in time", done.stderr)

    def test_up_and_down_in_every_form(self):
        where = os.path.join(self.folder, "here")
        for form in FORMS:
            up = self.run_client("-o", form, "up", "--millraced", MILLRACED, "--stages", "1",
                                 "--dir", where)
            with open(os.path.join(where, "cluster.json")) as file:
                cluster = json.load(file)["cluster"]
            self.assertIn(cluster["address"], up.stdout)
            if form in ("json", "jsonl"):
                self.assertEqual(json.loads(up.stdout)["schema"], "millrace.cli/v1")
                self.assertEqual(json.loads(up.stdout)["cluster"], cluster)
            if form == "name":
                self.assertEqual(up.stdout, cluster["address"] + "\n")
            down = self.run_client("-o", form, "down", "--dir", where)
            self.assertIn(cluster["address"], down.stdout)
            self.assertFalse(any(self.alive(process) for process in self.daemons(cluster)))

    def test_two_clusters_have_names_of_their_own(self):
        first = self.up("--stages", "1")
        second = self.up("--stages", "1", "--name", "second")
        self.assertEqual(self.config("server"), second["address"])
        done = self.run_client("--context", "local", "-o", "name", "cluster")
        self.assertEqual(done.stdout.strip(), first["address"])
        self.run_client("down", "--name", "second")
        self.assertEqual(self.config("server"), first["address"])

    def test_a_cluster_that_works_is_not_ended_without_a_yes(self):
        cluster = self.up("--stages", "1")
        with open(os.path.join(self.folder, "job.yaml"), "w") as file:
            file.write(job_text(stages=3))
        job = self.run_client("-o", "name", "job", "submit", "job.yaml").stdout.strip()
        done = self.run_client("down", code=2)
        self.assertIn("end the cluster and cancel 1 job", done.stderr)
        self.assertTrue(all(self.alive(process) for process in self.daemons(cluster)))
        self.run_client("down", "--yes")
        cluster = self.up("--stages", "1")  # the history stays
        shown = json.loads(self.run_client("-o", "json", "job", "get", job).stdout)["job"]
        self.assertEqual(shown["state"], "CANCELLED")

    def test_a_submitted_job_is_fed_by_one_client_after_another(self):
        self.up("--stages", "1", "--threads", "1")
        with open(os.path.join(self.folder, "corpus.txt"), "w") as file:
            file.write(CORPUS)
        with open(os.path.join(self.folder, "job.yaml"), "w") as file:
            file.write(job_text(stages=1, steps=3))
        whole = self.run_client("-o", "jsonl", "train", "job.yaml").stdout.splitlines()
        with open(os.path.join(self.folder, "job.yaml"), "w") as file:
            file.write(job_text(name="long", stages=1, steps=2000))
        job = self.run_client("-o", "name", "job", "submit", "job.yaml").stdout.strip()
        first = subprocess.Popen([MILLRACE, "-o", "jsonl", "job", "feed", job],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, cwd=self.folder,
                                 env=self.environment)
        lines = [first.stdout.readline() for _ in range(3)]
        first.send_signal(signal.SIGINT)
        rest, messages = first.communicate(timeout=SECONDS)
        self.assertEqual(first.returncode, 130, messages)
        self.assertIn("millrace job feed %s goes on with it" % job, messages)
        self.assertEqual(json.loads(lines[0])["loss"], json.loads(whole[0])["loss"])
        done = [json.loads(line)["step"] for line in lines + rest.splitlines()]
        second = subprocess.Popen([MILLRACE, "-o", "jsonl", "job", "feed", job],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, cwd=self.folder,
                                  env=self.environment)
        step = json.loads(second.stdout.readline())["step"]
        self.assertGreater(step, done[-1], "it goes on where the other stopped")
        self.run_client("job", "cancel", job)
        second.communicate(timeout=SECONDS)
        self.assertEqual(second.returncode, 9)

    def test_what_was_killed_is_found_out_and_cleared(self):
        cluster = self.up("--stages", "2")
        for process in self.daemons(cluster):
            ended = os.pidfd_open(process)
            os.kill(process, signal.SIGKILL)
            self.assertTrue(select.select([ended], [], [], SECONDS)[0])
            os.close(ended)
        self.up("--stages", "1")
        self.run_client("down")

    def test_a_start_that_fails_leaves_nothing(self):
        done = self.run_client("up", "--millraced", MILLRACED, "--device", "nonsense", code=5)
        self.assertIn("stage-0.log", done.stderr)
        self.assertEqual(os.path.exists(os.path.join(
            self.folder, ".local/state/millrace/local/cluster.json")), False)
        self.assertEqual(self.left_over(), [])
        self.run_client("up", "--millraced", "none", code=3)
        self.run_client("up", "--stages", "65", code=2)
        self.run_client("up", "--name", "a/b", code=2)

    def test_every_format_trains_to_the_same_losses(self):
        self.up("--stages", "1", "--threads", "1")
        with open(os.path.join(self.folder, "corpus.txt"), "w") as file:
            file.write(CORPUS)
        for target, form in (("corpus.bin", "llmc"), ("corpus.npy", "npy"),
                             ("pair", "megatron")):
            self.run_client("data", "convert", "corpus.txt", target, "--to", form)
        losses = {}
        for form, name in (("bytes", "corpus.txt"), ("llmc", "corpus.bin"),
                           ("npy", "corpus.npy"), ("megatron", "pair")):
            text = job_text(name=form, stages=1, steps=4, corpus=name)
            with open(os.path.join(self.folder, form + ".yaml"), "w") as file:
                file.write(text.replace("format: bytes", "format: " + form))
            done = self.run_client("-o", "jsonl", "train", form + ".yaml")
            losses[form] = [(step["loss"], step["grad_norm"])
                            for step in map(json.loads, done.stdout.splitlines())]
        self.assertEqual(len(losses["bytes"]), 4)
        for form in losses:
            self.assertEqual(losses[form], losses["bytes"], form)


if __name__ == "__main__":
    unittest.main(verbosity=2)
