#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does dcache-inspect say of a data directory what is in it, and find what is damaged?"""
import errno
import json
import os
import pty
import random
import re
import select
import shutil
import subprocess
import sys
import time
import unittest
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, SlowDisk  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.server import temp_dir  # noqa: E402

BIN = Path(os.environ["DCACHE_SERVER"]).parent
INSPECT = BIN / "dcache-inspect"
FIXTURE = BIN / "inspect_fixture"
SEED = int(os.environ.get("DC_SEED", os.getpid()))
SEGMENT_HEADER_LEN = 4096


def run(*words, status=0):
    done = subprocess.run([INSPECT, *map(str, words)], capture_output=True, timeout=60 * slowness())
    assert done.returncode == status, "%s: status %d\n%s%s" % (
        words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def objects(*words, status=0):
    return [json.loads(line) for line in run(*words, "--json", status=status).stdout.splitlines()]


def bytes_of(record, name):
    return bytes.fromhex(record[name + "_hex"]) if name + "_hex" in record else record[name].encode()


def time_of(path):
    """When the image of a snapshot or a directory was: what expires by then has expired."""
    return objects("stats", path)[0]["as_of_ms"]


def alive(entries, now):
    return {place: facts for place, facts in entries.items() if not -1 < facts[3] <= now}


def model(path):
    """What the fixture says: (keyspace, key) -> (CRC, length, version, expiry)."""
    out = {}
    for line in path.read_text().splitlines():
        keyspace, key, *rest = line.split()
        out[keyspace if keyspace == "system" else int(keyspace), bytes.fromhex(key)] = tuple(map(int, rest))
    return out


def listing(path):
    """The same of a listing of keys."""
    out, now = {}, time_of(path)
    for record in objects("keys", path, "--values"):
        value = bytes_of(record, "value")
        place = record["keyspace"], bytes_of(record, "key")
        assert place not in out, place
        assert len(value) == record["bytes"]
        expiry = record.get("expires_ms", -1)
        assert record.get("expired", False) == (-1 < expiry <= now)
        out[place] = zlib.crc32(value), len(value), int(record["version"]), expiry
    return out


class InspectCase(unittest.TestCase):
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.dir = temp_dir(cls)
        subprocess.run([FIXTURE, cls.dir, str(SEED)], check=True, stdout=subprocess.DEVNULL)
        cls.calm, cls.last = sorted(cls.dir.glob("snap-*.dcs"))
        cls.segments = sorted(cls.dir.glob("log-*.dcl"))

    def copy(self, path):
        to = temp_dir(self)
        return Path(shutil.copy(path, to)) if path.is_file() else Path(shutil.copytree(path, to / "data"))


class Entries(InspectCase):
    def compare(self, path, name):
        # The log has the times of a real clock, a little ahead of the fixture's.
        now = time_of(path)
        self.assertEqual(alive(listing(path), now), alive(model(self.dir / name), now))

    def test_a_snapshot_lists_what_was_there_at_its_end(self):
        self.compare(self.calm, "calm.txt")

    def test_a_directory_lists_what_is_there_at_the_end_of_its_log(self):
        self.compare(self.dir, "end.txt")

    def test_without_its_snapshots_the_log_says_the_same(self):
        copy = self.copy(self.dir)
        for snapshot in copy.glob("*.dcs"):
            snapshot.unlink()
        self.compare(copy, "end.txt")

    def test_a_snapshot_taken_among_writers_is_the_log_up_to_its_end(self):
        copy = self.copy(self.dir)
        end = int(objects("summary", self.last)[0]["end_lsn"])
        for path in list(copy.glob("*.dcs")) + [p for p in copy.glob("*.dcl") if int(p.name[4:20], 16) >= end]:
            path.unlink()
        # The last segment that is left goes on behind the end: cut it there.
        segment = sorted(copy.glob("*.dcl"))[-1]
        os.truncate(segment, SEGMENT_HEADER_LEN + end - int(segment.name[4:20], 16))
        with open(segment, "r+b") as file:
            file.seek(512)
            file.write(bytes(16))  # its durable mark
        now = max(time_of(copy), time_of(self.last))
        self.assertEqual(alive(listing(copy), now), alive(listing(self.last), now))

    def test_with_little_memory_for_the_log_all_is_the_same(self):
        copy = self.copy(self.dir)
        for snapshot in copy.glob("*.dcs"):
            snapshot.unlink()
        for path in (self.last, self.dir, copy):  # tail; tail and log; log
            every = sorted(run("keys", path, "--values", "--json").stdout.splitlines())
            self.assertTrue(every)
            # With none at all each range is looked for in the whole log: enough for a tail.
            for memory in ("0" if path == self.last else "1kb", "20kb", "1gb"):
                self.assertEqual(sorted(run("keys", path, "--values", "--json", "--memory", memory).stdout.splitlines()), every)
            self.assertEqual(objects("verify", path, "--memory", "5kb")[-1]["damaged"], 0)
        *_, sums = objects("diff", copy, self.dir, "--memory", "20kb")
        self.assertEqual(sums["same"], len(objects("keys", self.dir)))

    def test_get_finds_each_key_by_its_position(self):
        keys = sorted(model(self.dir / "calm.txt").items(), key=str)
        for (keyspace, key), (crc, length, version, expiry) in random.Random(SEED).sample(keys, 40) + [k for k in keys if k[0][0] == "system"]:
            words = [os.fsdecode(key), "--keyspace", keyspace]
            (record,) = objects("get", self.calm, *words)
            value = bytes_of(record, "value")
            self.assertEqual((zlib.crc32(value), len(value), int(record["version"]), record.get("expires_ms", -1)),
                             (crc, length, version, expiry))
            self.assertEqual(run("get", self.calm, *words, "--raw").stdout, value)

    def test_get_of_a_directory_sees_the_log(self):
        end = model(self.dir / "end.txt")
        for (keyspace, key), (crc, length, _, _) in random.Random(SEED).sample(sorted(end.items(), key=str), 10):
            value = run("get", self.dir, os.fsdecode(key), "--keyspace", keyspace, "--raw").stdout
            self.assertEqual((zlib.crc32(value), len(value)), (crc, length))

    def test_the_system_keyspace_has_its_name(self):
        (entry,) = objects("keys", self.calm, "--keyspace", "system")
        self.assertEqual((entry["keyspace"], entry["key"], entry["kind"]), ("system", "flush:2", "int"))
        self.assertEqual({r["key"] for r in objects("keys", self.dir, "--keyspace", "system")}, {"flush:1", "flush:2"})
        self.assertTrue(run("keys", self.calm).stdout.splitlines()[-1].startswith(b'system  "flush:2"  int 13'))
        self.assertIn(b"system has no such key", run("get", self.calm, "x", "--keyspace", "system", status=1).stderr)
        (stats,) = objects("stats", self.calm)
        self.assertEqual((stats["keyspaces"][-1]["keyspace"], stats["keyspaces"][-1]["keys"]), ("system", 1))
        (summary,) = objects("summary", self.calm)
        self.assertEqual((summary["keyspaces"][-1]["keyspace"], summary["keyspaces"][-1]["keys"]), ("system", 1))
        *changes, _ = objects("diff", self.calm, self.dir, "--keyspace", "system", status=1)
        self.assertIn(("added", "flush:1"), [(c["change"], c["key"]) for c in changes])
        # The record stands right before the flush that it tells of.
        for frame in objects("log", self.dir, "--match", "flush:*"):
            for record, flush in zip(frame["effects"][::2], frame["effects"][1::2]):
                self.assertEqual((record["keyspace"], record["effect"], flush["effect"]), ("system", "PUT", "FLUSH"))
                self.assertEqual(record["key"], "flush:%d" % flush["keyspace"])
                self.assertEqual(int(flush["version"]) - int(record["version"]), 8)

    def test_get_of_what_is_not_there(self):
        self.assertIn(b"no such key", run("get", self.calm, "nothing", status=1).stderr)
        self.assertEqual(run("get", self.dir, "nothing", "--keyspace", 15, status=1).stdout, b"")

    def test_keys_are_filtered(self):
        every = {(r["keyspace"], bytes_of(r, "key")) for r in objects("keys", self.calm)}
        tagged = {(r["keyspace"], r["key"].encode()) for r in objects("keys", self.calm, "--match", "{tag}:*")}
        self.assertEqual(tagged, {(db, key) for db, key in every if key.startswith(b"{tag}:")})
        self.assertEqual({r["keyspace"] for r in objects("keys", self.dir, "--keyspace", 1)}, {1})
        self.assertEqual(len(objects("keys", self.dir, "--limit", 7)), 7)

    def test_text_for_people_has_a_line_per_key(self):
        lines = run("keys", self.calm).stdout.decode("ascii").splitlines()
        self.assertEqual(len(lines), len(objects("keys", self.calm)))
        strange = [line for line in lines if '"b\\xff\\xfe\\"\\\\\\n:' in line]
        self.assertTrue(strange)

    def test_statistics_are_the_sums_of_the_keys(self):
        for path in (self.calm, self.dir):
            (stats,) = objects("stats", path, "--top", 25)
            keys = objects("keys", path)
            self.assertEqual(stats["troubles"], 0)
            for one in stats["keyspaces"]:
                mine = [k for k in keys if k["keyspace"] == one["keyspace"]]
                self.assertEqual(one["keys"], len(mine))
                self.assertEqual(one["key_bytes"], sum(len(bytes_of(k, "key")) for k in mine))
                self.assertEqual(one["value_bytes"], sum(k["bytes"] for k in mine))
                self.assertEqual(one["with_expiry"], sum("expires_ms" in k for k in mine))
                self.assertEqual(one["expired"], sum(k.get("expired", False) for k in mine))
                self.assertEqual(sum(b["keys"] for b in one["value_sizes"]), len(mine))
                self.assertEqual(sum(b["keys"] for b in one["times_to_live"]), one["with_expiry"])
                self.assertEqual(sum(one["kinds"].values()), len(mine))
            sizes = sorted((len(bytes_of(k, "key")) + k["bytes"] for k in keys), reverse=True)
            self.assertEqual([b["bytes"] for b in stats["biggest"]], sizes[:25])

    def test_summary_of_a_snapshot(self):
        (summary,) = objects("summary", self.calm)
        self.assertEqual(summary["keys"], sum(k["keys"] for k in summary["keyspaces"]))
        self.assertEqual(summary["size"], self.calm.stat().st_size)
        self.assertEqual(summary["node_id"][:6], "d0cace")
        self.assertEqual([h["id"] for h in summary["histories"]], ["000000000000aaaa"])
        self.assertEqual(summary["blocks"], sum(k["blocks"] + k["pieces"] for k in summary["keyspaces"]))


class Prefixes(InspectCase):
    """Namespaces: what stands in front of a delimiter."""

    def sums(self, path, delimiter):
        """From the listing: (keyspace, prefix or None) -> keys, with expiry, bytes of keys, of values."""
        out = {}
        for record in objects("keys", path):
            key = bytes_of(record, "key")
            prefix = key.partition(delimiter)[0] if delimiter in key else None
            old = out.get((record["keyspace"], prefix), (0, 0, 0, 0))
            one = 1, "expires_ms" in record, len(key), record["bytes"]
            out[record["keyspace"], prefix] = tuple(a + b for a, b in zip(old, one))
        return out

    def shown(self, path, *words):
        """The record, and what it says in the form of sums()."""
        (stats,) = objects("stats", path, *words)
        found = stats["prefixes"]
        return found, {(r["keyspace"], bytes_of(r, "prefix") if named else None):
                       (r["keys"], r["with_expiry"], r["key_bytes"], r["value_bytes"])
                       for named in (True, False) for r in found["largest" if named else "without"]}

    def test_sums_are_exact_while_there_are_counters(self):
        for path, delimiter in ((self.calm, ":"), (self.dir, ":"), (self.dir, "1"), (self.dir, "y:1")):
            truth = self.sums(path, delimiter.encode())
            found, sums = self.shown(path, "--prefixes", 10000, "--delimiter", delimiter)
            self.assertEqual(sums, truth)
            self.assertTrue(found["exact"])
            self.assertEqual(found["different"], len([prefix for _, prefix in truth if prefix is not None]))
            self.assertEqual(found["others_at_most"], 0)
            sizes = [r["key_bytes"] + r["value_bytes"] for r in found["largest"]]
            self.assertEqual(sizes, sorted(sizes, reverse=True))
            self.assertFalse(any(r["keys_more_at_most"] + r["bytes_more_at_most"] for r in found["largest"]))

    def test_with_few_counters_the_truth_lies_within_what_is_said(self):
        truth = self.sums(self.dir, b"1")
        found, sums = self.shown(self.dir, "--prefixes", 2, "--delimiter", "1")
        self.assertEqual((found["exact"], found["counters"], len(found["largest"])), (False, 20, 2))
        for record in found["largest"]:
            keys, _, *sizes = truth[record["keyspace"], bytes_of(record, "prefix")]
            self.assertLessEqual(record["keys"], keys)
            self.assertLessEqual(keys, record["keys"] + record["keys_more_at_most"])
            seen = record["key_bytes"] + record["value_bytes"]
            self.assertLessEqual(seen, sum(sizes))
            self.assertLessEqual(sum(sizes), seen + record["bytes_more_at_most"])
        for place in truth.keys() - sums.keys():
            self.assertLessEqual(sum(truth[place][2:]), found["others_at_most"])
        text = run("stats", self.dir, "--prefixes", 2, "--delimiter", "1").stdout.decode("ascii")
        self.assertRegex(text, r"(?m)^ +exact +no$")

    def test_some_are_shown_and_the_bound_of_the_others_is_true(self):
        truth = self.sums(self.dir, b":")
        found, sums = self.shown(self.dir, "--prefixes", 3)
        hidden = [sum(truth[place][2:]) for place in truth.keys() - sums.keys()]
        self.assertEqual((found["exact"], found["others_at_most"]), (True, max(hidden)))
        (found,) = objects("stats", self.dir)
        self.assertNotIn("prefixes", found)

    def test_text_for_people(self):
        text = run("stats", self.calm, "--prefixes", 20).stdout.decode("ascii")
        for (keyspace, prefix), sums in self.sums(self.calm, b":").items():
            name = '"%s"' % "".join({0x22: '\\"', 0x5c: "\\\\", 10: "\\n"}.get(c, chr(c) if 32 <= c < 127 else "\\x%02x" % c)
                                    for c in prefix) if prefix is not None else "(no delimiter)"
            line = " +".join(map(str, sums)) + "  +%s  %s" % (keyspace, re.escape(name))
            self.assertRegex(text, "(?m)^ +" + line + "$")


class Odd(DiskCase):
    """What a node's log says, key by key."""

    def written(self, *runs):
        """The data directory of a node that was sent these commands in each run."""
        server = self.own_server()
        for i, commands in enumerate(runs):
            if i > 0:
                server.start()
            conn = self.connect(server, timeout=30)
            for command in commands:
                conn.ok(*command)
            server.terminate()
        return server.dir

    def test_prefixes_of_odd_keys(self):
        long = b"n" * 300
        path = self.written([("SET", b"", b"12"), ("SET", b":a", b"1"), ("SET", b":", b""), ("SET", b"x:", b"1"), ("SET", b"plain", b"1"),
                            ("SET", b"\xff\x00\n:1", b"22", "EX", "1000"), ("SET", long + b":1", b"1"), ("SET", long + b"m:1", b"1"),
                            ("SELECT", "1"), ("SET", b"x:y:z", b"1")])
        (stats,) = objects("stats", path, "--prefixes", 10)
        found = stats["prefixes"]
        rows = {(r["keyspace"], bytes_of(r, "prefix")): (r["keys"], r["with_expiry"], r["key_bytes"], r["value_bytes"], r["cut"])
                for r in found["largest"]}
        self.assertEqual(rows, {(0, b""): (2, 0, 3, 1, False), (0, b"x"): (1, 0, 2, 1, False), (0, b"\xff\x00\n"): (1, 1, 5, 2, False),
                                (0, long[:256]): (2, 0, 302 + 303, 2, True), (1, b"x"): (1, 0, 5, 1, False)})
        self.assertEqual([(r["keyspace"], r["keys"], r["key_bytes"], r["value_bytes"]) for r in found["without"]], [(0, 2, 5, 3)])


    def test_a_segment_alone_says_what_it_knows(self):
        path = self.written(
            [("MSET", *[w for k in ("append", "expire", "persist", "both", "set", "del", "patched") for w in (k, "12345")]),
             ("EXPIRE", "persist", 1000), ("EXPIRE", "append", 1000), ("SELECT", 1), ("SET", "old", 1), ("SELECT", 2), ("SET", "old", 1)],
            [("APPEND", "append", "678"), ("PEXPIREAT", "expire", 1 << 42), ("PERSIST", "persist"), ("SETRANGE", "both", 10, "x"),
             ("PEXPIREAT", "both", 1 << 42), ("SET", "set", "new"), ("APPEND", "set", "er"), ("DEL", "del"), ("SET", "gone", 1), ("DEL", "gone"),
             ("APPEND", "fresh", "all"), ("INCR", "n"), ("SETRANGE", "patched", 0, "y"), ("SET", "patched", "z", "PXAT", 1 << 42),
             ("SELECT", 1), ("APPEND", "old", "1"), ("FLUSHDB",), ("SET", "behind", 1), ("SELECT", 2), ("APPEND", "old", "1")])
        first, second = sorted(path.glob("log-*.dcl"))
        every = {"whole": {}, "partial": {}, "removed": {}, "flushed": {}}
        for r in objects("keys", second, "--values"):
            rest = {k: v for k, v in r.items() if k not in ("keyspace", "key", "state", "version", "idle_ms", "frequency")}
            every[r["state"]][r["keyspace"], r.get("key")] = rest
        never = {"expires_ms": 1 << 42, "expired": False}
        self.assertEqual(every["partial"], {
            (0, "append"): {"bytes_at_least": 8}, (0, "expire"): never, (0, "persist"): {"expires": "never"},
            (0, "both"): {"bytes_at_least": 11, **never}, (2, "old"): {"bytes_at_least": 2}})
        whole = {place: rest["value"] for place, rest in every["whole"].items() if place[0] != "system"}
        self.assertEqual(whole, {(0, "set"): "newer", (0, "fresh"): "all", (0, "n"): "1", (0, "patched"): "z", (1, "behind"): "1"})
        self.assertEqual(every["removed"], {(0, "del"): {}, (0, "gone"): {}})
        self.assertEqual(every["flushed"], {(1, None): {}})
        text = run("keys", second).stdout.decode("ascii")
        for line in (r' 0  "append"  partial, 8 bytes or more', r' 0  "del"  removed', r' 0  "persist"  partial  expires never',
                     r' 0  "set"  raw 5', r' 1  flushed at LSN \d+', r' 0  "both"  partial, 11 bytes or more  expires .*'):
            self.assertRegex(text, "(?m)^%s$" % line)
        self.assertNotIn("flushed", run("keys", second, "--keyspace", 0).stdout.decode())
        (stats,) = objects("stats", second)
        self.assertEqual([(k["keyspace"], k["keys"], k["partial"], k["removed"], "flushed" in k) for k in stats["keyspaces"]],
                         [(0, 4, 4, 2, False), (1, 1, 0, 0, True), (2, 0, 1, 0, False), ("system", 1, 0, 0, False)])
        self.assertEqual((stats["segment"], stats["troubles"]), (second.name, 0))
        # The first one knows all, for nothing was there before.
        self.assertEqual({(r["keyspace"], r["key"], r["state"]) for r in objects("keys", first)} & {(0, "append", "whole"), (1, "old", "whole")},
                         {(0, "append", "whole"), (1, "old", "whole")})
        self.assertEqual({r["state"] for r in objects("keys", first)}, {"whole"})

        self.assertEqual(run("get", second, "set", "--raw").stdout, b"newer")
        self.assertEqual(objects("get", second, "set")[0]["state"], "whole")
        for key, words, said, state in (("append", (), b"changed or removed", "partial"), ("del", (), b"changed or removed", "removed"),
                                        ("nothing", (), b"says nothing", None), ("old", ("--keyspace", 1), b"was flushed at", None)):
            self.assertIn(said, run("get", second, key, *words, "--raw", status=1).stderr)
            self.assertEqual(run("get", second, key, *words, "--raw", status=1).stdout, b"")
            self.assertEqual([r["state"] for r in objects("get", second, key, *words, status=1)], [state] if state else [])
        self.assertIn(b"log segment", run("diff", first, second, status=2).stderr)


class Segments(InspectCase):
    """A segment alone, by what the listing of its effects says."""

    def fold(self, segment):
        """place -> what is known: removed, or (value, expiry), with None where that isn't known."""
        known = {}
        for effect in (e for f in objects("log", segment, "--values") for e in f["effects"]):
            if effect["effect"] == "FLUSH":
                known = {place: state for place, state in known.items() if place[0] != effect["keyspace"]}
                continue
            place, prev = (effect["keyspace"], bytes_of(effect, "key")), int(effect.get("prev", 0))
            value, expiry = known.get(place, (None, None)) if prev else (b"", -1)
            if effect["effect"] == "PUT":
                value, expiry = bytes_of(effect, "value"), effect.get("expires_ms", -1)
            elif effect["effect"] == "WRITE":
                data, at = bytes_of(effect, "value"), effect["offset"]
                value = None if value is None else value.ljust(at, b"\0")[:at] + data + value[at + len(data):]
            elif effect["effect"] == "EXPIRE":
                expiry = effect.get("expires_ms", -1)
            known[place] = "removed" if effect["effect"] == "DEL" else (value, expiry)
        return known

    def test_each_says_what_its_effects_add_up_to(self):
        states = set()
        for segment in random.Random(SEED).sample(self.segments, 15):
            found = {}
            for r in objects("keys", segment, "--values"):
                states.add(r["state"])
                if r["state"] == "flushed":
                    continue
                place = r["keyspace"], bytes_of(r, "key")
                unknown = None if r["state"] == "partial" and "expires" not in r else -1
                value = bytes_of(r, "value") if r["state"] == "whole" else None
                found[place] = "removed" if r["state"] == "removed" else (value, r.get("expires_ms", unknown))
            self.assertEqual(found, self.fold(segment), segment.name)
        self.assertLessEqual({"whole", "partial", "removed"}, states)

    def test_statistics_count_what_the_listing_shows(self):
        for segment in random.Random(SEED).sample(self.segments, 5):
            (stats,) = objects("stats", segment, "--prefixes", 10)
            keys = objects("keys", segment)
            for one in stats["keyspaces"]:
                states = [k["state"] for k in keys if k["keyspace"] == one["keyspace"]]
                self.assertEqual([one["keys"], one["partial"], one["removed"], int("flushed" in one)],
                                 [states.count(s) for s in ("whole", "partial", "removed", "flushed")])
            self.assertEqual(sum(r["keys"] for part in ("largest", "without") for r in stats["prefixes"][part]),
                             [k["state"] for k in keys].count("whole"))

    def test_a_damaged_one_is_told(self):
        copy = self.copy(self.segments[1])
        whole = len(objects("keys", copy))
        with open(copy, "r+b") as file:
            file.seek(SEGMENT_HEADER_LEN + 2000)
            file.write(b"damage")
        done = run("keys", copy, status=1)
        self.assertIn(copy.parent.name.encode(), done.stderr)
        self.assertLess(len(done.stdout.splitlines()), whole)


class Log(InspectCase):
    def frames(self, *words):
        return objects("log", *words)

    def test_frames_follow_each_other(self):
        frames = self.frames(self.dir)
        forks = [f for f in frames if f["frame"] == "fork"]
        for before, after in zip(frames, frames[1:]):
            if after["frame"] == "fork":
                self.assertEqual(after["parent_end"], before["end"])
            else:
                self.assertEqual(after["lsn"], before["end"])
        self.assertEqual([f["history"] for f in forks], ["000000000000aaaa", "000000000000bbbb"])
        self.assertEqual(frames[-1]["frame"], "close")
        (summary,) = objects("summary", self.dir)
        self.assertEqual(summary["log"]["frames"], len(frames))
        self.assertEqual(summary["log"]["effects"], sum(len(f["effects"]) for f in frames))
        self.assertEqual(summary["log"]["state"], "whole")

    def test_a_stretch_of_it(self):
        frames = self.frames(self.dir)
        some = frames[100:140]
        self.assertEqual(self.frames(self.dir, "--from", some[0]["lsn"], "--to", frames[140]["lsn"]), some)
        self.assertEqual(self.frames(self.dir, "--from", int(some[0]["lsn"]) - 1, "--limit", 40), some)

    def test_effects_of_some_keys(self):
        frames = self.frames(self.dir, "--match", "key:1*", "--keyspace", 2)
        self.assertTrue(frames)
        for effect in (e for f in frames for e in f["effects"]):
            self.assertEqual(effect["keyspace"], 2)
            self.assertTrue(effect["effect"] == "FLUSH" or effect["key"].startswith("key:1"))

    def test_a_segment_and_a_tail(self):
        frames = [f for f in self.frames(self.dir) if f["file"] == self.segments[1].name]
        alone = self.frames(self.segments[1])
        self.assertEqual(alone, frames)
        (summary,) = objects("summary", self.last)
        tail = self.frames(self.last)
        self.assertEqual(tail[0]["lsn"], summary["start_lsn"])
        self.assertEqual(tail[-1]["end"], summary["end_lsn"])

    def test_values_are_shown(self):
        lines = run("log", self.dir, "--values", "--limit", 200).stdout.decode("ascii")
        self.assertIn('"patch"', lines)

    def test_a_log_is_followed_while_it_is_written(self):
        path = temp_dir(self)
        node = subprocess.Popen([FIXTURE, path, str(SEED)], stdout=subprocess.DEVNULL)
        while not list(path.glob("*.dcl")):
            time.sleep(0.001)
        tool = subprocess.Popen([INSPECT, "log", path, "--follow", "--json", "--quiet"], stdout=subprocess.PIPE)
        seen = []
        for line in tool.stdout:
            seen.append(json.loads(line))
            if seen[-1]["frame"] == "close":
                break
        tool.terminate()
        tool.wait(10)
        tool.stdout.close()
        self.assertEqual(node.wait(30), 0)
        self.assertEqual(seen, self.frames(path))


class Diff(InspectCase):
    def test_nothing_differs_from_itself(self):
        (sums,) = objects("diff", self.calm, self.calm)
        self.assertEqual((sums["added"], sums["removed"], sums["changed"]), (0, 0, 0))

    def test_differences_are_those_of_the_listings(self):
        def versions(path):
            return {(r["keyspace"], bytes_of(r, "key")): r["version"] for r in objects("keys", path)}
        *changes, sums = objects("diff", self.calm, self.dir, status=1)
        old, new = versions(self.calm), versions(self.dir)
        found = {"added": set(), "removed": set(), "changed": set()}
        for change in changes:
            found[change["change"]].add((change["keyspace"], bytes_of(change, "key")))
        self.assertEqual(found["added"], new.keys() - old.keys())
        self.assertEqual(found["removed"], old.keys() - new.keys())
        self.assertEqual(found["changed"], {k for k in new.keys() & old.keys() if new[k] != old[k]})
        self.assertEqual(sums["compared_by"], "version")
        self.assertEqual(sums["added"], len(found["added"]))
        signs = {line[0] for line in run("diff", self.calm, self.dir, status=1).stdout.decode().splitlines()}
        self.assertTrue({"+", "-", "~"} <= signs)

    def test_the_same_content_in_another_history_is_the_same(self):
        # Another chain of histories: the file of a node that has the same data by chance.
        copy = self.copy(self.dir)
        *changes, sums = objects("diff", self.dir, copy)
        self.assertEqual((changes, sums["same"]), ([], len(objects("keys", self.dir))))


class Damage(InspectCase):
    def flip(self, path, at):
        with open(path, "r+b") as file:
            file.seek(at)
            old = file.read(1)[0]
            file.seek(at)
            file.write(bytes([old ^ 1 << random.randrange(8)]))

    def damages(self, path):
        return [o for o in objects("verify", path, "--quiet", status=1) if o["what"] == "damaged"]

    def test_a_whole_directory(self):
        *notes, sums = objects("verify", self.dir)
        self.assertEqual((notes, sums["damaged"]), ([], 0))
        self.assertEqual(sums["files"], len(self.segments) + 2 + 1)
        for path in (self.calm, self.last, *self.segments[1:3]):
            self.assertEqual(objects("verify", path)[-1]["damaged"], 0)

    def test_each_flipped_byte_of_a_snapshot_is_found(self):
        rng = random.Random(SEED)
        size = self.calm.stat().st_size
        for at in [0, 8, 12, 100, size - 1, size - 9] + [rng.randrange(size) for _ in range(60)]:
            copy = self.copy(self.calm)
            self.flip(copy, at)
            self.assertTrue(self.damages(copy) or "newer" in str(self.damages(copy)), at)

    def test_each_flipped_byte_of_a_segment_is_found(self):
        rng = random.Random(SEED)
        # of the first ones, which one has more than one frame is a question of how fast they were written
        end, segment = max((max(int(f["offset"]) for f in objects("log", s)), s) for s in self.segments[1:4])
        for at in [0, 8, 20, 100] + [rng.randrange(SEGMENT_HEADER_LEN, end) for _ in range(30)]:
            copy = self.copy(segment)
            self.flip(copy, at)
            self.assertTrue(self.damages(copy), at)

    def test_what_lies_behind_the_damage_is_found_too(self):
        copy = self.copy(self.dir)
        later = sorted(p for p in copy.glob("log-*.dcl") if int(p.name[21:37], 16) == 0xbbbb)
        self.flip(later[1], SEGMENT_HEADER_LEN + 50)
        self.flip(later[3], SEGMENT_HEADER_LEN + 50)
        self.flip(copy / self.calm.name, 5000)
        files = {Path(d["file"]).name for d in self.damages(copy)}
        self.assertEqual(files, {later[1].name, later[3].name, self.calm.name})

    def test_a_missing_segment_is_found(self):
        copy = self.copy(self.dir)
        later = sorted(p for p in copy.glob("log-*.dcl") if int(p.name[21:37], 16) == 0xbbbb)
        later[1].unlink()
        self.assertTrue(self.damages(copy))

    def test_a_missing_last_segment_is_a_note(self):
        copy = self.copy(self.dir)
        last = sorted(copy.glob("log-*.dcl"))[-1]
        last.unlink()
        *notes, sums = objects("verify", copy)
        self.assertEqual([Path(n["file"]).name for n in notes], [last.name])

    def test_the_rest_of_a_damaged_snapshot_can_be_read(self):
        every = len(objects("keys", self.calm))
        for at in range(1000, 100000, 5000):  # a block of entries is hit soon
            copy = self.copy(self.calm)
            self.flip(copy, at)
            done = subprocess.run([INSPECT, "keys", copy], capture_output=True, timeout=60 * slowness())
            left = len(done.stdout.splitlines())
            if done.returncode == 1 and left < every:
                self.assertIn(b"is damaged", done.stderr)
                self.assertGreater(left, every * 8 // 10)
                return
        self.fail("no flip cost a key")

    def test_a_damaged_newest_snapshot_is_passed_over(self):
        copy = self.copy(self.dir)
        os.truncate(copy / self.last.name, 1000)
        done = run("keys", copy, "--json", "--values", status=1)
        self.assertIn(self.last.name.encode(), done.stderr)
        versions = sorted(r["version"] for r in map(json.loads, done.stdout.splitlines()))
        self.assertEqual(versions, sorted(r["version"] for r in objects("keys", self.dir)))

    def test_a_torn_tail_is_a_note(self):
        copy = self.copy(self.dir)
        with open(sorted(copy.glob("*.dcl"))[-1], "ab") as file:
            file.write(b"torn" * 10)
        records = objects("verify", copy)
        self.assertEqual([r["what"] for r in records], ["note", "sums"])

    def test_a_damaged_catalogue_is_found(self):
        copy = self.copy(self.dir)
        os.truncate(copy / "meta" / "data.mdb", 5000)
        self.assertTrue(any("meta" in d["file"] for d in self.damages(copy)))
        run("catalogue", copy, status=1)

    def verify_from_a_slow_disk(self, path, *words, patience, read_takes=0.3, word=b"damaged"):
        """What it tells at a terminal: the disk is slow until it has told this word twice, or for so many seconds."""
        if not SlowDisk.is_there():
            self.skipTest("DCACHE_SLOW_DISK names no library")
        disk, told, end = SlowDisk(temp_dir(self)), b"", time.monotonic() + patience
        disk.read_takes(read_takes)  # by itself longer than it waits until it tells again, or some of them are
        terminal, its_end = pty.openpty()
        tool = subprocess.Popen([INSPECT, "verify", path, *words], stdout=subprocess.PIPE, stderr=its_end,
                                env=disk.environment())
        os.close(its_end)
        try:
            while told.count(word) < 2 and select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
                told += os.read(terminal, 4096)
            disk.heal()
            while more := os.read(terminal, 4096):
                told += more
        except OSError as error:
            self.assertEqual(error.errno, errno.EIO)  # nobody is there to write any more
        finally:
            disk.heal()
            os.close(terminal)
            self.assertRegex(tool.communicate(timeout=60 * slowness())[0], rb"damaged +0\n")
        self.assertEqual(tool.returncode, 0)
        return told

    def test_progress_is_shown(self):
        told = self.verify_from_a_slow_disk(self.dir, patience=30 * slowness())
        shown = [list(map(float, numbers)) for numbers in
                 re.findall(rb"\r *([\d.]+) %  ([\d.]+) of ([\d.]+) MB, \d+ MB/s, 0 damaged", told)]
        self.assertGreaterEqual(len(shown), 2, told)
        self.assertEqual(shown, sorted(shown))
        self.assertLess(shown[0][0], 100.0)
        self.assertTrue(told.endswith(b"\r\033[K"), told)  # the line is free for the result

    def test_quietly_no_progress_is_shown(self):
        self.assertEqual(self.verify_from_a_slow_disk(self.dir, "--quiet", patience=1.0), b"")

    def test_progress_of_the_replay_is_shown(self):
        in_the_log, in_the_snapshot = self.copy(self.dir), self.copy(self.dir)
        for path in [*in_the_log.glob("*.dcs"), in_the_snapshot / self.calm.name,
                     *in_the_snapshot.glob("log-*-000000000000aaaa.dcl")]:
            path.unlink()  # the rest has most of it; the log is read twice
        log_mb = sum(s.stat().st_size for s in self.segments) / 1e6
        for copy, read_takes, word, text, end in (
                (in_the_log, 0.015, b"replay", rb"([\d.]+) MB of the log noted", log_mb),
                (in_the_snapshot, 0.008, b"of the keys", rb"([\d.]+) % of the keys", 100)):
            with self.subTest(word):
                told = self.verify_from_a_slow_disk(copy, patience=180 * slowness(), read_takes=read_takes, word=word)  # some seconds, as a rule
                shown = list(map(float, re.findall(rb"\rreplay: %s, 0 damaged\033\[K" % text, told)))
                self.assertGreaterEqual(len(shown), 2, told)
                self.assertEqual(shown, sorted(shown))
                self.assertLess(shown[0], end)
                self.assertLessEqual(shown[-1], end)


class Faces(InspectCase):
    def test_the_catalogue(self):
        records = objects("catalogue", self.dir)
        kinds = [r["what"] for r in records]
        self.assertEqual(kinds.count("node"), 1)
        self.assertEqual(kinds.count("history"), 2)
        self.assertEqual(kinds.count("segment"), len(self.segments))
        self.assertIn({"what": "text", "name": "role", "value": "primary"}, records)
        self.assertIn(self.last.name, [r.get("file") for r in records])
        self.assertIn(b"primary", run("catalogue", self.dir).stdout)

    def test_nothing_is_written(self):
        before = sorted((p, p.stat().st_mtime_ns) for p in self.dir.iterdir())
        for command in ("summary", "stats", "keys", "verify", "catalogue"):
            run(command, self.dir)
        self.assertEqual(sorted((p, p.stat().st_mtime_ns) for p in self.dir.iterdir()), before)

    def test_the_manual(self):
        manual = run("--help").stdout.decode()
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXIT STATUS", "EXAMPLES"):
            self.assertIn("\n" + section + "\n", "\n" + manual)
        self.assertLessEqual(max(map(len, manual.splitlines())), 100)
        for command in ("summary", "stats", "keys", "get", "log", "diff", "verify", "catalogue"):
            self.assertIn("\n    " + command, manual)
            text = run(command, "--help").stdout.decode()
            for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"):
                self.assertIn(section, text)
        self.assertRegex(run("--version").stdout.decode(), r"^dcache-inspect \d")

    def test_wrong_usage(self):
        for words in ((), ("nosuch", "x"), ("keys",), ("keys", "a", "b"), ("keys", "a", "--nosuch"),
                      ("keys", "a", "--raw"), ("keys", "a", "--keyspace"), ("keys", "a", "--keyspace", "16"),
                      ("log", "a", "--from", "x"), ("stats", "a", "--top", "-1"), ("stats", "a", "--prefixes", "10001"),
                      ("stats", "a", "--delimiter", ""), ("stats", "a", "--memory", "much"), ("keys", "a", "--prefixes", "1")):
            self.assertTrue(run(*words, status=2).stderr, words)

    def test_what_is_no_file_of_ours(self):
        self.assertIn(b"No such file", run("summary", self.dir / "nothing", status=2).stderr)
        self.assertIn(b"neither", run("keys", self.dir / "calm.txt", status=1).stderr)
        pipe = temp_dir(self) / self.calm.name
        os.mkfifo(pipe)
        for command in ("summary", "stats", "keys", "log", "verify"):
            done = run(command, pipe, status=1)  # nobody is waited for
            self.assertIn(b"neither", done.stderr + done.stdout)
        self.assertIn(b"log segment", run("diff", self.segments[0], self.dir, status=2).stderr)
        empty = temp_dir(self)
        self.assertEqual(objects("keys", empty), [])
        self.assertEqual(objects("verify", empty)[-1]["damaged"], 0)
        run("catalogue", empty, status=2)

    def test_a_key_that_begins_with_a_dash(self):
        self.assertIn(b"no such key", run("get", self.calm, "--", "--x", status=1).stderr)

    def test_a_closed_pipe_ends_it(self):
        tool = subprocess.Popen([INSPECT, "log", self.dir], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        tool.stdout.read(10)
        tool.stdout.close()
        self.assertNotEqual(tool.wait(10), 0)


if __name__ == "__main__":
    print("DC_SEED=%d" % SEED, file=sys.stderr)
    unittest.main()
