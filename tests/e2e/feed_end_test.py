# SPDX-License-Identifier: Apache-2.0
"""A feed that ends in the middle of a step (deepspeed.md 85: there an iterator that runs dry on one
rank raises on that rank alone, and its peers wait in a receive for ever). Here a step begins only
when all its microbatches are with the first stage: no stage is in the step, the job can be paused
and goes on, and whoever feeds next is told which step comes next and gets the result of a feed that
never ended.

Method: two linear layers on two stages, three microbatches a step, fed through the public Feed
service; the first client sends two of the second step and ends its stream; a second one sends the
step again and the rest."""

import queue
import unittest

from cluster import Cluster
from feeding import feed_job, request
from foreign_client import ForeignClient

STEPS, COUNT = 3, 3
SECONDS = 60
JOB = """schema: millrace.job/v1
name: %(name)s
model:
  layers:
    - {type: linear, in: 4, out: 4}
    - {type: linear, in: 4, out: 2}
  loss: mse
pipeline: {stages: 2, partition: uniform}
batch: {micro_batch_size: 2, micro_batches: 3, sequence_length: 1}
optimizer: {type: sgd, lr: 0.1}
lr_schedule: {type: constant, total_steps: 3}
"""


def micro_batch(step, number):
    first = step * COUNT + number
    return [("inputs", "F32", (2, 4), [0.25 * ((first + i) % 7) - 0.5 for i in range(8)]),
            ("labels", "F32", (2, 2), [1.0, -1.0, 0.5, 0.0])]


class FeedEnd(unittest.TestCase):
    def stream(self, feed, first, stop):
        """Feeds steps from first to one before stop, the last of them without its last
        microbatch unless it is the job's last; returns the losses by step."""
        sent, losses, received = queue.Queue(), {}, 0
        whole = stop == STEPS
        wanted = [(step, index) for step in range(first, stop) for index in range(COUNT)
                  if whole or step + 1 < stop or index + 1 < COUNT]
        with ForeignClient(feed["addresses"][0]) as stage:
            for answer in stage.stream("millrace.v1.Feed/Feed", iter(sent.get, None),
                                       timeout=SECONDS):
                if answer["event"] == "FEED_EVENT_OPEN":
                    self.assertEqual(int(answer["step"]), first)
                    following = iter(wanted)
                elif answer["event"] == "FEED_EVENT_RECEIVED":
                    received += 1
                elif answer["event"] == "FEED_EVENT_APPLIED":
                    losses[int(answer["step"])] = answer["loss"]
                if answer["event"] in ("FEED_EVENT_OPEN", "FEED_EVENT_RECEIVED"):
                    step, index = next(following, (None, None))
                    if step is not None:
                        sent.put(request(feed, step, index, micro_batch(step, index)))
                if not whole and received == len(wanted) and len(losses) == stop - first - 1:
                    sent.put(None)
                    break
        return losses

    def start(self, client, cluster, name):
        job = client.call("millrace.v1.Jobs/Submit", {
            "job_file": JOB % {"name": name}, "base_directory": cluster.folder})
        self.wait_state(client, job["id"], "RUNNING")
        return job["id"]

    def wait_state(self, client, job, *states):
        for event in client.watch("millrace.v1.Jobs/Watch", {"job": job}, timeout=SECONDS):
            state = event["job"]["state"][len("JOB_STATE_"):]
            if state in states or state == "FAILED":
                self.assertIn(state, states, event["job"])
                return event["job"]
        raise AssertionError("job %s was never %s" % (job, states))

    def test_half_a_step_leaves_no_stage_waiting_and_is_fed_again_deepspeed_85(self):
        with Cluster(stages=2) as cluster, ForeignClient(cluster.address) as client:
            whole = feed_job(cluster, JOB % {"name": "whole"}, STEPS, 1, COUNT, micro_batch)
            job = self.start(client, cluster, "halved")
            feed = client.call("millrace.v1.Jobs/OpenFeed", {"job": job})
            losses = self.stream(feed, 0, 2)
            self.assertEqual(list(losses), [0])
            # Every rank answers between two steps: none of them is inside one.
            client.call("millrace.v1.Jobs/Pause", {"job": job})
            self.wait_state(client, job, "PAUSED")
            client.call("millrace.v1.Jobs/Resume", {"job": job})
            self.wait_state(client, job, "RUNNING")
            losses.update(self.stream(feed, 1, STEPS))
            last = self.wait_state(client, job, "SUCCEEDED")
            self.assertEqual([losses[step] for step in range(STEPS)], whole.losses)
            self.assertEqual(last["gradient_norm"], whole.job["gradient_norm"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
