# SPDX-License-Identifier: Apache-2.0
"""Goal: the completions work in the shells that they are for, the manual page is one that man's own
programs take, and the client behaves on every kind of screen: none, a dumb one, one of 40 columns.
Method: a real bash, and zsh and fish where they are installed, source the built files; mandoc and
groff, where they are installed, read the page; the client runs on pseudo-terminals."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
import unittest

from cluster import MILLRACE, PREFIX, ROOT, temporary_folder

BUILT = os.path.join(ROOT, PREFIX + "client")
COORDINATOR = os.path.join(ROOT, PREFIX + "tests/e2e/client_coordinator")
SECONDS = 60

BASH = """
source "$1"
shift
COMP_WORDS=(millrace "$@")
COMP_CWORD=$#
_millrace 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


def run(words, **options):
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=SECONDS, **options)


class Screen:
    """A program on a pseudo-terminal."""

    def __init__(self, words, columns, rows=24, environment=None):
        self.text = b""
        self.process, self.fd = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(words[0], words, environment)

    def read(self, until=None, seconds=SECONDS):
        """Reads until the pattern has come, or to the end."""
        end = time.monotonic() + seconds
        while until is None or not re.search(until, self.text, re.DOTALL):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise AssertionError("no %r on the screen: %r" % (until, self.text[-600:]))
            try:
                piece = os.read(self.fd, 65536)
            except OSError:  # the other side has gone
                piece = b""
            if not piece:
                break
            self.text += piece
        return self.text.decode()

    def write(self, keys):
        os.write(self.fd, keys)

    def end(self):
        self.read()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


