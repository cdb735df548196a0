# SPDX-License-Identifier: Apache-2.0
"""cluster.py: a real coordinator and real stage daemons on free loopback ports, for tests.

    with Cluster(stages=2) as cluster:
        run = cluster.train(job_file)          # a finished Client: .code, .out, .err
        steps = run.steps()                    # the JSON lines of `train -o jsonl`

Every daemon's log lies in the cluster's folder, below TEST_TMPDIR, and is printed when a test
fails. Waiting is for events: ready lines, exits, answers. Nothing outlives the with block.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

RUNFILES = os.environ.get("TEST_SRCDIR", os.getcwd())
ROOT = os.path.join(RUNFILES, "millrace") if "TEST_SRCDIR" in os.environ else RUNFILES
PREFIX = "" if "TEST_SRCDIR" in os.environ else "bazel-bin/"
MILLRACE = os.path.join(ROOT, PREFIX + "client/millrace")
MILLRACED = os.path.join(ROOT, PREFIX + "daemon/millraced")

START_SECONDS = 30
STOP_SECONDS = 10
CLIENT_SECONDS = 240


def temporary_folder(name):
    """A fresh folder below the test's own temporary folder."""
    return tempfile.mkdtemp(prefix=name + "-", dir=os.environ.get("TEST_TMPDIR"))


