# SPDX-License-Identifier: Apache-2.0
"""partition: profile on real stages: the layers are timed, the model is cut, and nothing but the
bounds changes; the profile is printed and used again; what goes wrong on the way is said.

Times are real and so is the noise in them: no test here demands a certain cut."""

import glob
import hashlib
import json
import os
import signal
import unittest

from cluster import CORPUS, Cluster, job_text

STEPS = 6


def bounds_of(cluster, job):
    stages = cluster.client("-o", "json", "job", "get", job).check().json()["job"]["stages"]
    return [stages[0]["layers"][0]] + [s["layers"][1] for s in stages]


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def digests(folder):
    """The bytes of every layer file of the newest checkpoint."""
    files = sorted(glob.glob(os.path.join(folder, "step-%012d" % STEPS, "*.safetensors")))
    assert files, folder
    return {os.path.basename(file): digest(file) for file in files}


def job_file(cluster, name, partition, **options):
    options.setdefault("steps", STEPS)
    cluster.write("corpus.txt", CORPUS)
    return cluster.write(name + ".yaml", job_text(name=name, partition=partition, **options))


def asked(cluster):
    """How often stages were asked for times so far."""
    return sum('"message":"profiling"' in line for stage in cluster.stages for line in stage.lines)


def what_counts(steps):
    return [(s["step"], s["loss"], s["grad_norm"], s["lr"]) for s in steps]


