#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does BACKUP copy what a restart needs, and does dcache-restore bring back what was there: all, to a point, in part, what
is left of damaged files?"""
import hashlib
import json
import os
import random
import re
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import flushes  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.resp import Error  # noqa: E402
from support.server import Server, ServerFailed, server_binary, temp_dir  # noqa: E402

TOOL = str(Path(server_binary()).parent / "dcache-restore")
SNAP_HEADER_LEN = 112
SEGMENT_HEADER_LEN = 4096
SEGMENT_MARK_AT, SEGMENT_MARK_LEN = 512, 24
DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3


def run_tool(*args, **kwargs):
    return subprocess.run([TOOL, *map(str, args)], capture_output=True, text=True, timeout=60 * slowness(), **kwargs)


def digest(folder):
    """Names and contents of a directory."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def now_ms():
    return int(time.time() * 1000)


class RestoreCase(unittest.TestCase):
    def setUp(self):
        self.folder = temp_dir(self)

    def start(self, folder=None, **options):
        options = {"threads": 2, "save": "", **options}
        server = Server(**options, **({"dir": folder} if folder else {}))
        self.addCleanup(server.stop)
        return server

    def connect(self, server, **kwargs):
        conn = server.connect(**kwargs)
        self.addCleanup(conn.close)
        return conn

    def serve(self, folder, **options):
        """A connection to a server on a directory."""
        return self.connect(self.start(folder, **options))

    def restore(self, *args, code=DONE):
        """Runs the tool; its report."""
        done = run_tool("--json", "--quiet", *args)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return json.loads(done.stdout) if done.stdout else done.stderr

    def content(self, conn):
        """Everything in the current database: {key: value}."""
        found, cursor = {}, None
        while cursor != b"0":
            cursor, keys = conn.ok("SCAN", cursor or 0, "COUNT", 10000)
            found.update(zip(keys, conn.ok("MGET", *keys) if keys else []))
        return found

    def killed(self, server):
        """The data directory of a server that has just been killed."""
        server.kill()
        kept = self.folder / "killed"
        shutil.copytree(server.dir, kept)
        server.process.returncode = 0  # that is how it was to end
        return kept


