# SPDX-License-Identifier: Apache-2.0
"""Kills whatever there is, again and again, and demands the bits of an undisturbed run.

    tests/e2e/python.sh tests/e2e/torture.py [--rounds N] [--seed S] [--replicas D]
                                                                (a heavy sweep, run by hand)

Method: one job, trained once without disturbance. Then rounds of the same job with a seeded random
fault at a random step: SIGKILL, SIGTERM or SIGSTOP to a stage, the coordinator or the client,
chosen by the seed. After each fault the missing daemons are started again and the job is resumed
from its newest checkpoint, until it ends. The digests of the last checkpoint's layer files must
equal the undisturbed run's, which has its optimizer state whole where the rounds of several
replicas have it split; every committed checkpoint must verify, and nothing may hang: each wait
is bounded. tests/e2e/torture_test.py runs a few rounds of it.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time

from cluster import CORPUS, Cluster, job_text

STEPS, EVERY = 24, 3
PIPE, MICRO_BATCHES = 2, 4
MODEL = dict(dim=64, heads=4, length=32, batch=4, layers=3, dropout=0.1)
ROUND_SECONDS = 120


def digest(directory):
    """One digest over the layer files of the last step's checkpoint."""
    folder = os.path.join(directory, "step-%012d" % STEPS)
    whole = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        if name.startswith("layer_"):
            with open(os.path.join(folder, name), "rb") as file:
                whole.update(name.encode() + hashlib.sha256(file.read()).digest())
    return whole.hexdigest()


class Torture:
    def __init__(self, cluster, seed, replicas):
        self.cluster = cluster
        self.random = random.Random(seed)
        self.replicas = replicas
        stages = [stage.name for stage in cluster.stages]
        self.faults = [(victim, number) for victim in stages + ["coordinator", "client"]
                       for number in (signal.SIGKILL, signal.SIGTERM)] + [
                           (victim, signal.SIGSTOP) for victim in stages]

    def job(self, directory, zero_stage):
        return self.cluster.write("job.yaml", job_text(
            name="torture", stages=1, steps=STEPS, directory=directory, every=EVERY,
            micro_batches=MICRO_BATCHES // self.replicas, **MODEL).replace(
                "{stages: 1,", "{topology: {pipe: %d, data: %d}, zero_stage: %d,"
                % (PIPE, self.replicas, zero_stage)))

    def hurt(self, client, victim, number):
        """Sends the signal; returns the daemon that got it, if it was one."""
        daemon = self.cluster.coordinator if victim == "coordinator" else None
        if victim.startswith("stage-"):
            daemon = self.cluster.stages[int(victim.split("-")[1])]
        process = client if daemon is None else daemon.process
        process.send_signal(number)
        return daemon

    def follow(self, client, fault):
        """Reads the client's steps and strikes at the fault's step; returns its exit code, when the
        daemon that was struck is gone (one that was only stopped is killed then)."""
        strike_at, victim, number = fault
        daemon = None
        for line in client.stdout:
            if strike_at is not None and json.loads(line)["step"] >= strike_at:
                daemon = self.hurt(client, victim, number)
                strike_at = None
        client.communicate(timeout=ROUND_SECONDS)
        if daemon is not None:
            daemon.stop(signal.SIGKILL if number == signal.SIGSTOP else number)
        return client.returncode

    def repair(self):
        """Brings back what is gone, and waits until all stages are attached and idle."""
        cluster = self.cluster
        if cluster.coordinator.process.poll() is not None:
            cluster.start_coordinator(listen=cluster.address)
        for i in range(len(cluster.stages)):
            if cluster.stages[i].process.poll() is not None:
                cluster.start_stage()
                cluster.stages[i] = cluster.stages.pop()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            run = cluster.client("-o", "json", "stage", "list")
            if run.code == 0:
                states = [m["state"] for m in run.json()["stages"]]
                if states.count("idle") == len(cluster.stages):
                    return
            # A client that was killed leaves its job without a feed; it is ended by hand.
            cluster.client("job", "cancel", "torture")
            time.sleep(0.1)
        raise AssertionError("the cluster did not heal: %s" % run.out)

    def round(self, number):
        directory = os.path.join(self.cluster.folder, "round-%d" % number)
        path = self.job(directory, int(self.replicas > 1))
        faults = []
        for attempt in range(40):
            client = self.cluster.client_start("-o", "jsonl", "train", path, "--resume")
            victim, kind = self.random.choice(self.faults)
            fault = (self.random.randrange(1, STEPS) if attempt < 4 else None, victim, kind)
            code = self.follow(client, fault)
            if code == 0:
                break
            faults.append("%s %s" % (signal.Signals(kind).name, victim))
            self.repair()
        else:
            raise AssertionError("round %d never ended: %s" % (number, faults))
        self.repair()
        self.cluster.client("checkpoint", "verify", directory).check()
        return digest(directory), faults


def torture(rounds, seed, replicas=1):
    """Runs the rounds; returns the faults of each."""
    told = []
    with Cluster(stages=PIPE * replicas, name="torture") as cluster:
        cluster.write("corpus.txt", CORPUS)
        sweep = Torture(cluster, seed, replicas)
        directory = os.path.join(cluster.folder, "undisturbed")
        cluster.train(sweep.job(directory, 0)).check()
        wanted = digest(directory)
        for number in range(rounds):
            got, faults = sweep.round(number)
            if got != wanted:
                raise AssertionError("round %d (seed %d): other bits after %s"
                                     % (number, seed, faults))
            told.append(faults)
    return told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, choices=(1, 2, 4), default=1)
    options = parser.parse_args()
    rounds = torture(options.rounds, options.seed, options.replicas)
    for number, faults in enumerate(rounds):
        print("round %d: same bits after %s" % (number, ", ".join(faults) or "no fault"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
