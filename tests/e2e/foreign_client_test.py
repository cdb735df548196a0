# SPDX-License-Identifier: Apache-2.0
"""A client of another make: Debian's grpcio, which has none of our files and learns all message
types by server reflection, lists the services, checks health, submits a job, feeds it its
microbatches, and watches it to the end. And it offers what a stage must refuse: a token beyond the
vocabulary, another epoch, a step outside the window; the stage says which, and the job goes on."""

import base64
import queue
import random
import struct
import threading
import unittest

import grpc
from cluster import CORPUS, Cluster, job_text
from foreign_client import ForeignClient

STEPS, MICRO_BATCHES, BATCH, LENGTH = 3, 4, 2, 16


def tensor(name):
    return {"name": name, "data_type": "DATA_TYPE_I32", "dims": [BATCH, LENGTH]}


def micro_batch(feed, step, index, token=None, **changed):
    """A FeedRequest as a dict: inputs and labels are the corpus' bytes."""
    text = CORPUS.encode()
    count = BATCH * LENGTH
    start = (step * MICRO_BATCHES + index) * count
    inputs = list(text[start:start + count])
    labels = list(text[start + 1:start + count + 1])
    if token is not None:
        inputs[5] = token
    request = {
        "job_id": feed["job_id"], "epoch": feed["epoch"], "step": step, "index": index,
        "tensors": [tensor("inputs"), tensor("labels")],
        "payload": base64.b64encode(struct.pack("<%di" % (2 * count), *inputs, *labels)).decode(),
    }
    request.update(changed)
    return request


REGRESSION = """schema: millrace.job/v1
name: regression
seed: 3
model:
  layers:
    - {type: linear, in: 4, out: 16}
    - {type: relu}
    - {type: dropout, p: 0.0}
    - {type: identity}
    - {type: layernorm, dim: 16}
    - {type: gelu}
    - {type: linear, in: 16, out: 2, bias: false}
  loss: mse
pipeline: {stages: 2, partition: uniform, schedule: gpipe}
batch: {micro_batch_size: 8, micro_batches: 2, sequence_length: 1}
optimizer: {type: adamw, lr: 1e-2}
lr_schedule: {type: constant, total_steps: 60}
precision: %s
"""


def regression_batch(feed, generator, step, index):
    """Eight rows of four numbers, and two linear functions of each row to learn."""
    rows = [[generator.uniform(-1, 1) for _ in range(4)] for _ in range(8)]
    inputs = [value for row in rows for value in row]
    labels = [value for a, b, c, d in rows for value in (a + b - c, a - d)]
    tensors = [{"name": name, "data_type": "DATA_TYPE_F32", "dims": [8, width]}
               for name, width in (("inputs", 4), ("labels", 2))]
    payload = struct.pack("<%df" % (len(inputs) + len(labels)), *inputs, *labels)
    return {"job_id": feed["job_id"], "epoch": feed["epoch"], "step": step, "index": index,
            "tensors": tensors, "payload": base64.b64encode(payload).decode()}


