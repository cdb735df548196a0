# SPDX-License-Identifier: Apache-2.0
"""Goal: every verb of the client, in every output form, prints what it printed before, to the
letter, on the right stream and with the promised exit code; JSON may have gained keys, never lost
or changed one. Method: CASES are run against a
coordinator whose answers never change (client_coordinator.c), and what comes out is compared with
the transcripts in client_golden: "$ COMMAND", stdout as it is, stderr behind "! ", and the exit
code behind "= ". What the run decides is replaced: @SERVER@ and @DIR@. A verb of commands.def that
no transcript shows in every form fails the test.

To write the transcripts anew after a wanted change, from the top of the source tree:
    bazel test //tests/e2e:client_transcripts_test --spawn_strategy=local \\
        --test_env=CLIENT_GOLDEN=$PWD/tests/e2e/client_golden
"""

import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import unittest

from cluster import MILLRACE, PREFIX, ROOT, job_text, temporary_folder

HERE = os.path.join(ROOT, "tests/e2e")
COORDINATOR = os.path.join(ROOT, PREFIX + "tests/e2e/client_coordinator")
CHECKPOINT_MAKER = os.path.join(ROOT, PREFIX + "tests/unit/client/checkpoint_maker")
COMMANDS = os.path.join(ROOT, "client/commands.def")
FAKE_CLUSTER = os.path.join(ROOT, PREFIX + "tests/unit/client/fake_cluster")
FEED_FILE = os.path.join(ROOT, "tests/unit/client/client_job.yaml")
FORMS = ("table", "wide", "json", "jsonl", "name")
SECONDS = 60



def each_form(command):
    """A verb that writes, once in every form, with a target for each."""
    return ["-o %s %s" % (form, command.replace("@FORM@", form)) for form in FORMS]


