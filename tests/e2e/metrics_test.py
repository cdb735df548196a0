# SPDX-License-Identifier: Apache-2.0
"""The daemons' metrics, of real jobs: promtool has nothing to say; what is counted is what was
done, to the microbatch and the byte; OpenMetrics is given to who asks for it; Debian's Prometheus
scrapes every target and gives an exemplar back over its API, with the step that the client saw; and
a job's series are gone a scrape interval after its end."""

import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
import unittest

from cluster import CORPUS, Cluster, Daemon, job_text
from prometheus import Prometheus, fetch

STEPS = 12
MICRO_BATCHES = 4
# Batch 2, length 16, width 32, four bytes each: one activation of the job below.
ACTIVATION_BYTES = 2 * 16 * 32 * 4
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
SERIES_SECONDS = 60  # MR_SERIES_AFTER_MS
WAIT_SECONDS = 60
SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """The samples of one page."""

    def __init__(self, address):
        self.text = fetch("http://%s/metrics" % address)
        self.samples = [(name, dict(LABEL.findall(labels)), float(value))
                        for name, labels, value in SAMPLE.findall(self.text)]

    def all(self, metric, **labels):
        return [value for name, have, value in self.samples
                if name == metric and labels.items() <= have.items()]

    def one(self, metric, **labels):
        found = self.all(metric, **labels)
        if len(found) != 1:
            raise AssertionError("%d series of %s%r in\n%s"
                                 % (len(found), metric, labels, self.text))
        return found[0]


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(stages=2, name="metrics")
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.cluster.write("corpus.txt", CORPUS)
        job = cls.cluster.write("job.yaml", job_text(steps=STEPS, directory="checkpoints", every=5))
        cls.started = time.monotonic()
        cls.steps = cls.cluster.train(job).check().steps()
        cls.addresses = [cls.cluster.status_address]
        cls.addresses += [stage.ready["status_address"] for stage in cls.cluster.stages]
        pause = threading.Event()
        for _ in range(4 * WAIT_SECONDS):  # gauges follow about once a second
            if Scrape(cls.addresses[0]).all("millrace_job_step") == [STEPS]:
                break
            pause.wait(0.25)
        cls.pages = [Scrape(address) for address in cls.addresses]
        cls.job_id = re.search(r'millrace_job_step\{job_id="([^"]+)"', cls.pages[0].text).group(1)

    def stage(self, number):
        """The page of the daemon that had this stage."""
        pages = [page for page in self.pages[1:]
                 if page.all("millrace_stage_layers", stage=str(number))]
        self.assertEqual(len(pages), 1)
        return pages[0]

    def test_promtool_has_nothing_to_say(self):
        if shutil.which("promtool") is None:
            self.skipTest("promtool is not installed (Debian package prometheus)")
        for page in self.pages:
            run = subprocess.run(["promtool", "check", "metrics"], input=page.text, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual((run.returncode, run.stdout), (0, ""), page.text)

    def test_coordinator_tells_what_the_job_did(self):
        page = self.pages[0]
        last = self.steps[-1]
        self.assertEqual(page.one("millrace_job_step"), STEPS)
        self.assertEqual(page.one("millrace_job_target_steps"), STEPS)
        self.assertAlmostEqual(page.one("millrace_job_loss", split="train"), last["loss"], 6)
        self.assertAlmostEqual(page.one("millrace_job_learning_rate"), last["lr"], 9)
        self.assertEqual(page.one("millrace_optimizer_steps_total", result="applied"), STEPS)
        self.assertEqual(page.one("millrace_trained_tokens_total"),
                         sum(step["tokens"] for step in self.steps))
        self.assertEqual(page.one("millrace_step_duration_seconds_count"), STEPS)
        self.assertEqual(page.one("millrace_checkpoint_last_success_step"), STEPS)
        self.assertEqual(page.one("millrace_job_info", schedule="1f1b", stages="2", name="tiny"), 1)
        self.assertEqual(page.all("millrace_job_loss_scale"), [], "fp32 has none")

    def test_stages_count_their_microbatches_and_bytes(self):
        total = STEPS * MICRO_BATCHES
        for number, peer, extra in (0, 1, 2 * 16 * 4), (1, 0, 0):
            page = self.stage(number)
            stage = str(number)
            for name in "forward", "backward":
                self.assertEqual(page.one("millrace_microbatches_total", stage=stage,
                                          **{"pass": name}), total)
            self.assertEqual(page.one("millrace_microbatches_in_flight", stage=stage), 0)
            sent = page.one("millrace_link_transmit_bytes_total", stage=stage, peer=str(peer))
            # The labels, four bytes a token, ride along with activations.
            self.assertEqual(sent, total * (ACTIVATION_BYTES + extra))
            self.assertEqual(page.one("millrace_link_transfer_duration_seconds_count",
                                      stage=stage), total)
            self.assertGreater(page.one("millrace_checkpoint_duration_seconds_count", op="save"), 0)

    def test_a_stages_time_is_told_whole(self):
        """Work and waiting by reason come near to the steps' own time, which is part of them."""
        steps = sum(step["step_seconds"] for step in self.steps)
        for number in 0, 1:
            page = self.stage(number)
            busy = page.all("millrace_stage_busy_seconds_total")
            waits = [page.one("millrace_stage_idle_seconds_total", reason=reason)
                     for reason in ("wait_prev", "wait_next")]
            for phase in "forward", "backward", "optimizer":
                self.assertGreater(page.one("millrace_stage_busy_seconds_total", phase=phase), 0)
            self.assertGreater(sum(waits), 0)
            self.assertLessEqual(sum(busy) + sum(waits), 1.3 * steps + 1)
            self.assertGreater(sum(busy) + sum(waits), 0.5 * steps)
            for reason in "no_work", "checkpoint":
                self.assertGreater(page.one("millrace_stage_idle_seconds_total", reason=reason), 0)

    def test_calls_are_counted_by_method_and_code(self):
        missing = self.cluster.client("job", "get", "no-such-job")
        self.assertEqual(missing.code, 3)
        page = Scrape(self.addresses[0])
        for method, code in (("Submit", "OK"), ("Get", "NOT_FOUND")):
            method = "millrace.v1.Jobs/" + method
            self.assertGreater(page.one("millrace_rpc_server_requests_total", method=method,
                                        code=code), 0)
            self.assertEqual(page.one("millrace_rpc_server_duration_seconds_count", method=method),
                             sum(page.all("millrace_rpc_server_requests_total", method=method)))
        for link in self.stage(0).all("millrace_rpc_server_requests_total",
                                      method="millrace.v1.Link/Connect"):
            self.assertGreater(link, 0)

    def test_stage_that_attaches_again_is_counted_by_its_address(self):
        with Cluster(stages=1, name="again") as cluster:
            address = cluster.stages[0].ready["address"]
            self.assertNotIn("millrace_stage_restarts", Scrape(cluster.status_address).text)
            cluster.stages[0].stop(signal.SIGKILL)
            cluster.stages.append(Daemon(cluster.folder, "stage-again", [
                "stage", "--coordinator", cluster.address, "--listen", address, "--status",
                "127.0.0.1:0", "--device", "cpu", "--threads", "1"]))
            cluster.stages[1].wait_message("attached")
            pause = threading.Event()
            for _ in range(4 * WAIT_SECONDS):
                counted = Scrape(cluster.status_address).all("millrace_stage_restarts_total",
                                                             stage=address)
                if counted:
                    break
                pause.wait(0.25)
            self.assertEqual(counted, [1])

    def test_certificates_end_is_told(self):
        if shutil.which("openssl") is None:
            self.skipTest("openssl is not installed (Debian package openssl)")
        with Cluster(stages=0, name="certificate") as plain:
            self.assertNotIn("millrace_tls_certificate", Scrape(plain.status_address).text)
            paths = [plain.folder + name for name in ("/tls.crt", "/tls.key")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "5", "-subj",
                        "/CN=localhost", "-out", paths[0], "-keyout", paths[1]],
                       check=True, stderr=subprocess.DEVNULL)
        os.chmod(paths[1], 0o600)
        end = subprocess.run(["openssl", "x509", "-enddate", "-noout", "-in", paths[0]],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
        options = ["--tls-cert", paths[0], "--tls-key", paths[1]]
        with Cluster(stages=0, name="tls", coordinator_options=options) as secure:
            told = Scrape(secure.status_address).one(
                "millrace_tls_certificate_expiry_timestamp_seconds")
        self.assertEqual(told, ssl.cert_time_to_seconds(end.strip().split("=")[1]))
        self.assertAlmostEqual(told, time.time() + 5 * 86400, delta=600)

    def test_openmetrics_is_for_who_accepts_it(self):
        text = fetch("http://%s/metrics" % self.addresses[0], accept=OPENMETRICS)
        self.assertTrue(text.endswith("# EOF\n"))
        exemplars = {int(step): float(value) for step, value
                     in re.findall(r'_bucket\{job_id="%s",.* # \{step="(\d+)"\} (\S+) \d+\.\d{3}$'
                                   % self.job_id, text, re.MULTILINE)}
        self.assertTrue(exemplars, text)
        for step, value in exemplars.items():
            self.assertAlmostEqual(value, self.steps[step - 1]["step_seconds"], 4)
        self.assertNotIn(" # {", self.pages[0].text)
        self.assertNotIn("# EOF", self.pages[0].text)

    def test_fp16_shows_its_loss_scale_and_skipped_steps(self):
        job = self.cluster.write(
            "half.yaml", job_text(name="half", steps=6, precision="fp16"))
        steps = self.cluster.train(job).check().steps()
        page = Scrape(self.addresses[0])
        skipped = sum(step["skipped"] for step in steps)
        self.assertEqual(page.one("millrace_job_loss_scale"), steps[-1]["loss_scale"])
        ids = {labels["job_id"] for name, labels, _ in page.samples
               if name == "millrace_job_loss_scale"}
        self.assertEqual(len(ids), 1)
        self.assertEqual(sum(page.all("millrace_optimizer_steps_total", job_id=ids.pop(),
                                      result="skipped")), skipped)

    def test_prometheus_gives_the_exemplar_back(self):
        if shutil.which("prometheus") is None:
            self.skipTest("prometheus is not installed")
        prometheus = Prometheus(self.addresses[0], self.addresses[1:])
        self.addCleanup(prometheus.stop)
        prometheus.wait(lambda: len(prometheus.query("up == 1")) == 3, "three targets up")
        began = time.time()
        job = self.cluster.write("seen.yaml", job_text(name="seen", steps=STEPS))
        steps = self.cluster.train(job).check().steps()

        def exemplars():
            found = prometheus.api("query_exemplars", start=began - 600, end=time.time() + 60,
                                   query='millrace_step_duration_seconds_bucket')
            return [exemplar for one in found for exemplar in one["exemplars"]
                    if float(exemplar["timestamp"]) >= began]

        prometheus.wait(exemplars, "an exemplar")
        for exemplar in exemplars():
            step = steps[int(exemplar["labels"]["step"]) - 1]
            self.assertAlmostEqual(float(exemplar["value"]), step["step_seconds"], 4)

    def test_series_of_the_ended_job_go_a_scrape_interval_later(self):
        pause = threading.Event()
        self.assertEqual(sum(self.job_id in page.text for page in self.pages), 3)
        for address in self.addresses:
            while self.job_id in fetch("http://%s/metrics" % address):
                self.assertLess(time.monotonic() - self.started,
                                SERIES_SECONDS + 2 * WAIT_SECONDS, address)
                pause.wait(0.5)
        self.assertGreater(time.monotonic() - self.started, SERIES_SECONDS)
        self.assertIn("millrace_stage_up", fetch("http://%s/metrics" % self.addresses[0]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