class Foreign(unittest.TestCase):
    def submit(self, client, cluster, name):
        return client.call("millrace.v1.Jobs/Submit", {
            "job_file": job_text(name=name, steps=STEPS, micro_batches=MICRO_BATCHES, batch=BATCH,
                                 length=LENGTH),
            "base_directory": cluster.folder})

    def wait_running(self, client, job):
        for event in client.watch("millrace.v1.Jobs/Watch", {"job": job["id"]}, timeout=60):
            if event["job"]["state"] == "JOB_STATE_RUNNING":
                return client.call("millrace.v1.Jobs/OpenFeed", {"job": job["id"]})
        raise AssertionError("the job never ran")

    def feed_all(self, feed):
        """Feeds every step in the window that the stage grants; returns the kinds of answers."""
        sent = queue.Queue()
        events = []
        with ForeignClient(feed["addresses"][0]) as stage:
            for answer in stage.stream("millrace.v1.Feed/Feed", iter(sent.get, None), timeout=120):
                events.append(answer["event"])
                if answer["event"] == "FEED_EVENT_OPEN":
                    first = int(answer["step"])
                    ready = range(first, min(STEPS, first + int(answer["window"])))
                elif answer["event"] == "FEED_EVENT_APPLIED":
                    ahead = int(answer["step"]) + 2
                    ready = range(ahead, min(STEPS, ahead + 1))
                else:
                    continue
                for step in ready:
                    for index in range(MICRO_BATCHES):
                        sent.put(micro_batch(feed, step, index))
        return events

    def regression_losses(self, precision):
        generator = random.Random(1)
        losses = []
        with Cluster(stages=2) as cluster, ForeignClient(cluster.address) as client:
            feed = self.wait_running(client, client.call("millrace.v1.Jobs/Submit", {
                "job_file": REGRESSION % precision, "base_directory": cluster.folder}))
            sent = queue.Queue()

            def put(step):
                for index in range(2):
                    sent.put(regression_batch(feed, generator, step, index))
            with ForeignClient(feed["addresses"][0]) as stage:
                requests = iter(sent.get, None)
                for answer in stage.stream("millrace.v1.Feed/Feed", requests, timeout=60):
                    if answer["event"] == "FEED_EVENT_OPEN":
                        put(0)
                    elif answer["event"] == "FEED_EVENT_APPLIED":
                        losses.append(answer["loss"])
                        if len(losses) < 60:
                            put(len(losses))
        self.assertEqual(len(losses), 60)
        return losses

    def test_a_regression_on_real_numbers_is_learnt(self):
        losses = self.regression_losses("fp32")
        self.assertLess(sum(losses[-5:]), 0.1 * sum(losses[:5]))

    def test_a_regression_is_learnt_in_bf16_from_the_same_f32_numbers(self):
        losses = self.regression_losses("bf16")
        self.assertLess(sum(losses[-5:]), 0.1 * sum(losses[:5]))

    def refused(self, feed, request):
        """The status of a stream that offers one bad microbatch."""
        hold = threading.Event()

        def requests():
            yield request
            hold.wait(30)
        with ForeignClient(feed["addresses"][0]) as stage:
            try:
                for _ in stage.stream("millrace.v1.Feed/Feed", requests(), timeout=30):
                    pass
            except grpc.RpcError as error:
                return error.code().name, error.details()
            finally:
                hold.set()
        raise AssertionError("the stream ended without an error")

    def test_a_job_from_submission_to_its_end(self):
        with Cluster(stages=2) as cluster, ForeignClient(cluster.address) as client:
            self.assertIn("millrace.v1.Jobs", client.services())
            self.assertIn("grpc.health.v1.Health", client.services())
            self.assertEqual(client.health(), "SERVING")
            with ForeignClient(cluster.stages[0].ready["address"], "v1alpha") as stage:
                self.assertIn("millrace.v1.Feed", stage.services())
            job = self.submit(client, cluster, "foreign")
            events = []
            watcher = threading.Thread(target=lambda: events.extend(
                client.watch("millrace.v1.Jobs/Watch", {"job": job["id"]}, timeout=120)))
            watcher.start()
            feed = self.wait_running(client, job)
            kinds = self.feed_all(feed)
            watcher.join(60)
            self.assertFalse(watcher.is_alive())
            self.assertEqual(kinds.count("FEED_EVENT_RECEIVED"), STEPS * MICRO_BATCHES)
            self.assertEqual(kinds.count("FEED_EVENT_APPLIED"), STEPS)
            self.assertEqual(kinds[-1], "FEED_EVENT_END")
            self.assertEqual(events[-1]["job"]["state"], "JOB_STATE_SUCCEEDED")
            self.assertEqual(int(events[-1]["job"]["step"]), STEPS)
            losses = [e["step"]["loss"] for e in events if e.get("step")]
            self.assertGreater(losses[0], losses[-1])

    def test_bad_microbatches_are_refused_by_name_and_the_job_goes_on(self):
        with Cluster(stages=2) as cluster, ForeignClient(cluster.address) as client:
            feed = self.wait_running(client, self.submit(client, cluster, "hostile"))
            cases = [
                (micro_batch(feed, 0, 0, token=256), "INVALID_ARGUMENT", ["256", "position 5"]),
                (micro_batch(feed, 0, 0, token=-7), "INVALID_ARGUMENT", ["-7"]),
                (micro_batch(feed, 0, 0, epoch=10**6), "FAILED_PRECONDITION", ["1000000"]),
                (micro_batch(feed, 0, 0, job_id="nosuch"), "FAILED_PRECONDITION", ["nosuch"]),
                (micro_batch(feed, 50, 0), "OUT_OF_RANGE", ["50"]),
                (micro_batch(feed, 0, 99), "OUT_OF_RANGE", ["99", "4"]),
                (micro_batch(feed, 0, 0, tensors=[tensor("inputs")]), "INVALID_ARGUMENT",
                 ["1", "2"]),
                (micro_batch(feed, 0, 0, payload=base64.b64encode(b"abc").decode()),
                 None, []),
            ]
            for request, code, words in cases:
                got, text = self.refused(feed, request)
                if code is not None:
                    self.assertEqual(got, code, text)
                for word in words:
                    self.assertIn(word, text)
            self.assertEqual(self.feed_all(feed)[-1], "FEED_EVENT_END")


if __name__ == "__main__":
    unittest.main(verbosity=2)
