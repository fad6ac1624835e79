#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs with and without a log on one directory, and CONFIG SET appendonly: what the next start finds, and says."""
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, log_position  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.resp import Closed, Error  # noqa: E402
from support.server import temp_dir  # noqa: E402

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
                self.assertIn(server.info(conn, "restart_clean"), ("no", "new"))
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
        conn = self.connect(server, timeout=90)
        conn.pipeline([("SET", "k%d" % i, "v" * 1000) for i in range(5000)])
        self.assertEqual(conn.ok("WAITAOF", 1, 0, 60000), [1, 0])
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
        server = self.own_server(appendonly="no")
        versions = []
        for appendonly in ("no", "no", "yes", "no", "no", "no", "yes", "no", "yes"):
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


class Writers:
    """Connections that count, each at a key of its own, until the server is gone."""

    def __init__(self, server, count=4):
        self.server, self.acknowledged, self.stop = server, [0] * count, False
        self.threads = [threading.Thread(target=self.write, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, i):
        try:
            with self.server.connect(timeout=30) as conn:
                while not self.stop:
                    for reply in conn.pipeline([("INCR", "n%d" % i)] * 10):
                        if not isinstance(reply, int):
                            return
                        self.acknowledged[i] = reply
        except (Closed, OSError):
            pass

    def end(self):
        self.stop = True
        for thread in self.threads:
            thread.join()

    def found(self, conn):
        return [int(value or 0) for value in conn.ok("MGET", *("n%d" % i for i in range(len(self.threads))))]


class AtRunTime(Case):
    """CONFIG SET appendonly."""

    def switch(self, conn, word):
        self.assertEqual(conn.call("CONFIG", "SET", "appendonly", word), "OK")
        self.assertEqual(conn.ok("CONFIG", "GET", "appendonly"), [b"appendonly", word.encode()])

    def until_based(self, server, conn):
        self.eventually(lambda: server.info(conn, "aof_rewrite_in_progress") == "0", 30)
        self.assertEqual(server.info(conn, "aof_enabled"), "1")

    def loaded(self, server):
        writers = Writers(server)
        self.addCleanup(writers.end)
        self.eventually(lambda: min(writers.acknowledged) > 0)
        return writers

    def check_complete(self, server, writers):
        """Killed now; everything acknowledged is there, twice."""
        server.kill()
        writers.end()
        for _ in range(2):
            conn = self.restarted(server, appendonly="yes")
            for found, least in zip(writers.found(conn), writers.acknowledged):
                self.assertGreaterEqual(found, least)
            self.assertEqual(server.info(conn, "restart_notes"), "")

    def test_a_log_is_begun_under_load(self):
        for appendfsync in ("always", "everysec"):
            server = self.own_server(appendonly="no", appendfsync=appendfsync, log_segment_size="1mb")
            conn = self.connect(server, timeout=90)
            writers = self.loaded(server)
            version = conn.ok("INCR", "x") and conn.ok("LASTVER")
            self.switch(conn, "yes")
            self.assertEqual(conn.ok("WAITAOF", 1, 0, 60000), [1, 0])  # for the snapshot, too
            self.until_based(server, conn)
            before = list(writers.acknowledged)
            self.eventually(lambda: all(a > b + 100 for a, b in zip(writers.acknowledged, before)))
            conn.ok("INCR", "x")
            self.assertGreater(conn.ok("LASTVER"), version)
            self.assertFalse(list(server.dir.glob("log-*.tmp")))
            self.check_complete(server, writers)

    def test_behind_an_older_log(self):
        """With a gap in between that the start has to step over."""
        server = self.own_server()
        conn = self.connect(server)
        conn.ok("MSET", "a", "1", "gone", "1")
        self.assertEqual(conn.call("SAVE"), "OK")
        conn.ok("SET", "b", "1")
        conn = self.restarted(server, appendonly="no")
        conn.ok("SET", "a", "2")
        conn.ok("DEL", "gone")
        writers = self.loaded(server)
        self.switch(conn, "yes")
        self.until_based(server, conn)
        conn.ok("SET", "c", "2")
        self.check_complete(server, writers)
        conn = self.connect(server)
        self.assertEqual(conn.ok("MGET", "a", "b", "c", "gone"), [b"2", b"1", b"2", None])

    def test_a_log_is_ended_under_load(self):
        server = self.own_server()
        conn = self.connect(server)
        writers = self.loaded(server)
        before = list(writers.acknowledged)
        conn.ok("SET", "a", "1")
        self.switch(conn, "no")
        self.assertEqual(server.info(conn, "aof_enabled"), "0")
        conn.ok("SET", "a", "2")
        self.eventually(lambda: server.info(conn, "log_segment") == "")
        conn.ok("SET", "during", "1")
        version = conn.ok("LASTVER")
        self.eventually(lambda: "log.not_kept" in server.last_output())  # the next start is told
        server.kill()
        writers.end()
        conn = self.restarted(server, appendonly="no")
        self.check_report(server, conn, UNLOGGED)
        self.assertEqual(server.info(conn, "restart_clean"), "no")
        for found, least in zip(writers.found(conn), before):
            self.assertGreaterEqual(found, least)
        self.assertIn(conn.ok("GET", "a"), (b"1", b"2"))
        self.assertIsNone(conn.ok("GET", "during"))
        conn.ok("SET", "a", "3")
        self.assertGreater(conn.ok("LASTVER"), version)

    def test_on_and_off_under_load(self):
        server = self.own_server(log_segment_size="1mb")
        conn = self.connect(server)
        writers = self.loaded(server)
        for i in range(30):
            self.switch(conn, "no" if i % 2 == 0 else "yes")
            if i % 5 == 0:
                conn.ok("BGSAVE", "SCHEDULE")
            time.sleep(0.005 * (i % 7))
        self.until_based(server, conn)
        self.check_complete(server, writers)

    def test_two_at_a_time(self):
        server = self.own_server()
        conn = self.connect(server)

        def toggle(words):
            with server.connect() as mine:
                for i in range(200):
                    mine.ok("CONFIG", "SET", "appendonly", words[i % 2])

        threads = [threading.Thread(target=toggle, args=(words,)) for words in (("yes", "no"), ("no", "yes"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        conn.ok("SET", "a", "1")
        if conn.ok("CONFIG", "GET", "appendonly")[1] == b"yes":
            self.until_based(server, conn)
            conn = self.restarted(server)
            self.assertEqual(conn.ok("GET", "a"), b"1")
        else:
            self.eventually(lambda: server.info(conn, "log_segment") == "")

    def test_until_the_first_snapshot_nothing_counts(self):
        """CONFIG SET doesn't wait for it, nor for the disk."""
        server = self.own_server(slow=True, appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        self.assertEqual(conn.call("SAVE"), "OK")
        conn.ok("SET", "a", "2")
        server.disk.sync_takes(FOREVER)
        self.switch(conn, "yes")
        self.assertEqual(server.info(conn, "aof_enabled"), "1")
        self.assertEqual(server.info(conn, "aof_rewrite_in_progress"), "1")
        conn.ok("SET", "during", "1")  # everysec: it waits for the kernel only
        self.assertEqual(conn.ok("WAITAOF", 1, 0, 50), [0, 0])
        self.assertTrue(list(server.dir.glob("log-*.tmp")))
        server.kill()
        server.disk.heal()
        self.check(server, {"a": b"1"}, REMOVED, UNLOGGED)

    def test_a_log_that_cannot_get_its_name_is_given_up_and_tried_again(self):
        server = self.own_server(slow=True, appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        for end in (False, True):
            saves = int(server.info(conn, "rdb_saves"))
            server.disk.sync_takes(FOREVER)
            self.switch(conn, "yes")
            self.eventually(lambda: list(server.dir.glob("log-*.tmp")))
            in_the_way = server.dir / (next(server.dir.glob("log-*.tmp")).name.rsplit("-", 1)[0] + ".dcl")
            in_the_way.mkdir()
            start = time.monotonic()
            server.disk.heal()
            self.eventually(lambda: int(server.info(conn, "rdb_saves")) > saves, 20)  # the snapshot is there all the same
            self.assertIn("can't be renamed", server.last_output())
            if end:
                server.terminate()
                in_the_way.rmdir()
                break
            self.eventually(lambda: conn.call("SET", "a", "2") == "OK")
            time.sleep(2)
            self.assertLessEqual(server.last_output().count("snapshot.begun"), 1 + (time.monotonic() - start) // 4)
            in_the_way.rmdir()
            self.eventually(lambda: "log.based" in server.last_output(), 20)
            server.kill()
            conn = self.restarted(server)
            self.assertEqual(conn.ok("GET", "a"), b"2")
            self.switch(conn, "no")
            self.eventually(lambda: not list(server.dir.glob("log-*.tmp")))
        self.assertEqual(self.restarted(server).ok("GET", "a"), b"2")

    def test_an_orderly_end_writes_the_first_snapshot(self):
        server = self.own_server(slow=True, appendonly="no", log_segment_size="1mb")
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, "v" * 1000) for i in range(3000)])
        server.disk.sync_takes(0.3)
        self.switch(conn, "yes")
        conn.ok("SET", "a", "1")
        with self.assertRaises((Closed, OSError)):
            conn.ok("SHUTDOWN", "NOSAVE")
        self.assertEqual(server.wait(), 0)
        server.disk.heal()
        conn = self.restarted(server, appendonly="yes")
        self.assertEqual(conn.ok("GET", "a"), b"1")
        self.assertEqual(conn.ok("DBSIZE"), 3001)
        self.assertEqual(server.info(conn, "restart_clean"), "yes")
        self.assertEqual(server.info(conn, "restart_notes"), "")

    def test_a_first_snapshot_that_fails_is_written_again(self):
        server = self.own_server(slow=True, appendonly="no")
        conn = self.connect(server)
        writers = self.loaded(server)
        server.disk.sync_fails()
        self.switch(conn, "yes")
        self.eventually(lambda: server.info(conn, "rdb_last_bgsave_status") == "err" or
                        server.info(conn, "log_trouble") != "")
        self.assertEqual(server.info(conn, "aof_rewrite_in_progress"), "1")
        server.disk.heal()
        self.until_based(server, conn)
        writers.end()  # some were told that nothing is confirmed
        writers = self.loaded(server)
        self.check_complete(server, writers)

    def test_off_and_on_before_the_writer_looks(self):
        """The log never ended. Once it is said to be whole the next start has to think so, too."""
        server = self.own_server(slow=True)
        conn, other = self.connect(server), self.connect(server)
        conn.ok("SET", "a", "1")
        before = log_position(conn)["head"]
        server.disk.write_takes(FOREVER)
        other.send("SET", "a", "2")
        self.eventually(lambda: log_position(conn)["head"] > before)
        server.disk.metadata_take(0.3)
        self.switch(conn, "no")
        time.sleep(0.1)
        self.switch(conn, "yes")
        server.disk.write_takes(0)
        self.eventually(lambda: server.info(conn, "aof_rewrite_in_progress") == "0")
        self.assertEqual(other.read(), "OK")
        server.kill()
        conn = self.restarted(server)
        self.assertEqual(server.info(conn, "restart_notes"), "")
        self.assertEqual(conn.ok("GET", "a"), b"2")

    def test_what_waits_for_the_disk_is_let_go(self):
        server = self.own_server(slow=True, appendfsync="always")
        conn = self.connect(server)
        waiting = self.connect(server, timeout=10)
        server.disk.sync_takes(FOREVER)
        waiting.send("SET", "a", "1")
        with self.assertRaises(TimeoutError):
            conn_b = self.connect(server, timeout=0.3)
            conn_b.ok("SET", "b", "1")
        self.switch(conn, "no")
        self.assertEqual(waiting.read(), "OK")
        self.assertEqual(waiting.call("SET", "c", "1"), "OK")
        self.assertIsInstance(waiting.call("WAITAOF", 1, 0, 0), Error)

    def test_a_snapshot_on_a_broken_disk_stops_nobody_without_a_log(self):
        """It needs the log up to its end: while it waits for that the log is written, though nobody keeps it."""
        server = self.own_server(slow=True, appendfsync="always")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        server.disk.sync_fails()
        self.eventually(lambda: str(conn.call("SET", "a", "2")).startswith("MISCONF"))
        self.eventually(lambda: server.info(conn, "rdb_bgsave_in_progress") == "1")
        self.switch(conn, "no")
        self.eventually(lambda: conn.call("SET", "a", "3") == "OK")
        self.eventually(lambda: server.info(conn, "rdb_bgsave_in_progress") == "0")
        self.assertEqual(server.info(conn, "rdb_last_bgsave_status"), "err")
        for _ in range(20):  # nothing that was seen of the disk begins another one, and an fdatasync that was under way may fail
            self.assertEqual(conn.call("SET", "a", "4"), "OK")
            time.sleep(0.1)
        conn.call("BGSAVE")

        def is_over():
            self.assertEqual(conn.call("SET", "a", "5"), "OK")
            return server.info(conn, "rdb_bgsave_in_progress") == "0"
        self.eventually(is_over)
        self.assertEqual(server.info(conn, "rdb_last_bgsave_status"), "err")
        self.assertEqual(conn.call("SET", "a", "6"), "OK")

    def test_that_it_is_ended_is_noted_while_a_snapshot_takes_its_time(self):
        """The next start has to know, however the node ends."""
        server = self.own_server(slow=True)
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        server.disk.sync_takes(FOREVER)
        conn.ok("BGSAVE")
        self.eventually(lambda: server.info(conn, "rdb_bgsave_in_progress") == "1")
        self.switch(conn, "no")
        self.eventually(lambda: "log.not_kept" in server.output())
        self.assertEqual(server.info(conn, "rdb_bgsave_in_progress"), "1")
        server.kill()
        server.disk.heal()
        conn = self.restarted(server)
        self.check_report(server, conn, UNLOGGED)
        self.assertEqual(server.info(conn, "restart_clean"), "no")

    def test_a_broken_disk_stops_nobody_without_a_log(self):
        for trouble in ("write_fails", "sync_fails"):
            server = self.own_server(slow=True, appendfsync="always")
            conn = self.connect(server)
            conn.ok("SET", "a", "1")
            getattr(server.disk, trouble)()
            self.assertIsInstance(conn.call("SET", "a", "2"), Error)
            self.eventually(lambda: str(conn.call("SET", "a", "3")).startswith("MISCONF"))
            self.switch(conn, "no")
            self.eventually(lambda: conn.call("SET", "a", "4") == "OK")
            self.assertEqual(server.info(conn, "aof_last_write_status"), "ok")
            server.disk.heal()
            self.switch(conn, "yes")
            self.until_based(server, conn)
            conn.ok("SET", "b", "1")
            conn = self.restarted(server)
            self.assertEqual(conn.ok("MGET", "a", "b"), [b"4", b"1"])

    def test_a_transaction_switches_it(self):
        server = self.own_server(appendonly="no")
        conn = self.connect(server)
        replies = conn.pipeline([("MULTI",), ("SET", "a", "1"), ("CONFIG", "SET", "appendonly", "yes"), ("SET", "b", "1"), ("EXEC",)])
        self.assertEqual(replies[-1], ["OK", "OK", "OK"])
        self.until_based(server, conn)
        conn = self.restarted(server, appendonly="yes")
        self.assertEqual(conn.ok("MGET", "a", "b"), [b"1", b"1"])

    def test_a_backup_is_complete(self):
        server = self.own_server(slow=True, appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        self.switch(conn, "yes")
        conn.ok("SET", "b", "1")
        backup = temp_dir(self) / "backup"
        conn.ok("BACKUP", backup)  # with or without the log
        other = self.own_server(dir=backup)
        self.assertEqual(self.connect(other).ok("MGET", "a", "b"), [b"1", b"1"])
        other.kill()

    def test_rewrite_writes_it(self):
        server = self.own_server()
        conf = server.dir / "dcache.conf"
        conf.write_text("appendfsync always\n")
        server.conf = conf
        conn = self.restarted(server)
        self.switch(conn, "no")
        conn.ok("CONFIG", "REWRITE")
        self.assertIn("appendonly no", conf.read_text().splitlines())
        conn = self.restarted(server)
        self.assertEqual(server.info(conn, "aof_enabled"), "0")


if __name__ == "__main__":
    unittest.main()
