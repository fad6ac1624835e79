# SPDX-License-Identifier: BSD-3-Clause
"""Servers whose data directory outlives them, and disks that are slow, broken, full or damaged.

SlowDisk preloads slow_disk.c, which the environment names in DCACHE_SLOW_DISK: fdatasync, writes and reads take so long, or
fail.
WrongClock preloads wrong_clock.c (DCACHE_WRONG_CLOCK): the wall clock is off.
"""
import ctypes
import errno
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import time
import unittest
from pathlib import Path

from support.pace import slowness
from support.server import BAD_OUTPUT, Server, ServerFailed, free_port

SEGMENT_HEADER_LEN = 4096


class Preload:
    """A library before a server's calls, and the page of memory that tells it what to do. Changes hold at once."""
    VARIABLE, FILE, LIBRARY = "", "", ""

    def __init__(self, folder):
        self.path = folder / self.FILE
        self.path.write_bytes(bytes(mmap.PAGESIZE))
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @classmethod
    def is_there(cls):
        return Path(os.environ.get(cls.LIBRARY, "")).is_file()

    def environment(self):
        asan = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        return {**os.environ, "LD_PRELOAD": os.environ[self.LIBRARY], self.VARIABLE: str(self.path), "ASAN_OPTIONS": asan}


class SlowDisk(Preload):
    """What the disk of a server does; also for a call that is under way."""
    VARIABLE, FILE, LIBRARY = "SLOW_DISK", "slow-disk", "DCACHE_SLOW_DISK"
    SYNC_MS, SYNC_ERRNO, WRITE_ERRNO, SYNCS, META_MS, META_ERRNO, WRITE_MS, READ_MS, SNAP_ERRNO = range(9)

    def _set(self, field, value):
        struct.pack_into("<I", self.page, 4 * field, value)

    def sync_takes(self, seconds):
        self._set(self.SYNC_MS, int(seconds * 1000))

    def sync_fails(self, error=errno.EIO):
        self._set(self.SYNC_ERRNO, error)

    def write_takes(self, seconds):
        self._set(self.WRITE_MS, int(seconds * 1000))

    def write_fails(self, error=errno.ENOSPC):
        self._set(self.WRITE_ERRNO, error)

    def read_takes(self, seconds):
        self._set(self.READ_MS, int(seconds * 1000))

    def snapshots_fail(self, error=errno.ENOSPC):
        """The log goes on."""
        self._set(self.SNAP_ERRNO, error)

    def metadata_take(self, seconds):
        self._set(self.META_MS, int(seconds * 1000))

    def metadata_fail(self, error=errno.EIO):
        self._set(self.META_ERRNO, error)

    def heal(self):
        for field in (self.SYNC_MS, self.SYNC_ERRNO, self.WRITE_ERRNO, self.META_MS, self.META_ERRNO,
                      self.WRITE_MS, self.READ_MS, self.SNAP_ERRNO):
            self._set(field, 0)


class WrongClock(Preload):
    """How far a server's wall clock is ahead; negative: behind."""
    VARIABLE, FILE, LIBRARY = "WRONG_CLOCK", "wrong-clock", "DCACHE_WRONG_CLOCK"

    def is_ahead_by(self, seconds):
        struct.pack_into("<q", self.page, 0, int(seconds * 1000))


class DiskCase(unittest.TestCase):
    """Tests that kill and start their own servers."""

    def own_server(self, slow=False, preload=None, **options):
        """A server that may be killed and need not end well; if asked for, with a SlowDisk as server.disk, or another Preload."""
        preload = SlowDisk if slow else preload
        if preload is not None and not preload.is_there():
            self.skipTest(preload.LIBRARY + " names no library")
        server = DiskServer(preload, **options)
        self.addCleanup(server.discard)
        return server

    def connect(self, server, **kwargs):
        conn = server.connect(**kwargs)
        self.addCleanup(conn.close)
        return conn

    def restarted(self, server, **options):
        """After a kill, or whatever the test did."""
        server.kill()
        server.options.update(options)
        server.start()
        return self.connect(server, timeout=30)

    def eventually(self, condition, timeout=10.0):
        deadline = time.monotonic() + timeout * slowness()
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def refusal(self, server):
        """The server must not start; what it says."""
        server.kill()
        with self.assertRaises(ServerFailed) as caught:
            server.start()
        self.assertEqual(server.process.returncode, 1)
        return str(caught.exception)


