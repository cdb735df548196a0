# SPDX-License-Identifier: Apache-2.0
"""The sbatch template under a real Slurm of one machine: a controller and a node daemon of Debian,
with their own configuration and folders below the test's. A run goes to its end; one that Slurm
signals before its time limit saves, goes back into the queue and continues from that step; one that
cannot work ends with the client's code. Skipped where Slurm is not installed, or not as root."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

import cluster as clusters
from cluster import CORPUS, job_text

TEMPLATE = os.path.join(clusters.ROOT, "deploy/slurm/millrace.sbatch")
WAIT_SECONDS = 120
CONFIGURATION = """ClusterName=millrace
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
KillWait=5
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Slurm:
    """A controller and a node, until stop()."""

    def __init__(self):
        # The node daemon's sockets lie here: a path of Bazel's would be too long for them.
        self.folder = tempfile.mkdtemp(prefix="millrace-slurm-", dir="/tmp")
        for name in ("state", "spool"):
            os.mkdir(os.path.join(self.folder, name))
        path = os.path.join(self.folder, "slurm.conf")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(
                host=socket.gethostname().split(".")[0], folder=self.folder,
                controller_port=free_port(), node_port=free_port()))
        self.environment = dict(os.environ, SLURM_CONF=path, PATH=os.environ["PATH"] + ":/usr/sbin",
                                MILLRACE_BIN=":".join({os.path.dirname(clusters.MILLRACE),
                                                       os.path.dirname(clusters.MILLRACED)}))
        self.daemons = [
            subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, cwd=self.folder)
            for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D"])]

    def sh(self, *command):
        return subprocess.run(command, env=self.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=self.folder)

    def wait(self, condition, what):
        """Slurm tells nobody of changes: ask each half second."""
        pause = threading.Event()
        for _ in range(2 * WAIT_SECONDS):
            if condition():
                return
            pause.wait(0.5)
        raise AssertionError("not within %d s: %s\n%s" % (WAIT_SECONDS, what, self.logs()))

    def wait_ready(self):
        self.wait(lambda: "idle" in self.sh("sinfo", "--noheader", "--format=%T").stdout,
                  "an idle node")

    def logs(self):
        texts = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if name.endswith(".log"):
                    with open(os.path.join(folder, name), errors="replace") as file:
                        texts.append("---- %s\n%s" % (name, file.read()[-2000:]))
        return "\n".join(texts)

    def job(self, number):
        text = self.sh("scontrol", "show", "job", "-o", number).stdout
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def log(self, number):
        path = os.path.join(self.folder, "millrace-%s.log" % number)
        if not os.path.exists(path):
            return ""
        with open(path) as file:
            return file.read()

    def submit(self, *options, tasks=2, **environment):
        self.environment.update(environment)
        run = self.sh("sbatch", "--parsable", "--ntasks=%d" % tasks, *options, TEMPLATE, "job.yaml")
        if not re.match(r"\d+$", run.stdout.strip()):
            raise AssertionError("sbatch: " + run.stdout)
        return run.stdout.strip()

    def wait_end(self, number):
        self.wait(lambda: self.job(number).get("JobState") in ("COMPLETED", "FAILED", "TIMEOUT"),
                  "the end of job %s: %s" % (number, self.job(number)))
        return int(self.job(number)["ExitCode"].split(":")[0])

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder)


class Sbatch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = os.environ["PATH"] + ":/usr/sbin"
        for program in ("slurmctld", "slurmd", "sbatch"):
            if shutil.which(program, path=path) is None:
                raise unittest.SkipTest("%s is not installed" % program)
        if os.geteuid() != 0:
            raise unittest.SkipTest("a Slurm of one's own needs root")
        cls.slurm = Slurm()
        try:
            cls.slurm.wait_ready()
        except BaseException:
            cls.slurm.stop()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.slurm.stop()

    def write(self, **job):
        for name, text in (("corpus.txt", CORPUS), ("job.yaml", job_text(**job))):
            with open(os.path.join(self.slurm.folder, name), "w") as file:
                file.write(text)

    def steps(self, number):
        return [json.loads(line) for line in self.slurm.log(number).splitlines()
                if line.startswith("{") and line.endswith("}")]

    def start_again(self, number):
        """Slurm lets a requeued job wait two minutes, and sets that time once all of it is gone."""
        if self.slurm.job(number)["JobState"] == "PENDING":
            self.slurm.sh("scontrol", "update", "JobId=" + number, "StartTime=now")
        return self.slurm.job(number)["JobState"] in ("RUNNING", "COMPLETED")

    def leftovers(self):
        return [name for name in os.listdir(self.slurm.folder) if "-logs-" in name]

    def test_a_run_ends_with_the_clients_code_and_leaves_no_logs(self):
        self.write(steps=5, directory="end", every=5)
        before = self.leftovers()
        number = self.slurm.submit()
        self.assertEqual(self.slurm.wait_end(number), 0, self.slurm.logs())
        self.assertEqual([step["step"] for step in self.steps(number)], [1, 2, 3, 4, 5])
        self.assertEqual(self.leftovers(), before)

    def test_stages_meet_by_the_nodes_address_where_a_network_is_named(self):
        addresses = subprocess.run(["hostname", "-I"], stdout=subprocess.PIPE, text=True).stdout
        address = next((one for one in addresses.split() if one.count(".") == 3), None)
        if address is None:
            self.skipTest("this machine has no address but loopback")
        self.write(steps=2, directory="network")
        number = self.slurm.submit(MILLRACE_NETWORK=address.rsplit(".", 1)[0] + ".")
        self.slurm.environment.pop("MILLRACE_NETWORK")
        self.assertEqual(self.slurm.wait_end(number), 0, self.slurm.logs())
        self.assertIn("coordinator at %s:" % address, self.slurm.log(number))

    def test_a_signalled_run_saves_and_goes_on_after_the_queue(self):
        self.write(steps=1500, directory="again", every=1500)
        number = self.slurm.submit()
        self.slurm.wait(lambda: self.steps(number), "the first step")
        self.slurm.sh("scancel", "--signal=USR1", "--batch", number)
        self.slurm.wait(lambda: self.slurm.job(number).get("Restarts") == "1"
                        and self.slurm.job(number)["JobState"] == "PENDING", "a requeued job")
        reached = self.steps(number)[-1]["step"]
        self.assertLess(reached, 1500)
        self.slurm.wait(lambda: self.start_again(number), "a second start")
        self.assertEqual(self.slurm.wait_end(number), 0, self.slurm.logs())
        text = self.slurm.log(number)
        saved = int(re.search(r"^checkpoint step-0*(\d+)", text.split("saving")[1],
                              re.MULTILINE).group(1))
        self.assertLessEqual(saved, reached + 1)
        self.assertIn("RUNNING on 2 stages from step %d" % saved, text)
        self.assertEqual(self.steps(number)[-1]["step"], 1500)

    def test_too_few_tasks_are_refused_at_once(self):
        self.write(steps=5, stages=2)
        number = self.slurm.submit(tasks=3)
        self.assertEqual(self.slurm.wait_end(number), 2)
        self.assertIn("needs 2 stages and this is a job of 3 tasks", self.slurm.log(number))

    def test_missing_data_end_the_job_with_the_clients_code(self):
        self.write(steps=5, corpus="missing.txt")
        number = self.slurm.submit()
        self.assertEqual(self.slurm.wait_end(number), 3, self.slurm.logs())
        self.assertIn("missing.txt", self.slurm.log(number))


if __name__ == "__main__":
    unittest.main(verbosity=2)
