# SPDX-License-Identifier: Apache-2.0
"""The units for real: installed by deploy/install from the release archive and booted by systemd in
a container (machine.py). Every unit is up after the boot; a job trains through the node's stages as
the user millrace; a daemon that stands still is killed by the watchdog and comes back, and so is a
stage by its node; keys reach the daemons as credentials; hardening is measured; stop and uninstall
leave nothing behind. Skipped, with the reason, where systemd-nspawn cannot run.

One boot for all tests, in the order of their names; each needs what the one before it leaves."""

import json
import os
import re
import subprocess
import tarfile
import unittest

import cluster as clusters
from cluster import CORPUS, job_text
from machine import Machine

UNITS = ("millrace.target", "millrace-coordinator.service", "millrace-node.service",
         "millrace-stage@cpu.service")
CHECKPOINTS = "/var/lib/millrace/checkpoints"
EXPOSURE_MAX = {"millrace-coordinator.service": 1.3, "millrace-node.service": 2.0,
                "millrace-stage@cpu.service": 2.0}
TLS = "/etc/millrace/tls/"
TLS_OPTIONS = ("--tls-ca", TLS + "ca.crt", "--tls-cert", TLS + "tls.crt", "--tls-key",
               TLS + "tls.key")


def prepare(machine):
    """Installs the release archive and enables the units, as an administrator does."""
    folder = machine.root + "/srv"
    with tarfile.open(os.path.join(clusters.ROOT, clusters.PREFIX,
                                   "deploy/millrace.tar.gz")) as archive:
        archive.extractall(folder)
    run = subprocess.run([folder + "/millrace/deploy/install"], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True,
                         env=dict(os.environ, DESTDIR=machine.root))
    if run.returncode != 0:
        raise AssertionError("deploy/install: " + run.stdout)
    subprocess.run(["systemctl", "--root", machine.root, "--quiet", "enable"] + list(UNITS),
                   check=True)
    machine.write("/etc/millrace/node.env", "MILLRACE_OPTIONS=--devices cpu:2 --threads 1\n")
    machine.write("/etc/millrace/stage-cpu.env", "MILLRACE_OPTIONS=--threads 1\n")
    machine.write("/srv/job/corpus.txt", CORPUS)
    for name, steps in (("first", 3), ("second", 3), ("long", 100000)):
        machine.write("/srv/job/%s.yaml" % name, job_text(
            name=name, steps=steps, directory="%s/%s" % (CHECKPOINTS, name),
            every=2 if steps == 3 else 0))


