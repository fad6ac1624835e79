#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does the comparison of nodes see what it is there to see? Each difference, made by hand."""
import json
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import power, segments  # noqa: E402
from support.cluster import Cluster, contents, difference_of, eventually  # noqa: E402
from support.disk import flip  # noqa: E402


class Compared(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(2)
        self.addCleanup(self.cluster.close)
        self.one, self.other = self.cluster
        self.one.start()
        with self.one.connect() as conn:
            conn.pipeline(("SET", "k%d" % i, "%d/" % i * (i % 700)) for i in range(3000))
            conn.ok("SELECT", 3)
            conn.ok("SET", "elsewhere", "1", "PX", 10 ** 9)

    def test_contents(self):
        first = contents(self.one)
        self.assertEqual(len(first), 3001)
        self.assertEqual(first[0, b"k7"][0], b"7/" * 7)
        self.assertIsNone(difference_of(self.one, first, self.one, contents(self.one)))
        for words in (("SET", "k7", "other"), ("SET", "new", "1"), ("DEL", "k9"), ("PEXPIRE", "k8", 10 ** 9)):
            before = contents(self.one)
            self.one.ok(*words)
            self.assertIn(words[1], difference_of(self.one, before, self.one, contents(self.one)))

    def test_a_node_that_rewrote_a_value_has_another_version(self):
        if self.one.is_redis:
            self.skipTest("no versions")
        before = contents(self.one)
        self.one.ok("SET", "k7", "7/" * 7)
        self.assertIn("k7", difference_of(self.one, before, self.one, contents(self.one)))

    def test_logs(self):
        if self.one.is_redis:
            self.skipTest("no such log")
        self.one.terminate()
        shutil.rmtree(self.other.dir)
        shutil.copytree(self.one.dir, self.other.dir)
        found = segments.segments(self.one.dir)
        self.assertGreater(len(found), 3)
        self.assertEqual([s.end for s in found[:-1]], [s.first for s in found[1:]])
        self.assertEqual(self.cluster.check_logs(), found[-1].end - found[0].first)
        middle = segments.segments(self.other.dir)[1]
        flip(middle.path, middle.offset(middle.first + 1000))
        with self.assertRaisesRegex(segments.LogsDiffer, "LSN %d" % (middle.first + 1000)):
            self.cluster.check_logs()

    def logdiff(self, status):
        done = subprocess.run([Path(self.one.binary).parent / "dcache-inspect", "logdiff", "--json", self.one.dir, self.other.dir],
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout)

    def test_dcache_inspect_logdiff(self):
        if self.one.is_redis:
            self.skipTest("no such log")
        self.one.kill()
        shutil.rmtree(self.other.dir)
        shutil.copytree(self.one.dir, self.other.dir)
        found = segments.segments(self.one.dir)
        whole = self.logdiff(0)
        self.assertEqual([int(whole[name]) for name in ("same", "same_from", "same_to")],
                         [found[-1].end - found[0].first, found[0].first, found[-1].end])
        # One has forgotten the beginning, the other one is behind.
        segments.segments(self.other.dir)[0].path.unlink()
        self.one.start()
        self.one.ok("SET", "more", "1")
        self.one.kill()
        some = self.logdiff(0)
        self.assertEqual([int(some["same_from"]), int(some["same_to"])], [found[1].first, found[-1].end])
        self.assertEqual(int(some["logs"][0]["only_here"]), found[1].first - found[0].first
                         + sum(s.end - s.first for s in segments.segments(self.one.dir) if s.history != found[0].history))
        # Both started unclean: each has a history of its own.
        shutil.copy(found[0].path, self.other.dir)
        self.other.start()
        self.other.ok("SET", "more", "1")
        self.other.kill()
        parted = self.logdiff(1)
        self.assertEqual((int(parted["differ_at"]), int(parted["same_to"])), (found[-1].end, found[-1].end))

    def test_dcache_inspect_logdiff_finds_one_frame(self):
        if self.one.is_redis:
            self.skipTest("no such log")
        self.one.terminate()
        shutil.rmtree(self.other.dir)
        shutil.copytree(self.one.dir, self.other.dir)
        last = segments.newest(self.one.dir)
        for i, node in enumerate(self.cluster):  # both go on in the same history, and know nothing of each other
            node.start()
            node.ok("SET", "other", i)
            node.kill()
        self.assertEqual(int(self.logdiff(1)["differ_at"]), last.end)

    def test_segments_that_end_elsewhere(self):
        """What counts are positions, not files."""
        if self.one.is_redis:
            self.skipTest("no such log")
        self.one.terminate()
        shutil.rmtree(self.other.dir)
        self.other.dir.mkdir()
        first, second = segments.segments(self.one.dir)[:2]
        whole = bytearray(first.path.read_bytes()[:segments.HEADER_LEN + first.end - first.first])
        whole += second.read(second.first, second.end)
        (self.other.dir / first.path.name).write_bytes(whole)
        self.assertEqual(self.cluster.check_logs(), second.end - first.first)
        self.assertEqual(segments.newest(self.other.dir).end, second.end)

    def test_a_power_cut_loses_what_nobody_waited_for(self):
        if self.one.is_redis:
            self.skipTest("no such log")
        self.one.terminate()
        self.one.start(appendfsync="no")
        self.one.ok("SET", "kept", "1")
        self.one.ok("WAITAOF", 1, 0, 0)
        kept = self.one.ok("LASTVER")
        eventually(lambda: segments.newest(self.one.dir).durable() >= kept)  # the mark, by which the cut is made, follows
        self.one.ok("SET", "lost", "2" * 10_000)
        self.one.kill()
        self.assertGreater(power.lose_what_is_not_durable(self.one.dir), 10_000)
        if power.can_reboot():
            self.one.wrapper = power.rebooted(self.cluster.folder, 1)
        self.one.start()
        self.assertEqual(self.one.ok("MGET", "kept", "lost", "k7"), [b"1", None, b"7/" * 7])
        if power.can_reboot():
            with open("/proc/%d/root%s" % (self.one.process.pid, power.BOOT_ID)) as file:
                self.assertEqual(file.read()[-2:], "1\n")


if __name__ == "__main__":
    unittest.main()
