#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the coordinator's page works in a real browser: it asks nobody else for anything, shows a
job that runs, updates by itself, draws a box for each instruction of a step, can be read and
reached by everybody, and is whole without scripts. Method: Debian's chromium, headless, over
chromedriver; without them (deploy/setup --tests installs them) the test says so and is skipped.

Pictures at three widths, light and dark, lie in TEST_UNDECLARED_OUTPUTS_DIR afterwards."""

import json
import os
import threading
import time
import unittest

import webdriver
from cluster import CORPUS, Cluster, job_text, temporary_folder

WIDTHS = (360, 768, 1280)
CONTRAST_TEXT = 4.5
MISSING = ("chromium and chromedriver are not installed; deploy/setup --tests installs them, and "
           "then this test runs")

# Of each element with text of its own: the contrast of its colour to what is painted behind it.
CONTRASTS = """
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg")) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName, e.textContent]);
  }
  return found;
"""

# Of each control and picture: its name for those who cannot see it.
NAMELESS = """
  return [...document.querySelectorAll("a, button, summary, svg[role=img], progress, .scroll")]
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent).trim())
    .map((e) => e.outerHTML.slice(0, 120));
"""


@unittest.skipUnless(webdriver.find(), MISSING)
class DashboardTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = temporary_folder("browser")
        cls.pictures = os.environ.get("TEST_UNDECLARED_OUTPUTS_DIR", cls.folder)
        cls.cluster = Cluster(stages=3, name="dashboard").__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.cluster.write("corpus.txt", CORPUS)
        cls.url = "http://%s/" % cls.cluster.status_address
        cls.path = cls.cluster.write("watched.yaml", job_text(
            name="watched", stages=3, steps=100000, layers=6, dim=64, micro_batches=6,
            directory="checkpoints"))
        cls.process = cls.cluster.client_start("-o", "jsonl", "train", cls.path)
        cls.addClassCleanup(cls.end_client)
        for line in cls.process.stdout:
            if line.startswith("{") and json.loads(line)["step"] >= 30:
                break
        cls.reader = threading.Thread(target=cls.process.stdout.read, daemon=True)
        cls.reader.start()
        waiting = cls.cluster.write("waiting.yaml", job_text(name="waiting", stages=4, steps=1))
        cls.cluster.client("job", "submit", waiting).check()
        cls.cluster.client("checkpoint", "save", "watched").check()
        cls.browser = webdriver.Browser(cls.folder)
        cls.addClassCleanup(cls.browser.close)
        cls.browser.open(cls.url)
        cls.browser.wait("return document.querySelector('.gantt rect.forward')", "a timeline")

    @classmethod
    def end_client(cls):
        cls.process.kill()
        cls.process.wait()
        if hasattr(cls, "reader"):
            cls.reader.join(30)
        cls.process.stdout.close()
        cls.process.stderr.close()

    def setUp(self):
        self.browser.resize(1280, 900)
        self.browser.scheme("light")
        self.browser.open(self.url)

    def test_it_asks_nobody_else_and_reports_no_error(self):
        self.browser.requests()
        self.browser.log("browser")
        self.browser.open(self.url)
        self.browser.wait("return document.querySelectorAll('button').length", "copy buttons")
        time.sleep(1.5)  # long enough for a fetch of its own
        urls = self.browser.requests()
        self.assertGreater(len(urls), 3)
        for url in urls:
            self.assertTrue(url.startswith(self.url), url)
        errors = [entry["message"] for entry in self.browser.log("browser")]
        self.assertEqual(errors, [])

    def test_it_shows_the_running_job_and_updates_by_itself(self):
        step = ("const row = [...document.querySelectorAll('#jobs tbody tr')]"
                ".find((r) => r.textContent.includes('watched'));"
                "return row && row.textContent.includes('RUNNING')"
                " && row.querySelector('progress').value;")
        before = self.browser.wait(step, "the running job")
        points = "return document.querySelector('polyline').getAttribute('points')"
        drawn = self.browser.run(points)
        self.browser.run("window.mark = true")
        deadline = time.monotonic() + 60
        while self.browser.run(step) <= before or self.browser.run(points) == drawn:
            self.assertLess(time.monotonic(), deadline, "the page stands still")
            time.sleep(0.2)
        self.assertTrue(self.browser.run("return window.mark"), "it was loaded again")

    def test_the_timeline_has_a_box_for_each_instruction(self):
        plan = self.cluster.client("-o", "json", "job", "plan", self.path).check().json()
        boxes = self.browser.run(
            "return [...document.querySelectorAll('.gantt .row')].map((r) =>"
            " [...r.querySelectorAll('rect title')].map((t) => t.textContent.split(' ')[0]))")
        self.assertEqual(boxes, [rank["schedule"] for rank in plan["ranks"]])
        inside = self.browser.run(
            "return [...document.querySelectorAll('.gantt .row')].every((r) =>"
            " [...r.querySelectorAll('rect')].every((e) => e.x.baseVal.value >= 0 &&"
            " e.x.baseVal.value + e.width.baseVal.value <= 1000.1))")
        self.assertTrue(inside)

    def test_the_slowest_stage_the_queue_and_the_checkpoint_are_told_in_words(self):
        text = self.browser.run("return document.body.innerText")
        self.assertEqual(text.count("slowest"), 1)
        self.assertIn("needs 4", text)
        self.assertIn("millrace checkpoint verify", text)
        self.assertIn("checkpoint committed", text)
        commands = self.browser.run(
            "return [...document.querySelectorAll('section')].map((s) =>"
            " (s.querySelector('code') || {textContent: ''}).textContent)")
        self.assertEqual(len(commands), 8)
        for command in commands:
            self.assertTrue(command.startswith("millrace "), commands)

    def test_the_loss_has_a_logarithmic_scale(self):
        self.browser.run("document.getElementById('scale-logarithmic').click()")
        self.browser.wait("return location.search.includes('scale=log') && "
                          "document.querySelector('#scale-logarithmic[aria-current]')", "the scale")

    def test_text_can_be_read_light_and_dark(self):
        for scheme in ("light", "dark"):
            self.browser.scheme(scheme)
            found = self.browser.run(CONTRASTS)
            self.assertGreater(len(found), 50)
            weak = [f for f in found if f[0] < CONTRAST_TEXT]
            self.assertEqual(weak, [], scheme)

    def test_everything_has_a_name_and_is_reached_in_order(self):
        self.assertEqual(self.browser.run(NAMELESS), [])
        self.assertEqual(self.browser.run("return document.documentElement.lang"), "en")
        places = []
        for _ in range(12):
            self.browser.press_tab()
            places.append(self.browser.run(
                "const e = document.activeElement; return [e.className || e.id || e.tagName,"
                " e.getBoundingClientRect().top + scrollY,"
                " getComputedStyle(e).outlineStyle]"))
        self.assertEqual(places[0][0], "skip")
        tops = [place[1] for place in places[1:]]
        self.assertEqual([t for t, n in zip(tops, tops[1:]) if n < t - 60], [], places)
        self.assertTrue(all(place[2] != "none" for place in places), places)

    def test_focus_and_open_details_outlive_an_update(self):
        self.browser.run("document.getElementById('steps-table').open = true;"
                         "document.getElementById('steps-summary').focus();"
                         "window.first = document.querySelector('#steps-table tbody th')"
                         ".textContent")
        self.browser.wait("return document.querySelector('#steps-table tbody th').textContent"
                          " !== window.first", "an update")
        self.assertTrue(self.browser.run("return document.getElementById('steps-table').open"))
        self.assertEqual(self.browser.run("return document.activeElement.id"), "steps-summary")

    def test_it_fits_narrow_and_wide_screens(self):
        for scheme in ("light", "dark"):
            self.browser.scheme(scheme)
            for width in WIDTHS:
                self.browser.resize(width, 900)
                self.browser.picture(os.path.join(
                    self.pictures, "dashboard-%s-%d.png" % (scheme, width)))
                wide = self.browser.run("return document.documentElement.scrollWidth")
                self.assertLessEqual(wide, width)

    def test_it_is_whole_without_scripts(self):
        self.browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
        try:
            self.browser.open(self.url)
            self.browser.picture(os.path.join(self.pictures, "dashboard-no-scripts.png"))
            nodes = self.browser.devtools("DOM.getDocument", depth=-1)
            text = json.dumps(nodes)
            self.assertIn("watched", text)
            self.assertIn("polyline", text)
            self.assertNotIn('"BUTTON"', text)
        finally:
            self.browser.devtools("Emulation.setScriptExecutionDisabled", value=False)


if __name__ == "__main__":
    unittest.main(verbosity=2)