class Restore(RestoreCase):
    def test_to_an_lsn_between_two_writes(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "k", "first")
        lsn = conn.ok("LASTVER")
        conn.ok("SET", "k", "second")
        conn.ok("SET", "late", 1)
        said = self.restore("--to-lsn", lsn, server.dir, self.folder / "t")
        self.assertEqual(said["reached_lsn"], str(lsn))
        self.assertTrue(said["in_use"])
        self.assertGreater(int(said["behind_bytes"]), 0)
        self.assertEqual(self.content(self.serve(self.folder / "t")), {b"k": b"first"})

    def test_an_lsn_in_the_middle_of_a_transaction(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "a", 1)
        before = conn.ok("LASTVER")
        conn.pipeline([("MULTI",), ("SET", "a", 2), ("SET", "b", 2), ("EXEC",)])
        said = self.restore("--to-lsn", conn.ok("LASTVER") - 1, server.dir, self.folder / "t")
        self.assertEqual(said["reached_lsn"], str(before))
        self.assertEqual(self.content(self.serve(self.folder / "t")), {b"a": b"1"})

    def test_to_a_time_between_two_writes(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "k", "first")
        time.sleep(0.1)
        between = now_ms()
        time.sleep(0.1)
        conn.ok("FLUSHALL")
        conn.ok("SET", "k", "second")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(between // 1000)) + ".%03d" % (between % 1000)
        reached = {self.restore("--to-time", text, server.dir, self.folder / str(number))["reached_lsn"]
                   for number, text in enumerate((between, stamp + "Z", stamp + "+00:00", stamp))}
        self.assertEqual(len(reached), 1)
        self.assertEqual(self.content(self.serve(self.folder / "1")), {b"k": b"first"})

    def test_a_point_before_the_first_snapshot_is_refused_with_what_can_be_had(self):
        server = self.start(log_segment_size="1mb", snapshot_keep=2)
        conn = self.connect(server)
        conn.ok("SET", "k", 1)
        lsn = conn.ok("LASTVER")
        for _ in range(3):
            for i in range(4):
                conn.ok("SET", "big%d" % i, "x" * 600000)
            conn.ok("SAVE")
        self.assertTrue(self.gone(server, lsn), "retention leaves the first segment")
        said = self.restore("--to-lsn", lsn, server.dir, self.folder / "t", code=FAILED)
        self.assertRegex(said, r"The oldest snapshot allows LSN \d+")
        self.assertEqual(list(self.folder.iterdir()), [])

    def gone(self, server, lsn):
        deadline = time.monotonic() + 10 * slowness()
        while time.monotonic() < deadline:
            if all(int(p.name.split("-")[1], 16) > lsn for p in server.dir.glob("log-*")):
                return True
            time.sleep(0.05)
        return False

    def test_by_pattern_and_keyspace(self):
        server = self.start()
        conn = self.connect(server)
        conn.pipeline([("SET", "session:%d" % i, i) for i in range(20)] + [("SET", "user:%d" % i, i) for i in range(10)])
        conn.pipeline([("SELECT", 5), ("SET", "session:x", "five"), ("SET", "other", "five")])
        said = self.restore("--match", "session:*", server.dir, self.folder / "a")
        self.assertEqual((said["entries"], said["left_out"]), (21, 11))
        self.restore("--keyspace", 5, server.dir, self.folder / "b")
        self.restore("--keyspace", 5, "--match", "session:*", server.dir, self.folder / "c")
        first = self.serve(self.folder / "a")
        self.assertEqual(self.content(first), {b"session:%d" % i: b"%d" % i for i in range(20)})
        second = self.serve(self.folder / "b")
        self.assertEqual(second.ok("DBSIZE"), 0)
        second.ok("SELECT", 5)
        self.assertEqual(self.content(second), {b"session:x": b"five", b"other": b"five"})
        self.assertEqual(self.restore("--dry-run", self.folder / "c")["entries"], 1)

    def test_the_system_keyspace_belongs_to_the_whole(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "k", 1)
        conn.ok("FLUSHALL")
        conn.ok("SET", "k", 2)
        conn.ok("SET", "other", 2)
        flushed = flushes(conn)
        self.assertEqual(list(flushed), [0])

        def told(name, *options):
            said = self.restore(*options, server.dir, self.folder / name)
            conn = self.serve(self.folder / name)
            return said["system"], said["entries"], said["left_out"], flushes(conn), self.content(conn)
        both = {b"k": b"2", b"other": b"2"}
        conn.ok("BACKUP", self.folder / "backup")
        self.assertEqual(flushes(self.serve(self.folder / "backup")), flushed)
        self.assertEqual(told("all"), (1, 2, 0, flushed, both))
        self.assertEqual(told("same", "--keep-identity"), (1, 2, 0, flushed, both))
        self.assertEqual(told("repaired", "--repair"), (1, 2, 0, flushed, both))
        self.assertEqual(told("some", "--match", "k"), (0, 1, 1, {}, {b"k": b"2"}))
        self.assertEqual(told("one", "--keyspace", 0), (0, 2, 0, {}, both))
        self.assertEqual(told("it", "--keyspace", "system"), (1, 0, 2, flushed, {}))
        self.assertEqual(told("none", "--keyspace", "system", "--match", "x"), (0, 0, 2, {}, {}))
        there = self.start()
        said = self.restore("--push", "127.0.0.1:%d" % there.port, server.dir)
        self.assertEqual((said["taken"], said["system"], said["left_out"]), (2, 0, 0))
        conn = self.connect(there)
        self.assertEqual(self.content(conn), both)
        self.assertEqual(flushes(conn), {})

    def test_every_kind_of_value_with_its_version(self):
        server = self.start()
        conn = self.connect(server)
        values = {b"int": b"-12345678901", b"empty": b"", b"bytes": bytes(range(256)), b"blob": os.urandom(300000),
                  b"long" * 300: b"key"}
        conn.pipeline([("SET", k, v) for k, v in values.items()])
        conn.ok("SETRANGE", "raw", 5, "tail")
        conn.ok("EXPIRE", "int", 1000)
        conn.ok("BGSAVE")
        values[b"raw"] = b"\0" * 5 + b"tail"
        versions = {k: conn.ok("GETVER", k)[1] for k in values}
        self.restore(server.dir, self.folder / "t")
        again = self.serve(self.folder / "t")
        self.assertEqual(self.content(again), values)
        self.assertEqual({k: again.ok("GETVER", k)[1] for k in values}, versions)
        self.assertAlmostEqual(again.ok("TTL", "int"), 1000, delta=60)

    def test_new_identity_or_the_same(self):
        server = self.start()
        self.connect(server).ok("SET", "k", 1)
        old = self.restore("--dry-run", server.dir)["node"]
        self.restore(server.dir, self.folder / "new")
        self.restore("--keep-identity", server.dir, self.folder / "same")
        self.assertNotEqual(self.restore("--dry-run", self.folder / "new")["node"], old)
        self.assertEqual(self.restore("--dry-run", self.folder / "same")["node"], old)
        for name in ("new", "same"):
            conn = self.serve(self.folder / name)
            conn.ok("SET", "more", 2)
            self.assertGreater(conn.ok("GETVER", "more")[1], conn.ok("GETVER", "k")[1])

    def test_a_killed_node(self):
        server = self.start()
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, i) for i in range(1000)])
        kept = self.killed(server)
        before = digest(kept)
        self.assertEqual(self.restore(kept, self.folder / "t")["entries"], 1000)
        self.assertEqual(digest(kept), before)
        self.assertEqual(self.serve(self.folder / "t").ok("DBSIZE"), 1000)

    def test_what_a_restored_node_writes_survives_its_restart(self):
        server = self.start()
        self.connect(server).ok("SET", "old", 1)
        self.restore(server.dir, self.folder / "t")
        second = self.start(self.folder / "t")
        self.connect(second).ok("SET", "new", 2)
        second.process.terminate()
        self.assertEqual(second.wait(), 0)
        self.assertEqual(self.content(self.serve(self.folder / "t")), {b"old": b"1", b"new": b"2"})


