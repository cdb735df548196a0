# SPDX-License-Identifier: Apache-2.0
"""`millrace trace fetch` of a real job, by the rules of the Chrome trace event format, which
Perfetto reads: named processes and threads, whole spans that do not overlap on a thread, and flow
arrows whose two ends lie on spans. All stages are on one clock: no message is received before it
was sent, and every instruction of every step is there."""

import collections
import unittest

from cluster import CORPUS, Cluster, job_text

STEPS = 6
SHOWN = 3
MICRO_BATCHES = 4
STAGES = 3
EPSILON = 0.01  # microseconds: doubles that were added


class Trace(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Cluster(stages=STAGES, name="trace") as cluster:
            cluster.write("corpus.txt", CORPUS)
            job = cluster.write("job.yaml", job_text(steps=STEPS, stages=STAGES))
            cluster.train(job).check()
            cls.trace = cluster.client("-o", "json", "trace", "fetch", "tiny", "--steps",
                                       str(SHOWN)).check().json()
        cls.events = cls.trace["traceEvents"]
        cls.spans = [event for event in cls.events if event["ph"] == "X"]

    def test_every_event_has_what_its_phase_asks_for(self):
        self.assertIn(self.trace["displayTimeUnit"], ("ms", "ns"))
        common = {"ph", "pid", "tid", "name"}
        needs = {"X": {"ts", "dur", "args"}, "M": {"args"}, "s": {"ts", "id", "cat"},
                 "f": {"ts", "id", "cat", "bp"}}
        for event in self.events:
            self.assertEqual(set(event), common | needs[event["ph"]], event)
            self.assertIsInstance(event["pid"], int)
            self.assertIsInstance(event["tid"], int)
            for key in needs[event["ph"]] & {"ts", "dur"}:
                self.assertGreaterEqual(event[key], 0)

    def test_processes_and_threads_are_named_in_order(self):
        names = collections.defaultdict(dict)
        for event in self.events:
            if event["ph"] == "M":
                value, = event["args"].values()
                names[event["name"]][event["pid"], event["tid"]] = value
        self.assertEqual(sorted(names["process_name"].values()),
                         ["stage %d" % stage for stage in range(STAGES)])
        self.assertEqual({pid: order for (pid, _), order in names["process_sort_index"].items()},
                         {rank: rank for rank in range(STAGES)})
        used = {(event["pid"], event["tid"]) for event in self.spans}
        self.assertLessEqual(used, set(names["thread_name"]))
        self.assertEqual({names["thread_name"][place] for place in used}, {"exec"})

    def test_spans_are_whole_and_of_the_newest_steps(self):
        counts = collections.Counter()
        tracks = collections.defaultdict(list)
        for span in self.spans:
            counts[span["pid"], span["args"]["step"], span["name"]] += 1
            tracks[span["pid"], span["tid"]].append(span)
        self.assertEqual({step for _, step, _ in counts}, set(range(STEPS - SHOWN, STEPS)))
        for rank in range(STAGES):
            for step in range(STEPS - SHOWN, STEPS):
                for batch in range(MICRO_BATCHES):
                    for name in "F%d", "B%d":
                        self.assertEqual(counts[rank, step, name % batch], 1)
                self.assertEqual(counts[rank, step, "OP"], 1)
        for spans in tracks.values():
            spans.sort(key=lambda span: span["ts"])
            for before, after in zip(spans, spans[1:]):
                self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + EPSILON)

    def test_arrows_join_each_send_with_its_receive(self):
        ends = collections.defaultdict(list)
        for event in self.events:
            if event["ph"] in "sf":
                ends[event["cat"], event["name"], event["id"]].append(event)
                self.assertTrue(any(
                    span["pid"] == event["pid"] and span["tid"] == event["tid"] and
                    span["ts"] - EPSILON <= event["ts"] <= span["ts"] + span["dur"] + EPSILON
                    for span in self.spans), event)
        self.assertEqual(len(ends), SHOWN * MICRO_BATCHES * (STAGES - 1) * 2)
        for pair in ends.values():
            start, finish = sorted(pair, key=lambda event: event["ph"], reverse=True)
            self.assertEqual((start["ph"], finish["ph"], finish["bp"]), ("s", "f", "e"))
            self.assertEqual(abs(start["pid"] - finish["pid"]), 1)
            self.assertEqual(start["name"] == "activation", start["pid"] < finish["pid"])
            self.assertLess(start["ts"], finish["ts"], "one clock")


if __name__ == "__main__":
    unittest.main(verbosity=2)
