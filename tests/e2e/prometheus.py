# SPDX-License-Identifier: Apache-2.0
"""prometheus.py: Debian's Prometheus on a free port, over daemons of a test, and its HTTP API.

    prometheus = Prometheus(cluster.status_address, stage_addresses)
    prometheus.wait(lambda: prometheus.query("up == 1"), "a target up")
    prometheus.stop()
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
import urllib.request

import yaml

import cluster as clusters

FOLDER = os.path.join(clusters.ROOT, "deploy/prometheus")
WAIT_SECONDS = 120


def load(path):
    with open(path) as file:
        return yaml.safe_load(file)


def fetch(url, accept=None):
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


class Prometheus:
    """Debian's Prometheus on a free port, with the scrape example over these targets."""

    def __init__(self, coordinator, stages):
        self.folder = clusters.temporary_folder("prometheus")
        shutil.copy(os.path.join(FOLDER, "alerts.yaml"), self.folder)
        config = load(os.path.join(FOLDER, "prometheus.yaml"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        scrape = config["scrape_configs"][0]
        scrape["scrape_timeout"] = "1s"
        scrape["static_configs"][0]["targets"] = [coordinator]
        scrape["static_configs"][1]["targets"] = stages
        path = os.path.join(self.folder, "prometheus.yaml")
        with open(path, "w") as file:
            yaml.safe_dump(config, file)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % probe.getsockname()[1]
        self.process = subprocess.Popen(
            ["prometheus", "--config.file", path, "--storage.tsdb.path", self.folder + "/data",
             "--web.listen-address", self.address, "--enable-feature=exemplar-storage"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)

    def api(self, path, **query):
        answer = fetch("http://%s/api/v1/%s?%s"
                       % (self.address, path, urllib.parse.urlencode(query)))
        return json.loads(answer)["data"]

    def query(self, expression):
        return self.api("query", query=expression)["result"]

    def wait(self, condition, what):
        """A scrape or an evaluation is no event that we could be told of: ask each half second."""
        pause = threading.Event()
        for _ in range(2 * WAIT_SECONDS):
            try:
                if condition():
                    return
            except OSError:
                pass  # it does not listen yet
            pause.wait(0.5)
        raise AssertionError("Prometheus: %s not within %d s" % (what, WAIT_SECONDS))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
