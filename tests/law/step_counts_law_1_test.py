# SPDX-License-Identifier: Apache-2.0
"""Steps with fewer microbatches than the job's, without a reset.

Method: random tokens are fed to the public Feed service. A job of 4 microbatches that is fed 1 in
each step is the job of 1 microbatch: losses, norm, checkpoint bytes. Counts that change from step
to step, more of them than lists are kept for, give the same bits in every cut. Counts that cannot
be are refused by name and the job lives; replicas that disagree fail it with both counts named. An
evaluated step of 1 has the loss and the logits of an evaluation with 1."""

import random
import threading
import unittest

import grpc

from checkpoint_files import digests, step_folder
from cluster import Cluster
from feeding import feed_job, feed_replica, request
from foreign_client import ForeignClient

STEPS, ROWS, LENGTH = 12, 2, 8
JOB = """schema: millrace.job/v1
name: %(name)s
model:
  layers:
    - {type: embedding, tie: embed, vocab: 64, dim: 32, positions: 8}
    - {type: transformer_block, repeat: 2, dim: 32, heads: 2, dropout: 0.1}
    - {type: layernorm, dim: 32}
    - {type: lm_head, tie: embed}
pipeline: {topology: {pipe: %(pipe)d, data: %(data)d}%(more)s}
batch: {micro_batch_size: 2, micro_batches: %(most)d, sequence_length: 8}
optimizer: {type: adamw, lr: 1e-2, grad_clip: 1.0}
lr_schedule: {type: constant, total_steps: 12}
checkpoint: {dir: %(directory)s}
"""
FEED = "millrace.v1.Feed/Feed"
JOBS = "millrace.v1.Jobs/"


def micro_batch(step, number):
    generator = random.Random(step * 64 + number)
    return [(name, "I32", (ROWS, LENGTH), [generator.randrange(64) for _ in range(ROWS * LENGTH)])
            for name in ("inputs", "labels")]


def job(name, pipe=1, data=1, most=4, more="", directory="checkpoints"):
    return JOB % {"name": name, "pipe": pipe, "data": data, "most": most, "more": more,
                  "directory": directory}


class StepCountsLaw1(unittest.TestCase):
    maxDiff = None

    def train(self, cluster, name, counts=None, data=1, most=4, **options):
        directory = "%s/checkpoints-%s" % (cluster.folder, name)
        text = job(name, data=data, most=most, directory=directory, **options)
        run = feed_job(cluster, text, STEPS, data, most, micro_batch, counts)
        self.assertEqual(run.job["state"], "JOB_STATE_SUCCEEDED", run.job)
        self.assertEqual(len(run.losses), STEPS)
        return run.losses, run.job["gradient_norm"], digests(step_folder(directory, STEPS))

    def test_one_of_four_is_a_job_of_one_to_the_bit(self):
        with Cluster(stages=4) as cluster:
            for data in (1, 2):
                one = self.train(cluster, "one-%d" % data, data=data, most=1)
                for pipe, more in ((1, ""), (2, ", schedule: gpipe"),
                                   (2, ", activation_checkpoint_interval: 1")):
                    with self.subTest(data=data, pipe=pipe, more=more):
                        self.assertEqual(self.train(
                            cluster, "few-%d-%d%s" % (data, pipe, more[-5:-3].strip()),
                            lambda step, replica: 1, data=data, pipe=pipe, more=more), one)

    def test_counts_that_change_give_the_same_bits_in_every_cut(self):
        def counts(step, replica):
            return (12, 1, 11, 2, 10, 3, 9, 4, 8, 5, 1, 12)[step]
        with Cluster(stages=4) as cluster:
            whole = self.train(cluster, "whole", counts, most=12)
            for number, (pipe, more) in enumerate((
                    (2, ""), (4, ""), (3, ", schedule: gpipe"),
                    (2, ", activation_checkpoint_interval: 1"))):
                with self.subTest(pipe=pipe, more=more):
                    self.assertEqual(self.train(cluster, "cut-%d" % number, counts, most=12,
                                                pipe=pipe, more=more), whole)
            pair = self.train(cluster, "pair", counts, most=12, data=2)
            self.assertEqual(self.train(cluster, "pairs", counts, most=12, data=2, pipe=2), pair)

    def start(self, client, cluster, text, mode="JOB_MODE_TRAIN"):
        job_id = client.call(JOBS + "Submit", {"job_file": text, "mode": mode,
                                               "base_directory": cluster.folder})["id"]
        self.until(client, job_id, "JOB_STATE_RUNNING")
        return client.call(JOBS + "OpenFeed", {"job": job_id})

    def until(self, client, job_id, state):
        for event in client.watch(JOBS + "Watch", {"job": job_id}, timeout=60):
            if event["job"]["state"] in (state, "JOB_STATE_FAILED"):
                self.assertEqual(event["job"]["state"], state, event["job"])
                return event["job"]
        raise AssertionError("the job never was " + state)

    def test_what_cannot_be_is_refused_by_name_and_the_job_lives(self):
        with Cluster(stages=1) as cluster, ForeignClient(cluster.address) as client:
            feed = self.start(client, cluster, job("lives"))
            with ForeignClient(feed["addresses"][0]) as stage:
                for requests, part in (
                        (((0, 5),), "feed.micro_batches is 5; it must be at most the job's, 4"),
                        (((2, 2),), "feed.index is 2; the step has 2 microbatches"),
                        (((0, 2), (1, 3)), "feed.micro_batches is 3; an earlier microbatch of "
                                           "step 0 said 2")):
                    sent = [request(feed, 0, index, micro_batch(0, index), count)
                            for index, count in requests]
                    with self.assertRaises(grpc.RpcError) as raised:
                        list(stage.stream(FEED, sent))
                    self.assertIn(part, raised.exception.details())
            losses = []
            feed_replica(feed, 0, STEPS, 4, micro_batch, losses, lambda step, replica: 2)
            self.assertEqual(len(losses), STEPS)
            self.until(client, feed["job_id"], "JOB_STATE_SUCCEEDED")

    def test_replicas_that_disagree_fail_the_job_with_both_counts(self):
        with Cluster(stages=2) as cluster, ForeignClient(cluster.address) as client:
            feed = self.start(client, cluster, job("apart", data=2))

            def one(replica):
                try:
                    feed_replica(feed, replica, STEPS, 4, micro_batch, [],
                                 lambda step, replica: 3 - replica)
                except grpc.RpcError:
                    pass  # the feed ends with the job
            other = threading.Thread(target=one, args=(1,))
            other.start()
            one(0)
            other.join(60)
            failed = self.until(client, feed["job_id"], "JOB_STATE_FAILED")
            self.assertIn("step 1: replica 1 was fed 2 microbatches and replica 0 3",
                          failed["reason"])

    def test_an_evaluated_step_may_be_smaller(self):
        seen = []
        with Cluster(stages=2) as cluster, ForeignClient(cluster.address) as client:
            for name, most in (("four", 4), ("one", 1)):
                feed = self.start(client, cluster, job(name, pipe=2, most=most),
                                  "JOB_MODE_EVALUATION")
                sent = dict(request(feed, 0, 0, micro_batch(0, 0), 1), want_logits=True)
                with ForeignClient(feed["addresses"][0]) as stage:
                    result = next(answer for answer in stage.stream(FEED, [sent])
                                  if answer["event"] == "FEED_EVENT_RESULT")
                self.assertEqual(result["tensors"][0]["dims"], [str(ROWS), str(LENGTH), "64"])
                seen.append((result["loss"], result["payload"]))
        self.assertEqual(seen[0], seen[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
