# SPDX-License-Identifier: Apache-2.0
"""Bad input, from the outside: each case a clear error that names what is wrong, the right exit
code, nothing lost and the daemons alive. One cluster serves all cases; a small job runs at the end
of each class to show that it still can."""

import os
import socket
import struct
import subprocess
import unittest

import foreign_client
from cluster import CORPUS, MILLRACED, Cluster, Daemon, job_text, run_client, temporary_folder

JOB_FILES = [
    # name, changed text (old, new), what the error must name
    ("unknown key", ("seed: 1234", "sead: 1234"), ["3: ", "sead", "seed"]),
    ("wrong type", ("seed: 1234", "seed: many"), ["3: ", "seed", "many"]),
    ("zero size", ("micro_batch_size: 2", "micro_batch_size: 0"), ["micro_batch_size", "0"]),
    ("huge size", ("vocab: 256", "vocab: 99999999999"), ["vocab", "99999999999"]),
    ("negative size", ("micro_batches: 4", "micro_batches: -4"), ["micro_batches", "-4"]),
    ("more stages than layers", ("stages: 2", "stages: 9"), ["9", "6"]),
    ("partition that does not cover", ("partition: parameters", "partition: [0, 2, 5]"),
     ["partition", "5", "6"]),
    ("partition by a pattern that is none", ("partition: parameters", "partition: 'type:a[b'"),
     ["partition", "a[b"]),
    ("partition by a pattern that finds nothing", ("partition: parameters", "partition: type:conv"),
     ["partition", "conv"]),
    ("partition that is not increasing", ("partition: parameters", "partition: [0, 6, 6]"),
     ["partition", "6"]),
    ("heads that do not divide", ("heads: 2", "heads: 5"), ["heads", "5", "32"]),
    ("not a number", ("lr: 1e-3", "lr: .nan"), ["lr", "nan"]),
    ("unknown schedule", ("schedule: 1f1b", "schedule: 2f2b"), ["schedule", "2f2b"]),
    ("unknown layer", ("type: layernorm", "type: layernom"), ["layernom", "layernorm"]),
    ("sequence longer than positions", ("sequence_length: 16", "sequence_length: 64"),
     ["sequence length", "64", "16"]),
    ("tab and broken yaml", ("pipeline: {", "pipeline: {{{"), ["11: "]),
]


class JobFiles(unittest.TestCase):
    """No server is needed to be told that a job file is wrong."""

    def test_each_mistake_is_named_with_its_line(self):
        folder = temporary_folder("files")
        with open(os.path.join(folder, "corpus.txt"), "w") as file:
            file.write(CORPUS)
        for name, (old, new), wanted in JOB_FILES:
            with self.subTest(name):
                text = job_text()
                self.assertIn(old, text)
                path = os.path.join(folder, "bad.yaml")
                with open(path, "w") as file:
                    file.write(text.replace(old, new, 1))
                for verb in ("validate", "plan"):
                    run = run_client(["job", verb, path], folder).check(2)
                    for word in wanted:
                        self.assertIn(word, run.err + run.out)

    def test_a_good_file_is_said_to_be_good(self):
        folder = temporary_folder("files")
        path = os.path.join(folder, "good.yaml")
        with open(path, "w") as file:
            file.write(job_text())
        run_client(["job", "validate", path], folder).check(0)


class Daemons(unittest.TestCase):
    """What a daemon refuses at its own command line."""

    def start(self, *arguments):
        folder = temporary_folder("daemon")
        return subprocess.run([MILLRACED] + list(arguments), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=folder, timeout=30)

    def test_a_port_in_use_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            for role in (["coordinator", "--status", "127.0.0.1:0"], ["stage"]):
                run = self.start(*role, "--listen", address)
                self.assertEqual(run.returncode, 69, run.stdout)
                self.assertIn(address, run.stdout)
            run = self.start("stage", "--status", address)
            self.assertIn(address, run.stdout)
            self.assertNotEqual(run.returncode, 0)

    def test_an_address_beyond_loopback_needs_tls_or_insecure(self):
        for role in ("coordinator", "stage"):
            run = self.start(role, "--listen", "0.0.0.0:0")
            self.assertEqual(run.returncode, 64, run.stdout)
            self.assertIn("--insecure", run.stdout)

    def test_an_unknown_option_is_named(self):
        run = self.start("stage", "--colour", "red")
        self.assertEqual(run.returncode, 64)
        self.assertIn("--colour", run.stdout)

    def test_a_device_that_is_not_there_is_named(self):
        run = self.start("stage", "--device", "cuda:0")
        self.assertEqual(run.returncode, 69, run.stdout)
        self.assertIn("cuda", run.stdout)

    def test_a_way_for_tensors_that_is_none_is_named(self):
        run = self.start("stage", "--fabric", "string")
        self.assertEqual(run.returncode, 64, run.stdout)
        self.assertIn("auto, links or none", run.stdout)

    def test_a_stage_without_its_coordinator_waits_and_says_so(self):
        folder = temporary_folder("lonely")
        stage = Daemon(folder, "stage", ["stage", "--coordinator", "127.0.0.1:1", "--status",
                                         "127.0.0.1:0"])
        try:
            line = stage.wait_message("not attached to the coordinator; trying again")
            self.assertEqual(line["coordinator"], "127.0.0.1:1")
        finally:
            self.assertEqual(stage.stop(seconds=5), 0)