class Systemd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.machine = Machine(prepare)
        cls.machine.__enter__()
        cls.failed = False

    @classmethod
    def tearDownClass(cls):
        cls.machine.__exit__(AssertionError if cls.failed else None, None, None)

    def setUp(self):
        if type(self).failed:
            self.skipTest("a test before this one failed")
        type(self).failed = True  # until the end of the test says otherwise

    def passed(self):
        type(self).failed = False

    def client(self, *arguments):
        return self.machine.run("millrace", *arguments)

    def wait_members(self, count, after):
        for _ in range(count):
            after = self.machine.journal.wait('"message":"attached"', after=after)
        return after

    def check_active(self):
        for unit in UNITS:
            done = self.machine.run("systemctl", "is-active", unit)
            self.assertEqual(done.out.strip(), "active", unit)

    def test_1_after_the_boot_every_unit_is_active_and_says_so(self):
        self.wait_members(3, 0)
        self.check_active()
        self.assertIn("2 of 2 stages ready",
                      self.machine.property("millrace-node", "StatusText"))
        self.assertIn("members", self.machine.property("millrace-coordinator", "StatusText"))
        user = self.machine.run("ps", "-o", "user=", "-C", "millraced").check().out.split()
        self.assertEqual(set(user), {"millrace"})
        self.assertEqual(len(user), 5)
        failed = self.machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend",
                                  "millrace*").check()
        self.assertEqual(failed.out, "")
        self.passed()

    def test_2_a_job_trains_and_its_checkpoint_is_verified(self):
        done = self.client("-o", "jsonl", "train", "/srv/job/first.yaml").check()
        self.assertEqual(len(done.out.splitlines()), 3)
        self.client("checkpoint", "verify", CHECKPOINTS + "/first").check()
        owners = self.machine.run("find", CHECKPOINTS + "/first", "-printf", "%u:%g:%m\n").check()
        for line in owners.out.split():
            owner, group, mode = line.split(":")
            self.assertEqual((owner, group), ("millrace", "millrace"))
            self.assertEqual(mode[-1], "0")
        self.passed()

    def test_3_a_stage_that_stands_still_is_killed_by_its_node(self):
        status = json.loads(self.machine.run(
            "python3", "-c", "import urllib.request as r;"
            "print(r.urlopen('http://127.0.0.1:9790/status').read().decode())").check().out)
        process = status["stages"][1]["process_id"]
        type(self).mark = len(self.machine.journal.lines)
        self.machine.run("kill", "-STOP", str(process)).check()
        self.passed()  # seen in test_6: it takes as long as a node's patience

    def test_4_a_daemon_that_stands_still_is_killed_by_the_watchdog_and_comes_back(self):
        for unit in ("millrace-coordinator", "millrace-stage@cpu"):
            with self.subTest(unit=unit):
                self.watchdog(unit)
        self.passed()

    def watchdog(self, unit):
        machine = self.machine
        machine.run("mkdir", "-p", "/run/systemd/system/%s.service.d" % unit).check()
        machine.run("sh", "-c", "printf '[Service]\\nWatchdogSec=2s\\n' > "
                    "/run/systemd/system/%s.service.d/watchdog.conf" % unit).check()
        machine.run("systemctl", "daemon-reload").check()
        machine.run("systemctl", "restart", unit).check()
        after = len(machine.journal.lines)
        restarts = int(machine.property(unit, "NRestarts"))
        machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", unit).check()
        after = machine.journal.wait("Watchdog timeout", unit, after=after)
        role = "coordinator" if "coordinator" in unit else "stage"
        machine.journal.wait('"message":"%s ready"' % role, after=after)
        machine.journal.wait("Started", unit, after=after)
        self.assertEqual(int(machine.property(unit, "NRestarts")), restarts + 1)
        self.assertEqual(machine.property(unit, "ActiveState"), "active")

    def test_5_hardening_is_as_good_as_promised(self):
        for unit, most in EXPOSURE_MAX.items():
            done = self.machine.run("systemd-analyze", "security", "--no-pager", unit).check()
            found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.out)
            self.assertIsNotNone(found, done.out)
            self.assertLessEqual(float(found.group(1)), most, unit)
        done = self.machine.run("systemd-analyze", "verify", *UNITS).check()
        self.assertEqual([line for line in done.err.splitlines() if "millrace" in line], [])
        self.passed()

    def test_6_the_stage_that_stood_still_is_back_and_reload_works(self):
        after = self.machine.journal.wait('"message":"stage killed"', '"device":"cpu:1"',
                                          after=self.mark)
        self.machine.journal.wait('"message":"stage serves"', '"device":"cpu:1"', after=after)
        self.machine.run("systemctl", "reload", "millrace-node").check()
        self.assertEqual(self.machine.property("millrace-node", "NRestarts"), "0")
        self.check_active()
        self.passed()

    def test_7_keys_reach_the_daemons_as_credentials(self):
        root = self.machine.root
        self.certificates(root)
        after = len(self.machine.journal.lines)
        self.machine.run("systemctl", "restart", *UNITS[1:]).check()
        self.wait_members(3, after)
        done = self.client("-o", "jsonl", *TLS_OPTIONS, "train", "/srv/job/second.yaml").check()
        self.assertEqual(len(done.out.splitlines()), 3)
        self.assertNotEqual(self.client("--timeout", "3", "job", "list").code, 0)
        self.passed()

    def certificates(self, root):
        """One authority and one certificate for the machine, as README tells it."""
        folder = root + TLS
        commands = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=authority' "
            "-keyout ca.key -out ca.crt",
            "openssl req -newkey rsa:2048 -nodes -subj '/CN=127.0.0.1' -keyout tls.key "
            "-out tls.csr",
            "printf 'subjectAltName=IP:127.0.0.1\n' > ext",
            "openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 "
            "-extfile ext -out tls.crt",
            "chmod 600 *.key")
        for command in commands:
            subprocess.run(command, shell=True, check=True, cwd=folder, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)

    def test_8_stop_saves_and_uninstall_leaves_state_alone(self):
        machine = self.machine
        client = subprocess.Popen(
            machine.enter("/usr/local/bin/millrace", "-o", "jsonl", *TLS_OPTIONS, "train",
                          "/srv/job/long.yaml"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        client.stdout.readline()
        after = len(machine.journal.lines)
        machine.run("systemctl", "stop", "millrace.target").check()
        err = client.communicate(timeout=60)[1]
        self.assertEqual(client.returncode, 8, err)
        self.assertIn("saved as step-", err)
        # The coordinator goes last; the target's own end waits for nobody.
        machine.journal.wait("Stopped millrace-coordinator.service", after=after)
        for unit in UNITS[1:]:
            self.assertEqual(machine.property(unit, "ActiveState"), "inactive", unit)
            self.assertEqual(machine.property(unit, "Result"), "success", unit)
        self.assertEqual(machine.run("pgrep", "millraced").code, 1)
        machine.run("/srv/millrace/deploy/uninstall").check()
        left = machine.run("find", "/usr/local", "/etc/systemd", "-name", "*millrace*")
        self.assertEqual(left.out, "")
        machine.run("test", "-e", "/etc/millrace/node.env").check()
        machine.run("test", "-e", CHECKPOINTS + "/first/latest").check()
        self.assertEqual(machine.run("systemctl", "cat", "millrace-node").code, 1)
        self.passed()


if __name__ == "__main__":
    unittest.main(verbosity=2)