class Ttl(RestoreCase):
    """H37, an old image: what had a minute to live then has a minute to live now."""

    def setUp(self):
        super().setUp()
        self.server = self.start()

    def write(self, short_ms=1500):
        """Entries of several lifetimes, of which the shortest two are over when it returns."""
        conn = self.connect(self.server)
        conn.pipeline([("SET", "short", 1, "PX", short_ms), ("SET", "long", 1, "EX", 600), ("SET", "ever", 1),
                       ("SET", "over", 1, "PX", 1)])
        time.sleep(0.05)
        conn.ok("SET", "last", 1)
        self.lsn = conn.ok("LASTVER")
        time.sleep(short_ms / 1000 + 0.2)
        conn.ok("FLUSHALL")

    def test_h37_shifted_by_default_and_said_in_the_dry_run(self):
        short_ms = int(3000 * slowness(at_most=5))  # a tool and a start must fit in
        self.write(short_ms)
        said = self.restore("--dry-run", "--to-lsn", self.lsn, self.server.dir)
        self.assertGreater(said["ttl_shift_ms"], short_ms)
        self.assertEqual((said["ttl_shifted"], said["would_expire"], said["expired"]), (2, 1, 1))
        text = run_tool("--dry-run", "--to-lsn", self.lsn, self.server.dir).stdout
        self.assertRegex(text, r"(?m)^ttl_shift +\d+\.\d+ s later, 2 entries$")
        self.restore("--to-lsn", self.lsn, self.server.dir, self.folder / "t")
        conn = self.serve(self.folder / "t")
        self.assertEqual(sorted(conn.ok("KEYS", "*")), [b"ever", b"last", b"long", b"short"])
        self.assertGreater(conn.ok("PTTL", "long"), 540000)
        self.assertLessEqual(conn.ok("PTTL", "short"), short_ms)

    def test_h37_not_shifted_when_that_is_asked_for(self):
        self.write()
        said = self.restore("--shift-ttl", "no", "--to-lsn", self.lsn, self.server.dir, self.folder / "t")
        self.assertEqual((said["ttl_shift_ms"], said["expired"]), (0, 2))
        conn = self.serve(self.folder / "t")
        self.assertEqual(sorted(conn.ok("KEYS", "*")), [b"ever", b"last", b"long"])
        self.assertLess(conn.ok("PTTL", "long"), 598500)

    def test_the_present_of_a_running_node_is_no_old_image(self):
        self.write()
        with self.server.connect() as conn:
            conn.ok("SET", "k", 1, "EX", 100)
        time.sleep(1.2)
        self.assertEqual(self.restore("--dry-run", self.server.dir)["ttl_shift_ms"], 0)
        self.assertGreater(self.restore("--dry-run", "--shift-ttl", "yes", self.server.dir)["entries"], 0)

    def test_h37_also_when_what_is_behind_the_point_is_damaged(self):
        with self.server.connect() as conn:
            conn.ok("SAVE")
            self.write()
            conn.ok("SET", "behind", 1)
            conn.ok("BACKUP", self.folder / "b")
        point = ("--dry-run", "--to-lsn", self.lsn, self.folder / "b")
        whole = self.restore(*point)
        self.assertEqual((whole["entries"], whole["expired"], whole["ttl_shifted"]), (4, 1, 2))
        self.assertGreater(int(whole["behind_bytes"]), 0)
        (segment,) = (self.folder / "b").glob("log-*")
        flip(segment, segment.stat().st_size - 10)
        said = self.restore(*point, code=PARTLY)
        self.assertRegex(said.pop("behind"), r"^not readable: .*%s is damaged at offset \d+" % segment.name)
        self.assertGreaterEqual(said.pop("ttl_shift_ms"), whole.pop("ttl_shift_ms"))
        del whole["behind_bytes"], whole["behind_until"]
        self.assertEqual(said, whole)
        self.assertRegex(run_tool(*point).stdout, r"(?m)^behind +not readable: ")
        self.restore(*point[1:], self.folder / "t", code=PARTLY)
        self.assertEqual(sorted(self.serve(self.folder / "t").ok("KEYS", "*"))[:3], [b"ever", b"last", b"long"])

    def test_a_backup_that_lost_its_end_is_as_old_as_the_point(self):
        self.write()
        with self.server.connect() as conn:
            conn.ok("BACKUP", self.folder / "b")
        (segment,), (snapshot,) = ((self.folder / "b").glob(names) for names in ("log-*", "snap-*"))
        snapshot.unlink()
        first = int(segment.name.split("-")[1], 16)
        os.truncate(segment, SEGMENT_HEADER_LEN + self.lsn - first)
        with open(segment, "r+b") as file:  # without its mark the file looks whole
            file.seek(SEGMENT_MARK_AT)
            file.write(bytes(SEGMENT_MARK_LEN))
        said = self.restore("--dry-run", "--to-lsn", self.lsn, self.folder / "b", code=PARTLY)
        self.assertEqual((said["entries"], said["expired"]), (4, 1))
        self.assertIn("promises everything up to LSN", said["behind"])

    def test_a_backup_is_as_old_as_it_says(self):
        self.write()
        with self.server.connect() as conn:
            conn.ok("SET", "k", 1, "EX", 100)
            time.sleep(1.2)  # without a write: not the last frame tells the time, but the backup
            start = time.monotonic()
            conn.ok("BACKUP", self.folder / "b")
        shift_ms = self.restore("--dry-run", self.folder / "b")["ttl_shift_ms"]
        self.assertLess(shift_ms, 1000 * (time.monotonic() - start) + 100)


class DryRun(RestoreCase):
    def test_writes_nothing_and_tells(self):
        server = self.start()
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, "v" * 10) for i in range(100)])
        lsn = conn.ok("LASTVER")
        conn.ok("SET", "behind", "x" * 1000)
        said = self.restore("--dry-run", "--to-lsn", lsn, server.dir, self.folder / "t")
        self.assertTrue(said["dry_run"])
        self.assertEqual((said["entries"], said["bytes"], said["frames"]), (100, 10 * 2 + 90 * 3 + 1000, 101))
        self.assertGreater(int(said["behind_bytes"]), 1000)
        self.assertTrue(said["behind_until"].endswith("Z"))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_torn_tail_is_told(self):
        server = self.start()
        self.connect(server).pipeline([("SET", "k%d" % i, i) for i in range(100)])
        kept = self.killed(server)
        segment = sorted(kept.glob("log-*"))[-1]
        data = segment.read_bytes().rstrip(b"\0")
        with open(segment, "r+b") as file:
            file.seek(len(data) + 8)
            file.write(b"garbage")
        said = self.restore("--dry-run", kept)
        self.assertEqual(said["entries"], 100)
        self.assertGreater(said["cut_bytes"], 6)
        self.assertIn(segment.name, said["notes"])

    def test_the_text_for_people_has_a_line_for_each_fact(self):
        server = self.start()
        self.connect(server).ok("SET", "k", 1)
        text = run_tool("--dry-run", server.dir).stdout
        for word in ("source", "snapshot", "reached", "behind", "cut", "entries", "bytes", "expired", "ttl_shift"):
            self.assertRegex(text, r"(?m)^%s\b" % word)


