# SPDX-License-Identifier: Apache-2.0
"""A machine of its own for tests: systemd booted in a container (systemd-nspawn) over the host's
/usr, whose changes go to memory, and with /etc, /var and a network of its own.

    with Machine(prepare) as machine:            prepare(root) fills the root folder before the boot
        machine.run("systemctl", "is-active", "millrace-node").check()
        machine.journal.wait("node ready")

Debian's /usr is what debootstrap would unpack, and it is here already: a boot takes seconds, no
network and no package. What the host's /usr has enabled by itself does not run: the machine boots
into a target that the test names. SkipTest, with the reason, where such a container cannot run.

Nothing outlives the test, however it ends: its mounts are seen by this process and its children
alone, and the container ends with this process."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import unittest
import uuid

import cluster as clusters

BOOT_SECONDS = 120
RUN_SECONDS = 120
ROOT_BYTES = 1 << 30
CLONE_NEWNS = 0x20000
TOOLS = ("setpriv", "systemd-nspawn", "systemctl", "nsenter", "mount", "dbus-daemon")


class Done:
    """A finished command."""

    def __init__(self, arguments, process):
        self.arguments = arguments
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def check(self, code=0):
        if self.code != code:
            raise AssertionError("%s: exit code %s, not %s\n%s\n%s" % (
                " ".join(self.arguments), self.code, code, self.out[-3000:], self.err[-3000:]))
        return self


class Journal:
    """Follows the machine's journal, message by message."""

    def __init__(self, command):
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, errors="replace")
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()

    def wait(self, *words, after=0, seconds=60):
        """The number behind the first line at or after line number after that has all words."""
        def find():
            for number in range(after, len(self.lines)):
                if all(word in self.lines[number] for word in words):
                    return number + 1
            return None
        with self.changed:
            if not self.changed.wait_for(lambda: find() is not None, timeout=seconds):
                raise AssertionError("the journal has no %s within %s s:\n%s" % (
                    words, seconds, "".join(self.lines[-30:])))
            return find()


def children(process):
    with open("/proc/%d/task/%d/children" % (process, process)) as file:
        return [int(word) for word in file.read().split()]


class Boot:
    """The end of NOTIFY_SOCKET that the container's start reports to."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(1)
        self.socket.bind("")  # an abstract name of the kernel's choice
        self.path = self.socket.getsockname().decode().replace("\0", "@", 1)

    def wait(self, process):
        """Is the container's system up?"""
        for _ in range(BOOT_SECONDS):
            try:
                text = self.socket.recv(4096).decode(errors="replace")
            except socket.timeout:
                if process.poll() is not None:
                    return False
                continue
            if "READY=1" in text.splitlines():
                return True
        return False


