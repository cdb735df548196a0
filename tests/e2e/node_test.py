# SPDX-License-Identifier: Apache-2.0
"""A node over real stage processes: it starts one for each device, trains, starts a killed one
again, leaves a refused one alone until a reload, drains within its bound, and takes its stages with
it when it is killed. And what every role says to a service manager: this test is one, with a socket
of its own.

Method: events are waited for on the node's log, on process file descriptors and on the manager's
socket; the status port is asked after them."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

import cluster as clusters
from cluster import CORPUS, Cluster, Daemon, job_text

SLOW = dict(dim=128, heads=4, length=64, batch=4, micro_batches=8, layers=4)


def fetch(address, path):
    try:
        with urllib.request.urlopen("http://%s%s" % (address, path), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_gone(processes, seconds=clusters.STOP_SECONDS):
    """Waits until none of these processes lives."""
    for process in processes:
        try:
            fd = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        try:
            if not select.select([fd], [], [], seconds)[0]:
                raise AssertionError("process %d still lives" % process)
        finally:
            os.close(fd)


class NodeDaemon(Daemon):
    def __init__(self, cluster, *options, name="node"):
        super().__init__(cluster.folder, name, [
            "node", "--coordinator", cluster.address, "--listen", "127.0.0.1:0"] + list(options))
        self.address = self.wait_message("node started")["status_address"]

    def messages(self, message):
        return [json.loads(line) for line in self.lines if '"message":"%s"' % message in line]

    def processes(self):
        return [m["process"] for m in self.messages("stage started")]

    def status(self):
        return json.loads(fetch(self.address, "/status")[1])

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if not self.process.stderr.closed:
            self.stop(signal.SIGKILL)
        wait_gone(self.processes())
        if kind is not None:
            print("---- log of the node, last lines\n" + "".join(self.lines[-40:]))
        return False


class Node(unittest.TestCase):
    def cluster(self):
        return Cluster(stages=0, name="node")

    def wait_members(self, node, count):
        """Both stages attached, by their own lines, which pass through the node's stderr."""
        line = 0
        for _ in range(count):
            node.wait_message("attached", after=line)
            line = 1 + next(n for n in range(line, len(node.lines))
                            if '"message":"attached"' in node.lines[n])

    def test_its_stages_train_and_a_killed_one_comes_back(self):
        with self.cluster() as cluster, NodeDaemon(
                cluster, "--devices", "cpu:2", "--status", "127.0.0.1:0") as node:
            node.wait_message("node ready")
            self.wait_members(node, 2)
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("job.yaml", job_text(steps=3))
            self.assertEqual(len(cluster.train(path).check().steps()), 3)
            self.assertEqual(fetch(node.address, "/readyz"), (200, "ok\n"))
            status = node.status()
            self.assertEqual([s["device"] for s in status["stages"]], ["cpu:0", "cpu:1"])
            for stage in status["stages"]:
                self.assertEqual(stage["state"], "ready")
                self.assertEqual(fetch(stage["status_address"], "/livez")[0], 200)
            before = len(node.lines)
            os.kill(status["stages"][1]["process_id"], signal.SIGKILL)
            failed = node.wait_message("stage failed", after=before)
            self.assertEqual((failed["device"], failed["signal"]), ("cpu:1", 9))
            self.assertTrue(250 <= failed["next_start_ms"] <= 500, failed)
            node.wait_message("stage serves", after=before)
            self.assertEqual(node.status()["stages"][1]["starts"], 2)
            code, text = fetch(node.address, "/metrics")
            self.assertIn('millrace_node_stages{state="ready"} 2', text)
            self.assertIn('millrace_node_stage_starts_total{device="cpu:1"} 2', text)
            node.wait_message("attached", after=before)
            path = cluster.write("again.yaml", job_text(name="again", steps=2))
            self.assertEqual(len(cluster.train(path).check().steps()), 2)
            self.assertEqual(node.stop(signal.SIGTERM), 0)
            wait_gone(node.processes(), 0)

    def test_a_refused_stage_is_shown_and_left_alone_until_a_reload(self):
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        # The node's own port lies two below the second stage's, which is taken.
        port = taken.getsockname()[1] - 2
        with self.cluster() as cluster, NodeDaemon(
                cluster, "--devices", "cpu:2", "--status", "127.0.0.1:%d" % port) as node:
            failed = node.wait_message("stage failed")
            self.assertEqual((failed["device"], failed["exit_code"], failed["state"]),
                             ("cpu:1", 78, "refused"))
            node.wait_message("node ready")
            code, text = fetch(node.address, "/readyz")
            self.assertEqual(code, 503)
            self.assertIn("cpu:1 is not started again after exit code 78", text)
            self.assertEqual(fetch(node.address, "/livez")[0], 200)
            taken.close()
            before = len(node.lines)
            node.process.send_signal(signal.SIGHUP)
            self.assertEqual(node.wait_message("stage serves", after=before)["device"], "cpu:1")
            self.assertEqual(fetch(node.address, "/readyz")[0], 200)
            self.assertEqual(node.stop(signal.SIGTERM), 0)

    def test_a_drain_saves_the_job_and_resume_continues(self):
        with self.cluster() as cluster:
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("job.yaml", job_text(
                steps=400, directory=os.path.join(cluster.folder, "checkpoints"), **SLOW))
            with NodeDaemon(cluster, "--devices", "cpu:2", "--status", "127.0.0.1:0", "--drain",
                            "60") as node:
                self.wait_members(node, 2)
                client = cluster.client_start("-o", "jsonl", "train", path)
                client.stdout.readline()
                self.assertEqual(node.stop(signal.SIGTERM, seconds=60), 0)
                out, err = client.communicate(timeout=30)
                self.assertEqual(client.returncode, 8, err)
                self.assertIn("saved as step-", err)
                self.assertEqual(node.messages("stage killed"), [])
                done = int(err.partition("saved as step-")[2][:12])
                self.assertGreaterEqual(done, 1)
            with NodeDaemon(cluster, "--devices", "cpu:2", "--status", "127.0.0.1:0",
                            name="again") as node:
                self.wait_members(node, 2)
                client = cluster.client_start("-o", "jsonl", "train", path, "--resume")
                self.assertEqual(json.loads(client.stdout.readline())["step"], done + 1)
                client.kill()
                client.communicate()

    def test_a_drain_in_mid_step_ends_and_a_stage_that_does_not_is_killed(self):
        with self.cluster() as cluster, NodeDaemon(
                cluster, "--devices", "cpu:2", "--status", "127.0.0.1:0", "--drain", "2") as node:
            self.wait_members(node, 2)
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("job.yaml", job_text(steps=200, **SLOW))
            client = cluster.client_start("-o", "jsonl", "train", path)
            client.stdout.readline()
            os.kill(node.processes()[0], signal.SIGSTOP)
            self.assertEqual(node.stop(signal.SIGTERM), 0)
            client.communicate(timeout=30)
            self.assertEqual(client.returncode, 8)
            killed = node.messages("stage killed")
            self.assertEqual([k["device"] for k in killed], ["cpu:0"])
            self.assertIn("drain", killed[0]["why"])
            wait_gone(node.processes(), 0)

    def test_a_killed_node_takes_its_stages_with_it(self):
        with self.cluster() as cluster, NodeDaemon(
                cluster, "--devices", "cpu:2", "--status", "127.0.0.1:0") as node:
            node.wait_message("node ready")
            node.stop(signal.SIGKILL)
            wait_gone(node.processes())

    def beside_a_driver(self, cluster, **environment):
        """A node over a driver of the test's (tests/unit/node/fake_driver.c), whose CUDA library
        is no library."""
        folder = os.path.join(cluster.folder, "bin")
        os.mkdir(folder)
        shutil.copy(clusters.MILLRACED, folder)
        open(os.path.join(folder, "libmillrace_cuda.so"), "w").close()
        driver = os.path.join(clusters.ROOT, clusters.PREFIX, "tests/unit/node")
        program = os.path.join(folder, "run")
        with open(program, "w") as file:
            file.write("#!/bin/sh\nexport LD_LIBRARY_PATH='%s' %s\nexec '%s/millraced' \"$@\"\n" % (
                driver, " ".join("%s=%s" % pair for pair in environment.items()), folder))
        os.chmod(program, 0o755)
        real, clusters.MILLRACED = clusters.MILLRACED, program
        try:
            return NodeDaemon(cluster, "--status", "127.0.0.1:0")
        finally:
            clusters.MILLRACED = real

    def test_auto_takes_every_card_of_the_driver(self):
        with self.cluster() as cluster, self.beside_a_driver(cluster) as node:
            node.wait_message("node ready")
            stages = node.status()["stages"]
            self.assertEqual([s["device"] for s in stages], ["cuda:0", "cuda:1", "cuda:2"])
            for stage in stages:  # their library does not load, which may be mended
                self.assertEqual((stage["last_exit_code"], stage["state"]), (69, "waiting"))
            self.assertIn("does not load", "".join(node.lines))

    def test_a_driver_that_hangs_is_not_waited_for(self):
        with self.cluster() as cluster, self.beside_a_driver(
                cluster, FAKE_DRIVER_HANGS="1") as node:
            started = node.messages("node started")[0]
            self.assertEqual(started["cards"], "the driver did not answer in time")
            self.assertEqual(node.wait_message("stage started")["device"], "cpu:0")

    def test_stages_that_cannot_run_end_the_node_with_their_exit_code(self):
        with self.cluster() as cluster:
            node = subprocess.run(
                [clusters.MILLRACED, "node", "--devices", "cpu:2", "--status", "127.0.0.1:0",
                 "--listen", "192.0.2.1:0"], stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(node.returncode, 64, node.stderr)
            self.assertIn("192.0.2.1", node.stderr)
            for options, word in ((["--devices", "gpu"], "gpu"), (["--drain", "4000"], "--drain"),
                                  (["--device", "cpu"], "no option of a node")):
                run = subprocess.run([clusters.MILLRACED, "node"] + options,
                                     stderr=subprocess.PIPE, text=True, timeout=60)
                self.assertEqual(run.returncode, 64, run.stderr)
                self.assertIn(word, run.stderr)
            self.assertIsNotNone(cluster.coordinator)


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self):
        self.lines = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(clusters.START_SECONDS)
        self.socket.bind("")  # an abstract name of the kernel's choice
        self.path = self.socket.getsockname().decode().replace("\0", "@", 1)

    def start(self, *arguments):
        environment = dict(os.environ, NOTIFY_SOCKET=self.path, WATCHDOG_USEC="2000000")
        return subprocess.Popen([clusters.MILLRACED] + list(arguments), env=environment,
                                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_line(self, start):
        """The first line after the last one that was waited for that begins so."""
        end = time.monotonic() + clusters.START_SECONDS
        while time.monotonic() < end:
            if not self.lines:
                self.lines = self.socket.recv(4096).decode().splitlines()
            line = self.lines.pop(0)
            if line.startswith(start):
                return line
        raise AssertionError("no %s" % start)


class Manage(unittest.TestCase):
    """READY, STATUS, WATCHDOG, RELOADING and STOPPING of each role."""

    def run_role(self, *arguments, status, reloads=False):
        manager = Manager()
        self.addCleanup(manager.socket.close)
        process = manager.start(*arguments)
        try:
            manager.wait_line("EXTEND_TIMEOUT_USEC=")
            manager.wait_line("READY=1")
            self.assertIn(status, manager.wait_line("STATUS="))
            manager.wait_line("WATCHDOG=1")
            manager.wait_line("WATCHDOG=1")
            if reloads:
                process.send_signal(signal.SIGHUP)
                manager.wait_line("RELOADING=1")
                manager.wait_line("MONOTONIC_USEC=")
                manager.wait_line("READY=1")
            process.send_signal(signal.SIGTERM)
            manager.wait_line("STOPPING=1")
            self.assertEqual(process.wait(clusters.STOP_SECONDS), 0)
        finally:
            process.kill()
            process.wait()

    def test_the_coordinator(self):
        state = os.path.join(clusters.temporary_folder("manage"), "state")
        self.run_role("coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0",
                      "--state", state, status="0 jobs active, 0 queued; 0 members, 0 idle")

    def test_a_stage(self):
        self.run_role("stage", "--coordinator", "127.0.0.1:9", "--threads", "1",
                      status="serves at 127.0.0.1:")

    def test_a_node(self):
        self.run_role("node", "--coordinator", "127.0.0.1:9", "--devices", "cpu:1", "--status",
                      "127.0.0.1:0", status="1 of 1 stages ready", reloads=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
