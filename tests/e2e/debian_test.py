# SPDX-License-Identifier: Apache-2.0
"""The Debian packages: what they hold and depend on, what lintian says where it is installed, and
their life on a machine: installed by dpkg into a root folder over the host's /usr (machine.py), run
there, a setting changed, installed again, removed, purged. The last part needs root and mounts, and
is skipped with the reason where they cannot be had."""

import os
import re
import shutil
import subprocess
import unittest

import cluster as clusters
from machine import Machine

PACKAGES = ("client", "server")


def package(name):
    return os.path.join(clusters.ROOT, clusters.PREFIX, "deploy/debian/millrace-%s.deb" % name)


def sh(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True).stdout


class Packages(unittest.TestCase):
    def files(self, name):
        """Path -> (mode, owner)."""
        found = {}
        for line in sh("dpkg-deb", "--contents", package(name)).splitlines():
            mode, owner, _, _, _, path = line.split(None, 5)
            found[path.split(" -> ")[0].lstrip(".")] = (mode, owner)
        return found

    def test_they_hold_what_they_say(self):
        client, server = self.files("client"), self.files("server")
        for path in ("/usr/bin/millrace", "/usr/lib/millrace/bin/millrace",
                     "/usr/share/man/man1/millrace.1.gz",
                     "/usr/share/bash-completion/completions/millrace",
                     "/usr/share/zsh/vendor-completions/_millrace",
                     "/usr/share/fish/vendor_completions.d/millrace.fish",
                     "/usr/share/doc/millrace-client/README.md",
                     "/usr/share/doc/millrace-client/JOB_FILE.md"):
            self.assertIn(path, client)
        for path in ("/usr/bin/millraced", "/usr/lib/millrace/bin/millraced",
                     "/usr/share/man/man8/millraced.8.gz", "/usr/lib/sysusers.d/millrace.conf",
                     "/usr/lib/tmpfiles.d/millrace.conf", "/etc/millrace/node.env",
                     "/lib/systemd/system/millrace.target",
                     "/lib/systemd/system/millrace-coordinator.service",
                     "/lib/systemd/system/millrace-node.service",
                     "/lib/systemd/system/millrace-stage@.service",
                     "/usr/share/doc/millrace-server/RUNBOOK.md"):
            self.assertIn(path, server)
        both = {path for path in set(client) & set(server) if not path.endswith("/")}
        self.assertEqual(both, set())
        for path, (mode, owner) in list(client.items()) + list(server.items()):
            self.assertEqual(owner, "root/root", path)
            if not mode.startswith("l"):
                self.assertNotIn("w", mode[4:], path)
            self.assertNotIn("s", mode, path)

    def test_they_depend_on_every_library_that_they_load(self):
        for name, program in (("client", clusters.MILLRACE), ("server", clusters.MILLRACED)):
            depends = sh("dpkg-deb", "--field", package(name), "Depends")
            needed = re.findall(r"NEEDED.*\[(.*)\]", sh("readelf", "-d", program))
            self.assertGreater(len(needed), 3)
            for library in needed:
                owners = sh("dpkg", "--search", "*/" + library)
                names = {line.split(":")[0] for line in owners.splitlines()}
                self.assertTrue([n for n in names if re.search(r"\b%s\b" % re.escape(n), depends)],
                                "%s of %s is not in: %s" % (library, names, depends))

    def test_lintian_finds_no_error(self):
        if shutil.which("lintian") is None:
            self.skipTest("lintian is not installed")
        # The CUDA part finds the toolkit's libraries where NVIDIA's packages put them.
        run = subprocess.run(["lintian", "--allow-root", "--fail-on", "error",
                              "--suppress-tags", "custom-library-search-path"]
                             + [package(name) for name in PACKAGES],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(run.returncode, 0, run.stdout)


class Life(unittest.TestCase):
    def setUp(self):
        self.machine = Machine(None)
        if os.geteuid() != 0:
            self.skipTest("installing packages needs root")
        self.addCleanup(self.machine.__exit__, None, None, None)
        self.machine.make_root()
        self.machine.mount("-t", "proc", "proc", self.machine.root + "/proc")
        self.database()

    def database(self):
        """What dpkg knows of the host: its packages, whose files are there."""
        folder = self.machine.root + "/var/lib/dpkg"
        for name in ("info", "updates", "triggers", "parts"):
            os.makedirs(os.path.join(folder, name))
        shutil.copy("/var/lib/dpkg/status", folder)
        for name in PACKAGES:
            shutil.copy(package(name), self.machine.root + "/srv")

    def inside(self, *command, code=0):
        run = subprocess.run(("chroot", self.machine.root) + command, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True,
                             env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                  "DEBIAN_FRONTEND": "noninteractive"})
        if run.returncode != code:
            raise AssertionError("%s: exit code %d\n%s" % (" ".join(command), run.returncode,
                                                           run.stdout[-3000:]))
        return run.stdout

    def install(self):
        self.inside("dpkg", "--force-confold", "--install", "/srv/millrace-client.deb",
                    "/srv/millrace-server.deb")

    def exists(self, path):
        return os.path.lexists(self.machine.root + path)

    def test_installed_changed_installed_again_removed_and_purged(self):
        self.install()
        self.assertIn("0.1.0", self.inside("/usr/bin/millraced", "--version"))
        self.assertIn("0.1.0", self.inside("/usr/bin/millrace", "version"))
        self.assertIn("millrace", self.inside("id", "-nG", "millrace"))
        self.assertIn("render", self.inside("id", "-nG", "millrace"))
        self.assertTrue(self.exists("/var/lib/millrace/checkpoints"))
        self.assertEqual(self.inside("dpkg", "--verify", "millrace-server", "millrace-client"), "")
        self.machine.write("/etc/millrace/node.env", "MILLRACE_OPTIONS=--devices cpu:1\n")
        self.machine.write("/var/lib/millrace/checkpoints/step/latest", "x\n")
        self.install()
        with open(self.machine.root + "/etc/millrace/node.env") as file:
            self.assertIn("cpu:1", file.read())
        self.inside("dpkg", "--remove", "millrace-server", "millrace-client")
        self.assertFalse(self.exists("/usr/lib/millrace"))
        self.assertTrue(self.exists("/etc/millrace/node.env"))
        self.inside("dpkg", "--purge", "millrace-server", "millrace-client")
        self.assertFalse(self.exists("/etc/millrace"))
        self.assertTrue(self.exists("/var/lib/millrace/checkpoints/step/latest"))
        left = self.inside("find", "/usr", "/lib/systemd", "-xdev", "-path",
                           "/usr/share/doc/millrace*", "-o", "-name", "millrace*", "-newer",
                           "/etc/hosts")
        self.assertEqual(left, "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
