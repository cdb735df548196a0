# SPDX-License-Identifier: Apache-2.0
"""A job that starts from another job's checkpoint (checkpoint.load): with the weights alone, with
the optimizer's state too, strictly or not. A strict load names what is missing, of another shape or
not the job's, before anything runs; a lenient one loads the rest, the same on any number of stages,
and says what it left as drawn and what it ignored. (The field's `strict` was ignored for long, and
a model that lacked files loaded as drawn without a word: deepspeed.md 40 and section 10, 19.)"""

import json
import os
import shutil
import unittest

from cluster import CORPUS, Cluster, job_text, run_client


def load_text(name, path, strict=None, optimizer=None, directory="", **options):
    fields = ["path: %s" % path]
    fields += ["strict: %s" % str(strict).lower()] if strict is not None else []
    fields += ["optimizer: %s" % str(optimizer).lower()] if optimizer is not None else []
    own = "dir: %s, every_steps: 0, keep: 0, initial: true, " % directory if directory else ""
    return job_text(name=name, extra="checkpoint: {%sload: {%s}}\n" % (own, ", ".join(fields)),
                    **options)


class CheckpointLoad(unittest.TestCase):
    def base(self, cluster, **options):
        """A trained job's checkpoint of step 6, and of step 3."""
        cluster.write("corpus.txt", CORPUS)
        directory = os.path.join(cluster.folder, "base")
        path = cluster.write("base.yaml", job_text(name="base", steps=6, every=3,
                                                   directory=directory, **options))
        self.steps = self.losses(cluster.train(path).check())
        return os.path.join(directory, "step-%012d" % 3)

    @staticmethod
    def losses(run):
        return [(s["step"], s["loss"], s["grad_norm"]) for s in run.steps()]

    def train(self, cluster, text):
        path = cluster.write("job-%d.yaml" % len(os.listdir(cluster.folder)), text)
        return cluster.train(path)

    def test_weights_alone_start_at_step_0(self):
        with Cluster(stages=2) as cluster:
            source = self.base(cluster)
            directory = os.path.join(cluster.folder, "own")
            run = self.train(cluster, load_text("tuned", source, directory=directory, steps=3))
            steps = self.losses(run.check())
            self.assertEqual([s[0] for s in steps], [1, 2, 3])
            # The first samples are those of the base's first step, which knew nothing yet.
            self.assertLess(steps[0][1], self.steps[0][1] - 0.05)
            other = self.losses(self.train(cluster, load_text("one", source, steps=3,
                                                              stages=1)).check())
            self.assertEqual(other, steps)
            self.check_initial(source, os.path.join(directory, "step-%012d" % 0), cluster)

    def check_initial(self, source, initial, cluster):
        """The weights of step 0 are the checkpoint's, and there is no state yet."""
        for name in sorted(os.listdir(source)):
            if name.endswith("-model_states.safetensors"):
                with open(os.path.join(source, name), "rb") as a, \
                        open(os.path.join(initial, name), "rb") as b:
                    self.assertEqual(a.read(), b.read(), name)
        shown = run_client(["-o", "json", "checkpoint", "inspect", initial], cluster.folder)
        norms = [t["norm"] for layer in shown.check().json()["checkpoint"]["layers"]
                 for f in layer["files"] if f["kind"] == "optim" for t in f["tensors"]]
        self.assertTrue(norms)
        self.assertEqual(set(norms), {0.0})

    def test_with_its_state_a_job_goes_on_where_the_other_stood(self):
        with Cluster(stages=2) as cluster:
            source = self.base(cluster)
            run = self.train(cluster, load_text("heir", source, optimizer=True, steps=6))
            self.assertEqual(self.losses(run.check()), self.steps[3:])

    def test_a_strict_load_names_what_does_not_fit(self):
        with Cluster(stages=2) as cluster:
            source = self.base(cluster)
            run = self.train(cluster, load_text("deep", source, layers=4, steps=3)).check(4)
            self.assertIn("checkpoint.load.path: E_CKPT_STRICT", run.err)
            self.assertIn("layer 4: ln_1.weight is missing", run.err)
            run = self.train(cluster, load_text("long", source, length=20, steps=3)).check(4)
            self.assertIn("0 missing, 1 of another shape, 0 not the job's", run.err)
            self.assertIn("layer 0: wpe.weight is f32 [16, 32], the job's is f32 [20, 32]", run.err)
            run = self.train(cluster, load_text("thin", source, heads=4, steps=3)).check(4)
            self.assertIn("E_CKPT_MODEL", run.err)
            run = self.train(cluster, load_text("none", os.path.dirname(source), steps=3)).check(3)
            self.assertIn("its newest, step-%012d" % 6, run.err)
            run = self.train(cluster, load_text("lion", source, optimizer=True, steps=6).replace(
                "type: adamw, betas: [0.9, 0.95], eps: 1e-8", "type: lion")).check(4)
            self.assertIn("optimizer.type is lion", run.err)

    def test_a_lenient_load_says_what_it_left_and_is_the_same_on_any_stages(self):
        with Cluster(stages=2) as cluster:
            source = self.base(cluster)
            text = load_text("wider", source, strict=False, length=20, layers=4, steps=3)
            run = self.train(cluster, text).check()
            self.assertIn("; left as drawn: layer 0: wpe.weight is", run.err)
            one = self.losses(run)
            two = self.losses(self.train(cluster, text.replace("stages: 2", "stages: 1")).check())
            self.assertEqual(one, two)
            lines = [json.loads(line) for line in cluster.coordinator.lines
                     if "parameter not loaded" in line]
            what = [line["what"] for line in lines]
            self.assertIn("layer 0: wpe.weight is f32 [16, 32], the job's is f32 [20, 32]", what)
            self.assertIn("layer 4: attn.qkv.weight is missing", what)
            self.assertTrue(any("is not the job's" in w for w in what), what)
            history = cluster.client("job", "logs", "wider").check().out
            self.assertIn("loads ", history)
            self.assertIn("; left as drawn: layer 0: wpe.weight is f32 [16, 32]", history)

    def test_frozen_parameters_left_out_come_from_where_the_job_started(self):
        with Cluster(stages=2) as cluster:
            source = self.base(cluster)
            for name, load in (("tuned", ", load: {path: %s}" % source), ("fresh", "")):
                directory = os.path.join(cluster.folder, name)
                text = job_text(name=name, steps=4, extra=(
                    "checkpoint: {dir: %s, every_steps: 2, keep: 0, exclude_frozen: true%s}\n"
                    % (directory, load)))
                text = text.replace("repeat: 3,", "repeat: 3, frozen: [attn.qkv.weight],")
                text = text.replace("{type: layernorm,", "{type: layernorm, frozen: true,")
                self.check_frozen(cluster, name, text, directory)

    def check_frozen(self, cluster, name, text, directory):
        path = cluster.write(name + ".yaml", text)
        whole = self.losses(cluster.train(path).check())
        last = os.path.join(directory, "step-%012d" % 4)
        files = os.listdir(last)
        self.assertIn("layer_01-model_states.safetensors", files)
        self.assertNotIn("layer_04-model_states.safetensors", files)
        shown = cluster.client("-o", "json", "checkpoint", "inspect", last).check().json()
        names = [t["name"] for layer in shown["checkpoint"]["layers"] if layer["layer"] == 1
                 for f in layer["files"] for t in f["tensors"]]
        self.assertIn("attn.qkv.bias", names)
        self.assertFalse([n for n in names if "attn.qkv.weight" in n])
        said = cluster.client("generate", path, "--tokens", "8", "--temperature", "0").check().out
        shutil.rmtree(last)
        one = cluster.write(name + "-1.yaml", text.replace("stages: 2", "stages: 1"))
        self.assertEqual(self.losses(cluster.train(one, "--resume").check()), whole[2:])
        again = cluster.client("generate", one, "--tokens", "8", "--temperature", "0").check().out
        self.assertEqual(again, said)
        plain = cluster.write(name + "-2.yaml", text.replace("exclude_frozen: true",
                                                             "exclude_frozen: false"))
        self.assertIn("E_CKPT_MISSING", cluster.train(plain, "--resume=step-%012d" % 2).err)

    def test_bad_fields_are_refused_by_name(self):
        with Cluster(stages=0) as cluster:
            cluster.write("corpus.txt", CORPUS)
            path = cluster.write("a.yaml", load_text("a", "x", strict=False, optimizer=True))
            run = run_client(["job", "validate", path], cluster.folder).check(2)
            self.assertIn("checkpoint.load.optimizer is true", run.err)
            path = cluster.write("b.yaml", job_text(extra="checkpoint: {load: {strict: false}}\n"))
            run = run_client(["job", "validate", path], cluster.folder).check(2)
            self.assertIn("checkpoint.load.path is missing", run.err)
            path = cluster.write("c.yaml", load_text("c", "x", strict=3))
            run = run_client(["job", "validate", path], cluster.folder).check(2)
            self.assertIn("checkpoint.load.strict is 3", run.err)


if __name__ == "__main__":
    unittest.main()