# A case is a command line; with "*" before it it is run in every form. A verb that destroys is
# shown by what it says before.
CASES = {
    "version": ["*version", "--version"],
    "job_submit": ["*job submit job.yaml", "-q job submit job.yaml", "job submit none.yaml",
                   "job submit bad.yaml"],
    "job_feed": ["*job feed j1", "job feed nobody"],
    "job_validate": ["*job validate job.yaml", "*job validate bad.yaml",
                     "job validate none.yaml"],
    "job_plan": ["*job plan job.yaml", "job plan bad.yaml"],
    "job_import_deepspeed": ["*job import-deepspeed ds.json", "job import-deepspeed job.yaml"],
    "job_list": ["*job list", "-q job list", "job list extra", "job list --state failed",
                 "-o name job list --state active", "job list --state paused",
                 "job list --state gone"],
    "job_get": ["*job get gpt", "job get j2", "*job get next", "job get nobody"],
    "job_watch": ["*job watch j1", "job watch j2", "job watch j3", "job watch nobody"],
    "job_wait": ["*job wait j1", "job wait j2", "job wait j3", "job wait --within 0.2 j4"],
    "job_logs": ["*job logs j1", "*job logs j5", "job logs -f --interval 0.1 j2",
                 "job logs nobody"],
    "job_pause": ["*job pause j4", "job pause state"],
    "job_resume": ["*job resume j4"],
    "job_cancel": ["*job cancel j3", "job cancel --yes j3"],
    "job_set": ["*job set j4 pipeline.activation_checkpoint_interval=2", "job set j4 x"],
    "checkpoint_save": ["*checkpoint save j4", "checkpoint save j4 step-7",
                        "checkpoint save state"],
    "checkpoint_list": ["*checkpoint list j4", "*checkpoint list ./saved",
                        "checkpoint list ./none"],
    "checkpoint_verify": ["*checkpoint verify saved", "checkpoint verify none"],
    "checkpoint_inspect": ["*checkpoint inspect saved/step-000000000007"],
    "checkpoint_import": each_form("checkpoint import layers imported/@FORM@ --job pair.yaml")
    + ["checkpoint import layers imported/table --job pair.yaml",
       "checkpoint import layers imported/x", "checkpoint import none imported/x --job pair.yaml",
       "checkpoint import layers imported/x --job job.yaml",
       "checkpoint import layers imported/step-1 --job pair.yaml"],
    "checkpoint_reshape": each_form("checkpoint reshape ready/base cut/@FORM@ --model 2")
    + ["checkpoint reshape ready/base cut/table --model 4",
       "checkpoint reshape ready/base cut/x", "checkpoint reshape ready/base cut/x --model 9",
       "checkpoint reshape saved/step-000000000007 cut/x --model 2",
       "checkpoint reshape ready/base cut/x --model 2 --job job.yaml",
       "checkpoint reshape ready cut/x --model 2"],
    "checkpoint_merge": ["checkpoint reshape ready/base cut/wide-2 --model 2"]
    + each_form("checkpoint merge cut/wide-2 merged/@FORM@")
    + ["checkpoint merge ready/base merged/", "checkpoint merge none merged/x"],
    "checkpoint_prune": ["*checkpoint prune saved --keep 1",
                         "*checkpoint prune many --keep 1 --dry-run",
                         "checkpoint prune many --keep 1", "checkpoint prune none --yes",
                         "checkpoint prune many --keep 1 --yes", "-o name checkpoint list ./many",
                         "checkpoint prune many --keep 0"],
    "data_inspect": ["*data inspect text.bin", "*data inspect tokens.bin --scan",
                     "*data inspect 'shards/*'", "data inspect none.bin",
                     "data inspect text.bin --format llmc", "data inspect shards/a.idx"],
    "data_convert": ["*data convert text.bin out.npy --force", "data convert text.bin out.npy",
                     "data convert text.bin out.bin", "data convert out.npy o.bin --to llmc",
                     "data convert o.bin pair --to megatron --document-end 32",
                     "-o jsonl data inspect pair", "data convert tokens.bin o.txt --to bytes",
                     "data convert out.npy x --to npy --document-end 3"],
    "stage_list": ["*stage list"],
    "stage_get": ["*stage get m3", "stage get 127.0.0.1:9702", "stage get m9"],
    "stage_drain": ["*stage drain m1", "stage drain none"],
    "cluster": ["*cluster"],
    "cluster_status": ["*cluster status"],
    "cluster_health": ["*cluster health"],
    "cluster_events": ["*cluster events"],
    "top": ["*top"],
    "config_show": ["*config show", "*config show --origin"],
    "config_set_context": ["*config set-context lab --server 10.0.0.1:9700 --tls-ca ca.pem",
                           "config set-context lab", "config set-context 'a b' --server x:1"],
    "config_use_context": ["config set-context lab --server 10.0.0.1:9700",
                           "*config use-context lab", "config use-context none"],
    "config_get_contexts": ["config get-contexts", "config set-context lab --server 10.0.0.1:9700",
                            "config set-context home --insecure --use --server 10.0.0.2:9700",
                            "*config get-contexts", "config show --origin"],
    "config_delete_context": ["config set-context lab --server lab:1",
                              "config delete-context lab", "config delete-context none",
                              "config set-context a --server a:1",
                              "-o table config delete-context a --yes",
                              "config set-context a --server a:1",
                              "-o wide config delete-context a --yes",
                              "config set-context a --server a:1",
                              "-o json config delete-context a --yes",
                              "config set-context a --server a:1",
                              "-o jsonl config delete-context a --yes",
                              "config set-context a --server a:1",
                              "-o name config delete-context a --yes"],
    "config_view_schema": ["*config view-schema"],
    "exit_codes": ["trace fetch j5", "trace fetch nobody",
                  "job get j1 -q -o name", "job get broken", "job get", "jbo", "job lst",
                   "job get none", "job get state", "job get gone", "job get denied",
                   "job get login", "--timeout 0.3 job get slow", "job wait j2", "job wait j3",
                   "--server nonsense job list", "-q -v job list", "job list --watc",
                   "cluster stats", "job list -o xml", "--context none job list",
                   "stage drain denied", "--tls-key x job list", "config", "cluster --keep 3"],
}
# Verbs that feed: a cluster that plays one job is started for each (fake_cluster.c).
FED = {
    "train": ("train", "-q train feed.yaml"),
    "generate": ("text", "-q generate feed.yaml --prompt ab --tokens 6 --temperature 0"),
}
# Verbs whose answers take daemons of their own, or a shell.
ELSEWHERE = {"trace_fetch": "client_local_test", "eval": "eval_test",
             "job_profile": "profile_test", "checkpoint_reshape": "checkpoint_widths_test",
             "checkpoint_merge": "checkpoint_widths_test",
             "up": "client_local_test", "down": "client_local_test",
             "completion": "client_shell_test", "help": "client_shell_test"}

DS_CONFIG = """{"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 8,
 "optimizer": {"type": "AdamW", "params": {"lr": 0.001}}, "zero_optimization": {"stage": 3}}
"""


PAIR = """schema: millrace.job/v1
name: pair
model:
  layers:
    - {type: linear, in: 4, out: 8, parallel: column}
    - {type: linear, in: 8, out: 2, parallel: row}
  loss: mse
batch: {micro_batch_size: 1, sequence_length: 4}
lr_schedule: {total_steps: 3}
"""


