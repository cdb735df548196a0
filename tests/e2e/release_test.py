# SPDX-License-Identifier: Apache-2.0
"""The release archive: at most 60 MiB, unpacked anywhere it brings all libraries but the C
library's and CUDA's, and its programs train. They start in a root folder that holds nothing of this
machine but the archive and the C library (a chroot; as root only), so that nothing else can be
found."""

import os
import re
import shutil
import subprocess
import tarfile
import unittest

import cluster as clusters
from cluster import CORPUS, Cluster, job_text

MIB_MAX = 60
SYSTEM = re.compile(r"^(ld-linux|libc\.|libm\.|libpthread\.|libdl\.|librt\.|libcuda|libcublas"
                    r"|libcudnn|libnccl|libnvrtc|linux-vdso)")


class Release(unittest.TestCase):
    def setUp(self):
        self.archive = os.path.join(clusters.ROOT, clusters.PREFIX + "deploy/millrace.tar.gz")
        self.folder = clusters.temporary_folder("release")
        with tarfile.open(self.archive) as archive:
            archive.extractall(self.folder)
        self.top = os.path.join(self.folder, "millrace")

    def libraries(self, program):
        """What a program needs: name and path, as the loader finds them."""
        out = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
        return re.findall(r"^\s*(\S+) => (\S+)", out, re.MULTILINE)

    def test_the_archive_is_small_and_complete(self):
        self.assertLess(os.path.getsize(self.archive), MIB_MAX << 20)
        for name in ("README.md", "LICENSE", "bin/millrace", "bin/millraced"):
            self.assertTrue(os.path.exists(os.path.join(self.top, name)), name)
        own = os.path.join(self.top, "lib")
        for program in ("millrace", "millraced"):
            for name, path in self.libraries(os.path.join(self.top, "bin", program)):
                self.assertNotEqual(path, "not")
                if not SYSTEM.match(name):
                    self.assertEqual(os.path.dirname(os.path.realpath(path)),
                                     os.path.realpath(own), name)

    def test_its_programs_train(self):
        programs = (clusters.MILLRACED, clusters.MILLRACE)
        clusters.MILLRACED = os.path.join(self.top, "bin/millraced")
        clusters.MILLRACE = os.path.join(self.top, "bin/millrace")
        try:
            with Cluster(stages=2) as cluster:
                cluster.write("corpus.txt", CORPUS)
                path = cluster.write("job.yaml", job_text(steps=2))
                self.assertEqual(len(cluster.train(path).check().steps()), 2)
        finally:
            clusters.MILLRACED, clusters.MILLRACE = programs

    def test_they_start_where_there_is_only_a_c_library(self):
        if os.geteuid() != 0:
            self.skipTest("a chroot needs root")
        for name, path in self.libraries(os.path.join(self.top, "bin/millraced")):
            if SYSTEM.match(name) and path.startswith("/"):
                self.bring(path)
        loader = subprocess.run(["readelf", "-l", os.path.join(self.top, "bin/millraced")],
                                stdout=subprocess.PIPE, text=True).stdout
        self.bring(re.search(r"interpreter: ([^\]]+)\]", loader).group(1))
        for program in ("millrace", "millraced"):
            run = subprocess.run(["/usr/sbin/chroot", self.folder, "/millrace/bin/" + program,
                                  "--version" if program == "millraced" else "version"],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 # What the loader reads from /proc elsewhere.
                                 env={"LD_ORIGIN_PATH": "/millrace/bin"})
            self.assertEqual(run.returncode, 0, run.stdout)
            self.assertIn("0.1.0", run.stdout)

    def bring(self, path):
        """A file of this machine into the new root, at its own place."""
        target = self.folder + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(path, target)


if __name__ == "__main__":
    unittest.main(verbosity=2)
