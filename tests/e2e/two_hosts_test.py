# SPDX-License-Identifier: Apache-2.0
"""Two machines, as README tells it: two network namespaces joined by a cable (veth), a coordinator
and a stage on one host and a stage on the other. Once in plain text with --insecure, once with TLS
both ways, by README's own openssl commands. Then what TLS must refuse: a client without a
certificate, a client with one of another authority, and plain text. Skipped, with a message, where
namespaces cannot be made."""

import os
import shutil
import signal
import subprocess
import unittest

import cluster as clusters
from cluster import CORPUS, Daemon, job_text

HOSTS = ("10.77.0.1", "10.77.0.2")


def sh(command, **options):
    return subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **options)


class Hosts:
    """Two namespaces with an address each."""

    def __init__(self):
        self.names = ["mr%d%s" % (os.getpid(), side) for side in "ab"]

    def __enter__(self):
        a, b = self.names
        try:
            sh("ip netns add %s" % a)
            sh("ip netns add %s" % b)
            sh("ip link add v%s type veth peer name v%s" % (a, b))
            for name, address in zip(self.names, HOSTS):
                sh("ip link set v%s netns %s" % (name, name))
                sh("ip -n %s addr add %s/24 dev v%s" % (name, address, name))
                sh("ip -n %s link set v%s up" % (name, name))
                sh("ip -n %s link set lo up" % name)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            self.__exit__()
            raise unittest.SkipTest("network namespaces cannot be made here: %s" % error)
        return self

    def __exit__(self, *unused):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)

    def prefix(self, host):
        return ["ip", "netns", "exec", self.names[host]]


class HostDaemon(Daemon):
    """A daemon on one of the hosts."""

    def __init__(self, hosts, host, folder, name, arguments):
        real = clusters.MILLRACED
        wrapper = os.path.join(folder, "run-" + name)
        with open(wrapper, "w") as file:
            file.write("#!/bin/sh\nexec %s %s \"$@\"\n" % (" ".join(hosts.prefix(host)), real))
        os.chmod(wrapper, 0o700)
        clusters.MILLRACED = wrapper
        try:
            super().__init__(folder, name, arguments)
        finally:
            clusters.MILLRACED = real


class TwoHosts(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0 or shutil.which("ip") is None:
            self.skipTest("network namespaces need root and iproute2")

    def certificates(self, folder, authority="ca"):
        """README's commands."""
        sh("openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj '/CN=millrace authority' "
           "-keyout %s.key -out %s.pem" % (authority, authority), cwd=folder)
        for host in HOSTS:
            sh("openssl req -newkey rsa:2048 -nodes -subj '/CN=%s' -keyout %s%s.key -out %s.csr"
               % (host, authority, host, host), cwd=folder)
            with open(os.path.join(folder, "ext"), "w") as file:
                file.write("subjectAltName=IP:%s\n" % host)
            sh("openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -CAcreateserial -days 365 "
               "-extfile ext -out %s%s.pem" % (host, authority, authority, authority, host),
               cwd=folder)

    def tls(self, folder, host, authority="ca", ca="ca"):
        base = os.path.join(folder, authority + HOSTS[host])
        return ["--tls-ca", os.path.join(folder, ca + ".pem"), "--tls-cert", base + ".pem",
                "--tls-key", base + ".key"]

    def client(self, hosts, folder, address, options, *arguments):
        return subprocess.run(
            hosts.prefix(0) + [clusters.MILLRACE, "--server", address, "--timeout", "5"] + options
            + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=folder, timeout=120)

    def start(self, hosts, folder, options):
        """Coordinator and stage on the first host, stage on the second; options by host."""
        daemons = [HostDaemon(hosts, 0, folder, "coordinator", [
            "coordinator", "--listen", HOSTS[0] + ":0", "--status", "127.0.0.1:0", "--state",
            os.path.join(folder, "state")] + options[0])]
        address = daemons[0].wait_message("coordinator ready")["address"]
        for host in (0, 1):
            daemons.append(HostDaemon(hosts, host, folder, "stage-%d" % host, [
                "stage", "--coordinator", address, "--listen", HOSTS[host] + ":0", "--status",
                "127.0.0.1:0", "--threads", "1"] + options[host]))
            daemons[-1].wait_message("attached")
        return daemons, address

    def train(self, options_of, refused=()):
        folder = clusters.temporary_folder("hosts")
        self.certificates(folder)
        self.certificates(folder, "other")
        with open(os.path.join(folder, "corpus.txt"), "w") as file:
            file.write(CORPUS)
        with open(os.path.join(folder, "job.yaml"), "w") as file:
            file.write(job_text(steps=3))
        daemons = []
        with Hosts() as hosts:
            try:
                options = [options_of(folder, host) for host in (0, 1)]
                daemons, address = self.start(hosts, folder, options)
                run = self.client(hosts, folder, address, options[0], "-o", "jsonl", "train",
                                  "job.yaml")
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertEqual(len(run.stdout.splitlines()), 3)
                for bad in refused:
                    run = self.client(hosts, folder, address, bad(folder), "job", "list")
                    self.assertNotEqual(run.returncode, 0)
                run = self.client(hosts, folder, address, options[0], "job", "list")
                self.assertEqual(run.returncode, 0, run.stderr)
                for daemon in reversed(daemons):
                    self.assertEqual(daemon.stop(signal.SIGTERM), 0)
            finally:
                for daemon in daemons:
                    if not daemon.process.stderr.closed:
                        print("---- %s\n%s" % (daemon.name, "".join(daemon.lines[-20:])))
                        daemon.stop(signal.SIGKILL)

    def test_in_plain_text(self):
        self.train(lambda folder, host: ["--insecure"])

    def test_with_tls_both_ways(self):
        self.train(lambda folder, host: self.tls(folder, host), refused=[
            lambda folder: ["--insecure"],
            lambda folder: ["--tls-ca", os.path.join(folder, "ca.pem")],
            lambda folder: self.tls(folder, 0, authority="other"),
        ])


if __name__ == "__main__":
    unittest.main(verbosity=2)
