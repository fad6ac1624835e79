#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What is on the disk, what is said about it, and what a disk that is slow, full, broken or damaged does to clients."""
import contextlib
import errno
import os
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import (DiskCase, first_lsn, flip, log_position, offset_of, put_summed, run_server, segment_end, sum64)  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.resp import Closed, Error, Push, encode  # noqa: E402
from support.rights import lacking  # noqa: E402
from support.server import temp_dir  # noqa: E402


class Replies(DiskCase):
    def setUp(self):
        self.server = self.own_server()
        self.conn = self.connect(self.server)

    def test_save(self):
        conn = self.conn
        before = conn.ok("LASTSAVE")
        self.assertAlmostEqual(before, time.time(), delta=60)
        conn.ok("SET", "a", "1")
        self.assertEqual(conn.call("SAVE"), "OK")
        self.assertGreaterEqual(conn.ok("LASTSAVE"), before)
        self.assertEqual(len(self.server.snapshots()), 1)
        self.assertEqual(self.server.info(conn, "rdb_last_bgsave_status"), "ok")
        self.assertEqual(self.server.info(conn, "rdb_changes_since_last_save"), "0")

    def test_bgsave(self):
        conn = self.conn
        self.assertEqual(conn.call("BGSAVE"), "Background saving started")
        self.until_saved(1)
        self.assertIn(conn.call("BGSAVE", "SCHEDULE"), ("Background saving scheduled", "Background saving started"))
        self.assertEqual(conn.call("BGSAVE", "NOW"), "ERR syntax error")
        replies = set(conn.pipeline([("BGSAVE",)] * 50))
        self.assertLessEqual(replies, {"Background saving started", "ERR Background save already in progress"})
        self.assertEqual(conn.call("BGREWRITEAOF"), "Background append only file rewriting started")

    def until_saved(self, count):
        deadline = time.monotonic() + 10 * slowness()
        while int(self.server.info(self.conn, "rdb_saves")) < count:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_save_by_rule(self):
        server = self.own_server(save=["1", "10"])
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, i) for i in range(20)])
        deadline = time.monotonic() + 10 * slowness()
        while server.info(conn, "rdb_saves") == "0":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def test_save_by_growth_of_the_log_and_retention(self):
        server = self.own_server(log_segment_size="1mb", snapshot_log_size="2mb", snapshot_keep=1)
        conn = self.connect(server)
        deadline = time.monotonic() + 15 * slowness()
        while int(server.info(conn, "rdb_saves")) < 3:
            conn.pipeline([("SET", "k%d" % (j % 100), "v" * 1000) for j in range(1000)])
            self.assertLess(time.monotonic(), deadline, server.info(conn, "rdb_saves"))
        for i in range(2):
            conn.ok("SET", "k0", i)
            while conn.call("SAVE") != "OK":  # it may be writing one already
                self.assertLess(time.monotonic(), deadline)
        self.eventually(lambda: len(server.segments()) <= 3)
        self.assertLessEqual(len(server.snapshots()), 3)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("DBSIZE"), 100)

    def test_waitaof(self):
        conn = self.conn
        conn.ok("CONFIG", "SET", "appendfsync", "no")
        self.assertEqual(conn.ok("WAITAOF", 1, 0, 1000), [1, 0])
        conn.ok("SET", "a", "1")
        self.assertEqual(conn.ok("WAITAOF", 1, 0, 5000), [1, 0])
        position = log_position(conn)
        self.assertGreaterEqual(position["durable"], position["last"])
        self.assertEqual(conn.ok("WAITAOF", 0, 0, 0)[1], 0)
        for words in ((1, 0, -1), (2, 0, 0), (1, -1, 0), (1, 0, "x"), (1, 0)):
            self.assertIsInstance(conn.call("WAITAOF", *words), Error, words)
        conn.ok("MULTI")
        conn.ok("SET", "b", "1")
        conn.ok("WAITAOF", 1, 0, 0)
        self.assertEqual(len(conn.ok("EXEC")), 2)  # doesn't wait

    def test_waitaof_without_a_log(self):
        conn = self.connect(self.own_server(appendonly="no"))
        self.assertIn("appendonly is disabled", conn.call("WAITAOF", 1, 0, 0))

    def test_log_position_and_status(self):
        conn = self.conn
        conn.ok("SET", "a", "1")
        version = conn.ok("LASTVER")
        position = log_position(conn)
        self.assertEqual(position["last"], version)
        self.assertGreaterEqual(position["head"], version)
        self.assertGreaterEqual(position["written"], version)  # a reply has left
        self.assertLessEqual(position["durable"], position["written"])
        self.assertIn(conn.ok("LOG", "STATUS", version), (b"written", b"durable"))
        conn.ok("WAITAOF", 1, 0, 0)
        self.assertEqual(conn.ok("LOG", "STATUS", version), b"durable")
        self.assertEqual(conn.ok("LOG", "STATUS", position["head"] + 10 ** 6), b"future")
        self.assertIsInstance(conn.call("LOG", "STATUS", "x"), Error)
        conn = self.restarted(self.server)
        self.assertEqual(conn.ok("LOG", "STATUS", version), b"durable")

    def test_appendfsync_is_changed(self):
        conn = self.conn
        for word in ("always", "no", "everysec", "always"):
            conn.ok("CONFIG", "SET", "appendfsync", word)
            self.assertEqual(conn.ok("CONFIG", "GET", "appendfsync"), [b"appendfsync", word.encode()])
            conn.ok("SET", "a", word)
        self.assertGreaterEqual(log_position(conn)["durable"], conn.ok("LASTVER"))
        self.assertIsInstance(conn.call("CONFIG", "SET", "appendfsync", "often"), Error)
        conn = self.restarted(self.server)
        self.assertEqual(conn.call("GET", "a"), b"always")


