#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs with and without a log on one directory: what the next start finds, and says."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, log_position  # noqa: E402

FOREVER = 1000  # seconds; until the kill
REMOVED = "were removed: the node ended"
UNLOGGED = "The log wasn't kept from LSN"


class Case(DiskCase):
    def kill_in_a_snapshot(self, server, conn):
        """While it waits for the disk, and the log goes to files for it."""
        server.disk.sync_takes(FOREVER)
        conn.ok("BGSAVE")
        before = set(server.dir.glob("log-*"))
        self.eventually(lambda: set(server.dir.glob("log-*")) > before or before and list(server.dir.glob("log-*.tmp")))
        conn.pipeline([("SET", "during", i) for i in range(1000)])
        server.kill()
        server.disk.heal()
        self.assertTrue(list(server.dir.glob("log-*")), "the kill came too late")

    def check_report(self, server, conn, *sentences):
        notes = server.info(conn, "restart_notes")
        for sentence in sentences:
            self.assertIn(sentence, notes)
            self.assertIn(sentence, server.last_output())
        self.assertFalse(list(server.dir.glob("*.tmp")) if server.info(conn, "aof_enabled") == "0" else [])

    def check(self, server, expected, *sentences, **options):
        """Starts it, twice (the second one finds what the first one has left), as it was killed and with a log."""
        for appendonly in ("no", "no", "yes", "yes"):
            conn = self.restarted(server, appendonly=appendonly, **options)
            found = {key: conn.ok("GET", key) for key in ("a", "during", *expected)}
            self.assertEqual({key: value for key, value in found.items() if value is not None}, expected)
            self.check_report(server, conn, *sentences)
            if REMOVED in sentences:
                sentences = tuple(s for s in sentences if s != REMOVED)
            if appendonly == "yes":
                sentences = ()
        self.assertEqual(server.info(conn, "restart_notes"), "")


class KilledInASnapshot(Case):
    """With 'appendonly no': nothing was promised, so nothing of it may stop the next start."""

    def test_the_first_one(self):
        server = self.own_server(slow=True, appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        self.kill_in_a_snapshot(server, conn)
        self.check(server, {}, REMOVED)

    def test_with_an_older_one(self):
        server = self.own_server(slow=True, appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        self.assertEqual(conn.call("SAVE"), "OK")
        conn.ok("SET", "a", "2")
        self.kill_in_a_snapshot(server, conn)
        self.check(server, {"a": b"1"}, REMOVED, UNLOGGED)

    def test_behind_a_log_that_was_killed(self):
        server = self.own_server(slow=True)
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        conn = self.restarted(server, appendonly="no")
        conn.ok("SET", "a", "2")
        self.kill_in_a_snapshot(server, conn)
        self.check(server, {"a": b"1"}, REMOVED, UNLOGGED)

    def test_behind_a_log_that_ended_well(self):
        server = self.own_server(slow=True)
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        self.assertEqual(conn.call("SAVE"), "OK")
        conn.ok("SET", "b", "1")
        server.terminate()
        conn = self.restarted(server, appendonly="no")
        self.assertEqual(server.info(conn, "restart_clean"), "yes")
        conn.ok("SET", "a", "2")
        self.kill_in_a_snapshot(server, conn)
        self.check(server, {"a": b"1", "b": b"1"}, REMOVED, UNLOGGED)

    def test_many_files(self):
        server = self.own_server(slow=True, appendonly="no", log_segment_size="1mb")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        server.disk.sync_takes(FOREVER)
        conn.ok("BGSAVE")
        self.eventually(lambda: list(server.dir.glob("log-*")))
        conn.pipeline([("SET", "k%d" % i, "v" * 1000) for i in range(5000)])
        self.eventually(lambda: len(list(server.dir.glob("log-*"))) > 3)
        server.kill()
        server.disk.heal()
        self.check(server, {}, REMOVED)


class WithAndWithout(Case):
    def test_a_segment_of_a_log_that_is_kept_still_counts(self):
        """What joins nothing is damage there."""
        server = self.own_server(log_segment_size="1mb")
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, "v" * 1000) for i in range(5000)])
        self.assertEqual(conn.ok("WAITAOF", 1, 0, 20000), [1, 0])
        server.kill()
        server.segments()[1].rename(server.dir / "elsewhere")
        self.assertIn("a segment is missing", self.refusal(server))

    def test_a_snapshot_at_the_end_of_a_run_without_a_log(self):
        server = self.own_server()
        conn = self.connect(server)
        conn.ok("MSET", "a", "1", "gone", "1")
        version = conn.ok("LASTVER")
        server.terminate()
        conn = self.restarted(server, appendonly="no", save=["3600", "1"])
        conn.ok("SET", "a", "2")
        conn.ok("DEL", "gone")
        conn.ok("SET", "b", "2")
        self.assertGreater(conn.ok("LASTVER"), version)
        version = conn.ok("LASTVER")
        server.terminate()
        for _ in range(2):
            conn = self.restarted(server, appendonly="yes", save="")
            self.assertEqual(conn.ok("MGET", "a", "b", "gone"), [b"2", b"2", None])
            self.assertEqual(server.info(conn, "restart_notes"), "")
            conn.ok("INCR", "count")
            self.assertGreater(conn.ok("LASTVER"), version)
            version = conn.ok("LASTVER")
        self.assertEqual(self.restarted(server).ok("GET", "count"), b"2")

    def test_the_old_log_is_what_a_kill_leaves(self):
        """What was written without a log and without a snapshot is lost, and the report says so."""
        for end in ("kill", "terminate"):
            server = self.own_server()
            conn = self.connect(server)
            conn.ok("SET", "a", "1")
            getattr(server, end)()
            conn = self.restarted(server, appendonly="no")
            conn.ok("SET", "a", "2")
            conn.ok("SET", "b", "2")
            self.check(server, {"a": b"1"}, UNLOGGED)

    def test_versions_rise_across_kills_without_a_log(self):
        server = self.own_server()
        conn = self.connect(server)
        versions = []
        for appendonly in ("yes", "no", "no", "no", "yes", "no", "yes"):
            if appendonly == "yes":
                server.terminate()
            conn = self.restarted(server, appendonly=appendonly)
            conn.ok("SET", "a", appendonly)
            versions.append(conn.ok("LASTVER"))
        self.assertEqual(versions, sorted(set(versions)))

    def test_a_run_without_a_log_that_wrote_nothing_is_not_told_of(self):
        server = self.own_server()
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        server.terminate()
        conn = self.restarted(server, appendonly="no")
        head = log_position(conn)["head"]
        server.terminate()
        conn = self.restarted(server, appendonly="yes")
        self.assertEqual(server.info(conn, "restart_notes"), "")
        self.assertGreaterEqual(log_position(conn)["head"], head)


if __name__ == "__main__":
    unittest.main()