class Shells(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = temporary_folder("shells")
        cls.coordinator = subprocess.Popen([COORDINATOR], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, text=True)
        server = cls.coordinator.stdout.readline().strip()
        path = os.path.dirname(MILLRACE) + ":/usr/local/bin:/usr/bin:/bin"
        cls.environment = {"HOME": cls.folder, "PATH": path, "TERM": "xterm",
                           "MILLRACE_SERVER": server, "LC_ALL": "C.UTF-8"}
        cls.dumb = dict(cls.environment, TERM="dumb")

    @classmethod
    def tearDownClass(cls):
        cls.coordinator.stdin.close()
        cls.coordinator.stdout.close()
        cls.coordinator.wait(SECONDS)

    def completed(self, *words):
        script = os.path.join(BUILT, "completions/millrace")
        done = run(["bash", "--norc", "-c", BASH, "bash", script] + list(words),
                   env=self.environment, cwd=self.folder)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash_completes_nouns_verbs_options_choices_and_names(self):
        self.assertIn("checkpoint", self.completed(""))
        self.assertEqual(self.completed("jo"), ["job"])
        self.assertEqual(self.completed("job", "ca"), ["cancel"])
        self.assertEqual(self.completed("-s", "host:1", "cluster", "he"), ["health"])
        self.assertEqual(self.completed("job", "get", "--wat"), ["--watch"])
        self.assertEqual(self.completed("job", "list", "--resu"), [])
        self.assertEqual(self.completed("-o", "js"), ["json", "jsonl"])
        self.assertEqual(self.completed("--output", "=", "w"), ["wide"])
        self.assertEqual(self.completed("completion", "f"), ["fish"])
        self.assertEqual(self.completed("job", "get", "j"), ["j1", "j2", "j3", "j4", "j5"])
        self.assertEqual(self.completed("stage", "drain", ""), ["m1", "m2", "m3"])
        with open(os.path.join(self.folder, "some job.yaml"), "w"):
            pass
        done = self.completed("train", "some")
        self.assertEqual(" ".join(done), "some job.yaml")

    def test_bash_asks_the_server_that_the_line_names(self):
        self.assertEqual(self.completed("--server", "127.0.0.1:1", "job", "get", ""), [])

    def test_zsh_takes_the_completions(self):
        if shutil.which("zsh") is None:
            self.skipTest("zsh is not installed")
        script = os.path.join(BUILT, "completions/_millrace")
        self.assertEqual(run(["zsh", "-f", "-n", script]).stderr, "")
        # zpty presses the keys in a zsh of its own
        keys = ("autoload -Uz compinit; compinit -u -d %s/dump; source %s; zmodload zsh/zpty; "
                "_describe() { shift 3; print -rl -- ${(P)1} }; words=(millrace job ca); "
                "CURRENT=3; PREFIX=ca; compadd() { print -rl -- $@ }; _millrace"
                % (self.folder, script))
        done = run(["zsh", "-f", "-c", keys], env=self.environment)
        self.assertIn("cancel:End a job now", done.stdout, done.stderr)

    def test_fish_completes(self):
        if shutil.which("fish") is None:
            self.skipTest("fish is not installed")
        script = os.path.join(BUILT, "completions/millrace.fish")
        for line, wanted in (("millrace jo", "job"), ("millrace job ca", "cancel"),
                             ("millrace -o js", "jsonl"), ("millrace job get j", "j4"),
                             ("millrace job get --wa", "--watch"),
                             ("millrace completion z", "zsh")):
            done = run(["fish", "--no-config", "-c", "source %s; complete -C '%s'"
                        % (script, line)], env=self.environment, cwd=self.folder)
            self.assertEqual(done.stderr, "")
            found = [row.split("\t")[0] for row in done.stdout.splitlines()]
            self.assertTrue(any(word.endswith(wanted) for word in found), (line, found))

    def test_the_manual_page_is_one(self):
        page = os.path.join(BUILT, "man/millrace.1")
        with open(page) as file:
            text = file.read()
        self.assertIn(".TH MILLRACE 1", text)
        self.assertIn("EXIT STATUS", text)
        self.assertIn("\\fB\\-\\-within\\fR", text)
        checked = False
        if shutil.which("mandoc"):
            checked = True
            lint = run(["mandoc", "-T", "lint", "-W", "error", page])
            self.assertEqual((lint.stdout, lint.returncode), ("", 0))
        if shutil.which("groff"):
            checked = True
            shown = run(["groff", "-man", "-Tutf8", "-ww", "-z", page])
            self.assertEqual((shown.stderr, shown.returncode), ("", 0))
        if not checked:
            self.skipTest("neither mandoc nor groff is installed")

    def on_screen(self, columns, *words, **environment):
        screen = Screen([MILLRACE] + list(words), columns,
                        environment=dict(self.environment, **environment))
        code = screen.end()
        return screen.text.decode().replace("\r\n", "\n"), code

    def test_forty_columns_are_enough(self):
        for words in (("--help",), ("job", "--help"), ("generate", "--help"), ("config", "-h")):
            text, code = self.on_screen(40, *words)
            self.assertEqual(code, 0)
            for line in text.splitlines():
                wide = [word for word in line.split() if len(word) > 30]
                self.assertTrue(len(line) <= 40 or line.startswith("  ") and wide or
                                line.lstrip().startswith("-") or "Usage:" in line, line)
        text, code = self.on_screen(40, "stage", "list", NO_COLOR="1")
        self.assertEqual(code, 0)
        self.assertIn("ID           m1\nDEVICE       cpu\nSTATE        running\n", text)
        text, _ = self.on_screen(100, "stage", "list", NO_COLOR="1")
        self.assertTrue(text.startswith("ID  DEVICE  STATE"), text)

    def test_a_long_last_column_is_cut_on_a_terminal_only(self):
        text, _ = self.on_screen(80, "job", "list", NO_COLOR="1")
        self.assertIn("needs 2 stages, 0 of 3 a\u2026", text)
        self.assertTrue(all(len(line) <= 80 for line in text.splitlines()))
        done = run([MILLRACE, "job", "list"], env=self.environment)
        self.assertIn("needs 2 stages, 0 of 3 are idle\n", done.stdout)

    def test_colours_are_for_terminals_that_have_them(self):
        self.assertIn("\033[31mlost\033[0m", self.on_screen(120, "stage", "list")[0])
        for words, environment in ((("stage", "list"), {"NO_COLOR": "1"}),
                                   (("stage", "list"), {"TERM": "dumb"}),
                                   (("--no-color", "stage", "list"), {}),
                                   (("-o", "json", "stage", "list"), {})):
            self.assertNotIn("\033", self.on_screen(120, *words, **environment)[0])
        self.assertNotIn("\033", run([MILLRACE, "stage", "list"], env=self.environment).stdout)

    def test_top_is_a_screen_that_q_ends_and_restores(self):
        screen = Screen([MILLRACE, "top", "--interval", "0.2"], 60, rows=8,
                        environment=self.environment)
        screen.read(until=rb"q ends.*q ends")
        screen.write(b"q")
        self.assertEqual(screen.end(), 0)
        text = screen.text.decode()
        self.assertTrue(text.startswith("\033[?1049h\033[?25l"))
        self.assertTrue(text.endswith("\033[?25h\033[?1049l"))
        first = text.split("\033[H")[1].split("\033[J")[0].replace("\033[K", "").split("\r\n")
        self.assertLessEqual(len(first), 8)
        self.assertTrue(all(len(line) <= 60 for line in first), first)
        self.assertIn("j4 gpt RUNNING [####------] 120/300", "\n".join(first))

    def test_top_without_a_screen_prints_once(self):
        text, code = self.on_screen(120, "top", TERM="dumb")
        self.assertEqual(code, 0)
        self.assertNotIn("\033", text)
        self.assertIn("needs 2 stages", text)
        interrupted = Screen([MILLRACE, "top"], 80, environment=self.environment)
        interrupted.read(until=b"q ends")
        interrupted.write(b"\x03")
        self.assertEqual(interrupted.end(), 130)
        self.assertTrue(interrupted.text.endswith(b"\033[?25h\033[?1049l"))

    def test_a_terminal_is_asked_before_a_job_is_cancelled(self):
        for answer, code, wanted in ((b"n\n", 1, "nothing was done"), (b"y\n", 0, "CANCELLED"),
                                     (b"\x04", 1, "nothing was done")):
            screen = Screen([MILLRACE, "job", "cancel", "j3"], 80, environment=self.dumb)
            screen.read(until=rb"cancel job j3\? \[y/N\] ")
            screen.write(answer)
            self.assertEqual(screen.end(), code)
            self.assertIn(wanted, screen.text.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
