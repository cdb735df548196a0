# SPDX-License-Identifier: Apache-2.0
"""webdriver.py: Debian's chromium, headless, over chromedriver's own HTTP (W3C WebDriver and the
DevTools commands that chromedriver passes on): as much of it as tests of the page need.

    with Browser(folder, width=1280) as browser:
        browser.open("http://127.0.0.1:9780/")
        browser.run("return document.title")
"""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

START_SECONDS = 60
CALL_SECONDS = 60


def find():
    """The paths of browser and driver, or None where one of them is missing."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


class Browser:
    def __init__(self, folder, width=1280, height=900, scripts=True, dark=False):
        chromium, driver = find()
        self.folder = folder
        self.session = None
        self.driver = subprocess.Popen(
            [driver, "--port=0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd=folder, start_new_session=True,
            env=dict(os.environ, HOME=folder))
        try:
            self.port = self.wait_for_port()
            threading.Thread(target=self.driver.stdout.read, daemon=True).start()
            self.start(chromium, width, height, scripts, dark)
        except BaseException:
            self.close()
            raise

    def wait_for_port(self):
        deadline = time.monotonic() + START_SECONDS
        for line in self.driver.stdout:
            match = re.search(r"on port ([1-9]\d*)", line)
            if match:
                return int(match.group(1))
            if time.monotonic() > deadline:
                break
        raise AssertionError("chromedriver names no port")

    def start(self, chromium, width, height, scripts, dark):
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--disable-extensions",
                     "--window-size=%d,%d" % (width, height),
                     "--user-data-dir=" + os.path.join(self.folder, "profile-%d" % self.port)]
        if dark:
            arguments.append("--force-dark-mode")
        options = {"binary": chromium, "args": arguments,
                   "prefs": {} if scripts else {
                       "profile.managed_default_content_settings.javascript": 2}}
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}})
        self.session = answer["sessionId"]

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        value = answer["value"]
        if isinstance(value, dict) and "error" in value:
            raise AssertionError("%s: %s" % (value["error"], value["message"]))
        return value

    def command(self, name, body=None, method="POST"):
        return self.call(method, "/session/%s/%s" % (self.session, name), body)

    def open(self, url):
        self.command("url", {"url": url})

    def run(self, script, *arguments):
        return self.command("execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, name, **parameters):
        return self.command("goog/cdp/execute", {"cmd": name, "params": parameters})

    def resize(self, width, height):
        """The size of what is drawn, which is not the window's."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=False)
        self.devtools("Emulation.setScrollbarsHidden", hidden=True)

    def scheme(self, name):
        """light or dark, as the system would say."""
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": name}])

    def log(self, kind):
        """What was logged since it was asked last: browser or performance."""
        return self.command("se/log", {"type": kind})

    def requests(self):
        """The URLs that were asked for since this was asked last."""
        urls = []
        for entry in self.log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        return urls

    def press_tab(self):
        self.command("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": "\ue004"}, {"type": "keyUp", "value": "\ue004"}]}]})

    def picture(self, path):
        """The whole page, also below the window's edge."""
        data = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(data["data"]))

    def wait(self, script, what, seconds=60):
        """Until the script returns what is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError("not seen within %d s: %s" % (seconds, what))

    def close(self):
        try:
            if self.session is not None:
                self.call("DELETE", "/session/" + self.session)
        finally:
            try:  # the driver and the browsers that it started
                os.killpg(self.driver.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.driver.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()
        return False
