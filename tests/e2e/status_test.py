#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the status ports of a real coordinator and real stages answer what they promise, while a
job runs, and nothing there can be changed. Method: plain HTTP from Python against one cluster."""

import http.client
import json
import socket
import threading
import time
import unittest

from cluster import CORPUS, Cluster, job_text

MARKUP = "<img src=x onerror=alert(1)>&\"'"
EVENT_SECONDS = 30


class Answer:
    def __init__(self, response):
        self.code = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    def json(self):
        return json.loads(self.text)


def ask(address, path, method="GET", headers=None):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Events:
    """A listener of /events; each event is (id, kind, data)."""

    def __init__(self, address, headers=None, query=""):
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=EVENT_SECONDS)
        self.connection.request("GET", "/events" + query, headers=headers or {})
        self.response = self.connection.getresponse()

    def __iter__(self):
        event = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line == "" and "data" in event:
                yield int(event["id"]), event["event"], json.loads(event["data"])
            if line == "":
                event = {}
            elif not line.startswith(":"):
                key, value = line.split(": ", 1)
                event[key] = value

    def close(self):
        self.response.close()
        self.connection.close()


class StatusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(stages=2, name="status").__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.cluster.write("corpus.txt", CORPUS)
        cls.address = cls.cluster.status_address
        cls.stage_address = cls.cluster.stages[0].ready["status_address"]
        path = cls.cluster.write("slow.yaml", job_text(
            name="watched", steps=100000, directory="checkpoints", every=0))
        cls.job_path = path
        cls.process = cls.cluster.client_start("-o", "jsonl", "train", path)
        cls.addClassCleanup(cls.end_client)
        for line in cls.process.stdout:
            if line.startswith("{") and json.loads(line)["step"] >= 20:
                break
        # A client whose lines nobody reads stops, and the job with it.
        cls.reader = threading.Thread(target=cls.process.stdout.read, daemon=True)
        cls.reader.start()
        cls.job = cls.wait_for_job("watched")["id"]

    @classmethod
    def end_client(cls):
        cls.process.kill()
        cls.process.wait()
        if hasattr(cls, "reader"):
            cls.reader.join(EVENT_SECONDS)
        cls.process.stdout.close()
        cls.process.stderr.close()

    @classmethod
    def wait_for_job(cls, name, state="RUNNING"):
        """The page is published every second."""
        deadline = time.monotonic() + EVENT_SECONDS
        while True:
            for job in ask(cls.address, "/jobs").json()["jobs"]:
                if job["name"] == name and job["state"] == state:
                    return job
            if time.monotonic() > deadline:
                raise AssertionError("job %s is not %s" % (name, state))
            time.sleep(0.1)

    def setUp(self):
        self.assertIsNone(self.process.poll())

    def test_every_check_of_readiness_has_a_line(self):
        lines = ask(self.address, "/readyz?verbose").text.splitlines()
        self.assertIn("[+]loop ok", lines)
        self.assertIn("[+]store ok", lines)
        self.assertEqual(lines[-1], "readyz check passed")
        lines = ask(self.stage_address, "/readyz?verbose").text.splitlines()
        self.assertIn("[+]coordinator ok", lines)
        self.assertIn("[+]device ok", lines)
        self.assertEqual(ask(self.address, "/readyz").text, "ok\n")

    def test_status_tells_build_jobs_and_stages(self):
        page = ask(self.address, "/status").json()
        self.assertEqual(page["schema"], "millrace.status/v1")
        self.assertEqual(page["version"], ask(self.address, "/version").json()["version"])
        self.assertIn("commit", page)
        job = [j for j in page["jobs"] if j["id"] == self.job][0]
        self.assertEqual([s["stage"] for s in job["stages"]], [0, 1])
        members = {m["id"] for m in page["members"]}
        self.assertEqual({s["member"] for s in job["stages"]}, members)

    def test_a_job_is_found_by_id_and_by_name_and_no_other_is(self):
        self.assertEqual(ask(self.address, "/jobs/" + self.job).json()["name"], "watched")
        self.assertEqual(ask(self.address, "/jobs/watched").json()["id"], self.job)
        for path in ("/jobs/nobody", "/jobs/nobody/history", "/jobs/nobody/timeline",
                     "/jobs/watched/other", "/jobs/", "/jobs/" + "x" * 200):
            self.assertEqual(ask(self.address, path).code, 404, path)
        self.assertEqual(ask(self.stage_address, "/jobs").code, 404)

    def test_history_goes_on_where_it_was_left(self):
        first = ask(self.address, "/jobs/%s/history" % self.job).json()
        self.assertEqual(first["schema"], "millrace.history/v1")
        steps = [s["step"] for s in first["steps"]]
        self.assertEqual(steps, list(range(steps[0], steps[0] + len(steps))))
        last = steps[-1]
        for _ in range(100):
            more = ask(self.address, "/jobs/%s/history?since=%d" % (self.job, last)).json()
            if more["steps"]:
                break
            time.sleep(0.1)
        self.assertEqual(more["steps"][0]["step"], last + 1)
        self.assertGreater(more["steps"][0]["loss"], 0)
        self.assertEqual(ask(self.address, "/jobs/watched/history?since=x").code, 400)

    def test_timeline_has_one_span_for_each_instruction(self):
        plan = self.cluster.client("-o", "json", "job", "plan", self.job_path).check().json()
        for _ in range(100):
            page = ask(self.address, "/jobs/%s/timeline" % self.job).json()
            if page["stages"]:
                break
            time.sleep(0.1)
        self.assertEqual(page["schema"], "millrace.timeline/v1")
        self.assertEqual(len(page["stages"]), 2)
        for rank, stage in zip(plan["ranks"], page["stages"]):
            self.assertTrue(stage["whole"])
            self.assertEqual([s["name"] for s in stage["spans"]], rank["schedule"])
            self.assertTrue(all(s["duration_us"] >= 0 for s in stage["spans"]))
            self.assertGreater(stage["memory_held_bytes"]["weights"], 0)

    def test_events_come_as_they_happen_and_go_on_after_the_last(self):
        listener = Events(self.address, query="?since=0")
        self.assertEqual(listener.response.headers["Content-Type"], "text/event-stream")
        self.assertEqual(listener.response.headers["Cache-Control"], "no-store")
        seen = iter(listener)
        first = next(seen)
        self.assertEqual(first[0], 1)
        self.assertEqual(first[2]["message"], "stage attached")
        for number, kind, data in seen:
            if kind == "step":
                break
        self.assertEqual(data["job"], self.job)
        listener.close()
        self.cluster.client("checkpoint", "save", "watched").check()
        again = Events(self.address, headers={"Last-Event-ID": str(number)})
        for later, kind, data in again:
            self.assertGreater(later, number)
            if kind == "checkpoint":
                break
        self.assertEqual(data["message"], "checkpoint committed")
        again.close()
        for _ in range(100):
            shown = self.wait_for_job("watched")["checkpoints"]
            if shown:
                break
            time.sleep(0.1)
        self.assertEqual(shown[-1]["tag"], data["tag"])

    def test_listeners_are_bounded_and_leave_room_for_probes(self):
        listeners = [Events(self.address) for _ in range(17)]
        codes = [listener.response.status for listener in listeners]
        self.assertIn(503, codes)
        self.assertLessEqual(codes.count(200), 16)
        self.assertEqual(ask(self.address, "/livez").code, 200)
        for listener in listeners:
            listener.close()
        self.assertEqual(ask(self.address, "/events", "POST").code, 405)
        for _ in range(300):  # closed ones are noticed when the next step is told
            if ask(self.address, "/events", "HEAD").code == 200:
                return
            time.sleep(0.1)
        self.fail("the places of closed listeners stay taken")

    def test_settings_are_shown_with_their_origin(self):
        page = ask(self.address, "/config").json()
        settings = {s["name"]: s for s in page["settings"]}
        self.assertEqual(page["schema"], "millrace.config/v1")
        self.assertEqual(settings["listen"]["origin"], "command line")
        self.assertEqual(settings["log-level"], {"name": "log-level", "value": "info",
                                                 "origin": "default"})
        self.assertIn("device", {s["name"] for s in
                                 ask(self.stage_address, "/config").json()["settings"]})

    def test_nothing_can_be_changed_and_nothing_is_kept(self):
        for path in ("/", "/jobs", "/jobs/watched", "/config"):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                answer = ask(self.address, path, method)
                self.assertEqual((answer.code, answer.headers["Allow"]), (405, "GET, HEAD"), path)
            head = ask(self.address, path, "HEAD")
            self.assertEqual((head.code, head.text), (200, ""), path)
            self.assertEqual(head.headers["Cache-Control"], "no-store")
            self.assertEqual(head.headers["Content-Security-Policy"], "default-src 'self'")

    def test_a_connection_without_headers_is_closed(self):
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
            self.assertEqual(client.recv(100), b"")

    def test_the_page_is_whole_without_scripts_and_escapes_what_it_shows(self):
        page = ask(self.address, "/?job=" + "%3Cscript%3Ealert(1)%3C/script%3E").text
        self.assertNotIn("<script>", page)
        for title in ("Jobs", "Loss and speed", "Stages", "Timeline of a step", "Queue",
                      "Checkpoints", "Members", "Events"):
            self.assertIn(">%s</h2>" % title, page)
        self.assertIn(">watched</a>", page)
        self.assertIn("<polyline", page)
        self.assertIn("slowest", page)
        self.assertNotIn("style=", page)
        logarithmic = ask(self.address, "/?job=%s&scale=log" % self.job).text
        self.assertIn('scale=log" aria-current="true">logarithmic', logarithmic)

    def test_a_stage_shows_a_page_of_its_own(self):
        answer = ask(self.stage_address, "/")
        self.assertEqual(answer.headers["Content-Type"], "text/html; charset=utf-8")
        self.assertIn("job.id", answer.text)
        self.assertIn(self.job, answer.text)

    def test_a_job_named_like_markup_is_refused_and_not_shown(self):
        path = self.cluster.write("markup.yaml", job_text(name=json.dumps(MARKUP), steps=1))
        run = self.cluster.client("-o", "name", "job", "submit", path).check(2)
        self.assertIn("name is the text", run.err)
        self.assertNotIn("<img", ask(self.address, "/").text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
