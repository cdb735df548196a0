# SPDX-License-Identifier: Apache-2.0
"""Alert rules, scrape example and dashboard: promtool accepts them, each alert fires on synthetic
series and stays silent before (alerts-test.yaml), has a chapter in the runbook, whose commands the
client knows, and the Prometheus operator's copy is the same. Every metric that they name, and every
label that they match, is in the daemons' own table. Then Debian's Prometheus itself runs with the
scrape example and the rules against real daemons that train: all targets are up, every rule and
every panel evaluates, and the panels whose metrics the daemons show have data."""

import json
import os
import re
import shutil
import subprocess
import unittest

import yaml

import cluster as clusters
from cluster import CORPUS, Cluster, job_text
from prometheus import Prometheus, fetch

FOLDER = os.path.join(clusters.ROOT, "deploy/prometheus")
DASHBOARD = os.path.join(clusters.ROOT, "deploy/grafana/millrace.json")
RULE = os.path.join(clusters.ROOT,
                    "deploy/kubernetes/components/monitoring/prometheus-rule.yaml")
# Series of others: Prometheus' own, and the GPU exporter's.
FOREIGN = re.compile(r"^(up|ALERTS|DCGM_FI_\w+)$")
# Of stages on GPUs, which this version does not train on: panels on it are empty.
SETTLED = {"millrace_gpu_info"}
SCRAPE_LABELS = {"job", "instance", "le", "alertname", "alertstate"}
NAME = re.compile(r"\b(millrace_\w+|process_\w+|DCGM_FI_\w+|ALERTS|up)\b(\{[^}]*\})?")


def load(path):
    with open(path) as file:
        return yaml.safe_load(file)


def rules():
    """Every alert of alerts.yaml."""
    return [rule for group in load(os.path.join(FOLDER, "alerts.yaml"))["groups"]
            for rule in group["rules"]]


def panel_queries():
    """Title and expression of every query of the dashboard."""
    return [(panel["title"], target["expr"]) for panel in load(DASHBOARD)["panels"]
            for target in panel.get("targets", ())]


def declared():
    """The daemons' table: exposed name -> labels; a histogram has three names."""
    with open(os.path.join(clusters.ROOT, "daemon/observe/metrics.h")) as file:
        text = re.sub(r"\\\n\s*", "", file.read())
    table = {}
    for kind, name, labels in re.findall(r'X\(\w+, (\w+), "(\w+)",\s*"\w*",\s*"([^"]*)"', text):
        for suffix in ("_bucket", "_sum", "_count") if kind == "HISTOGRAM" else ("",):
            table[name + suffix] = set(filter(None, labels.split(",")))
    return table