class Machine:
    def __init__(self, prepare, target="multi-user.target"):
        self.prepare = prepare
        self.target = target
        self.top = clusters.temporary_folder("machine")
        self.root = os.path.join(self.top, "root")
        self.mounts = []
        self.process = None
        self.leader = None
        self.journal = None

    # ---- the root folder ----

    def mount(self, *arguments):
        done = subprocess.run(("mount",) + arguments, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise unittest.SkipTest("a machine cannot be made here: %s" % done.stderr.strip())
        self.mounts.append(arguments[-1])

    def write(self, path, text, mode=0o644):
        full = self.root + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as file:
            file.write(text)
        os.chmod(full, mode)

    def hide_mounts(self):
        """From here on this process has mounts of its own; they go with it."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) != 0:
            raise unittest.SkipTest("mounts of our own cannot be had here: %s"
                                    % os.strerror(ctypes.get_errno()))
        done = subprocess.run(["mount", "--make-rprivate", "/"], stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise unittest.SkipTest("mounts cannot be hidden here: %s" % done.stderr.strip())

    def make_root(self):
        self.hide_mounts()
        os.mkdir(self.root)
        self.mount("-t", "tmpfs", "-o", "size=%d,mode=755" % ROOT_BYTES, "tmpfs", self.root)
        for folder in ("usr", "etc", "var", "run", "tmp", "proc", "sys", "dev", "root", "srv",
                       ".usr-upper", ".usr-work"):
            os.mkdir(os.path.join(self.root, folder))
        layers = "lowerdir=/usr,upperdir=%s/.usr-upper,workdir=%s/.usr-work"
        self.mount("-t", "overlay", "-o", layers % (self.root, self.root), "overlay",
                   os.path.join(self.root, "usr"))
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink("/" + name):
                os.symlink(os.readlink("/" + name), os.path.join(self.root, name))
        os.symlink("../usr/lib/os-release", os.path.join(self.root, "etc/os-release"))
        shutil.copy("/etc/ld.so.cache", os.path.join(self.root, "etc"))
        # Not its first boot: Debian would enable everything that it finds in /usr.
        self.write("/etc/machine-id", uuid.uuid4().hex + "\n")
        self.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
        self.write("/etc/group", "root:x:0:\n")
        self.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.write("/etc/hosts", "127.0.0.1 localhost\n")

    # ---- boot ----

    def container(self, *arguments, **options):
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork",
                   "--kill-child=KILL", "--mount-proc", "systemd-nspawn", "--quiet",
                   "--register=no", "--keep-unit", "--private-network", "--link-journal=no",
                   "--resolv-conf=off", "--timezone=off", "--directory", self.root]
        return subprocess.Popen(command + list(arguments), stdin=subprocess.DEVNULL,
                                stderr=subprocess.STDOUT, **options)

    def start(self, target):
        """Boots into a target; the console's last words where that fails, None where it is up."""
        boot = Boot()
        log = os.path.join(self.top, "console")
        with open(log, "w") as console:
            self.process = self.container(
                "--notify-ready=yes", "--boot", "systemd.unit=" + target,
                "systemd.log_target=journal", stdout=console,
                env=dict(os.environ, NOTIFY_SOCKET=boot.path))
        up = boot.wait(self.process)
        boot.socket.close()
        if up:
            # setpriv became unshare, which has systemd-nspawn, and that has the machine's init.
            nspawn = children(self.process.pid)[0]
            self.leader = children(nspawn)[0]
            return None
        with open(log, errors="replace") as console:
            return console.read()[-4000:]

    def end(self):
        """The container is in a process namespace that ends with its first process, which ends
        with ours."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def try_boot(self):
        """Can Debian as it is be booted at all? Where it can, what follows must work."""
        words = self.start("basic.target")
        self.end()
        if words is not None:
            raise unittest.SkipTest("systemd cannot boot in a container here: %s" % words[-300:])

    def boot(self):
        words = self.start(self.target)
        if words is not None:
            raise AssertionError("the machine did not boot:\n" + words)
        self.journal = Journal(self.enter("journalctl", "--follow", "--lines=all", "--output=cat"))

    def __enter__(self):
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if os.geteuid() != 0 or missing:
            raise unittest.SkipTest("booting a container needs root and its tools; missing: %s"
                                    % (", ".join(missing) or "root"))
        try:
            self.make_root()
            self.try_boot()
            self.prepare(self)
            self.boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None and self.journal is not None:
            print("---- the machine's journal, last lines\n" + "".join(self.journal.lines[-80:]))
        if self.journal is not None:
            self.journal.process.kill()
            self.journal.process.wait()
        if self.process is not None:
            self.end()
        for path in reversed(self.mounts):
            subprocess.run(["umount", "--lazy", path], stderr=subprocess.DEVNULL)
        return False

    # ---- inside ----

    def enter(self, *command):
        return ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net",
                "--pid", "--root", "--wd"] + list(command)

    def run(self, *command, seconds=RUN_SECONDS):
        process = subprocess.run(
            self.enter(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", timeout=seconds,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8",
                 "SYSTEMD_PAGER": ""})
        return Done(command, process)

    def property(self, unit, name):
        return self.run("systemctl", "show", "--value", "-p", name, unit).check().out.strip()
