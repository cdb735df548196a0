# SPDX-License-Identifier: Apache-2.0
"""Two stage daemons train, save, resume, plan, list and generate: the whole of the system once,
small, so that it also runs under the sanitizers (bazel test --config=asan or --config=tsan). A
daemon that a sanitizer stops ends with another code than 0, or with a report on stderr, and both
are looked for."""

import os
import signal
import unittest

from cluster import CORPUS, Cluster, job_text

REPORTS = ("AddressSanitizer", "ThreadSanitizer", "LeakSanitizer", "runtime error")


class TwoStages(unittest.TestCase):
    def test_train_save_resume_and_generate(self):
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            path = cluster.write("tiny.yaml", job_text(steps=8, directory=directory, every=4,
                                                       dropout=0.1))
            steps = cluster.train(path).check().steps()
            self.assertEqual([s["step"] for s in steps], list(range(1, 9)))
            for step in steps:
                self.assertEqual(sorted(step), ["bubble", "grad_norm", "loss", "lr", "step",
                                                "step_seconds", "tokens", "tokens_per_second"])
                self.assertEqual(step["tokens"], 2 * 4 * 16)
            listed = cluster.client("-o", "json", "checkpoint", "list", directory).check().json()
            self.assertEqual([c["step"] for c in listed["checkpoints"]], [4, 8])
            cluster.client("checkpoint", "verify", directory).check()

            longer = cluster.write("longer.yaml", job_text(steps=10, directory=directory))
            resumed = cluster.train(longer, "--resume").check().steps()
            self.assertEqual([s["step"] for s in resumed], [9, 10])

            one = cluster.client("generate", longer, "--prompt", "It is", "--tokens", "12",
                                 "--seed", "7").check()
            same = cluster.client("generate", longer, "--prompt", "It is", "--tokens", "12",
                                  "--seed", "7").check()
            self.assertEqual(one.out, same.out)
            self.assertTrue(one.out)

            jobs = cluster.client("-o", "json", "job", "list").check().json()["jobs"]
            self.assertEqual({j["state"] for j in jobs}, {"SUCCEEDED"})
            for daemon in cluster.stages + [cluster.coordinator]:
                self.assertEqual(daemon.stop(signal.SIGTERM), 0, daemon.name)
                for line in daemon.lines:
                    for report in REPORTS:
                        self.assertNotIn(report, line)

    def test_bf16_trains_and_generates_what_fp32_weights_say(self):
        """Greedy text of one checkpoint is the same in both precisions but for near ties."""
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            directory = os.path.join(cluster.folder, "checkpoints")
            files = {p: cluster.write(p + ".yaml", job_text(steps=60, directory=directory,
                                                            precision=p))
                     for p in ("bf16", "fp32")}
            self.assertEqual(len(cluster.train(files["bf16"]).check().steps()), 60)
            texts = {p: cluster.client("generate", files[p], "--prompt", "It is", "--tokens", "8",
                                       "--temperature", "0").check().out
                     for p in files}
            self.assertEqual(texts["bf16"], texts["fp32"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