def named(expression):
    """Metrics of an expression, with the labels that it matches on each."""
    expression = re.sub(r"\b(by|without|on|ignoring|group_left)\s*\([^)]*\)", "", expression)
    for name, matchers in NAME.findall(expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


class Files(unittest.TestCase):
    def promtool(self, *arguments):
        if shutil.which("promtool") is None:
            self.skipTest("promtool is not installed (Debian package prometheus)")
        run = subprocess.run(["promtool"] + list(arguments), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, cwd=FOLDER)
        self.assertEqual(run.returncode, 0, run.stdout)

    def test_promtool_accepts_rules_and_scrape_example(self):
        self.promtool("check", "rules", "alerts.yaml")
        self.promtool("check", "config", "prometheus.yaml")

    def test_each_alert_fires_and_is_silent_before(self):
        self.promtool("test", "rules", "alerts-test.yaml")
        shown = set()
        for test in load(os.path.join(FOLDER, "alerts-test.yaml"))["tests"]:
            fires = [bool(step.get("exp_samples")) for step in test["promql_expr_test"]]
            names = {re.search(r'alertname="(\w+)"', sample["labels"]).group(1)
                     for step in test["promql_expr_test"] for sample in step.get("exp_samples", ())}
            if any(fires) and not all(fires):
                shown |= names
        self.assertEqual({rule["alert"] for rule in rules()} - shown, set())

    def test_each_alert_has_a_chapter_in_the_runbook(self):
        with open(os.path.join(clusters.ROOT, "deploy/RUNBOOK.md")) as file:
            chapters = set(re.findall(r"^### (Millrace\w+)$", file.read(), re.MULTILINE))
        self.assertEqual(chapters, {rule["alert"] for rule in rules()})
        for rule in rules():
            self.assertEqual(rule["annotations"]["runbook"],
                             "deploy/RUNBOOK.md#" + rule["alert"].lower())
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))

    def test_the_runbooks_commands_are_the_clients(self):
        """Each is parsed by the real client up to an option that it does not have."""
        with open(os.path.join(clusters.ROOT, "deploy/RUNBOOK.md")) as file:
            text = file.read()
        blocks = re.findall(r"^```$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`(millrace (?!FILE)[^`]*)`", text)
        commands = {" ".join(line.split()) for line in lines if line.startswith("millrace ")}
        self.assertGreater(len(commands), 10)
        for command in sorted(commands):
            run = clusters.run_client(command.split()[1:] + ["--no-such-option"],
                                      clusters.temporary_folder("runbook"))
            self.assertEqual(run.code, 2, command)
            self.assertIn("--no-such-option", run.err, command)
            self.assertEqual(len(run.err.splitlines()[0].split("--no-such-option")), 2, run.err)

    def test_the_dashboards_panels_have_their_own_place_and_source(self):
        panels = load(DASHBOARD)["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = {}
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, panel["title"])
                    taken[x, y] = panel["title"]
            for target in panel.get("targets", ()):
                self.assertEqual(target["datasource"]["uid"], "${datasource}", panel["title"])
        variables = {one["name"] for one in load(DASHBOARD)["templating"]["list"]}
        used = {name for _, expression in panel_queries()
                for name in re.findall(r"\$(\w+)", expression)}
        self.assertEqual(used | {"datasource"}, variables)

    def test_the_operators_copy_is_the_same(self):
        self.assertEqual(load(RULE)["spec"],
                         {"groups": load(os.path.join(FOLDER, "alerts.yaml"))["groups"]},
                         "copy the groups of deploy/prometheus/alerts.yaml into %s" % RULE)

    def test_every_metric_and_label_is_in_the_daemons_table(self):
        table = declared()
        self.assertGreater(len(table), 30)
        expressions = [(rule["alert"], rule["expr"]) for rule in rules()] + panel_queries()
        missing = []
        for where, expression in expressions:
            for name, labels in named(expression):
                if FOREIGN.match(name) or (name in SETTLED and name not in table):
                    continue
                if name not in table:
                    missing.append("%s: no metric %s" % (where, name))
                elif not labels <= table[name] | SCRAPE_LABELS:
                    missing.append("%s: %s has no label %s"
                                   % (where, name, ", ".join(sorted(labels - table[name]))))
        self.assertEqual(missing, [])


class Live(unittest.TestCase):
    def test_prometheus_scrapes_evaluates_and_has_data_for_the_panels(self):
        if shutil.which("prometheus") is None:
            self.skipTest("prometheus is not installed")
        with Cluster(stages=2) as cluster:
            cluster.write("corpus.txt", CORPUS)
            job = cluster.write("job.yaml", job_text(steps=30, directory="checkpoints", every=5))
            prometheus = Prometheus(cluster.status_address,
                                    [stage.ready["status_address"] for stage in cluster.stages])
            try:
                prometheus.wait(lambda: len(prometheus.query("up == 1")) == 3, "three targets up")
                cluster.train(job).check()
                prometheus.wait(lambda: prometheus.query("max(millrace_job_step) == 30"),
                                "the last step")
                self.check_rules(prometheus)
                self.check_panels(prometheus, cluster)
            finally:
                prometheus.stop()

    def check_rules(self, prometheus):
        prometheus.wait(lambda: all(rule["health"] == "ok" for rule in self.evaluated(prometheus)),
                        "every rule evaluated")
        self.assertEqual({rule["name"] for rule in self.evaluated(prometheus)},
                         {rule["alert"] for rule in rules()})

    def evaluated(self, prometheus):
        return [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]

    def check_panels(self, prometheus, cluster):
        """Every panel evaluates; where the daemons show each metric of it, it has data."""
        addresses = [cluster.status_address]
        addresses += [stage.ready["status_address"] for stage in cluster.stages]
        live = set()
        for address in addresses:
            live |= set(re.findall(r"^([a-z]\w+)(?:\{|\s)", fetch("http://%s/metrics" % address),
                                   re.MULTILINE))
        table = declared()
        self.assertEqual(live - set(table), set())
        unseen = set()
        for title, expression in panel_queries():
            expression = re.sub(r"\$\w+", ".*", expression)
            prometheus.query(expression)
            names = {name for name, _ in named(expression)}
            unseen |= {name for name in names if name in table and name not in live}
            # What counts only what goes wrong has no series here.
            if names <= live and "[" not in expression and " == " not in expression:
                prometheus.wait(lambda query=expression: prometheus.query(query),
                                "data for %s: %s" % (title, expression))
        print("declared, and not shown by these daemons:", ", ".join(sorted(unseen)) or "none")


if __name__ == "__main__":
    unittest.main(verbosity=2)
