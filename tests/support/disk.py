# SPDX-License-Identifier: BSD-3-Clause
"""Servers whose data directory outlives them, and disks that are slow, broken, full or damaged.

SlowDisk preloads slow_disk.c, which the environment names in DCACHE_SLOW_DISK: fdatasync takes so long, or fails; writes fail.
"""
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

from support.server import BAD_OUTPUT, Server, ServerFailed, free_port

SHIM = os.environ.get("DCACHE_SLOW_DISK", "")
SEGMENT_HEADER_LEN = 4096


class SlowDisk:
    """What the disk of a server does. Changes hold at once, also for a call that is under way."""
    SYNC_MS, SYNC_ERRNO, WRITE_ERRNO, SYNCS = range(4)

    def __init__(self, path):
        path.write_bytes(bytes(mmap.PAGESIZE))
        self.path = path
        with open(path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def _set(self, field, value):
        struct.pack_into("<I", self.page, 4 * field, value)

    def sync_takes(self, seconds):
        self._set(self.SYNC_MS, int(seconds * 1000))

    def sync_fails(self, error=errno.EIO):
        self._set(self.SYNC_ERRNO, error)

    def write_fails(self, error=errno.ENOSPC):
        self._set(self.WRITE_ERRNO, error)

    def heal(self):
        for field in (self.SYNC_MS, self.SYNC_ERRNO, self.WRITE_ERRNO):
            self._set(field, 0)

    def environment(self):
        asan = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        return {**os.environ, "LD_PRELOAD": SHIM, "SLOW_DISK": str(self.path), "ASAN_OPTIONS": asan}


class DiskCase(unittest.TestCase):
    """Tests that kill and start their own servers."""

    def own_server(self, slow=False, **options):
        """A server that may be killed and need not end well; with a SlowDisk as server.disk if asked for."""
        if slow and not Path(SHIM).is_file():
            self.skipTest("DCACHE_SLOW_DISK names no library")
        server = DiskServer(slow, **options)
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
        deadline = time.monotonic() + timeout
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
    def __init__(self, slow=False, **options):
        self.disk = None
        self.slow = slow
        super().__init__(**{"threads": 2, "save": "", **options})

    def start(self):
        if self.slow and self.disk is None:
            self.disk = SlowDisk(self.dir / "slow-disk")
        super().start()

    def popen(self, **kwargs):
        if self.disk is not None:
            kwargs["env"] = self.disk.environment()
        return super().popen(**kwargs)

    def terminate(self):
        """An orderly end."""
        self.process.send_signal(signal.SIGTERM)
        code = self.wait()
        if code != 0:
            raise ServerFailed("exit code %d\n%s" % (code, self.output()[-4000:]))

    def discard(self):
        self.kill()
        bad = BAD_OUTPUT.search(self.output())
        shutil.rmtree(self.dir, ignore_errors=True)
        if bad:
            raise ServerFailed(bad.group(0))

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


def segment_end(path):
    """Where the zeros begin that were allocated ahead."""
    return len(path.read_bytes().rstrip(b"\0"))


def run_server(server, **options):
    """A second process with the options of a server; (exit code, output)."""
    words = [w if w != str(server.port) else str(free_port()) for w in server.command_line()]
    for name, value in options.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, cwd=server.dir)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")