def prepare(folder):
    """The files that the cases name."""
    def write(name, text):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
    good = job_text(steps=300)
    write("job.yaml", good)
    write("bad.yaml", good.replace("seed: 1234", "sede: 1234").replace("heads: 2", "heads: 5"))
    write("ds.json", DS_CONFIG)
    shutil.copyfile(FEED_FILE, os.path.join(folder, "feed.yaml"))
    write("corpus.bin", bytes(i % 251 for i in range(153)))
    write("text.bin", b"the mill race turns the wheels ")
    write("tokens.bin", (20240520).to_bytes(4, "little") + (1).to_bytes(4, "little")
          + (3).to_bytes(4, "little") + bytes(1012) + b"\x01\x00\xff\xff\x07\x00")
    os.mkdir(os.path.join(folder, "shards"))
    for name, count in (("a", 4), ("b", 6)):
        write("shards/%s.bin" % name, bytes(range(2 * count)))
        write("shards/%s.idx" % name, b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + b"\x08"
              + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
              + count.to_bytes(4, "little") + bytes(8) + bytes(8) + (1).to_bytes(8, "little"))
    write("pair.yaml", PAIR)
    prepare_checkpoints(folder)
    prepare_layers(folder)


def prepare_layers(folder):
    """The layers of pair.yaml as import takes them, and the checkpoint ready/base made of them."""
    os.mkdir(os.path.join(folder, "layers"))
    for layer, (rows, columns) in enumerate(((8, 4), (2, 8))):
        values = [layer + i / 8 for i in range(rows * columns + rows)]
        header = json.dumps({
            "weight": {"dtype": "F32", "shape": [rows, columns],
                       "data_offsets": [0, 4 * rows * columns]},
            "bias": {"dtype": "F32", "shape": [rows],
                     "data_offsets": [4 * rows * columns, 4 * len(values)]}}).encode()
        header += b" " * (-len(header) % 8)
        with open(os.path.join(folder, "layers", "layer_%02d-model_states.safetensors" % layer),
                  "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.write(struct.pack("<%df" % len(values), *values))
    subprocess.run([MILLRACE, "checkpoint", "import", "layers", "ready/base", "--job",
                    "pair.yaml"], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                   timeout=SECONDS)


def prepare_checkpoints(folder):
    """saved has one checkpoint; many has three, of steps 7 to 9."""
    for name in ("saved", "many"):
        target = os.path.join(folder, name)
        os.mkdir(target)
        subprocess.run([CHECKPOINT_MAKER, target], check=True, timeout=SECONDS)
    for step in (8, 9):
        subprocess.run([CHECKPOINT_MAKER, os.path.join(folder, "many"), str(step)], check=True,
                       timeout=SECONDS)
    for path, _, names in os.walk(folder):
        for name in names:
            os.utime(os.path.join(path, name), (1000000, 1000000))


def entries(text):
    """The transcript's commands, each with what it printed."""
    return ["$ " + part for part in re.split(r"^\$ ", text, flags=re.M)[1:]]


def json_values(text):
    values = []
    while text.strip():
        value, end = json.JSONDecoder().raw_decode(text.lstrip())
        values.append(value)
        text = text.lstrip()[end:]
    return values


class Transcripts(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.folder = temporary_folder("transcripts")
        prepare(cls.folder)
        cls.coordinator = subprocess.Popen([COORDINATOR], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, text=True)
        cls.server = cls.coordinator.stdout.readline().strip()
        keep = {name: os.environ[name] for name in ("PATH", "ASAN_OPTIONS", "TSAN_OPTIONS")
                if name in os.environ}
        cls.environment = dict(keep, HOME=cls.folder, TERM="dumb", MILLRACE_SERVER=cls.server)

    @classmethod
    def tearDownClass(cls):
        cls.coordinator.stdin.close()
        cls.coordinator.stdout.close()
        cls.coordinator.wait(SECONDS)

    def clean(self, text, server=None):
        text = text.replace(server or self.server, "@SERVER@").replace(self.folder, "@DIR@")
        # an error names the end of a long path
        text = re.sub(r"\.\.\.[^ \n]*/transcripts-[^/ \n]*", "@DIR@", text)
        # widths of columns follow the length of what is replaced
        return re.sub(r"(@SERVER@|@DIR@[^ \n]*) {2,}", r"\1  ", text)

    def run_case(self, words, server=None):
        done = subprocess.run([MILLRACE] + words, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder,
                              env=dict(self.environment,
                                       MILLRACE_SERVER=server or self.server),
                              timeout=SECONDS)
        lines = ["$ millrace " + " ".join(shlex.quote(word) for word in words)]
        lines += self.clean(done.stdout, server).splitlines()
        lines += ["! " + line for line in self.clean(done.stderr, server).splitlines()]
        return "\n".join(lines + ["= %d" % done.returncode]) + "\n"

    def transcript(self, cases):
        text = ""
        for case in cases:
            words = shlex.split(case.lstrip("*"))
            for form in FORMS if case.startswith("*") else (None,):
                text += self.run_case((["-o", form] if form else []) + words)
        return text

    def test_verbs_that_feed_print_their_transcripts(self):
        for name, (scenario, line) in FED.items():
            text = ""
            for form in FORMS:
                fake = subprocess.Popen([FAKE_CLUSTER, scenario], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
                address = fake.stdout.readline().strip()
                text += self.run_case(["-o", form] + shlex.split(line), address)
                seen, _ = fake.communicate(timeout=SECONDS)
                self.assertEqual(fake.returncode, 0, seen)
            self.compare(name, text)

    def check(self, name):
        shutil.rmtree(os.path.join(self.folder, ".config"), ignore_errors=True)
        text = self.transcript(CASES[name])
        if name == "job_plan":  # its figures are the planner's, and tested there
            text = re.sub(r'"[0-9a-f]{16,}"', '"HASH"', text)
            text = re.sub(r" {2,}", "  ", re.sub(r"[0-9]+(\.[0-9e-]+)?", "0", text))
        self.compare(name, text)

    def compare(self, name, text):
        wanted = os.environ.get("CLIENT_GOLDEN")
        path = os.path.join(wanted or os.path.join(HERE, "client_golden"), name + ".txt")
        if wanted:
            with open(path, "w") as file:
                file.write(text)
        with open(path) as file:
            golden = file.read()
        for before, now in zip(entries(golden), entries(text)):
            if before != now and re.match(r"\$ millrace -o jsonl? ", before):
                self.compare_json(before, now)
            else:
                self.assertMultiLineEqual(before, now)
        self.assertEqual(golden.count("\n$ "), text.count("\n$ "))

    def compare_json(self, before, now):
        """The same but for keys that were added."""
        frame = r"(\$ .*\n)|(^[!=] .*\n)"
        self.assertEqual(re.findall(frame, before, re.M), re.findall(frame, now, re.M))
        old, new = (json_values(re.sub(frame, "", text, flags=re.M)) for text in (before, now))
        self.assertEqual(len(old), len(new), now)
        for value, other in zip(old, new):
            self.check_kept(value, other, before.splitlines()[0])

    def check_kept(self, old, new, where):
        if isinstance(old, dict) and isinstance(new, dict):
            for key in old:
                self.assertIn(key, new, where)
                self.check_kept(old[key], new[key], where + " " + key)
        elif isinstance(old, list) and isinstance(new, list):
            self.assertEqual(len(old), len(new), where)
            for number, (item, other) in enumerate(zip(old, new)):
                self.check_kept(item, other, "%s [%d]" % (where, number))
        else:
            self.assertEqual(old, new, where)

    def test_every_verb_is_shown_in_every_form(self):
        with open(COMMANDS) as file:
            rows = re.findall(r'^MR_COMMAND\((\w+), "([\w-]+)", "([\w-]*)"', file.read(), re.M)
        self.assertGreater(len(rows), 40)
        for identifier, noun, verb in rows:
            if identifier in ELSEWHERE or identifier in FED:
                continue
            self.assertIn(identifier, CASES, "no transcript, and no test in ELSEWHERE")
            words = (noun + " " + verb).strip()
            for form in FORMS:
                shown = any(case.startswith("*" + words) or
                            case.startswith("-o %s %s" % (form, words))
                            for case in CASES[identifier])
                self.assertTrue(shown, "%s is not shown as %s: add it to CASES, or name the test "
                                "that shows it in ELSEWHERE" % (words, form))

    def test_a_watched_list_prints_what_is_there_until_it_is_interrupted(self):
        for form, lines in (("name", 3), ("jsonl", 3), ("table", 4)):
            watch = subprocess.Popen(
                [MILLRACE, "-o", form, "stage", "list", "-w", "--interval", "0.1"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, env=self.environment)
            shown = [watch.stdout.readline() for _ in range(lines)]
            watch.send_signal(2)
            rest, _ = watch.communicate(timeout=SECONDS)
            self.assertTrue(all(shown))
            self.assertEqual(rest, "", "what does not change is printed once")
            self.assertEqual(watch.returncode, 130)

    def test_following_ends_with_ctrl_c_and_says_how_to_return(self):
        watch = subprocess.Popen([MILLRACE, "job", "watch", "j4"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env=self.environment)
        self.assertIn("job j4 RUNNING on 2 stages", watch.stderr.readline())
        self.assertIn("checkpoint step-000000000100", watch.stderr.readline())
        watch.send_signal(2)
        out, err = watch.communicate(timeout=SECONDS)
        self.assertEqual((out, watch.returncode), ("", 130))
        self.assertIn("job j4 goes on; millrace job watch j4 follows it again", err)


for case_name in CASES:
    setattr(Transcripts, "test_%s_prints_its_transcript" % case_name,
            lambda self, name=case_name: self.check(name))

if __name__ == "__main__":
    unittest.main(verbosity=2)