class Clients(unittest.TestCase):
    def test_a_coordinator_that_is_not_there(self):
        run = run_client(["--server", "127.0.0.1:1", "--timeout", "5", "job", "list"],
                         temporary_folder("nobody"))
        run.check(5)
        self.assertIn("127.0.0.1:1", run.err)

    def test_an_unknown_verb_is_answered_with_the_nearest(self):
        run = run_client(["job", "lst"], temporary_folder("verb")).check(2)
        self.assertIn("list", run.err)


class Data(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(stages=2)
        cls.cluster.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def tearDown(self):
        """Whatever was refused, the cluster still trains."""
        self.cluster.write("corpus.txt", CORPUS)
        path = self.cluster.write("after.yaml", job_text(name="after", steps=1))
        self.assertEqual(len(self.cluster.train(path).check().steps()), 1)

    def refused(self, text, words, code=2):
        path = self.cluster.write("bad.yaml", text)
        run = self.cluster.train(path).check(code)
        for word in words:
            self.assertIn(word, run.err)

    def test_missing_data(self):
        self.refused(job_text(name="missing", corpus="nowhere.txt"), ["nowhere.txt"], code=3)

    def test_empty_data(self):
        self.cluster.write("empty.txt", "")
        self.refused(job_text(name="empty", corpus="empty.txt"), ["empty.txt"])

    def test_data_shorter_than_one_sample(self):
        self.cluster.write("short.txt", "abc")
        self.refused(job_text(name="short", corpus="short.txt"), ["17"])

    def test_a_token_beyond_the_vocabulary(self):
        tokens = [1, 2, 3] * 40 + [999] + [4] * 40
        header = struct.pack("<256i", 20240520, 1, len(tokens), *([0] * 253))
        self.cluster.write("tokens.bin", header + struct.pack("<%dH" % len(tokens), *tokens))
        text = job_text(name="token", corpus="tokens.bin").replace("format: bytes", "format: llmc")
        self.refused(text.replace("shuffle: true", "shuffle: false"), ["999", "255"])
        self.cluster.client("job", "cancel", "token")

    def test_two_jobs_of_one_name(self):
        path = self.cluster.write("twin.yaml", job_text(name="twin", steps=1))
        self.cluster.client("job", "submit", path).check()
        run = self.cluster.client("job", "submit", path).check(4)
        self.assertIn("twin", run.err)
        self.cluster.client("job", "cancel", "twin").check()

    def test_a_job_that_nobody_knows(self):
        run = self.cluster.client("job", "get", "nosuch").check(3)
        self.assertIn("nosuch", run.err)

    def test_damaged_checkpoints_are_refused(self):
        directory = os.path.join(self.cluster.folder, "damaged")
        self.cluster.write("corpus.txt", CORPUS)
        path = self.cluster.write("keep.yaml",
                                  job_text(name="keep", steps=2, directory=directory))
        self.cluster.train(path).check()
        file = os.path.join(directory, "step-000000000002", "layer_01-model_states.safetensors")
        with open(file, "rb") as source:
            good = source.read()
        longer = self.cluster.write("longer.yaml",
                                    job_text(name="keep", steps=4, directory=directory))
        for name, bad in (("truncated", good[:-100]),
                          ("altered", good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])):
            with self.subTest(name):
                with open(file, "wb") as target:
                    target.write(bad)
                run = self.cluster.client("checkpoint", "verify", directory)
                self.assertNotEqual(run.code, 0)
                self.assertIn("layer_01-model_states.safetensors", run.err + run.out)
                run = self.cluster.train(longer, "--resume=step-000000000002")
                self.assertNotEqual(run.code, 0)
                self.assertIn("layer_01-model_states.safetensors", run.err)
        with open(file, "wb") as target:
            target.write(good)
        self.assertEqual(len(self.cluster.train(longer, "--resume").check().steps()), 2)

    def test_messages_that_are_no_messages(self):
        client = foreign_client.ForeignClient(self.cluster.address)
        code, text = client.raw("/millrace.v1.Jobs/Get", b"\xff\xff\xff\xff\xff")
        self.assertEqual(code, "INVALID_ARGUMENT", text)
        code, _ = client.raw("/millrace.v1.Jobs/Get", b"\x0a" + b"\x00" * (8 << 20))
        self.assertEqual(code, "RESOURCE_EXHAUSTED")
        code, text = client.raw("/millrace.v1.Jobs/NoSuchMethod", b"")
        self.assertEqual(code, "UNIMPLEMENTED", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
