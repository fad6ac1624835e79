#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Power cuts: what they took is never handed out again, and what is left is whole commands."""
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import SEGMENT_HEADER_LEN, DiskCase, first_lsn, log_position, offset_of  # noqa: E402
from support.server import temp_dir  # noqa: E402

UNSYNCED = {"appendfsync": "no", "log_segment_size": "1mb"}  # nothing is durable unless somebody waits for it


class PowerCut(DiskCase):
    def power_cut(self, server, lsn=None):
        """Of the newest segment nothing behind the LSN has reached the disk; None: nothing at all."""
        server.kill()
        segment = server.segments()[-1]
        offset = SEGMENT_HEADER_LEN if lsn is None else offset_of(segment, lsn)
        with open(segment, "r+b") as file:
            size = file.seek(0, 2)
            file.seek(offset)
            file.write(bytes(size - offset))


class Histories(PowerCut):
    def statuses(self, conn, lsns):
        return [conn.ok("LOG", "STATUS", lsn).decode() for lsn in lsns]

    def test_h01_an_unclean_open_forks_and_lost_positions_stay_lost(self):
        server = self.own_server(**UNSYNCED)
        conn = self.connect(server)
        kept, lost, files = [], [], []
        for n in range(3):  # the chain becomes longer, and forgets no gap
            conn.ok("SET", "kept:%d" % n, n)
            kept.append(conn.ok("LASTVER"))
            conn.ok("WAITAOF", 1, 0, 0)
            for i in range(100):
                conn.ok("SET", "lost", i)
                lost.append(conn.ok("LASTVER"))
            self.power_cut(server, kept[-1])
            files.append(server.segments()[-1])
            conn = self.restarted(server)
            self.assertEqual(server.info(conn, "restart_clean"), "no")
            self.assertEqual(conn.ok("EXISTS", "lost"), 0)
            self.assertEqual(self.statuses(conn, kept), ["durable"] * len(kept))
            self.assertEqual(set(self.statuses(conn, lost)), {"lost"})
        server.terminate()
        conn = self.restarted(server)
        self.assertEqual(server.info(conn, "restart_clean"), "yes")
        self.assertEqual(set(self.statuses(conn, lost)), {"lost"})
        self.assertEqual(self.statuses(conn, kept), ["durable"] * 3)
        # Who asks for what stands at a lost position never gets bytes of the new histories: they are elsewhere, under other names.
        files.append(server.segments()[-1])
        histories = [path.name.split("-")[2] for path in files]
        self.assertEqual(len(set(histories)), len(histories))
        for n, path in enumerate(files[1:]):
            self.assertGreater(first_lsn(path), lost[100 * (n + 1) - 1])

    def test_h04_a_flush_that_was_lost_does_not_kill_what_comes_later(self):
        server = self.own_server(**UNSYNCED)
        conn = self.connect(server)
        conn.ok("MSET", "a", 1, "b", 2)
        position = conn.ok("LASTVER")
        conn.ok("FLUSHDB")
        conn.ok("FLUSHALL")
        self.power_cut(server, position)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "a", "b"), [b"1", b"2"])
        conn.ok("SET", "c", 3)
        self.assertEqual(conn.ok("MGET", "a", "b", "c"), [b"1", b"2", b"3"])
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "a", "b", "c"), [b"1", b"2", b"3"])
        self.assertEqual(conn.ok("DBSIZE"), 3)

    def test_h05_a_version_from_a_lost_tail_matches_nothing(self):
        server = self.own_server(**UNSYNCED)
        conn = self.connect(server)
        conn.ok("SET", "a", "1")
        server.terminate()
        conn = self.restarted(server)
        self.assertEqual(server.info(conn, "restart_clean"), "yes")
        old = []
        for i in range(50):  # so many that one of the next run's would be among them
            conn.ok("SET", "k", "old")
            old.append(conn.ok("GETVER", "k")[1])
        self.power_cut(server)
        conn = self.restarted(server)
        self.assertEqual(set(self.statuses(conn, old)), {"lost"})
        new = []
        for i in range(50):
            conn.ok("SET", "k", "new")
            new.append(conn.ok("GETVER", "k")[1])
        self.assertGreater(min(new), max(old))
        for version in old:
            self.assertIsNone(conn.call("SET", "k", "x", "IFVER", version))
        self.assertEqual(conn.ok("MGET", "a", "k"), [b"1", b"new"])


class Halves(PowerCut):
    """H8: commands of several effects, and a power cut in the middle of each."""
    NAMES = ("a", "b", "c", "counter")
    COMMANDS = (
        [("RENAME", "a", "b")], [("RENAMENX", "b", "new")], [("RENAME", "new", "b")], [("COPY", "c", "b", "REPLACE")],
        [("COPY", "c", "a", "DB", 1)], [("MOVE", "b", 1)], [("GETDEL", "c")], [("MSET", "a", "x", "b", "y", "c", "z")],
        [("DEL", "a", "b", "c")], [("MSETNX", "a", "u", "b", "v")], [("UNLINK", "a", "b")],
        [("MULTI",), ("INCR", "counter"), ("SET", "a", "in exec"), ("DEL", "counter"), ("SET", "c", "too"), ("EXEC",)])

    def state(self, conn):
        found = []
        for db in (1, 0):
            conn.ok("SELECT", db)
            found.append(conn.ok("MGET", *self.NAMES, "new") + sorted(conn.ok("KEYS", "*")))
        return found

    def test_h08_every_command_is_there_whole_or_not_at_all(self):
        server = self.own_server(**UNSYNCED)
        conn = self.connect(server)
        conn.ok("MSET", "a", "value of a", "c", "value of c", "counter", 7)
        moments = [(log_position(conn)["head"], self.state(conn))]
        for words in self.COMMANDS:
            for each in words:
                conn.ok(*each)
            moments.append((log_position(conn)["head"], self.state(conn)))
        server.kill()
        saved = shutil.copytree(server.dir, temp_dir(self) / "saved")
        for words, (start, before), (end, after) in zip(self.COMMANDS, moments, moments[1:]):
            self.assertGreater(end, start, words)
            for lsn in ((start + end) // 2, end - 1, end):
                with self.subTest(command=words, offset=lsn - start, length=end - start):
                    self.assertEqual(self.state_after_cut(server, saved, lsn), after if lsn == end else before)

    def state_after_cut(self, server, saved, lsn):
        server.kill()
        for path in server.dir.glob("*-*.*"):
            path.unlink()
        shutil.copytree(saved, server.dir, dirs_exist_ok=True)
        self.power_cut(server, lsn)
        return self.state(self.restarted(server))


if __name__ == "__main__":
    unittest.main()