class DiskServer(Server):
    def __init__(self, preload=None, **options):
        self.preload = preload  # the class, then what it is for this server
        super().__init__(**{"threads": 2, "save": "", **options})

    def start(self):
        if isinstance(self.preload, type):
            self.preload = self.preload(self.dir)
        super().start()

    @property
    def disk(self):
        return self.preload

    def popen(self, **kwargs):
        if self.preload is not None:
            kwargs["env"] = self.preload.environment()
        return super().popen(**kwargs)

    def terminate(self):
        """An orderly end."""
        self.process.send_signal(signal.SIGTERM)
        code = self.wait()
        if code != 0:
            raise ServerFailed("exit code %d\n%s" % (code, self.output()[-4000:]))

    def discard(self):
        """Kills it; one that has ended by itself, and nobody looked, has a fault."""
        unseen = self.process.returncode is None and not self.alive()
        self.kill()
        output = self.output()
        bad = BAD_OUTPUT.search(output)
        shutil.rmtree(self.dir, ignore_errors=True)
        if bad:
            raise ServerFailed("%s\n%s" % (bad.group(0), output[bad.start():][:6000]))
        if unseen:
            raise ServerFailed("exit code %d, unexpected\n%s" % (self.process.returncode, output[-6000:]))

    def last_output(self):
        """Of the last start."""
        return self.output()[self.output_start:]

    def info(self, conn, field):
        text = conn.ok("INFO", "persistence").decode()
        found = re.search(r"^%s:(.*?)\r?$" % re.escape(field), text, re.M)
        if found is None:
            raise AssertionError("INFO has no " + field)
        return found.group(1)

    def segments(self):
        return sorted(self.dir.glob("log-*.dcl"))

    def snapshots(self):
        return sorted(self.dir.glob("snap-*.dcs"))


def log_position(conn):
    words = conn.ok("LOG", "POSITION")
    return {words[i].decode(): words[i + 1] for i in range(0, len(words), 2)}


def flushes(conn):
    """{database: LSN of its last flush}"""
    lines = re.findall(rb"(?m)^db(\d+)_flushed_lsn:(\d+)", conn.ok("INFO", "dcache"))
    return {int(db): int(lsn) for db, lsn in lines}


def first_lsn(path):
    """Of a segment, from its name."""
    return int(path.name.split("-")[1], 16)


def offset_of(path, lsn):
    return SEGMENT_HEADER_LEN + lsn - first_lsn(path)


def flip(path, offset, mask=0x40):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def sum64(data, seed=0):
    """The checksum of all that is stored (server/base/sum.h)."""
    function = ctypes.CDLL("libxxhash.so.0").XXH3_64bits_withSeed
    function.restype = ctypes.c_uint64
    return function(data, ctypes.c_size_t(len(data)), ctypes.c_uint64(seed))


def put_summed(path, offset, data, seed=0):
    """Writes bytes and, behind them, their sum."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data + struct.pack("<Q", sum64(data, seed)))


def segment_end(path):
    """Where the zeros begin that were allocated ahead."""
    return len(path.read_bytes().rstrip(b"\0"))


def run_server(server, **options):
    """A second process with the options of a server; (exit code, output)."""
    words = [w if w != str(server.port) else str(free_port()) for w in server.command_line()]
    for name, value in options.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=30 * slowness(), cwd=server.dir)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")