class Daemon:
    """One millraced process, with its log followed line by line."""

    def __init__(self, folder, name, arguments):
        self.name = name
        self.log_path = os.path.join(folder, name + ".log")
        self.lines = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [MILLRACED] + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", cwd=folder)
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self):
        with open(self.log_path, "w") as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self.lines.append("")
            self._changed.notify_all()

    def wait_message(self, message, seconds=START_SECONDS, after=0, match=None):
        """The first JSON log line with this message at or after line number after; match: a field
        and its value that the line must have."""
        def find():
            for number, line in enumerate(self.lines[after:], after):
                if '"message":"%s"' % message in line:
                    said = json.loads(line)
                    if match is None or said.get(match[0]) == match[1]:
                        return number, said
                if line == "":
                    raise AssertionError("%s ended without %r:\n%s"
                                         % (self.name, message, "".join(self.lines[-20:])))
            return None
        with self._changed:
            if not self._changed.wait_for(find, timeout=seconds):
                raise AssertionError("%s: no %r within %s s:\n%s"
                                     % (self.name, message, seconds, "".join(self.lines[-20:])))
            return find()[1]

    def stop(self, signal_number=signal.SIGTERM, seconds=STOP_SECONDS):
        """Sends the signal and returns the exit code; kills it, and fails, past the bound."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("%s did not end within %s s of signal %d"
                                 % (self.name, seconds, signal_number))
        self._reader.join(STOP_SECONDS)
        if not self.process.stderr.closed:
            self.process.stderr.close()
        return code


class Client:
    """A finished run of millrace."""

    def __init__(self, arguments, code, out, err):
        self.arguments = arguments
        self.code = code
        self.out = out
        self.err = err

    def steps(self):
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    def json(self):
        return json.loads(self.out)

    def check(self, code=0):
        if self.code != code:
            raise AssertionError("millrace %s: exit code %s, not %s\nstdout: %s\nstderr: %s"
                                 % (" ".join(self.arguments), self.code, code, self.out[-3000:],
                                    self.err[-3000:]))
        return self


class Cluster:
    def __init__(self, stages=2, threads=1, name="cluster", coordinator_options=(),
                 stage_options=(), devices=()):
        """devices: of the stages in turn, for a millraced that has others; else all are cpu."""
        self.folder = temporary_folder(name)
        self.stage_count = stages
        self.threads = threads
        self.coordinator_options = list(coordinator_options)
        self.stage_options = list(stage_options)
        self.devices = list(devices)
        self.coordinator = None
        self.stages = []
        self.address = None
        self.status_address = None

    def __enter__(self):
        try:
            self.start_coordinator()
            for _ in range(self.stage_count):
                self.start_stage()
            for stage in self.stages:
                stage.wait_message("attached")
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, value, trace):
        for daemon in self.stages + [self.coordinator]:
            if daemon is not None and not daemon.process.stderr.closed:
                daemon.stop(signal.SIGKILL)
        if kind is not None:
            for daemon in self.stages + [self.coordinator]:
                if daemon is not None:
                    print("---- log of %s, last lines" % daemon.name)
                    print("".join(daemon.lines[-40:]))
        return False

    def start_coordinator(self, listen="127.0.0.1:0"):
        self.coordinator = Daemon(
            self.folder, "coordinator",
            ["coordinator", "--listen", listen, "--status", "127.0.0.1:0", "--state",
             os.path.join(self.folder, "state")] + self.coordinator_options)
        ready = self.coordinator.wait_message("coordinator ready")
        self.address = ready["address"]
        self.status_address = ready["status_address"]
        return self.coordinator

    def start_stage(self):
        number = len(self.stages)
        device = self.devices[number] if number < len(self.devices) else "cpu"
        stage = Daemon(
            self.folder, "stage-%d" % number,
            ["stage", "--coordinator", self.address, "--listen", "127.0.0.1:0", "--status",
             "127.0.0.1:0", "--device", device, "--threads", str(self.threads)]
            + self.stage_options)
        self.stages.append(stage)
        stage.ready = stage.wait_message("stage ready")
        return stage

    def client_start(self, *arguments, **options):
        """A running millrace, for tests that do something meanwhile."""
        return subprocess.Popen(
            [MILLRACE, "--server", self.address] + list(arguments), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder, **options)

    def client(self, *arguments, seconds=CLIENT_SECONDS):
        return run_client(["--server", self.address] + list(arguments), self.folder, seconds)

    def train(self, job_file, *options, seconds=CLIENT_SECONDS):
        return self.client("-o", "jsonl", "train", job_file, *options, seconds=seconds)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        mode = "wb" if isinstance(text, bytes) else "w"
        with open(path, mode) as file:
            file.write(text)
        return path


def run_client(arguments, folder, seconds=CLIENT_SECONDS):
    process = subprocess.run([MILLRACE] + arguments, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             errors="replace", cwd=folder, timeout=seconds)
    return Client(arguments, process.returncode, process.stdout, process.stderr)


CORPUS = ("It is a truth of mill races that water which is led past many wheels turns each of "
          "them, and that a stone in the channel stops them all. " * 80)


ADAMW = "type: adamw, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1"


def job_text(name="tiny", stages=2, partition="parameters", schedule="1f1b", steps=20, layers=3,
             dim=32, heads=2, length=16, batch=2, micro_batches=4, dropout=0.0, directory="",
             every=0, extra="", corpus="corpus.txt", precision="fp32", interval=0, again=(),
             optimizer=ADAMW):
    """A small tiny-gpt job file; directory names the checkpoint folder; interval and again are the
    activation_checkpoint_interval and, if any, the checkpointable_layers."""
    checkpoint = ("checkpoint: {dir: %s, every_steps: %d, keep: 0}\n" % (directory, every)
                  if directory else "")
    return """schema: millrace.job/v1
name: %s
seed: 1234
model:
  layers:
    - {type: embedding, tie: embed, vocab: 256, dim: %d, positions: %d}
    - {type: transformer_block, repeat: %d, dim: %d, heads: %d, dropout: %g}
    - {type: layernorm, dim: %d}
    - {type: lm_head, tie: embed}
  loss: cross_entropy
pipeline: {stages: %d, partition: %s, schedule: %s, activation_checkpoint_interval: %d%s}
batch: {micro_batch_size: %d, micro_batches: %d, sequence_length: %d}
optimizer: {%s, lr: 1e-3, grad_clip: 1.0}
lr_schedule: {type: cosine, warmup_steps: %d, total_steps: %d, min_lr: 1e-4}
precision: %s
data: {format: bytes, train: %s, shuffle: true}
%s%s""" % (name, dim, length, layers, dim, heads, dropout, dim, stages, partition, schedule,
           interval, ", checkpointable_layers: [%s]" % ", ".join(again) if again else "", batch,
           micro_batches, length, optimizer, min(5, steps), steps, precision, corpus, checkpoint,
           extra)