class CommandLine(RestoreCase):
    def test_help_names_every_option_and_every_status(self):
        text = run_tool("--help").stdout
        for word in ("NAME", "SYNOPSIS", "EXIT STATUS", "EXAMPLES", "--to-lsn", "--to-time", "--match", "--keyspace",
                     "--shift-ttl", "--keep-identity", "--dry-run", "--repair", "--push", "--replace",
                     "--password-file", "--json", "--quiet"):
            self.assertIn(word, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 92)
        self.assertEqual(run_tool("--version").returncode, DONE)

    def test_wrong_usage(self):
        for words in ([], ["a"], ["a", "b", "c"], ["--no-such", "a", "b"], ["--to-lsn", "x", "a", "b"],
                      ["--to-lsn", "0", "a", "b"], ["--to-time", "yesterday", "a", "b"],
                      ["--to-time", "2026-02-30T00:00:00Z", "a", "b"], ["--keyspace", "16", "a", "b"],
                      ["--keyspace", "65535", "a", "b"], ["--push", "h:1", "--keyspace", "system", "a"],
                      ["--shift-ttl", "maybe", "a", "b"], ["--push", "h:1", "a", "b"], ["--replace", "a", "b"],
                      ["--to-lsn", "5", "--to-time", "5", "a", "b"],
                      ["--push", "", "a"], ["--push", "h", "a"], ["--push", ":1", "a"], ["--push", "h:", "a"],
                      ["--push", "h:0", "a"], ["--push", "h:-1", "a"], ["--push", "127.0.0.1:65536", "a"]):
            done = run_tool(*words)
            self.assertEqual(done.returncode, USAGE, words)
            self.assertIn("--help", done.stderr)

    def test_a_target_that_is_in_use_and_a_source_that_is_none(self):
        server = self.start()
        self.connect(server).ok("SET", "k", 1)
        full = self.folder / "full"
        full.mkdir()
        (full / "file").write_text("x")
        self.assertIn("isn't empty", self.restore(server.dir, full, code=FAILED))
        self.assertIn("No such file", self.restore(self.folder / "nosuch", self.folder / "t", code=FAILED))
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn("no snapshot and no log", self.restore(empty, self.folder / "t", code=FAILED))
        self.restore(server.dir, str(empty) + "/")
        self.assertEqual(self.restore("--dry-run", empty)["entries"], 1)


