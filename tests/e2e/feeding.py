# SPDX-License-Identifier: Apache-2.0
"""Feeding a job tensors of one's own, through the public Feed service: what a job without data
files needs. Message types come from server reflection (foreign_client.py).

    run = feed_job(cluster, job_text, steps=3, replicas=1, micro_batches=4, make=micro_batch)
    run.losses, run.job        # all bits of each step's loss; the job at its end

make(step, number) gives the tensors of a microbatch, whose number counts through the whole step
over all replicas: a list of (name, "F32" or "I32", dims, values). As many steps are sent ahead as
the stage grants. counts(step, replica), where it is given, says how many microbatches a step has
instead of micro_batches, which is the job's.
"""

import base64
import queue
import struct
import threading

from foreign_client import ForeignClient

SECONDS = 120
FORMATS = {"F32": "f", "I32": "i"}


class Run:
    """What a finished job left: losses by step, and the job's last answer."""

    def __init__(self, losses, job):
        self.losses, self.job = losses, job


def request(feed, step, index, tensors, count=0):
    payload = b"".join(struct.pack("<%d%s" % (len(values), FORMATS[kind]), *values)
                       for _, kind, _, values in tensors)
    return {
        "job_id": feed["job_id"], "epoch": feed["epoch"], "step": step, "index": index,
        "micro_batches": count,
        "tensors": [{"name": name, "data_type": "DATA_TYPE_" + kind, "dims": list(dims)}
                    for name, kind, dims, _ in tensors],
        "payload": base64.b64encode(payload).decode(),
    }


def feed_replica(feed, replica, steps, micro_batches, make, losses, counts=None):
    """Feeds one replica's first stage to the end of the job."""
    sent = queue.Queue()

    def put(step):
        count = counts(step, replica) if counts else micro_batches
        for index in range(count):
            sent.put(request(feed, step, index, make(step, replica * count + index),
                             count if counts else 0))
    with ForeignClient(feed["addresses"][replica]) as stage:
        for answer in stage.stream("millrace.v1.Feed/Feed", iter(sent.get, None), timeout=SECONDS):
            if answer["event"] == "FEED_EVENT_OPEN":
                first = int(answer["step"])
                ahead = int(answer["window"])
                for step in range(first, min(steps, first + ahead)):
                    put(step)
            elif answer["event"] == "FEED_EVENT_APPLIED":
                losses.append(answer["loss"])
                following = first + len(losses) - 1 + ahead
                if following < steps:
                    put(following)


def feed_job(cluster, job_text, steps, replicas, micro_batches, make, counts=None):
    with ForeignClient(cluster.address) as client:
        job = client.call("millrace.v1.Jobs/Submit", {
            "job_file": job_text, "base_directory": cluster.folder})
        for event in client.watch("millrace.v1.Jobs/Watch", {"job": job["id"]}, timeout=SECONDS):
            if event["job"]["state"] == "JOB_STATE_RUNNING":
                break
            if event["job"]["state"] == "JOB_STATE_FAILED":
                raise AssertionError(event["job"])
        feed = client.call("millrace.v1.Jobs/OpenFeed", {"job": job["id"]})
        losses = [[] for _ in range(replicas)]
        others = [threading.Thread(target=feed_replica, args=(
            feed, replica, steps, micro_batches, make, losses[replica], counts))
            for replica in range(1, replicas)]
        for thread in others:
            thread.start()
        feed_replica(feed, 0, steps, micro_batches, make, losses[0], counts)
        for thread in others:
            thread.join(SECONDS)
        for event in client.watch("millrace.v1.Jobs/Watch", {"job": job["id"]}, timeout=SECONDS):
            if event["job"]["state"] in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED"):
                return Run(losses[0], event["job"])
    raise AssertionError("the job never ended")