class Profile(unittest.TestCase):
    def test_profiled_job_has_the_bits_of_its_bounds(self):
        """Law 1: a profiled job, the same with its bounds written down, and one whose profile is
        given, by option and by the job file."""
        with Cluster(stages=2) as cluster:
            runs = {}
            folder = os.path.join(cluster.folder, "ckpt-profile")
            runs["profile"] = cluster.train(job_file(cluster, "profiled", "profile", dropout=0.1,
                                                     directory=folder)).check().steps()
            self.assertEqual(asked(cluster), 2)
            bounds = bounds_of(cluster, "profiled")
            self.assertEqual((bounds[0], bounds[-1], len(bounds)), (0, 6, 3))

            text = cluster.client("-o", "json", "job", "profile", "profiled").check().out
            profile = json.loads(text)
            self.assertEqual(profile["schema"], "millrace.profile/v1")
            self.assertEqual(profile["layers"], [0, 1, 1, 1, 2, 3])
            self.assertEqual([d["threads"] for d in profile["devices"]], [1, 1])
            for device in profile["devices"]:
                self.assertEqual(len(device["costs"]), 4)
                self.assertGreater(device["costs"][1]["forward"], 0)
                self.assertGreater(device["costs"][1]["saved_bytes"], 0)
                self.assertGreater(device["link"], 0)
                self.assertGreater(device["optimizer"], 0)
            path = cluster.write("profile.json", text)

            folders = {"profile": folder}
            for name, partition, option in (
                    ("bounds", str(bounds), []),
                    ("given", "profile", ["--profile", path]),
                    ("named", "profile, profile: profile.json", [])):
                folders[name] = os.path.join(cluster.folder, "ckpt-" + name)
                file = job_file(cluster, name, partition, dropout=0.1, directory=folders[name])
                runs[name] = cluster.train(file, *option).check().steps()
                self.assertEqual(bounds_of(cluster, name), bounds, name)
            self.assertEqual(asked(cluster), 2, "a known profile is not measured again")
            for name, steps in runs.items():
                self.assertEqual(what_counts(steps), what_counts(runs["bounds"]), name)
                self.assertEqual(digests(folders[name]), digests(folders["bounds"]), name)

            item = cluster.client("-o", "json", "job", "get", "given").check().json()["job"]
            self.assertGreater(item["step_seconds"], 0)
            self.assertGreater(item["predicted_step_seconds"], 0)
            shown = cluster.client("job", "get", "given").check().out
            self.assertRegex(shown, r"step time +[0-9.]+ s \([0-9.]+ s predicted\)")

    def test_profile_of_a_job_file_plans_it_without_a_server(self):
        with Cluster(stages=2) as cluster:
            path = job_file(cluster, "measured", "profile")
            shown = cluster.client("job", "profile", path).check()
            self.assertIn("6 layers, 4 that differ", shown.out)
            self.assertIn("BACKWARD WEIGHT", shown.out)
            self.assertIn("link (loopback)", shown.out)
            jobs = cluster.client("-o", "json", "job", "list").check().json()["jobs"]
            self.assertEqual([(j["mode"], j["state"]) for j in jobs], [("profile", "SUCCEEDED")])
            text = cluster.client("-o", "json", "job", "profile", jobs[0]["id"]).check().out
            profile = cluster.write("profile.json", text)

            provisional = cluster.client("job", "plan", path).check()
            self.assertIn("no profile was given", provisional.err)
            plan = cluster.client("-o", "json", "job", "plan", path, "--profile", profile)
            plan = plan.check().json()
            self.assertGreater(plan["step_seconds"], 0)
            self.assertNotIn("provisional", plan)
            for other in ("uniform", "parameters"):
                worse = cluster.client("-o", "json", "job", "plan", job_file(cluster, other, other),
                                       "--profile", profile).check().json()
                self.assertGreaterEqual(worse["step_seconds"], plan["step_seconds"])

            other = job_file(cluster, "wider", "profile", dim=64)
            refused = cluster.client("job", "plan", other, "--profile", profile).check(4)
            self.assertIn("the profile's model_hash is", refused.err)
            missing = cluster.client("job", "plan", path, "--profile", "nowhere.json").check(3)
            self.assertIn("nowhere.json: no such file", missing.err)
            broken = cluster.write("broken.json", text.replace('"forward":', '"forwards":', 1))
            bad = cluster.client("job", "plan", path, "--profile", broken).check(2)
            self.assertIn("devices[0].costs[0].forward is missing", bad.err)

    def test_model_that_fits_no_device_is_refused_with_bytes(self):
        with Cluster(stages=2) as cluster:
            path = job_file(cluster, "large", "profile")
            text = cluster.client("-o", "json", "job", "profile", path).check().out
            profile = json.loads(text)
            for device in profile["devices"]:
                device["memory_bytes"] = 10000
            small = cluster.write("small.json", json.dumps(profile))
            failed = cluster.client("job", "plan", path, "--profile", small)
            self.assertNotEqual(failed.code, 0)
            self.assertRegex(failed.err, r"no cut into 2 stages fits its devices: stage \d of the "
                                         r"one that comes nearest needs \d+ bytes and its device "
                                         r"has 10000")

    def test_settings_of_a_running_job_leave_its_cut_alone(self):
        with Cluster(stages=2) as cluster:
            path = job_file(cluster, "changed", "profile")
            job = cluster.client("-o", "name", "job", "submit", path).check().out.strip()
            watch = cluster.client_start("job", "watch", job)
            self.assertTrue(any("RUNNING" in line for line in watch.stderr))
            watch.send_signal(signal.SIGINT)
            watch.communicate(timeout=60)
            before = cluster.client("-o", "json", "job", "get", job).check().json()["job"]
            text = cluster.client("-o", "json", "job", "profile", job).check().out
            cluster.client("job", "set", job, "pipeline.activation_checkpoint_interval=1").check()
            after = cluster.client("-o", "json", "job", "get", job).check().json()["job"]
            self.assertEqual([stage["layers"] for stage in after["stages"]],
                             [stage["layers"] for stage in before["stages"]])
            self.assertGreater(after["predicted_step_seconds"], 0)
            self.assertEqual(
                cluster.client("-o", "json", "job", "profile", job).check().out, text)
            cluster.client("job", "cancel", job).check()

    def test_stage_killed_while_it_measures_is_named(self):
        with Cluster(stages=2) as cluster:
            path = job_file(cluster, "killed", "profile", dim=256, heads=4, length=128, batch=4)
            job = cluster.client("-o", "name", "job", "submit", path).check().out.strip()
            for stage in cluster.stages:
                stage.wait_message("profiling")
            cluster.stages[1].stop(signal.SIGKILL)
            cluster.client("job", "wait", job, "--within", "60").check(8)
            reason = cluster.client("-o", "json", "job", "get", job).check().json()["job"]["reason"]
            self.assertRegex(reason, r"stage \d \(rank \d, member m\d at [0-9.:]+\): "
                                     r"UNAVAILABLE: lost")

            cluster.start_stage().wait_message("attached")
            again = job_file(cluster, "again", "profile")
            self.assertEqual(len(cluster.train(again).check().steps()), STEPS)

    def test_cancel_while_it_measures_leaves_the_stages_idle(self):
        with Cluster(stages=2) as cluster:
            path = job_file(cluster, "cancelled", "profile", dim=256, heads=4, length=128, batch=4)
            job = cluster.client("-o", "name", "job", "submit", path).check().out.strip()
            for stage in cluster.stages:
                stage.wait_message("profiling")
            cluster.client("job", "cancel", job).check()
            for stage in cluster.stages:
                stage.wait_message("job released")
            after = job_file(cluster, "next", "profile")
            self.assertEqual(len(cluster.train(after).check().steps()), STEPS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
