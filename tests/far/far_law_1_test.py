# SPDX-License-Identifier: Apache-2.0
"""Law 1 on a device whose memory the host cannot read (far_device.h): what must be copied is
copied, and no bit changes on the way.

Method: a millraced that is built with the device far. One tiny GPT with dropout is trained on the
CPU device, and then on far ones by 1 and 2 stage daemons over gRPC links, by one of each kind in
one pipeline, by replicas with split optimizer state, stopped and resumed on the other kind, in
three precisions. Each step's loss and norm, and every byte of the layer files, must be the CPU
device's; so must generated text and the loss of an evaluation."""

import os
import shutil
import sys
import unittest

import cluster

sys.path.append(os.path.join(cluster.ROOT, "tests/law"))
from checkpoint_files import digests, step_folder
from cluster import CORPUS, Cluster, job_text

STEPS = 8
BATCHES = 4  # microbatches of a step, of all replicas together


def setUpModule():
    cluster.MILLRACED = os.path.join(cluster.ROOT, cluster.PREFIX, "tests/far/millraced")


def text(name, pipe, data=1, zero=0, **options):
    options = {"dropout": 0.1, "steps": STEPS, "micro_batches": BATCHES // data, **options}
    return job_text(name=name, stages=1, **options).replace(
        "{stages: 1,", "{topology: {pipe: %d, data: %d}, zero_stage: %d," % (pipe, data, zero))


class FarLaw1(unittest.TestCase):
    maxDiff = None

    def run_job(self, servers, name, pipe=1, directory=None, **options):
        resume = ["--resume"] if directory else []
        directory = directory or os.path.join(servers.folder, "checkpoints-" + name)
        path = servers.write(name + ".yaml", text(name, pipe, directory=directory, every=4,
                                                  **options))
        steps = servers.train(path, *resume).check().steps()
        self.assertEqual(steps[-1]["step"], STEPS)
        self.directory = directory
        self.path = path
        return ([(s["step"], s["loss"], s["grad_norm"]) for s in steps],
                digests(step_folder(directory, STEPS)))

    def cluster(self, *devices):
        servers = Cluster(stages=len(devices), devices=devices)
        servers.__enter__()
        self.addCleanup(servers.__exit__, None, None, None)
        servers.write("corpus.txt", CORPUS)
        return servers

    def test_training_gives_the_bits_of_the_cpu_device(self):
        wanted = {}
        servers = self.cluster("cpu", "cpu")
        for precision in ("fp32", "bf16", "fp16"):
            wanted[precision] = self.run_job(servers, precision, precision=precision)
        wanted["sgd"] = self.run_job(servers, "sgd", optimizer="type: sgd, momentum: 0.9")
        wanted["replicas"] = self.run_job(servers, "replicas", data=2)
        self.assertEqual(len(wanted["fp32"][1]), 12)
        for devices in (("far", "far"), ("far", "cpu")):
            servers = self.cluster(*devices)
            for pipe in (1, 2) if devices[1] == "far" else (2,):
                for precision in ("fp32", "bf16", "fp16"):
                    with self.subTest(devices=devices, pipe=pipe, precision=precision):
                        found = self.run_job(servers, "%s-%d" % (precision, pipe), pipe,
                                             precision=precision, interval=pipe - 1)
                        self.assertEqual(found, wanted[precision])
            with self.subTest(devices=devices, schedule="gpipe"):
                self.assertEqual(self.run_job(servers, "gpipe", 2, schedule="gpipe"),
                                 wanted["fp32"])
            with self.subTest(devices=devices, optimizer="sgd"):
                self.assertEqual(self.run_job(servers, "sgd", 2,
                                              optimizer="type: sgd, momentum: 0.9"),
                                 wanted["sgd"])
            for zero in (0, 1):
                with self.subTest(devices=devices, zero=zero):
                    self.assertEqual(self.run_job(servers, "z%d" % zero, data=2, zero=zero),
                                     wanted["replicas"])

    def test_checkpoints_go_from_one_kind_of_device_to_the_other(self):
        near = self.cluster("cpu")
        far = self.cluster("far", "far")
        wanted = self.run_job(near, "same")
        near_directory = self.directory
        self.assertEqual(self.run_job(far, "same", 2), wanted)
        for servers, begun, pipe in ((far, near_directory, 2), (near, self.directory, 1)):
            directory = os.path.join(servers.folder, "resumed")
            os.makedirs(directory)
            shutil.copytree(step_folder(begun, 4), step_folder(directory, 4))
            steps, files = self.run_job(servers, "same", pipe, directory=directory)
            self.assertEqual(steps, wanted[0][4:])
            self.assertEqual(files, wanted[1])

    def test_generated_text_and_evaluation_are_those_of_the_cpu_device(self):
        said = {}
        for kind in ("cpu", "far"):
            servers = self.cluster(kind, kind)
            self.run_job(servers, "said", 2)
            generated = servers.client("generate", self.path, "--prompt", "It is", "--tokens",
                                       "12", "--seed", "7").check().out
            self.assertTrue(generated)
            logits = os.path.join(servers.folder, "logits.npy")
            evaluated = servers.client("-o", "json", "eval", self.path, "--steps", "2",
                                       "--logits", logits).check().json()["evaluation"]
            with open(logits, "rb") as file:
                said[kind] = (generated, evaluated["loss"], file.read())
        self.assertEqual(said["far"], said["cpu"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
