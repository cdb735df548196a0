# SPDX-License-Identifier: Apache-2.0
"""The container image: an OCI layout whose digests are true, which a foreign reader (umoci) unpacks
to the same files, and which the same release gives again byte for byte. Its files hold no shell, no
setuid file and nothing that others may write. Its programs train as user 65532 in a root folder
that is read-only (a mount namespace and a chroot; as root only), with one writable folder, as a pod
of deploy/kubernetes runs them; in plain text, and with the certificates of components/tls by the
names of pods."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import unittest

import yaml

import cluster as clusters
from cluster import CORPUS, Daemon, job_text

UID = 65532
STATE = "/var/lib/millrace"
CERTIFICATES = "deploy/kubernetes/components/tls/certificates.yaml"
CLIENT_SECONDS = 240
PODS_LOOK = """#!/bin/sh
set -e
mount --bind {root} {root}
mount --bind {state} {root}{place}
mount --rbind /proc {root}/proc
mount -o remount,bind,ro {root}
exec setpriv --no-new-privs --bounding-set=-all,+setuid,+setgid,+sys_chroot \\
    /usr/sbin/chroot --userspec={uid}:{uid} --groups= {root} /millrace/bin/{program} "$@"
"""


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def openssl(*arguments):
    subprocess.run(("openssl",) + arguments, check=True, stderr=subprocess.DEVNULL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Image:
    """An OCI archive in memory."""

    def __init__(self, path):
        with tarfile.open(path) as archive:
            self.files = {member.name: archive.extractfile(member).read()
                          for member in archive if member.isfile()}
        self.index = json.loads(self.files["index.json"])
        self.manifest = json.loads(self.blob(self.index["manifests"][0]))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [gzip.decompress(self.blob(layer)) for layer in self.manifest["layers"]]

    def blob(self, reference):
        return self.files["blobs/" + reference["digest"].replace(":", "/")]

    def members(self):
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                yield from archive

    def unpack(self, folder):
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                archive.extractall(folder, numeric_owner=True)


class Container(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.archive = os.path.join(clusters.ROOT,
                                   clusters.PREFIX + "deploy/container/millrace-image.tar")
        cls.image = Image(cls.archive)

    def test_its_digests_are_true(self):
        image = self.image
        references = [image.index["manifests"][0], image.manifest["config"]]
        for reference in references + image.manifest["layers"]:
            self.assertEqual(digest(image.blob(reference)), reference["digest"])
            self.assertEqual(len(image.blob(reference)), reference["size"])
        self.assertEqual([digest(layer) for layer in image.layers],
                         image.config["rootfs"]["diff_ids"])
        self.assertEqual(json.loads(image.files["oci-layout"]), {"imageLayoutVersion": "1.0.0"})

    def test_it_says_who_runs_and_how_it_is_stopped(self):
        config = self.image.config["config"]
        self.assertEqual(config["User"], "%d:%d" % (UID, UID))
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(config["Entrypoint"], ["/millrace/bin/millraced"])
        self.assertEqual(config["Labels"]["org.opencontainers.image.version"], "0.1.0")

    def test_nothing_in_it_is_a_shell_or_can_be_written(self):
        for member in self.image.members():
            if member.mode & 0o111 and member.isfile():
                self.assertRegex(member.name, r"^millrace/bin/|/(lib\S+|ld-linux\S*)\.so\S*$")
            self.assertFalse(member.mode & (stat.S_ISUID | stat.S_ISGID), member.name)
            if member.name in ("tmp", "var/lib/millrace"):
                continue
            self.assertEqual((member.uid, member.gid), (0, 0), member.name)
            self.assertFalse(member.mode & 0o022 and not member.issym(), member.name)

    def test_the_same_release_gives_the_same_bytes(self):
        again = os.path.join(clusters.temporary_folder("image"), "again.tar")
        subprocess.run([os.path.join(clusters.ROOT, "deploy/container/build"), "--release",
                        os.path.join(clusters.ROOT, clusters.PREFIX + "deploy/millrace.tar.gz"),
                        "--output", again, "--tag", "millrace:0.1.0"], check=True)
        with open(again, "rb") as one, open(self.archive, "rb") as other:
            self.assertEqual(digest(one.read()), digest(other.read()))

    def test_a_foreign_reader_unpacks_the_same_files(self):
        if shutil.which("umoci") is None:
            self.skipTest("umoci is not installed")
        folder = clusters.temporary_folder("umoci")
        layout = os.path.join(folder, "layout")
        with tarfile.open(self.archive) as archive:
            archive.extractall(layout)
        subprocess.run(["umoci", "unpack", "--rootless", "--image", layout + ":millrace:0.1.0",
                        os.path.join(folder, "bundle")], check=True)
        with open(os.path.join(folder, "bundle/config.json")) as file:
            process = json.load(file)["process"]
        self.assertEqual((process["user"]["uid"], process["user"]["gid"]), (UID, UID))
        self.assertEqual(process["args"], ["/millrace/bin/millraced"])
        for member in self.image.members():
            path = os.path.join(folder, "bundle/rootfs", member.name)
            self.assertTrue(os.path.lexists(path), member.name)
            if member.isfile():
                self.assertEqual(os.path.getsize(path), member.size, member.name)


class Pod:
    """The image's files as a pod sees them: user 65532, a read-only root folder, no capabilities,
    no new privileges, one folder to write."""

    def __init__(self, image):
        self.folder = clusters.temporary_folder("pod")
        self.root = os.path.join(self.folder, "root")
        self.state = os.path.join(self.folder, "state")
        image.unpack(self.root)
        os.mkdir(self.state)
        os.chown(self.state, UID, UID)
        self.programs = {program: self.wrapper(program) for program in ("millraced", "millrace")}

    def wrapper(self, program):
        inner = os.path.join(self.folder, "in-" + program)
        outer = os.path.join(self.folder, program)
        with open(inner, "w") as file:
            file.write(PODS_LOOK.format(root=self.root, state=self.state, place=STATE, uid=UID,
                                        program=program))
        with open(outer, "w") as file:
            file.write('#!/bin/sh\nexec unshare --mount %s "$@"\n' % inner)
        for path in (inner, outer):
            os.chmod(path, 0o700)
        return outer

    def write(self, name, text):
        with open(os.path.join(self.state, name), "w") as file:
            file.write(text)

    def client(self, *arguments):
        return subprocess.run([self.programs["millrace"]] + list(arguments), timeout=CLIENT_SECONDS,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class ReadOnlyRoot(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("another user and a read-only root folder need root")
        if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("mount namespaces cannot be made here")
        self.pod = Pod(Image(os.path.join(
            clusters.ROOT, clusters.PREFIX + "deploy/container/millrace-image.tar")))

    def start(self, name, *arguments):
        real = clusters.MILLRACED
        clusters.MILLRACED = self.pod.programs["millraced"]
        try:
            daemon = Daemon(self.pod.folder, name, list(arguments))
        finally:
            clusters.MILLRACED = real
        self.addCleanup(self.end, daemon)
        return daemon

    def end(self, daemon):
        if not daemon.process.stderr.closed:
            print("---- %s\n%s" % (daemon.name, "".join(daemon.lines[-20:])))
            daemon.stop(signal.SIGKILL)

    def check_process(self, pid):
        """The kernel's own word on who this is and what it may do."""
        with open("/proc/%d/status" % pid) as file:
            facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        self.assertEqual(facts["Uid"].split(), [str(UID)] * 4)
        self.assertEqual(facts["Gid"].split(), [str(UID)] * 4)
        self.assertEqual(facts["Groups"].strip(), "")
        self.assertEqual(int(facts["CapEff"], 16), 0)
        self.assertEqual(facts["NoNewPrivs"], "1")
        with open("/proc/%d/mountinfo" % pid) as file:
            root = [line.split()[5] for line in file if line.split()[4] == "/"]
        self.assertTrue(root and all("ro" in options.split(",") for options in root), root)

    def test_its_programs_train_there(self):
        coordinator = self.start("coordinator", "coordinator", "--listen", "127.0.0.1:0",
                                 "--status", "127.0.0.1:0", "--state", STATE + "/coordinator")
        address = coordinator.wait_message("coordinator ready")["address"]
        daemons = [coordinator]
        for number in range(2):
            stage = self.start("stage-%d" % number, "stage", "--coordinator", address, "--listen",
                               "127.0.0.1:0", "--status", "127.0.0.1:0", "--threads", "1")
            stage.wait_message("attached")
            daemons.append(stage)
        for daemon in daemons:
            self.check_process(daemon.process.pid)
        self.pod.write("corpus.txt", CORPUS)
        self.pod.write("job.yaml", job_text(steps=3, directory="checkpoints"))
        run = self.pod.client("--server", address, "-o", "jsonl", "train", STATE + "/job.yaml")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(len(run.stdout.splitlines()), 3)
        tag = os.path.join(self.pod.state, "checkpoints/step-000000000003/manifest.json")
        self.assertEqual(os.stat(tag).st_uid, UID)
        for daemon in reversed(daemons):
            self.assertEqual(daemon.stop(signal.SIGTERM), 0)

    def key_of_root(self, mode):
        """A certificate and a key that belong to root, and to the user's group, as in a secret
        volume; the arguments for them."""
        paths = [os.path.join(self.pod.state, name) for name in ("tls.crt", "tls.key")]
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0],
                "-keyout", paths[1])
        for path in paths:
            os.chown(path, 0, UID)
            os.chmod(path, mode)
        return ["--tls-ca", STATE + "/tls.crt", "--tls-cert", STATE + "/tls.crt", "--tls-key",
                STATE + "/tls.key"]

    def test_a_key_of_a_secret_volume_is_taken(self):
        tls = self.key_of_root(0o440)
        coordinator = self.start("coordinator", "coordinator", "--listen", "127.0.0.1:0",
                                 "--status", "127.0.0.1:0", "--state", STATE + "/coordinator", *tls)
        address = coordinator.wait_message("coordinator ready")["address"]
        # The client cannot be root here either: the key's owner is.
        run = self.pod.client("--server", address, *tls, "job", "list")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(coordinator.stop(signal.SIGTERM), 0)

    def certificates(self):
        """What cert-manager makes of components/tls: one authority, one secret for each role."""
        with open(os.path.join(clusters.ROOT, CERTIFICATES)) as file:
            wanted = [one["spec"] for one in yaml.safe_load_all(file)
                      if one["kind"] == "Certificate" and not one["spec"].get("isCA")]
        folder = clusters.temporary_folder("authority")
        authority = [os.path.join(folder, name) for name in ("ca.crt", "ca.key")]
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                "/CN=millrace authority", "-out", authority[0], "-keyout", authority[1])
        for one in wanted:
            secret = os.path.join(self.pod.state, one["secretName"])
            os.mkdir(secret)
            shutil.copy(authority[0], secret)
            request, names = os.path.join(folder, "csr"), os.path.join(folder, "names")
            with open(names, "w") as file:
                file.write("subjectAltName=%s\n" % ",".join("DNS:" + n for n in one["dnsNames"]))
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + one["secretName"],
                    "-keyout", secret + "/tls.key", "-out", request)
            openssl("x509", "-req", "-in", request, "-CA", authority[0], "-CAkey", authority[1],
                    "-CAcreateserial", "-days", "2", "-extfile", names, "-out", secret + "/tls.crt")
            os.chown(secret + "/tls.key", 0, UID)
            os.chmod(secret + "/tls.key", 0o440)

    def tls(self, role):
        secret = "%s/millrace-%s-tls" % (STATE, role)
        return ["--tls-ca=%s/ca.crt" % secret, "--tls-cert=%s/tls.crt" % secret,
                "--tls-key=%s/tls.key" % secret]

    def test_they_train_with_tls_by_the_names_of_pods(self):
        """The names that the cluster's DNS would resolve are in the pod's own hosts file."""
        self.certificates()
        coordinator_name = "millrace-coordinator.millrace.svc"
        stage_names = ["millrace-stage-%d.millrace-stages.millrace.svc" % n for n in range(2)]
        with open(os.path.join(self.pod.root, "etc/hosts"), "w") as file:
            for name in ["localhost", coordinator_name] + stage_names:
                file.write("127.0.0.1 %s\n" % name)
        # Who looks for an IPv6 address, too, is not to wait for a name server.
        with open(os.path.join(self.pod.root, "etc/resolv.conf"), "w") as file:
            file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        coordinator = self.start("coordinator", "coordinator", "--listen=127.0.0.1:0",
                                 "--status=127.0.0.1:0", "--state=" + STATE + "/coordinator",
                                 *self.tls("coordinator"))
        port = coordinator.wait_message("coordinator ready")["address"].rsplit(":", 1)[1]
        server = "%s:%s" % (coordinator_name, port)
        for number, name in enumerate(stage_names):
            own = free_port()
            stage = self.start("stage-%d" % number, "stage", "--coordinator=" + server,
                               "--listen=127.0.0.1:%d" % own, "--advertise=%s:%d" % (name, own),
                               "--status=127.0.0.1:0", "--threads=1", *self.tls("stage"))
            stage.wait_message("attached")
        self.pod.write("corpus.txt", CORPUS)
        self.pod.write("job.yaml", job_text(steps=3))
        options = ["--server=" + server] + self.tls("client")
        run = self.pod.client(*options, "-o", "jsonl", "train", STATE + "/job.yaml")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(len(run.stdout.splitlines()), 3)
        # An address that the certificate does not name is refused.
        run = self.pod.client("--server=localhost:" + port, "--timeout=5", *self.tls("client"),
                              "job", "list")
        self.assertEqual(run.returncode, 5, run.stderr)

    def test_a_key_that_all_may_read_is_refused(self):
        coordinator = self.start("coordinator", "coordinator", "--listen", "127.0.0.1:0",
                                 "--status", "127.0.0.1:0", "--state", STATE + "/coordinator",
                                 *self.key_of_root(0o444))
        self.assertEqual(coordinator.stop(signal.SIGCONT), 77)
        self.assertIn("mode 0444", "".join(coordinator.lines))

    def test_what_is_outside_the_mounted_folder_cannot_be_written(self):
        coordinator = self.start("coordinator", "coordinator", "--listen", "127.0.0.1:0",
                                 "--status", "127.0.0.1:0", "--state", "/millrace/state")
        code = coordinator.stop(signal.SIGCONT)
        self.assertNotEqual(code, 0)
        self.assertIn("/millrace/state", "".join(coordinator.lines))


if __name__ == "__main__":
    unittest.main(verbosity=2)
