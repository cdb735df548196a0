# SPDX-License-Identifier: Apache-2.0
"""The coordinator's TensorBoard event files, read by a reader of this test's own: records and their
checksums by hand (RFC 3720's polynomial, bit by bit), events by Google's protobuf with the fields
of TensorBoard's event.proto and summary.proto. A job's scalars are the numbers that the client
printed; a job that goes on writes a further file, which begins with the session's start; a folder
that cannot be made costs a line in the log and not the job."""

import os
import struct
import threading
import unittest

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cluster import CORPUS, Cluster, job_text

STEPS = 8
TAGS = {"train/loss": "loss", "train/grad_norm": "grad_norm", "train/lr": "lr",
        "train/tokens_per_second": "tokens_per_second", "train/bubble": "bubble"}
FIELD = descriptor_pb2.FieldDescriptorProto


def event_class():
    """Event, of the fields that scalars need."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tb", syntax="proto3")
    messages = {
        "Value": (("tag", 1, FIELD.TYPE_STRING, None), ("simple_value", 2, FIELD.TYPE_FLOAT, None)),
        "Summary": (("value", 1, FIELD.TYPE_MESSAGE, ".tb.Value"),),
        "SessionLog": (("status", 1, FIELD.TYPE_INT32, None),),
        "Event": (("wall_time", 1, FIELD.TYPE_DOUBLE, None), ("step", 2, FIELD.TYPE_INT64, None),
                  ("file_version", 3, FIELD.TYPE_STRING, None),
                  ("summary", 5, FIELD.TYPE_MESSAGE, ".tb.Summary"),
                  ("session_log", 7, FIELD.TYPE_MESSAGE, ".tb.SessionLog")),
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in fields:
            label = FIELD.LABEL_REPEATED if field == "value" else FIELD.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, type_name=of, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("tb.Event")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(found)
    return message_factory.MessageFactory(pool).GetPrototype(found)


EVENT = event_class()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def read_events(path):
    with open(path, "rb") as file:
        data = file.read()
    events = []
    while data:
        length, head = struct.unpack("<QI", data[:12])
        if masked(data[:8]) != head:
            raise AssertionError("%s: length of record %d" % (path, len(events)))
        payload = data[12:12 + length]
        if masked(payload) != struct.unpack("<I", data[12 + length:16 + length])[0]:
            raise AssertionError("%s: payload of record %d" % (path, len(events)))
        event = EVENT()
        event.ParseFromString(payload)
        if event.UnknownFields() if hasattr(event, "UnknownFields") else ():
            raise AssertionError("%s: unknown fields in record %d" % (path, len(events)))
        events.append(event)
        data = data[16 + length:]
    return events


def files(folder):
    """In the order in which TensorBoard reads them: by name."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


class Reader(unittest.TestCase):
    def test_checksum_of_the_standards_nine_digits(self):
        self.assertEqual(crc32c(b"123456789"), 0xe3069283)
        self.assertEqual(masked(b"123456789"), 0xc78ab0e5)


class EventFiles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(stages=2, name="tensorboard")
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.cluster.write("corpus.txt", CORPUS)

    def job(self, name, folder, steps=STEPS, directory="", **options):
        """A job file with an event folder, relative to the file's own."""
        return self.cluster.write(name + ".yaml", job_text(
            name=name, steps=steps, directory=directory,
            extra="observe: {tensorboard_dir: %s}\n" % folder, **options))

    def events(self, folder, count):
        """The events of the folder's files, once so many scalars' events are there: the flush comes
        soon after the job's end, which nothing outside tells."""
        pause = threading.Event()
        for _ in range(240):
            folder_path = os.path.join(self.cluster.folder, folder)
            found = [read_events(path) for path in files(folder_path)] \
                if os.path.isdir(folder_path) else []
            if sum(len(events) - 2 for events in found) >= count:
                return found
            pause.wait(0.25)
        self.fail("%d files in %s, but not %d steps" % (len(found), folder, count))

    def check_steps(self, events, steps, tags):
        """Every step has its scalars, as 32-bit floats."""
        self.assertEqual([event.step for event in events], [step["step"] for step in steps])
        before = 0
        for event, step in zip(events, steps):
            self.assertGreaterEqual(event.wall_time, before)
            before = event.wall_time
            values = {value.tag: value.simple_value for value in event.summary.value}
            self.assertEqual(set(values), set(tags))
            for tag, key in tags.items():
                self.assertAlmostEqual(values[tag], step[key], delta=2e-6 * abs(step[key]) + 1e-9)

    def test_scalars_are_what_the_client_printed(self):
        steps = self.cluster.train(self.job("plain", "tb/deep/plain")).check().steps()
        found = self.events("tb/deep/plain", STEPS)
        self.assertEqual(len(found), 1)
        name = os.path.basename(files(os.path.join(self.cluster.folder, "tb/deep/plain"))[0])
        self.assertRegex(name, r"^events\.out\.tfevents\.\d{10}\..+\.%d\.\d+$"
                         % self.cluster.coordinator.process.pid)
        events = found[0]
        self.assertEqual(events[0].file_version, "brain.Event:2")
        self.assertGreater(events[0].wall_time, 1e9)
        self.assertEqual((events[1].session_log.status, events[1].step), (1, 1))
        self.check_steps(events[2:], steps, TAGS)

    def test_fp16_tells_its_loss_scale(self):
        steps = self.cluster.train(self.job("half", "tb/half", precision="fp16")).check().steps()
        events = self.events("tb/half", STEPS)[0]
        self.check_steps(events[2:], steps, dict(TAGS, **{"train/loss_scale": "loss_scale"}))

    def test_job_that_goes_on_adds_a_file_from_its_first_step(self):
        first = self.cluster.train(self.job("goes", "tb/goes", steps=4, directory="ck")).check()
        longer = self.job("goes", "tb/goes", steps=STEPS, directory="ck")
        second = self.cluster.train(longer, "--resume").check()
        found = self.events("tb/goes", STEPS)
        self.assertEqual(len(found), 2)
        self.check_steps(found[0][2:], first.steps(), TAGS)
        self.check_steps(found[1][2:], second.steps(), TAGS)
        self.assertEqual(second.steps()[0]["step"], 5)
        self.assertEqual((found[1][1].session_log.status, found[1][1].step), (1, 5))

    def test_folder_that_cannot_be_made_costs_a_line_and_not_the_job(self):
        self.cluster.write("a-file", "in the way")
        after = len(self.cluster.coordinator.lines)
        self.cluster.train(self.job("barred", "a-file/tb")).check()
        line = self.cluster.coordinator.wait_message("event file not written any more", after=after)
        self.assertIn("cannot make folder", line["why"])
        self.assertTrue(line["tensorboard_dir"].endswith("/a-file/tb"))

    def test_job_without_a_folder_writes_none(self):
        before = set(os.listdir(self.cluster.folder))
        job = self.cluster.write("none.yaml", job_text(name="none", steps=2))
        self.cluster.train(job).check()
        self.assertEqual(set(os.listdir(self.cluster.folder)) - before, {"none.yaml"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
