# SPDX-License-Identifier: Apache-2.0
"""Training in fp16: close to fp32, the same bits on any pipeline and after any restart, and steps
whose gradients overflow are skipped and reported while the factor comes down; a factor at its least
ends the job; what is not of fp16 is refused by name."""

import json
import os
import unittest

from cluster import CORPUS, Cluster, job_text


def scaled(text, **fields):
    """The job file with loss_scale fields."""
    return text + "loss_scale: {%s}\n" % ", ".join("%s: %s" % item for item in fields.items())


def bits(steps):
    return [(s["loss"], s["grad_norm"], s["lr"], s["loss_scale"], s["skipped"]) for s in steps]


class Fp16(unittest.TestCase):
    def test_it_is_close_to_fp32_and_the_same_on_any_pipeline(self):
        with Cluster(stages=3) as cluster:
            cluster.write("corpus.txt", CORPUS)
            runs = []
            for stages, schedule, interval in ((1, "gpipe", 0), (2, "1f1b", 0), (3, "1f1b", 1)):
                path = cluster.write("job.yaml", job_text(
                    stages=stages, schedule=schedule, interval=interval, steps=30, dropout=0.1,
                    precision="fp16"))
                runs.append(cluster.train(path).check().steps())
            self.assertEqual(bits(runs[0]), bits(runs[1]))
            self.assertEqual(bits(runs[0]), bits(runs[2]))
            self.assertFalse(any(step["skipped"] for step in runs[0]))
            wide = cluster.write("wide.yaml", job_text(stages=2, steps=30, dropout=0.1))
            for half, full in zip(runs[0], cluster.train(wide).check().steps()):
                self.assertLess(abs(half["loss"] / full["loss"] - 1), 2e-2)
                self.assertLess(abs(half["grad_norm"] / full["grad_norm"] - 1), 2e-2)

    def test_overflows_are_skipped_and_a_restart_goes_on_with_the_factor(self):
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)

            def job(name, steps):
                directory = os.path.join(cluster.folder, name)
                return cluster.write(name + ".yaml", scaled(
                    job_text(steps=steps, directory=directory, every=10, precision="fp16")
                    .replace("total_steps: %d" % steps, "total_steps: 20"),
                    initial=2 ** 26, window=4, hysteresis=2))

            whole = cluster.train(job("whole", 20)).check().steps()
            skipped = [step for step in whole if step["skipped"]]
            self.assertGreater(len(skipped), 3)
            self.assertLess(len(skipped), 20)
            self.assertTrue(whole[0]["skipped"])
            self.assertEqual(whole[0]["loss_scale"], 2 ** 26)
            self.assertEqual(whole[1]["loss_scale"], 2 ** 26)  # hysteresis
            self.assertEqual(whole[2]["loss_scale"], 2 ** 25)
            applied = [step for step in whole if not step["skipped"]]
            self.assertEqual(applied[0]["lr"], whole[0]["lr"])  # no learning rate was used up
            doubled = [b["loss_scale"] / a["loss_scale"] for a, b in zip(whole, whole[1:])]
            self.assertIn(2, doubled)

            path = job("parts", 20)
            running = cluster.client_start("-o", "jsonl", "train", path)
            lines = []
            for line in running.stdout:
                lines.append(json.loads(line))
                if lines[-1]["step"] == 12:
                    break
            cluster.client("job", "cancel", "tiny", "--yes").check()
            running.communicate(timeout=60)
            rest = cluster.train(path, "--resume=step-000000000010").check().steps()
            self.assertEqual(bits(lines[:10] + rest), bits(whole))
            manifest = os.path.join(cluster.folder, "parts", "step-000000000020", "manifest.json")
            with open(manifest) as file:
                optimizer = json.load(file)["optimizer"]
            self.assertEqual(optimizer["steps"], len(applied))
            self.assertEqual(set(optimizer) - {"type", "steps", "lr"},
                             {"loss_scale", "good_steps", "overflows_left"})

    def test_a_factor_at_its_least_ends_the_job(self):
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("job.yaml", scaled(job_text(steps=9, precision="fp16"),
                                                    initial="1e12", min="1e12", hysteresis=1))
            failed = cluster.train(path).check(8)
            self.assertIn("gradients overflow fp16 and loss_scale is at its least, 1e+12",
                          failed.err)
            fixed = cluster.write("fixed.yaml", scaled(job_text(steps=9, precision="fp16"),
                                                       fixed="1024"))
            self.assertEqual({step["loss_scale"] for step in cluster.train(fixed).check().steps()},
                             {1024})

    def test_what_is_not_of_fp16_is_refused(self):
        with Cluster(stages=0) as cluster:
            for text, said in (
                    (scaled(job_text(), initial=8), "loss_scale.initial is given but precision is "
                                                    "not fp16"),
                    (scaled(job_text(precision="fp16"), initial=0), "loss_scale.initial is 0"),
                    (scaled(job_text(precision="fp16"), initial=1, min=2),
                     "loss_scale.initial is 1; it must be at least loss_scale.min, 2"),
                    (scaled(job_text(precision="fp16"), window=0), "loss_scale.window is 0"),
                    (scaled(job_text(precision="fp16"), factor=2), "factor")):
                path = cluster.write("job.yaml", text)
                self.assertIn(said, cluster.client("job", "validate", path).check(2).err)


if __name__ == "__main__":
    unittest.main()