class WaitingCase(DiskCase):
    def peek(self, server):
        """A connection whose reads wait for no disk: whether a command that waits has been applied."""
        conn = self.connect(server)
        conn.ok("CLIENT", "ACK", "memory")
        return conn


class Ends(WaitingCase):
    def writers(self, server, count, acknowledged):
        def work(name):
            try:
                with server.connect() as conn:
                    i = 0
                    while True:
                        i += 1
                        replies = conn.pipeline([("SET", "%s:%d" % (name, i % 50), i), ("INCR", "count:" + name)])
                        acknowledged[name] = replies[1]
            except ConnectionError:
                pass
        threads = [threading.Thread(target=work, args=("w%d" % i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def test_an_orderly_end_under_load_loses_nothing(self):
        for setting in ("always", "everysec", "no"):
            with self.subTest(setting):
                server = self.own_server(appendfsync=setting)
                acknowledged = {}
                threads = self.writers(server, 3, acknowledged)
                time.sleep(0.3)
                server.terminate()
                for thread in threads:
                    thread.join(10)
                conn = self.restarted(server)
                self.assertEqual(server.info(conn, "restart_clean"), "yes")
                self.assertEqual(server.info(conn, "restart_cut_bytes"), "0")
                for name, count in acknowledged.items():
                    self.assertGreaterEqual(int(conn.ok("GET", "count:" + name)), count)

    def test_positions_go_on_after_an_orderly_end_and_jump_after_a_kill(self):
        server = self.own_server()
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        version = conn.ok("LASTVER")
        server.terminate()
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GETVER", "a"), [b"1", version])
        conn.ok("SET", "b", "1")
        near = conn.ok("LASTVER")
        self.assertLess(near - version, 1 << 24)
        conn = self.restarted(server)
        self.assertEqual(server.info(conn, "restart_clean"), "no")
        self.assertEqual(conn.ok("GETVER", "a"), [b"1", version])
        conn.ok("SET", "c", "1")
        self.assertGreater(conn.ok("LASTVER"), near + 10 ** 6)

    def test_shutdown_with_and_without_a_snapshot(self):
        server = self.own_server()
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        conn.send("SHUTDOWN", "NOSAVE")
        self.assertEqual(server.wait(), 0)
        self.assertEqual(server.snapshots(), [])
        conn = self.restarted(server)
        self.assertEqual(conn.call("GET", "a"), b"1")
        conn.send("SHUTDOWN", "SAVE")
        self.assertEqual(server.wait(), 0)
        self.assertEqual(len(server.snapshots()), 1)
        self.assertEqual(self.restarted(server).call("GET", "a"), b"1")

    def test_without_a_log_snapshots_are_kept(self):
        server = self.own_server(appendonly="no")
        conn = self.connect(server)
        conn.ok("SET", "kept", "1")
        conn.ok("SAVE")
        conn.ok("SET", "lost", "1")
        self.eventually(lambda: server.segments() == [])
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "kept", "lost"), [b"1", None])
        conn.ok("SET", "second", "2")
        conn.ok("SAVE")
        conn = self.restarted(server, save=["3600", "1"])
        self.assertEqual(conn.ok("MGET", "kept", "second"), [b"1", b"2"])
        conn.ok("SET", "third", "3")
        server.terminate()  # with a rule, a snapshot is written
        self.assertEqual(self.restarted(server).ok("MGET", "kept", "third"), [b"1", b"3"])

    def test_h42_the_end_finds_replies_waiting(self):
        server = self.own_server(slow=True, appendfsync="always", ack_timeout=60000)
        conns, peek = [self.connect(server, timeout=20 * slowness()) for _ in range(4)], self.peek(server)
        conns[0].ok("SET", "a", "1")
        server.disk.sync_takes(60)
        for i, conn in enumerate(conns):
            conn.send_raw(b"".join(encode("SET", "k%d:%d" % (i, j), "v") for j in range(3)) + encode("PING"))
        self.eventually(lambda: peek.ok("EXISTS", *("k%d:%d" % (i, j) for i in range(4) for j in range(3))) == 12)
        self.assertEqual([conn.drain() for conn in conns], [[]] * 4)
        server.process.send_signal(signal.SIGTERM)
        for conn in conns:
            replies = [conn.read() for _ in range(4)]
            for reply in replies[:3]:
                self.assertIsInstance(reply, Error)
                self.assertEqual(reply.code, "UNCONFIRMED")
            with self.assertRaises(Closed):
                conn.read()
        server.disk.heal()
        self.assertEqual(server.wait(), 0)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GET", "k0:0"), b"v")  # applied; the disk took it in the end

    def test_the_end_gives_replies_the_time_they_need(self):
        server = self.own_server(slow=True, appendfsync="always")
        conn, peek = self.connect(server, timeout=20 * slowness()), self.peek(server)
        conn.ok("SET", "a", "1")
        server.disk.sync_takes(0.3)
        conn.send_raw(encode("SET", "a", "2") + encode("GET", "a"))
        self.eventually(lambda: peek.ok("GET", "a") == b"2")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual([conn.read(), conn.read()], ["OK", b"2"])
        server.disk.heal()  # an end syncs more than once
        self.assertEqual(server.wait(), 0)


class Gates(WaitingCase):
    """Replies wait for what they wrote or show."""

    def timed(self, conn, *words):
        start = time.monotonic()
        reply = conn.ok(*words)
        return reply, time.monotonic() - start

    def test_h40_nobody_sees_what_is_not_durable(self):
        server = self.own_server(slow=True, appendfsync="always", ack_timeout=60000)
        writer, reader, other = (self.connect(server, timeout=60) for _ in range(3))
        peek = self.peek(server)
        writer.ok("SET", "k", "old")
        takes = 0.5 * slowness(at_most=10)
        server.disk.sync_takes(takes)
        start = time.monotonic()
        writer.send("SET", "k", "new")
        self.eventually(lambda: peek.ok("GET", "k") == b"new")
        reader.send("GET", "k")
        other.send("EXISTS", "k")
        self.assertEqual(self.timed(self.connect(server), "PING")[0], "PONG")
        self.assertLess(time.monotonic() - start, 0.8 * takes)
        self.assertEqual(reader.drain() + writer.drain() + other.drain(), [])
        self.assertEqual(reader.read(), b"new")
        self.assertGreater(time.monotonic() - start, 0.9 * takes)
        self.assertEqual(writer.read(), "OK")
        other.read()
        server.disk.heal()

    def test_h43_pushes_stand_behind_replies_that_wait(self):
        server = self.own_server(slow=True, appendfsync="always", ack_timeout=60000)
        conn, other, peek = self.connect(server, proto=3, timeout=30), self.connect(server, timeout=30), self.peek(server)
        conn.ok("SET", "k", "0")
        conn.send("SUBSCRIBE", "c")
        self.assertIsInstance(conn.read(), Push)
        server.disk.sync_takes(60)
        conn.send_raw(encode("SET", "k", "1") + encode("GET", "k"))
        self.eventually(lambda: peek.ok("GET", "k") == b"1")
        self.assertEqual([other.ok("PUBLISH", "c", n) for n in range(3)], [1] * 3)
        time.sleep(0.05)
        conn.send("INCR", "k")
        self.eventually(lambda: peek.ok("GET", "k") == b"2")
        self.assertEqual(conn.drain(), [])
        server.disk.heal()
        self.assertEqual([conn.read() for _ in range(6)],
                         ["OK", b"1"] + [[b"message", b"c", b"%d" % n] for n in range(3)] + [2])

    def test_many_clients_share_one_sync(self):
        server = self.own_server(slow=True, appendfsync="always")
        conns = [self.connect(server, timeout=30) for _ in range(40)]
        conns[0].ok("SET", "a", "1")
        server.disk.sync_takes(0.1)
        start = time.monotonic()
        for i, conn in enumerate(conns):
            conn.send("SET", "k%d" % i, i)
        self.assertEqual([conn.read() for conn in conns], ["OK"] * 40)
        self.assertLess(time.monotonic() - start, 1.0 * slowness())

    def test_h13_everysec_is_enforced(self):
        server = self.own_server(slow=True, appendfsync="everysec", ack_timeout=60000)
        conn, other = self.connect(server, timeout=30), self.connect(server)
        conn.ok("SET", "durable", "1")
        conn.ok("WAITAOF", 1, 0, 0)
        server.disk.sync_takes(60)
        conn.ok("SET", "k", "0")
        start, waited = time.monotonic(), None
        while time.monotonic() - start < 10:
            conn.send("INCR", "k")
            try:
                conn.read(0.5)
            except TimeoutError:
                waited = time.monotonic() - start
                break
            time.sleep(0.02)
        self.assertIsNotNone(waited, "replies don't wait for a disk that hangs")
        self.assertLess(waited, 5)
        self.assertEqual(self.timed(other, "PING")[0], "PONG")
        self.assertEqual(self.timed(other, "GET", "durable")[0], b"1")
        server.disk.heal()
        self.assertIsInstance(conn.read(), int)

    def test_h14_a_disk_that_hangs_parks_writers_only(self):
        server = self.own_server(slow=True, appendfsync="no", log_buffer_size="1mb", ack_timeout=60000)
        writer, reader = self.connect(server, timeout=60), self.connect(server)
        writer.ok("SET", "k", "1")
        writer.ok("WAITAOF", 1, 0, 0)
        server.disk.sync_takes(600)
        count, limit = 2500, 1 << 20  # 50 MB: what nobody parks doesn't stay below any bound
        sender = threading.Thread(target=writer.send_raw, args=(encode("SET", "big", "v" * 20_000) * count,), daemon=True)
        sender.start()

        def pending():
            return int(server.info(reader, "log_pending_bytes"))
        self.eventually(lambda: pending() >= limit, 30)
        for _ in range(100):
            self.assertLess(pending(), limit + 100_000)  # who was let in when there was room yet
            self.assertEqual(reader.ok("GET", "k"), b"1")
            self.assertEqual(reader.ok("PING"), "PONG")
            time.sleep(0.01)
        self.assertTrue(sender.is_alive())
        server.disk.heal()
        self.assertEqual([writer.read() for _ in range(count)], ["OK"] * count)
        sender.join()


    def loops_taken(self, conn):
        return int(re.search(rb"loops_taken:(\d+)", conn.ok("INFO", "all")).group(1))

    def test_h14_a_write_that_hangs_holds_up_its_own_reply_only(self):
        """The worker itself writes; another thread goes on with its loop meanwhile."""
        server = self.own_server(slow=True, threads=1, ack_timeout=60000)
        writer, other, reader = (self.connect(server, timeout=60) for _ in range(3))
        writer.ok("SET", "k", "1")
        for _ in range(3):
            server.disk.write_takes(60)
            taken = self.loops_taken(reader)
            writer.send("INCR", "k")
            self.eventually(lambda: self.loops_taken(reader) == taken + 1)
            other.send("INCR", "other")
            for _ in range(20):
                self.assertEqual(reader.ok("PING"), "PONG")
                self.assertIsNone(reader.ok("GET", "nobody's"))
            self.assertFalse(select.select([writer.sock, other.sock], [], [], 0.1)[0])
            server.disk.heal()
            self.assertIsInstance(writer.read(), int)
            self.assertIsInstance(other.read(), int)
        self.assertEqual(writer.ok("GET", "k"), b"4")
        server.terminate()
        conn = self.restarted(server)
        self.assertEqual((conn.ok("GET", "k"), conn.ok("GET", "other")), (b"4", b"3"))

    def test_h14_writes_that_hang_now_and_then_lose_nothing(self):
        """Loops go from thread to thread under load; at the end the process ends, with a write under way."""
        server = self.own_server(slow=True, threads=2, ack_timeout=60000)
        conns = [self.connect(server, timeout=60) for _ in range(8)]
        counts = [0] * len(conns)
        ends_s = time.monotonic() + 3

        def count_up(i):
            while time.monotonic() < ends_s:
                counts[i] += 10
                self.assertEqual(conns[i].pipeline([("INCR", "n%d" % i)] * 10)[-1], counts[i])

        threads = [threading.Thread(target=count_up, args=(i,)) for i in range(len(conns))]
        for thread in threads:
            thread.start()
        while time.monotonic() < ends_s:
            server.disk.write_takes(0.05)
            time.sleep(0.1)
            server.disk.heal()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        self.assertGreater(self.loops_taken(conns[0]), 0)
        server.disk.write_takes(0.5)
        conns[0].send("INCR", "n0")
        server.terminate()
        conn = self.restarted(server)
        self.assertIn(int(conn.ok("GET", "n0")), (counts[0], counts[0] + 1))
        self.assertEqual([int(conn.ok("GET", "n%d" % i)) for i in range(1, len(conns))], counts[1:])


class Damage(DiskCase):
    """Files that are not as they were written."""

    def filled(self, count=100, **options):
        server = self.own_server(**options)
        conn = self.connect(server, timeout=10 * slowness())
        conn.pipeline([("SET", "k%d" % i, "value %d" % i) for i in range(count)])
        return server, conn

    def test_garbage_behind_the_end_is_cut_and_kept(self):
        server, conn = self.filled()
        conn.ok("WAITAOF", 1, 0, 0)
        server.kill()
        segment = server.segments()[-1]
        end = segment_end(segment)
        with open(segment, "r+b") as file:
            file.seek(end)
            file.write(b"garbage!" * 20)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("DBSIZE"), 100)
        self.assertGreaterEqual(int(server.info(conn, "restart_cut_bytes")), 160)
        side = server.dir / server.info(conn, "restart_cut_file")
        self.assertTrue(side.name.startswith("cut-"))
        self.assertIn(b"garbage!" * 20, side.read_bytes())
        self.assertIn(segment.name, server.info(conn, "restart_notes"))
        conn.ok("SET", "after", "1")
        self.assertEqual(self.restarted(server).ok("DBSIZE"), 101)

    def test_a_torn_frame_is_cut(self):
        server, conn = self.filled(appendfsync="no")
        version = conn.ok("GETVER", "k98")[1]
        server.kill()
        segment = server.segments()[-1]
        end = segment_end(segment)
        self.assertGreater(end, offset_of(segment, version))
        with open(segment, "r+b") as file:
            file.truncate(end - 3)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "k98", "k99"), [b"value 98", None])
        self.assertNotEqual(server.info(conn, "restart_cut_bytes"), "0")
        self.assertEqual(conn.ok("LOG", "STATUS", version), b"durable")

    def test_h06_what_was_cut_does_not_come_back(self):
        server, conn = self.filled(appendfsync="no")
        version = conn.ok("GETVER", "k50")[1]
        server.kill()
        segment = server.segments()[-1]
        flip(segment, offset_of(segment, version) - 1)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "k49", "k50", "k51"), [b"value 49", None, None])
        conn.ok("SET", "k50", "value 5X")  # as long as the one that was torn
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "k50", "k51"), [b"value 5X", None])

    def test_a_flipped_byte_below_the_durable_mark_refuses_the_start(self):
        server, conn = self.filled()
        version = conn.ok("GETVER", "k50")[1]
        conn.ok("WAITAOF", 1, 0, 0)
        conn.ok("SET", "more", "1")
        conn.ok("WAITAOF", 1, 0, 0)
        server.kill()
        segment = server.segments()[-1]
        at = offset_of(segment, version) - 1
        flip(segment, at)
        before = segment.read_bytes()
        text = self.refusal(server)
        self.assertIn(segment.name, text)
        self.assertRegex(text, r"offset \d+")
        self.assertRegex(text, r"dcache-restore --repair \S+ <new dir>")
        self.assertEqual(segment.read_bytes(), before)  # nothing was touched
        flip(segment, at)
        self.assertEqual(self.restarted(server).ok("DBSIZE"), 101)

    def test_h36_a_second_process_is_refused_by_name(self):
        server, _ = self.filled()
        code, text = run_server(server)
        self.assertEqual(code, 1)
        self.assertIn("in use by another process", text)
        self.assertIn("pid %d" % server.process.pid, text)
        self.assertIn(str(server.dir), text)

    def test_files_of_another_node_are_refused_by_name(self):
        server, conn = self.filled(200)
        conn.ok("SAVE")
        server.terminate()
        other, conn = self.filled()
        conn.ok("SAVE")
        other.terminate()
        stranger = server.snapshots()[-1]
        (other.dir / stranger.name).write_bytes(stranger.read_bytes())
        text = self.refusal(other)
        self.assertIn(stranger.name, text)
        self.assertIn("belongs to node", text)
        (other.dir / stranger.name).unlink()
        stranger = server.segments()[-1]
        (other.dir / stranger.name).write_bytes(stranger.read_bytes())
        self.assertIn(stranger.name, self.refusal(other))
        (other.dir / stranger.name).unlink()
        self.assertEqual(self.restarted(other).ok("DBSIZE"), 100)

    def refused_as_newer(self, server, path, change):
        """The start is refused, the file (or its folder) is named, and it isn't touched."""
        old = path.read_bytes()
        change(old)
        changed, names = path.read_bytes(), sorted(server.dir.iterdir())
        self.assertNotEqual(changed, old)
        text = self.refusal(server)
        self.assertRegex(text, r"%s\b.* newer" % re.escape(str(path.relative_to(server.dir).parts[0])))
        self.assertTrue(path.read_bytes() == changed)
        self.assertEqual(sorted(server.dir.iterdir()), names)
        path.write_bytes(old)

    def test_files_of_a_newer_format_are_refused_by_name(self):
        server, conn = self.filled()
        conn.ok("SAVE")
        conn.ok("SET", "last", "1")
        server.terminate()
        snapshot, segment, meta = server.snapshots()[-1], server.segments()[-1], server.dir / "meta" / "data.mdb"
        node = segment.read_bytes()[16:48]

        def new_head(path, used):
            return lambda old: put_summed(path, 0, old[:8] + struct.pack("<I", 2) + old[12:used])

        def new_node(old):
            for found in re.finditer(re.escape(b"\1" + node), old):
                put_summed(meta, found.start(), b"\2" + node, sum64(b"node", 1))
        for path, change in ((segment, new_head(segment, 96)), (snapshot, new_head(snapshot, 104)), (meta, new_node)):
            with self.subTest(path.name):
                self.refused_as_newer(server, path, change)
        self.assertEqual(self.restarted(server).ok("DBSIZE"), 101)

    def test_a_damaged_snapshot_is_replaced_by_an_older_one_and_its_log(self):
        server, conn = self.filled()
        conn.ok("SAVE")
        conn.pipeline([("SET", "k%d" % i, "second") for i in range(50)])
        conn.ok("SAVE")
        conn.ok("SET", "third", "3")
        server.kill()
        older, newest = server.snapshots()
        flip(newest, newest.stat().st_size - 10)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "k0", "k49", "k50", "third"), [b"second", b"second", b"value 50", b"3"])
        self.assertEqual(conn.ok("DBSIZE"), 101)
        self.assertEqual(server.info(conn, "restart_snapshot"), older.name)
        self.assertIn(newest.name, server.info(conn, "restart_notes"))
        self.assertIn(newest.name, server.last_output())

    def test_a_damaged_snapshot_without_an_older_one_uses_the_whole_log_or_refuses(self):
        server, conn = self.filled()
        conn.ok("SAVE")
        server.kill()
        newest = server.snapshots()[-1]
        flip(newest, newest.stat().st_size - 10)
        conn = self.restarted(server)  # the log from the beginning is there still
        self.assertEqual(conn.ok("DBSIZE"), 100)
        self.assertEqual(server.info(conn, "restart_snapshot"), "")
        conn.ok("SAVE")
        server.kill()
        newest = server.snapshots()[-1]  # the older one is damaged already
        flip(newest, newest.stat().st_size - 10)
        server.segments()[0].unlink()
        text = self.refusal(server)
        self.assertIn("dcache-restore --repair", text)

    def test_h34_a_bad_block_is_rebuilt_or_answers_an_error(self):
        server, conn = self.filled(20_000, snapshot_block_size="4096")
        conn.ok("SAVE")
        server.kill()
        newest = server.snapshots()[-1]
        size = newest.stat().st_size
        for i in range(1, 9):
            flip(newest, size * i // 12)
        conn = self.restarted(server)
        for i in range(0, 20_000, 7):
            reply = conn.call("GET", "k%d" % i)
            if not isinstance(reply, Error):
                self.assertEqual(reply, b"value %d" % i)
        self.assertTrue(newest.exists())

    def with_a_lost_range(self):
        """Without a log there is nothing to rebuild a block from."""
        server, conn = self.filled(20_000, snapshot_block_size="4096", appendonly="no")
        conn.ok("SAVE")
        server.kill()
        flip(server.snapshots()[-1], server.snapshots()[-1].stat().st_size // 2)
        conn = self.restarted(server)
        self.eventually(lambda: server.info(conn, "async_loading") == "0")
        self.assertEqual(server.info(conn, "warm_ranges_failed"), "1")
        return server, conn

    def test_h34_a_backup_that_needs_a_snapshot_says_that_a_range_is_lost(self):
        server, conn = self.with_a_lost_range()
        backup = temp_dir(self) / "backup"
        for words in ((), ("FRESH",)):
            self.assertIn("damaged and not loaded", conn.call("BACKUP", backup, *words))
        self.assertFalse(backup.exists())

    def test_h34_no_log_begins_when_a_range_is_lost(self):
        """It could only go on from a snapshot, and until there is one nothing counts."""
        server, conn = self.with_a_lost_range()
        self.assertIn("dcache-restore --repair", conn.call("CONFIG", "SET", "maxmemory", "1gb", "AppendOnly", "YES"))
        self.assertEqual(conn.ok("CONFIG", "GET", "appendonly"), [b"appendonly", b"no"])
        self.assertEqual(conn.ok("CONFIG", "GET", "maxmemory"), [b"maxmemory", b"0"])
        conn.ok("CONFIG", "SET", "appendonly", "no")
        conn = self.restarted(server, appendonly="yes")  # this one does: the snapshot is there
        self.eventually(lambda: server.info(conn, "async_loading") == "0")
        conn.ok("CONFIG", "SET", "appendonly", "yes")

    def test_metadata_that_is_missing_is_rebuilt(self):
        server, conn = self.filled()
        conn.ok("SAVE")
        version = conn.ok("GETVER", "k5")[1]
        server.kill()
        for path in (server.dir / "meta").iterdir():
            path.unlink()
        (server.dir / "meta").rmdir()
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GETVER", "k5"), [b"value 5", version])
        self.assertEqual(conn.ok("DBSIZE"), 100)
        self.assertTrue((server.dir / "meta").is_dir())

    def test_metadata_that_is_damaged_is_rebuilt(self):
        server, _ = self.filled()
        server.kill()
        for path in (server.dir / "meta").iterdir():
            path.write_bytes(b"\xff" * path.stat().st_size)
        self.assertEqual(self.restarted(server).ok("DBSIZE"), 100)

    def test_leftovers_of_a_crash_are_removed(self):
        server, _ = self.filled()
        server.kill()
        (server.dir / "snap-0000000000000001-0000000000000001.dcs.tmp").write_bytes(b"half")
        self.assertEqual(self.restarted(server).ok("DBSIZE"), 100)
        self.assertEqual(list(server.dir.glob("*.dcs.tmp")), [])


class Retention(DiskCase):
    """Which snapshots and segments stay, as the options say."""
    KEYS = 100

    def rounds(self, conn, count):
        """Each writes a segment and a half over the same keys, whose last values are told."""
        for _ in range(count):
            self.values = [os.urandom(15_000) for _ in range(self.KEYS)]  # nothing to compress
            conn.pipeline([("SET", "k%d" % i, value) for i, value in enumerate(self.values)])
            yield

    def kept(self, **options):
        """A server that has kept the snapshots and the log of six rounds, and a connection."""
        server = self.own_server(log_segment_size="1mb", snapshot_log_size=0, snapshot_keep=1, retain_age=3600, **options)
        conn = self.connect(server, timeout=30)
        for _ in self.rounds(conn, 6):
            conn.ok("SAVE")
        self.before = server.snapshots(), server.segments()
        self.assertEqual(len(self.before[0]), 6)
        self.assertGreaterEqual(len(self.before[1]), 6)
        return server, conn

    def size(self, server):
        return sum(path.stat().st_size for path in server.snapshots() + server.segments())

    def check_newest_stay(self, server):
        """What is there of the files before is the newest of them, and the log reaches back to the oldest snapshot. A start finds all."""
        snapshots, segments = server.snapshots(), server.segments()
        for now, before in zip((snapshots, segments), self.before):
            old = [path for path in before if path in now]
            self.assertEqual(old, before[len(before) - len(old):])
        if snapshots:
            self.assertLessEqual(first_lsn(segments[0]), first_lsn(snapshots[0]))
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", *("k%d" % i for i in range(self.KEYS))), self.values)

    def test_retain_age(self):
        server, conn = self.kept()
        time.sleep(1.2)
        conn.ok("CONFIG", "SET", "retain-age", 1)
        for _ in self.rounds(conn, 1):
            conn.ok("SAVE")
        self.eventually(lambda: len(server.snapshots()) == 2)
        self.eventually(lambda: len(server.segments()) <= 4)
        self.assertIn(self.before[0][-1], server.snapshots())
        self.check_newest_stay(server)

    def test_retain_size(self):
        limit = 9 << 20
        server, conn = self.kept()
        self.assertGreater(self.size(server), limit + (3 << 20))
        conn.ok("CONFIG", "SET", "retain-size", limit)
        for _ in self.rounds(conn, 1):
            conn.ok("SAVE")
        self.eventually(lambda: self.size(server) <= limit)
        time.sleep(1)  # it goes no further
        self.assertGreater(len(server.snapshots()), 2)
        self.check_newest_stay(server)

    def writing(self, conn, seconds):
        """A little at a time."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            conn.ok("SET", "little", "v")
            time.sleep(0.02)

    def test_retain_size_below_what_has_to_stay(self):
        """Snapshots are written when they could make room, not all the time."""
        server = self.own_server(log_segment_size="1mb", snapshot_log_size=0, retain_size=1)
        conn = self.connect(server, timeout=30)
        conn.ok("SAVE")
        self.writing(conn, 3)
        self.assertLessEqual(int(server.info(conn, "rdb_saves")), 3)
        for _ in self.rounds(conn, 10):
            pass
        self.eventually(lambda: conn.ok("SET", "little", "v") and len(server.segments()) == 1, 30)  # what can go goes

    def test_a_snapshot_that_failed_is_not_tried_at_once_because_of_retain_size(self):
        server, conn = self.kept(slow=True)
        server.disk.snapshots_fail()
        start = time.monotonic()
        conn = self.restarted(server, retain_size=1)
        conn.ok("SET", "little", "v")
        self.eventually(lambda: "snapshot.failed" in server.last_output())
        self.writing(conn, 3)
        self.assertLessEqual(server.last_output().count("snapshot.failed"), 1 + (time.monotonic() - start) // 5)

    def test_h18_failing_snapshots_cost_no_log_that_recovery_needs(self):
        """Beyond retain-size writes are still taken: what recovery needs stays, and snapshots are tried again."""
        server, conn = self.kept(slow=True)
        server.disk.snapshots_fail()
        conn = self.restarted(server, retain_age=0, retain_size="1mb")
        for _ in self.rounds(conn, 6):
            pass
        self.eventually(lambda: server.info(conn, "rdb_last_bgsave_status") == "err", 20)
        self.eventually(lambda: server.snapshots() == self.before[0][-2:])
        for _ in self.rounds(conn, 6):
            pass
        time.sleep(1)
        self.assertEqual(server.snapshots(), self.before[0][-2:])
        self.assertGreater(self.size(server), 15 << 20)
        self.check_newest_stay(server)
        server.disk.heal()  # then snapshots make room
        more = self.rounds(self.connect(server, timeout=30), 1000)
        self.eventually(lambda: next(more) is None and not set(self.before[0] + self.before[1]) & set(server.snapshots() + server.segments()), 30)
        self.check_newest_stay(server)


class Trouble(WaitingCase):
    """A disk that takes nothing."""

    def writes(self, conn):
        return conn.call("SET", "k", "v") == "OK"

    def until_refused(self, conn):
        """What is under way when the disk fails is answered "not confirmed"; then writes are refused before any effect."""
        deadline = time.monotonic() + 15 * slowness()
        while time.monotonic() < deadline:
            reply = conn.call("SET", "k", "probe")
            if isinstance(reply, Error):
                self.assertIn(reply.code, ("UNCONFIRMED", "MISCONF"))
                if reply.code == "MISCONF":
                    return reply
        self.fail("never refused")

    def goes_on(self, server, why):
        conn = self.connect(server, timeout=30)
        reply = self.until_refused(conn)
        self.assertIn(why, reply)
        self.assertEqual(conn.ok("GET", "before"), b"1")
        self.assertEqual(conn.ok("DBSIZE") >= 1, True)
        conn.ok("MULTI")
        conn.call("SET", "x", "1")
        self.assertEqual(conn.call("EXEC").code, "EXECABORT")
        self.assertEqual(server.info(conn, "aof_last_write_status"), "err")
        self.assertNotEqual(server.info(conn, "log_trouble"), "")
        return conn

    def recovers(self, server, conn):
        self.eventually(lambda: self.writes(conn), 20)
        self.assertEqual(server.info(conn, "aof_last_write_status"), "ok")
        conn.ok("SET", "after", "2")
        conn.ok("WAITAOF", 1, 0, 0)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "before", "after"), [b"1", b"2"])

    def test_writes_fail(self):
        for error, why in ((errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error"), (errno.EROFS, "Read-only file system")):
            for setting in ("everysec", "always"):
                with self.subTest(why=why, setting=setting):
                    server = self.own_server(slow=True, appendfsync=setting)
                    self.connect(server).ok("SET", "before", "1")
                    server.disk.write_fails(error)
                    conn = self.goes_on(server, why)
                    server.disk.heal()
                    self.recovers(server, conn)

    def test_replies_that_wait_when_the_disk_fails_are_not_confirmed(self):
        server = self.own_server(slow=True, appendfsync="always", ack_timeout=60000)
        conns, peek = [self.connect(server, timeout=30) for _ in range(5)], self.peek(server)
        conns[0].ok("SET", "before", "1")
        server.disk.sync_takes(60)
        for i, conn in enumerate(conns):
            conn.send_raw(encode("SET", "k%d" % i, "v") + encode("GET", "k%d" % i) + encode("GET", "before"))
        self.eventually(lambda: peek.ok("EXISTS", *("k%d" % i for i in range(5))) == 5)
        server.disk.sync_fails()
        server.disk.sync_takes(0)  # the one that is under way ends
        for conn in conns:
            replies = [conn.read() for _ in range(3)]
            self.assertEqual({reply.code for reply in replies if isinstance(reply, Error)}, {"UNCONFIRMED"})
            self.assertIn("applied at LSN ", replies[0])
            self.assertIn("Input/output error", replies[0])
        server.disk.heal()
        self.eventually(lambda: self.writes(conns[0]))
        self.assertEqual([conn.ok("GET", "k%d" % i) for i, conn in enumerate(conns)], [b"v"] * 5)

    def test_h12_a_failed_fdatasync_is_never_trusted(self):
        for setting in ("everysec", "always"):
            with self.subTest(setting):
                server = self.own_server(slow=True, appendfsync=setting)
                conn = self.connect(server, timeout=30)
                conn.ok("SET", "before", "1")
                segment = server.info(conn, "log_segment")
                server.disk.sync_fails()
                conn = self.goes_on(server, "Input/output error")
                server.disk.heal()
                self.eventually(lambda: self.writes(conn), 20)
                self.assertNotEqual(server.info(conn, "log_segment"), segment)
                self.eventually(lambda: int(server.info(conn, "rdb_saves")) > 0)
                self.recovers(server, conn)

    def test_a_snapshot_that_fails_leaves_the_older_one(self):
        server = self.own_server(slow=True)
        conn = self.connect(server, timeout=30)
        conn.ok("SET", "before", "1")
        conn.ok("SAVE")
        older = server.snapshots()
        server.disk.write_fails(errno.ENOSPC)
        self.assertIn("No space left", conn.call("SAVE"))
        self.assertEqual(server.info(conn, "rdb_last_bgsave_status"), "err")
        self.assertEqual(server.snapshots(), older)
        self.assertEqual(list(server.dir.glob("*.dcs.tmp")), [])
        server.disk.heal()
        self.eventually(lambda: conn.call("SAVE") == "OK")

    def test_a_full_disk(self):
        with tempfile.TemporaryDirectory(prefix="dcache-full-") as folder:
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True, check=False)
            if mounted.returncode != 0:
                lacking(self, "mount isn't permitted")
            try:
                self.fill_and_free(Path(folder))
            finally:
                subprocess.run(["umount", "-l", folder], check=True)

    def fill_and_free(self, folder):
        data = folder / "data"
        server = self.own_server(log_segment_size="1mb", dir=data)
        conn = self.connect(server, timeout=30)
        conn.ok("SET", "before", "1")
        with open(folder / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(65536)):
                pass
        for i in range(4000):
            reply = conn.call("SET", "full:%d" % (i % 200), "%d." % i * 200)
            if isinstance(reply, Error):
                break
            acknowledged = i
        self.assertIn("No space left on device", reply)
        self.assertIn("No space left on device", self.until_refused(conn))
        self.assertEqual(conn.ok("GET", "before"), b"1")
        os.unlink(folder / "ballast")
        self.eventually(lambda: self.writes(conn), 20)
        conn.ok("SET", "after", "2")
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "before", "after"), [b"1", b"2"])
        self.assertIn(conn.ok("GET", "full:%d" % (acknowledged % 200)), [b"%d." % acknowledged * 200])

    @contextlib.contextmanager
    def read_only(self, folder):
        """Nothing can be created, renamed or removed below it. Who has a file open goes on writing to that: the kernel refuses what would end it."""
        if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode != 0:
            lacking(self, "mount isn't permitted")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

    def test_a_directory_that_becomes_read_only(self):
        """Until the segment is full nobody notices. Then writes are refused, until the log gets its next segment."""
        server = self.own_server(log_segment_size="1mb")
        conn = self.connect(server, timeout=30)
        conn.ok("SET", "before", "1")
        conn.ok("WAITAOF", 1, 0, 0)
        acknowledged = {}
        with self.read_only(str(server.dir)):
            for i in range(4000):
                reply = conn.call("SET", "full:%d" % (i % 200), "%d." % i * 200)
                if isinstance(reply, Error):
                    break
                acknowledged["full:%d" % (i % 200)] = b"%d." % i * 200
            self.assertGreater(len(acknowledged), 100)
            self.assertIn("Read-only file system", reply)
            if reply.code != "MISCONF":  # refused, or applied and not confirmed
                acknowledged.pop("full:%d" % (i % 200), None)
            self.goes_on(server, "Read-only file system")
            self.assertIn("Read-only file system", conn.call("SAVE"))
            self.assertEqual(conn.ok("MGET", *acknowledged), list(acknowledged.values()))
        self.eventually(lambda: self.writes(conn), 20)
        self.assertEqual(conn.call("SAVE"), "OK")
        self.recovers(server, conn)
        self.assertEqual(self.connect(server, timeout=30).ok("MGET", *acknowledged), list(acknowledged.values()))

    def test_a_directory_that_is_read_only(self):
        server = self.own_server()
        self.connect(server).ok("SET", "before", "1")
        server.terminate()
        with self.read_only(str(server.dir)):
            code, text = run_server(server)
        self.assertEqual(code, 1)
        self.assertIn("Read-only file system", text)
        self.assertEqual(self.restarted(server).ok("GET", "before"), b"1")


if __name__ == "__main__":
    unittest.main()
