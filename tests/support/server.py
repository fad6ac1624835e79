# SPDX-License-Identifier: BSD-3-Clause
"""Starts and stops servers for black-box tests.

The server under test is the binary that the environment names in DCACHE_SERVER, otherwise the newest one below build/.
Whatever ends badly (a signal, an exit code, a report of a sanitizer, a failed assertion) fails the test that owns it.
"""
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from support.pace import slowness
from support.resp import Conn

ROOT = Path(__file__).resolve().parents[2]
REDIS = shutil.which("redis-server")
# Options of ours that are dropped when the binary is a redis-server, and what it needs instead.
OURS_ONLY = {"threads"}
REDIS_EXTRA = ["--save", ""]
BAD_OUTPUT = re.compile(
    r"(ERROR: \w*Sanitizer|Sanitizer: CHECK failed|WARNING: ThreadSanitizer|runtime error:|LeakSanitizer|[Aa]ssertion .*failed|BUG REPORT).*")
PR_SET_PDEATHSIG = 1
PORTS = 200  # for each process of tests


class ServerFailed(AssertionError):
    """The server didn't start, or did not end as it should."""


def server_binary():
    """Path of the binary under test."""
    if os.environ.get("DCACHE_SERVER"):
        return os.environ["DCACHE_SERVER"]
    found = sorted(ROOT.glob("build/*/bin/dcache-server"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise ServerFailed("no server to test: set DCACHE_SERVER or build one first")
    return str(found[-1])


def _port_blocks():
    """First ports of blocks that the kernel gives to no connection and no bind(0): nobody gets one by chance while its server is down."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low, high = map(int, file.read().split())
    return [*range(max(low - 16000, 1100), low - PORTS, PORTS), *range(high + 1, 65537 - PORTS, PORTS)] or list(range(20000, 32000, PORTS))


def _port_block():
    """A block that no other process of tests has: a name that is held by this process, and by no child, says so."""
    blocks = _port_blocks()
    for i in range(len(blocks)):
        first = blocks[(os.getpid() + i) % len(blocks)]
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind("\0dcache-test-ports-%d" % first)
            return first, held
        except OSError:
            held.close()
    return blocks[os.getpid() % len(blocks)], None


class _Ports:
    """Those of this process."""
    lock = threading.Lock()
    owner = first = held = None
    at = 0


def free_port():
    """One after the other. A server can listen there, also behind connections that linger: it is asked for more strictly than a server does."""
    with _Ports.lock:
        if _Ports.owner != os.getpid():
            _Ports.owner, (_Ports.first, _Ports.held) = os.getpid(), _port_block()
        for _ in range(PORTS):
            port = _Ports.first + _Ports.at % PORTS
            _Ports.at += 1
            with socket.socket() as probe:
                try:
                    probe.bind(("", port))
                    return port
                except OSError:
                    continue
    raise ServerFailed("no free port")


def temp_dir(case=None):
    """A directory of one's own below the temporary one; it goes with the test case (or class) if there is one."""
    path = Path(tempfile.mkdtemp(prefix="dcache-test-"))
    if case is not None:
        cleanup = case.addClassCleanup if isinstance(case, type) else case.addCleanup
        cleanup(shutil.rmtree, path, ignore_errors=True)
    return path


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """A running server. Options as keywords: Server(threads=2, requirepass="x"); lists give several words."""

    def __init__(self, binary=None, conf=None, start_timeout=30.0, **options):
        self.binary = binary or server_binary()
        self.is_redis = "redis" in os.path.basename(self.binary)
        self.dir = temp_dir()
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.conf = conf
        self.options = options
        self.start_timeout = start_timeout
        self.process = None
        self.start()

    def command_line(self):
        words = [self.binary] + ([str(self.conf)] if self.conf else [])
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.dir, "enable-debug-command": "yes"}
        options.update(self.options)
        for name, value in options.items():
            if not (self.is_redis and name in OURS_ONLY):
                values = value if isinstance(value, (list, tuple)) else [value]
                words += ["--" + name.replace("_", "-"), *map(str, values)]
        return words + (REDIS_EXTRA if self.is_redis else [])

    def start(self):
        """Starts the process and waits until it answers; also restarts one that has ended, where it was."""
        self.log_path = self.dir / "output.log"
        with open(self.log_path, "ab") as log:
            self.output_start = log.tell()
            self.process = self.popen(stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + self.start_timeout * slowness()
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailed("exit code %d at start\n%s" % (self.process.returncode, self.output()[-4000:]))
            try:
                with Conn(self.address, timeout=1) as conn:
                    conn.call("PING")  # an error such as NOAUTH is an answer too
                    return
            except OSError:
                time.sleep(0.01)
        self.kill()
        raise ServerFailed("doesn't answer on port %d\n%s" % (self.port, self.output()[-4000:]))

    def popen(self, **kwargs):
        return subprocess.Popen(self.command_line(), cwd=self.dir, preexec_fn=_die_with_parent, **kwargs)

    def connect(self, proto=2, **kwargs):
        kwargs.setdefault("timeout", 10 * slowness())
        conn = Conn(self.address, **kwargs)
        if proto != 2:
            conn.ok("HELLO", proto)
        return conn

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def output(self):
        return self.log_path.read_text("utf-8", "replace")

    def rss(self):
        """Resident bytes of the process."""
        status = Path("/proc/%d/status" % self.process.pid).read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024

    def wait(self, timeout=30.0):
        """Waits for the end and returns the exit code (negative: a signal)."""
        try:
            return self.process.wait(timeout * slowness())
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed("doesn't end\n" + self.output()[-4000:]) from None

    def kill(self):
        if self.alive():
            self.process.kill()
            self.process.wait()

    def check(self):
        """Raises if the output or the exit code tells of a fault."""
        bad = BAD_OUTPUT.search(self.output())
        if bad:
            raise ServerFailed("%s\n%s" % (bad.group(0), self.output()[bad.start():][:6000]))
        if not self.alive() and self.process.returncode != 0:
            raise ServerFailed("exit code %d\n%s" % (self.process.returncode, self.output()[-6000:]))

    def stop(self):
        """Ends the process as an operator would, checks how it ended and removes its directory. May be called again."""
        if not self.dir.exists():
            return
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            self.wait()
        self.check()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
            return
        try:
            self.stop()
        except ServerFailed as failure:  # the first error is the one to show; this one explains it
            print("server: %s" % failure)
        finally:
            self.kill()


class ServerCase(unittest.TestCase):
    """Tests that share one server, started with `options`."""
    options = {"threads": 2}

    @classmethod
    def setUpClass(cls):
        cls.server = Server(**cls.options)
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        self.assertTrue(self.server.alive(), "the server is gone")
        with self.server.connect() as conn:
            if "requirepass" not in self.options:
                conn.ok("FLUSHALL")

    def connect(self, proto=2, **kwargs):
        conn = self.server.connect(proto, **kwargs)
        self.addCleanup(conn.close)
        return conn

    def own_server(self, **options):
        """A server for one test alone."""
        server = Server(**options)
        self.addCleanup(server.stop)
        return server

    def eventually(self, condition, timeout=10.0, message="condition not reached"):
        deadline = time.monotonic() + timeout * slowness()
        while not condition():
            if time.monotonic() > deadline:
                self.fail(message)
            time.sleep(0.01)