class Repair(RestoreCase):
    def saved(self, saves, **options):
        """A stopped node's directory with this many snapshots, and what was in it."""
        server = self.start(self.folder / "data", snapshot_block_size="4kb", **options)
        conn = self.connect(server)
        for number in range(saves):
            conn.pipeline([("SET", "k%d" % i, "%d:%d" % (number, i)) for i in range(number * 100, 2000)])
            conn.ok("DEL", "k%d" % number)
            conn.ok("SAVE")
        conn.pipeline([("SET", "late%d" % i, i) for i in range(10)])
        conn.ok("INCR", "late5")
        content = self.content(conn)
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        return self.folder / "data", content

    def repair(self, source, code=PARTLY):
        before = digest(source)
        said = self.restore("--repair", source, self.folder / "t", code=code)
        self.assertEqual(digest(source), before, "the originals were touched")
        return said, self.content(self.serve(self.folder / "t"))

    def test_what_is_whole_is_copied(self):
        source, content = self.saved(1)
        said, found = self.repair(source, code=DONE)
        self.assertEqual((said["damages"], found), (0, content))

    def test_a_flipped_block_costs_its_entries(self):
        source, content = self.saved(1)
        flip(next(source.glob("snap-*")), SNAP_HEADER_LEN + 100)
        for path in source.glob("log-*"):  # else the log has it all
            if int(path.name.split("-")[1], 16) == 1 << 20:
                flip(path, SEGMENT_HEADER_LEN + 500)
        said, found = self.repair(source)
        self.assertIn("block", " ".join(said["damage"]))
        self.assertGreater(said["entries_lost"], 10)
        self.assertLess(said["entries_lost"], 500)
        self.assertLessEqual(found.items(), content.items())
        self.assertGreaterEqual(len(found), len(content) - said["entries_lost"])

    def test_what_a_flipped_block_held_comes_from_the_older_snapshot_and_the_log(self):
        source, content = self.saved(3)
        newest = sorted(source.glob("snap-*"))[-1]
        for offset in range(SNAP_HEADER_LEN + 100, newest.stat().st_size // 2, 9000):
            flip(newest, offset)
        said, found = self.repair(source)
        self.assertGreater(said["damages"], 0)
        self.assertGreater(said["entries_older"], 0)
        self.assertEqual(said["entries_lost"], 0)
        self.assertEqual(found, content)

    def test_a_flipped_block_of_the_system_keyspace(self):
        source = self.folder / "data"
        server = self.start(source)
        conn = self.connect(server)
        conn.ok("SET", "k", 1)
        conn.ok("FLUSHALL")
        conn.ok("SET", "k", 2)
        conn.ok("SAVE")
        flushed = flushes(conn)
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        newest = next(source.glob("snap-*"))
        content = newest.read_bytes()
        footer = struct.unpack_from("<Q", content, len(content) - 16)[0]
        index, blocks = struct.unpack_from("<QQ", content, footer)
        last = struct.unpack_from("<QIIIIHBBQ", content, index + 36 * (blocks - 1))
        self.assertEqual(last[5], 0xffff)
        flip(newest, last[0] + 40)
        (segment,) = source.glob("log-*")
        aside = shutil.move(segment, self.folder)
        with self.assertRaises(ServerFailed) as failed:
            self.start(source)
        self.assertIn("the system keyspace can't be loaded", str(failed.exception))
        self.assertIn("dcache-restore --repair %s" % source, str(failed.exception))
        said, found = self.repair(source)
        self.assertIn("1 entries of the system keyspace", " ".join(said["damage"]))
        self.assertEqual((said["entries_lost"], said["system"], found), (1, 0, {b"k": b"2"}))
        # With the log behind it nothing is lost.
        shutil.move(aside, source)
        shutil.rmtree(self.folder / "t")
        said, found = self.repair(source)
        self.assertEqual((said["system"], found), (1, {b"k": b"2"}))
        self.assertEqual(flushes(self.serve(source)), flushed)

    def test_a_snapshot_without_its_end(self):
        source, content = self.saved(1)
        snapshot = next(source.glob("snap-*"))
        os.truncate(snapshot, snapshot.stat().st_size - 100)
        said, found = self.repair(source)
        self.assertIn("made anew", " ".join(said["damage"]))
        self.assertEqual(found, content)

    def test_it_is_mended_where_there_is_room_for_the_target(self):
        source, content = self.saved(1)
        snapshot = next(source.glob("snap-*"))
        os.truncate(snapshot, snapshot.stat().st_size - 100)
        for path in source.glob("log-*"):
            if int(path.name.split("-")[1], 16) == 1 << 20:
                path.unlink()  # the snapshot has it
        elsewhere = dict(os.environ, TMPDIR=str(self.folder / "nosuch"))
        done = run_tool("--json", "--repair", source, str(self.folder / "t") + "/", env=elsewhere)
        self.assertEqual(done.returncode, PARTLY, done.stderr)
        self.assertIn("made anew", done.stdout)
        self.assertLessEqual({k: v for k, v in content.items() if k[:1] == b"k"}.items(),
                             self.content(self.serve(self.folder / "t")).items())
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["data", "t"])

    def test_without_that_room_there_is_no_target(self):
        source, _ = self.saved(1)
        snapshot = next(source.glob("snap-*"))
        os.truncate(snapshot, snapshot.stat().st_size - 100)
        limit = snapshot.stat().st_size // 2
        done = run_tool("--repair", "--match", "late*", source, self.folder / "t", restore_signals=False,
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assertEqual(done.returncode, FAILED, done.stdout)
        self.assertRegex(done.stderr, r"temporary file .*/t\.mended-\w+: File too large")
        self.assertEqual([p.name for p in self.folder.iterdir()], ["data"])

    def test_a_flipped_frame_is_passed_over_by_the_command_that_the_server_names(self):
        server = self.start(self.folder / "data")
        conn = self.connect(server)
        ends = {}
        for i in range(100):
            conn.ok("SET", "k%d" % i, "v" * 50)
            ends[i] = conn.ok("LASTVER")
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        source = self.folder / "data"
        segment = next(source.glob("log-*"))
        first = int(segment.name.split("-")[1], 16)
        flip(segment, SEGMENT_HEADER_LEN + ends[50] - first - 10)
        with self.assertRaises(ServerFailed) as refused:
            Server(threads=1, dir=source)
        self.assertIn("dcache-restore --repair", str(refused.exception))
        said, found = self.repair(source)
        self.assertEqual(len(found), 99)
        self.assertNotIn(b"k50", found)
        self.assertIn("no valid frame at offset %d" % (SEGMENT_HEADER_LEN + ends[49] - first), said["damage"][0])

    def test_a_flipped_header_of_a_segment(self):
        source, content = self.saved(0)
        flip(next(source.glob("log-*")), 50)
        if not list(source.glob("snap-*")):
            said = self.restore("--repair", source, self.folder / "t", code=FAILED)
            self.assertIn("no segment has a good header", said)
        source2 = self.folder / "data2"
        server = self.start(source2)
        conn = self.connect(server)
        conn.ok("SET", "a", 1)
        conn.ok("SAVE")
        conn.ok("SET", "b", 2)
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        flip(next(source2.glob("log-*")), 50)
        said, found = self.repair(source2)
        self.assertEqual(found, {b"a": b"1", b"b": b"2"})
        self.assertTrue(content)

    def test_wherever_a_bit_is_flipped_no_wrong_value_comes_out(self):
        source, content = self.saved(2)
        now = content  # a lost DEL, or an older value where the newest is lost, is no wrong value
        ever = {b"k%d" % i: {b"0:%d" % i, b"1:%d" % i} for i in range(2000)}
        ever.update({b"late%d" % i: {b"%d" % i, b"%d" % (i + 1)} for i in range(10)})
        rng = random.Random(1)
        for number in range(int(os.environ.get("DCACHE_TEST_FLIPS", 12))):
            damaged = self.folder / ("damaged%d" % number)
            shutil.copytree(source, damaged)
            files = sorted(damaged.glob("snap-*")) + sorted(damaged.glob("log-*"))
            for _ in range(1 + number % 3):
                path = rng.choice(files)
                used = len(path.read_bytes().rstrip(b"\0"))
                flip(path, rng.randrange(used))
            done = run_tool("--json", "--repair", damaged, self.folder / ("t%d" % number))
            self.assertIn(done.returncode, (DONE, PARTLY), done.stderr)
            with Server(threads=1, dir=self.folder / ("t%d" % number), save="") as server, server.connect() as conn:
                for key, value in self.content(conn).items():
                    self.assertIn(value, ever[key] | {now.get(key)}, (number, key))

    def test_changes_of_what_is_lost_are_counted(self):
        source = self.folder / "data"
        server = self.start(source, snapshot_block_size="4kb")
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, i) for i in range(2000)])
        conn.ok("SAVE")
        lsn = conn.ok("LASTVER")
        conn.pipeline([("EXPIRE", "k%d" % i, 10000) for i in range(2000)])
        conn.ok("SET", "late", "x" * 100)
        late = conn.ok("LASTVER")
        conn.pipeline([("SETRANGE", "late", 1, "y"), ("EXPIRE", "late", 10000)])
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        self.assertEqual(self.restore("--dry-run", "--repair", source)["effects_lost"], 0)
        flip(next(source.glob("snap-*")), SNAP_HEADER_LEN + 100)
        (segment,) = source.glob("log-*")
        first = int(segment.name.split("-")[1], 16)
        with open(segment, "r+b") as file:
            file.seek(SEGMENT_HEADER_LEN)
            file.write(b"x" * (lsn - first))  # what is in the snapshot
        flip(segment, SEGMENT_HEADER_LEN + late - first - 10)
        said, found = self.repair(source)
        self.assertGreater(said["entries_lost"], 10)
        self.assertEqual(said["effects_lost"], said["entries_lost"] + 2)
        self.assertEqual((len(found), said["frames"]), (2000 - said["entries_lost"], 2003))

    def test_to_a_point_with_what_a_flipped_block_held(self):
        source = self.folder / "data"
        server = self.start(source, snapshot_block_size="4kb")
        conn = self.connect(server)
        for number in range(2):
            conn.pipeline([("SET", "k%d" % i, "%d:%d" % (number, i)) for i in range(1000)])
            conn.ok("SAVE")
        conn.ok("SET", "late", 1)
        lsn = conn.ok("LASTVER")
        content = self.content(conn)
        conn.ok("SET", "late", 2)
        end = conn.ok("LASTVER")
        server.kill()
        server.process.returncode = 0  # that is how it was to end
        flip(sorted(source.glob("snap-*"))[-1], SNAP_HEADER_LEN + 100)
        said = self.restore("--repair", "--to-lsn", lsn, source, self.folder / "t", code=PARTLY)
        self.assertEqual((said["reached_lsn"], said["behind_bytes"]), (str(lsn), str(end - lsn)))
        self.assertTrue(said["behind_until"])
        self.assertEqual(self.content(self.serve(self.folder / "t")), content)

    def test_a_repaired_node_keeps_its_identity(self):
        source, _ = self.saved(1)
        node = self.restore("--dry-run", source)["node"]
        said, _ = self.repair(source, code=DONE)
        self.assertEqual((said["node"], self.restore("--dry-run", self.folder / "t")["node"]), (node, node))


