# SPDX-License-Identifier: BSD-3-Clause
"""servers: start a server for a measurement, ask it things, read what the kernel knows about it, stop it.

Every server is a context manager and dies with this process, whatever happens to it.
"""
import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
MIB = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that can't be taken; the text says why."""


def _in_child(cpus):
    """Between fork and exec: die with the parent, can be interrupted, many files, only these cores."""
    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if cpus:
            os.sched_setaffinity(0, cpus)
    return prepare


def spawn(argv, cpus=None, **kwargs):
    return subprocess.Popen(argv, preexec_fn=_in_child(cpus), **kwargs)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server process on a port of its own, with an empty directory below `place`. kind: 'dcache' or 'redis'.

    It keeps nothing on the disk unless the options say so; later options win."""

    def __init__(self, path, threads=1, cpus=None, options=(), place=None):
        self.path = path
        self.kind = "redis" if any(name in os.path.basename(path) for name in ("redis", "valkey")) else "dcache"
        self.threads = threads
        self.cpus = cpus
        self.options = list(options)
        self.place = place
        self.process = None
        self.dir = None
        self.port = None

    def _argv(self):
        argv = [self.path, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir,
                "--save", "", "--appendonly", "no"]
        if self.kind == "dcache":
            argv += ["--threads", str(self.threads)]
        elif self.threads > 1:
            argv += ["--io-threads", str(self.threads)]
        return argv + self.options

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="dcache-bench-", dir=self.place)
        try:
            self.launch()
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def launch(self):
        """Start the process in its directory, with what is in there, and don't wait. The time just before."""
        self.port = free_port()
        with open(self._log_path(), "ab") as log:
            start_s = time.monotonic()
            self.process = spawn(self._argv(), self.cpus, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return start_s

    def kill(self):
        """As a crash does, and wait until nothing of it runs any more."""
        self.process.kill()
        self.process.wait()

    def _log_path(self):
        return os.path.join(self.dir, "bench.log")

    def wait_for(self, condition, step_s=0.001, timeout_s=600):
        """Until condition() is true; no connection and error replies count as false. Returns when that was."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, BenchError):
                if condition():
                    return time.monotonic()
            if self.process.poll() is not None:
                raise BenchError("%s has ended: %s" % (" ".join(self._argv()), self._log_end()))
            time.sleep(step_s)
        raise BenchError("%s: what was waited for did not come: %s" % (" ".join(self._argv()), self._log_end()))

    def _log_end(self):
        with open(self._log_path(), errors="replace") as log:
            return log.read()[-2000:].strip()

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if self.ask("PING") == "PONG":
                    return
            time.sleep(0.02)
        raise BenchError("%s did not start: %s" % (" ".join(self._argv()), self._log_end()))

    def ask(self, *words):
        """One command on a fresh connection; only for replies of one line and bulk strings."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as conn:
            request = b"*%d\r\n" % len(words)
            request += b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
            conn.sendall(request)
            with conn.makefile("rb") as reader:
                line = reader.readline().decode()
                if line.startswith("-") or not line.endswith("\r\n"):
                    raise BenchError("%s: %s" % (" ".join(words), line.strip() or "connection closed"))
                if line.startswith("$"):
                    return reader.read(int(line[1:])).decode(errors="replace")
                return line[1:-2]

    def info(self, section):
        """The fields of a section of INFO, as text."""
        lines = self.ask("INFO", section).split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    @property
    def pid(self):
        return self.process.pid

    def rss_bytes(self):
        """Exact, by walking the page tables; the counters in statm may be some pages off."""
        with open("/proc/%d/smaps_rollup" % self.pid) as rollup:
            return _kib_field(rollup, "Rss:")

    def peak_rss_bytes(self):
        with open("/proc/%d/status" % self.pid) as status:
            return _kib_field(status, "VmHWM:")

    def forget_peak(self):
        """The peak of resident memory is that from now on."""
        with open("/proc/%d/clear_refs" % self.pid, "w") as clear:
            clear.write("5")

    def settled_rss_bytes(self, settle_s):
        """Resident memory after a rest: allocators give unused pages back ten seconds later."""
        time.sleep(settle_s)
        return self.rss_bytes()


def _kib_field(lines, name):
    for line in lines:
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise BenchError("no field %s" % name)


def cpu_busy_s():
    """Busy time of all cores since boot, guests and steal included."""
    with open("/proc/stat") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


def own_cpu_s():
    """CPU time of this process and of its children that have ended."""
    return sum(usage.ru_utime + usage.ru_stime
               for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