class Push(RestoreCase):
    def setUp(self):
        super().setUp()
        self.values = {b"k%d" % i: b"v%d" % i for i in range(3000)}
        self.values.update({b"blob": os.urandom(200000), b"int": b"77", b"crlf": b"a\r\nb"})
        server = self.start()
        conn = self.connect(server)
        conn.pipeline([("SET", k, v) for k, v in self.values.items()])
        conn.pipeline([("EXPIRE", "int", 500), ("SELECT", 3), ("SET", "three", 3)])
        conn.ok("BACKUP", self.folder / "b")

    def test_into_a_running_node(self):
        server = self.start(requirepass="secret word")
        conn = self.connect(server)
        conn.ok("AUTH", "secret word")
        secret = self.folder / "secret"
        secret.write_text("secret word\n")
        where = "127.0.0.1:%d" % server.port
        refused = self.restore("--push", where, self.folder / "b", code=FAILED)
        self.assertIn("NOAUTH", refused)
        for path, why in ((self.folder / "nosuch", "No such file"), (self.folder, "Is a directory"), ("/dev/null", "it is empty")):
            said = self.restore("--push", where, "--password-file", path, self.folder / "b", code=FAILED)
            self.assertIn("%s: %s" % (path, why), said)
        said = self.restore("--push", where, "--password-file", secret, self.folder / "b")
        self.assertEqual((said["taken"], said["refused"], said["existing"]), (len(self.values) + 1, 0, 0))
        self.assertEqual(self.content(conn), self.values)
        self.assertAlmostEqual(conn.ok("TTL", "int"), 500, delta=60)
        conn.ok("SELECT", 3)
        self.assertEqual(self.content(conn), {b"three": b"3"})

    def push_through_a_gate(self, server, shut, *words):
        """Of a push to a node that takes nothing for so many seconds after the connection: its status, standard output and error."""
        with socket.create_server(("127.0.0.1", 0)) as gate, socket.create_connection(server.address) as there:
            gate.settimeout(20 * slowness())
            tool = subprocess.Popen([TOOL, "--json", *words, "--push", "127.0.0.1:%d" % gate.getsockname()[1], self.folder / "b"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.addCleanup(tool.kill)
            here, _ = gate.accept()
            time.sleep(shut)
            with here:
                other, open_yet = {here: there, there: here}, True
                while open_yet and (ready := select.select([here, there], [], [], 20 * slowness())[0]):
                    for side in ready:
                        data = side.recv(1 << 16)
                        other[side].sendall(data)
                        open_yet = open_yet and len(data) > 0
            out, told = tool.communicate(timeout=20 * slowness())
            return tool.returncode, out, told

    def test_progress_is_told_once_a_second(self):
        code, out, told = self.push_through_a_gate(self.start(), 1.2)
        count = len(self.values) + 1
        self.assertEqual((code, json.loads(out)["taken"]), (DONE, count))
        shown = re.findall(r"(?m)^(\d+) of (\d+) entries \((\d+) %\), \d+/s, \d+ s left, 0 refused$", told)
        self.assertEqual(len(shown), told.count("\n"), told)
        self.assertGreaterEqual(len(shown), 2, told)
        self.assertEqual({int(all_of_them) for _, all_of_them, _ in shown}, {count})
        self.assertTrue(0 < int(shown[0][0]) < count, told)
        self.assertEqual((int(shown[-1][0]), shown[-1][2]), (count, "100"))

    def test_quietly_no_progress_is_told(self):
        code, _, told = self.push_through_a_gate(self.start(), 1.2, "--quiet")
        self.assertEqual((code, told), (DONE, ""))

    def test_what_is_there_stays_unless_it_is_to_be_replaced(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "k7", "mine")
        where = "127.0.0.1:%d" % server.port
        said = self.restore("--push", where, "--match", "k?", self.folder / "b", code=PARTLY)
        self.assertEqual((said["taken"], said["existing"]), (9, 1))
        self.assertEqual(conn.ok("GET", "k7"), b"mine")
        self.restore("--push", where, "--match", "k?", "--replace", self.folder / "b")
        self.assertEqual(conn.ok("GET", "k7"), b"v7")

    def test_nobody_is_there(self):
        said = self.restore("--push", "127.0.0.1:1", self.folder / "b", code=FAILED)
        self.assertIn("connect to 127.0.0.1:1", said)

    def test_refused_keys_are_counted(self):
        server = self.start(databases=2, maxmemory="1", maxmemory_policy="noeviction")
        said = self.restore("--push", "127.0.0.1:%d" % server.port, "--keyspace", 0, self.folder / "b", code=PARTLY)
        self.assertEqual(said["taken"] + said["refused"], len(self.values))
        self.assertGreater(said["refused"], len(self.values) // 2)
        self.assertIn("OOM", said["first_error"])


class Backup(RestoreCase):
    def manifest(self, folder):
        return json.loads((folder / "backup.json").read_text())

    def check_files(self, folder):
        """Exactly the files of the manifest, with their lengths."""
        files = {f["name"]: f["bytes"] for f in self.manifest(folder)["files"]}
        there = {p.name: p.stat().st_size for p in folder.iterdir() if p.name != "backup.json"}
        self.assertEqual(there, files)
        return files

    def test_a_server_starts_on_it_and_has_everything(self):
        server = self.start(log_segment_size="1mb")
        conn = self.connect(server)
        conn.ok("SET", "before", 1)
        conn.ok("SAVE")
        for i in range(30):
            conn.ok("SET", "k%d" % i, os.urandom(100000))
        lsn = conn.ok("BACKUP", self.folder / "b")
        self.assertEqual(lsn, conn.ok("LASTVER"))
        content = self.content(conn)
        conn.ok("SET", "after", 1)
        files = self.check_files(self.folder / "b")
        self.assertGreater(len(files), 3)
        self.assertEqual(self.manifest(self.folder / "b")["lsn"], str(lsn))
        closed = [p for p in (self.folder / "b").glob("log-*") if p.stat().st_nlink > 1]
        self.assertEqual(len(closed), len(list((self.folder / "b").glob("log-*"))) - 1)
        self.assertEqual(self.content(self.serve(self.folder / "b")), content)

    def test_under_load(self):
        server = self.start(log_segment_size="1mb")
        stop = threading.Event()
        acked = [0] * 4
        errors = []

        def write(number):
            try:
                with server.connect() as conn:
                    n = 0
                    while not stop.is_set():
                        conn.pipeline([("SET", "w%d:%d" % (number, n + i), n + i) for i in range(50)])
                        n += 50
                        acked[number] = n
                        time.sleep(0.005)  # as many keys on a fast machine as on a slow one
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)
        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        promised = []
        with server.connect(timeout=30) as conn:
            for number, words in enumerate(([], ["FRESH"], [])):
                before = list(acked)
                lsn = conn.ok("BACKUP", self.folder / str(number), *words)
                promised.append((before, lsn, list(acked)))
                time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        server.stop()
        for number, (before, lsn, after) in enumerate(promised):
            self.check_files(self.folder / str(number))
            self.assertEqual(self.restore("--dry-run", self.folder / str(number))["reached_lsn"], str(lsn))
            second = self.start(self.folder / str(number))
            conn = self.connect(second)
            content = self.content(conn)
            for writer in range(4):
                mine = sorted(int(v) for k, v in content.items() if k.startswith(b"w%d:" % writer))
                self.assertEqual(mine, list(range(len(mine))), "a write is missing before one that is there")
                self.assertGreaterEqual(len(mine), before[writer])
                self.assertLessEqual(len(mine), after[writer] + 50)
            second.stop()

    def test_other_connections_of_the_worker_go_on(self):
        server = self.start(threads=1)
        conn, other = self.connect(server, timeout=30), self.connect(server)
        for i in range(20):
            conn.ok("SET", "k%d" % i, os.urandom(5000000))
        conn.send("BACKUP", self.folder / "b", "FRESH")
        conn.send("PING")
        slowest = 0
        while not (replies := conn.drain()):
            began = time.monotonic()
            other.ok("PING")
            slowest = max(slowest, time.monotonic() - began)
        self.assertGreater(int(replies[0][1:]), 0)
        self.assertLess(slowest, 2.0 * slowness())
        self.assertEqual(replies[1] if len(replies) > 1 else conn.read_raw(), b"+PONG\r\n")

    def test_a_client_that_leaves_does_no_harm(self):
        server = self.start()
        with server.connect() as conn:
            conn.ok("SET", "k", "x" * 1000)
            conn.send("BACKUP", self.folder / "b", "FRESH")
        deadline = time.monotonic() + 10 * slowness()
        while not (self.folder / "b").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.check_files(self.folder / "b")

    def test_where_it_may_go(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "k", 1)
        (server.dir / "saved").mkdir()
        conn.ok("BACKUP", "saved/first")  # relative to the data directory
        self.check_files(server.dir / "saved/first")
        self.assertIn("isn't empty", conn.call("BACKUP", "saved/first"))
        self.assertIn("No such file", conn.call("BACKUP", self.folder / "no" / "such"))
        (self.folder / "empty").mkdir()
        conn.ok("BACKUP", str(self.folder / "empty") + "/")
        (self.folder / "x.incomplete").mkdir()  # of a node that died
        (self.folder / "x.incomplete/backup.json").write_text("{")
        conn.ok("BACKUP", self.folder / "x")
        self.assertEqual(self.restore("--dry-run", self.folder / "x")["entries"], 1)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["empty", "x"])

    def test_names_that_a_start_would_take_for_its_own_are_refused(self):
        server = self.start()
        conn = self.connect(server)
        conn.ok("SET", "k", 1)
        (self.folder / "link").symlink_to(server.dir)
        for name in ("x.tmp", "incoming", "replaced-5/", "./plain", "../%s/plain" % server.dir.name, server.dir / "plain",
                     "log-%016x-%016x.dcl" % (1, 1), "snap-%016x-%016x.dcs" % (1, 1), self.folder / "link" / "plain"):
            self.assertRegex(conn.call("BACKUP", name), "would lie in the data directory.*Choose a place outside", name)
            self.assertFalse((server.dir / name).exists())
        for name in ("z.incomplete", "z.incomplete/"):
            self.assertIn("choose another one", conn.call("BACKUP", "%s/%s" % (self.folder, name)))
        self.assertEqual([p.name for p in self.folder.iterdir()], ["link"])
        said = self.restore(server.dir, self.folder / "z.incomplete", code=FAILED)
        self.assertIn("choose another one", said)

    def test_what_was_never_finished_is_refused_by_name(self):
        conn = self.connect(self.start())
        conn.ok("SET", "k", 1)
        conn.ok("BACKUP", self.folder / "b")
        broken = self.folder / "b.incomplete"
        (self.folder / "b").rename(broken)
        (broken / "backup.json").unlink()
        before = sorted(p.name for p in broken.iterdir())
        said = self.restore("--dry-run", broken, code=FAILED)
        self.assertIn("b.incomplete was never finished", said)
        self.assertIn("dcache-restore --repair", said)
        with self.assertRaisesRegex(ServerFailed, "b.incomplete was never finished"):
            Server(dir=broken)
        self.assertEqual(sorted(p.name for p in broken.iterdir()), before)
        self.restore("--repair", broken, self.folder / "saved")
        self.assertEqual(self.content(self.serve(self.folder / "saved")), {b"k": b"1"})

    def test_wrong_words(self):
        conn = self.connect(self.start())
        self.assertIsInstance(conn.call("BACKUP"), Error)
        self.assertEqual(conn.call("BACKUP", "a", "STALE"), "ERR syntax error")
        self.assertIsInstance(conn.call("BACKUP", ""), Error)
        conn.ok("MULTI")
        self.assertIsInstance(conn.call("BACKUP", "a"), Error)
        conn.ok("DISCARD")

    def test_without_a_log_the_snapshot_is_all(self):
        server = self.start(appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "k", 1)
        conn.ok("SAVE")
        conn.ok("SET", "k", 2)
        conn.ok("BACKUP", self.folder / "b")
        self.assertEqual([name[:5] for name in self.check_files(self.folder / "b")], ["snap-"])
        self.assertEqual(self.content(self.serve(self.folder / "b")), {b"k": b"2"})

    def test_a_backup_that_lost_a_file_is_noticed(self):
        server = self.start(log_segment_size="1mb")
        conn = self.connect(server)
        conn.ok("SAVE")
        for i in range(30):
            conn.ok("SET", "k%d" % i, os.urandom(100000))
        conn.ok("BACKUP", self.folder / "b")
        sorted((self.folder / "b").glob("log-*"))[-1].unlink()
        said = self.restore("--dry-run", self.folder / "b", code=FAILED)
        self.assertIn("promises everything up to LSN", said)

    def test_the_way_back_as_the_manual_has_it(self):
        """BACKUP, a mistake, what would come back, a new node from it, and the keys pushed into the old one."""
        server = self.start()
        conn = self.connect(server)
        conn.pipeline([("SET", "session:%d" % i, i, "EX", 3600) for i in range(100)])
        conn.ok("BACKUP", self.folder / "monday")
        conn.ok("FLUSHALL")
        self.assertEqual(self.restore("--dry-run", self.folder / "monday")["entries"], 100)
        self.restore(self.folder / "monday", self.folder / "restored")
        again = self.serve(self.folder / "restored")
        self.assertEqual(again.ok("DBSIZE"), 100)
        self.assertGreater(again.ok("TTL", "session:1"), 3540)
        self.restore("--push", "127.0.0.1:%d" % server.port, "--match", "session:*", self.folder / "monday")
        self.assertEqual(self.content(conn), self.content(again))


if __name__ == "__main__":
    unittest.main()
