#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""H31: does what expires and what is remembered survive a wall clock that jumps, also over a restart?"""
import os
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, WrongClock  # noqa: E402

DAY_S = 24 * 3600
SLOWNESS = float(os.environ.get("DCACHE_TEST_END_SECONDS", 1.0))


class Clocks(DiskCase):
    def node_ms(self, conn):
        seconds, micros = conn.ok("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def test_h31_ten_seconds_back_after_the_restart(self):
        for snapshot in (False, True):
            with self.subTest(snapshot=snapshot):
                server = self.own_server(preload=WrongClock)
                conn = self.connect(server)
                conn.ok("SET", "expired", "session", "PX", 300)
                conn.ok("SET", "removed", "session", "EX", 1000)
                conn.ok("SET", "lives", "session", "EX", 1000)
                conn.ok("DEL", "removed")
                time.sleep(0.4)
                before = self.node_ms(conn)  # a snapshot is of the time of its beginning
                conn.ok("SET", "last", "1")
                if snapshot:
                    conn.ok("SAVE")
                version = conn.ok("LASTVER")
                server.kill()
                server.preload.is_ahead_by(-10)
                conn = self.restarted(server)
                self.assertEqual(conn.ok("MGET", "expired", "removed", "lives"), [None, None, b"session"])
                self.assertEqual(sorted(conn.ok("KEYS", "*")), [b"last", b"lives"])
                # The log tells the time, to within its last frame.
                self.assertGreater(self.node_ms(conn), before - 300 * SLOWNESS)
                self.assertLessEqual(conn.ok("TTL", "lives"), 1000)
                conn.ok("SET", "lives", "on", "PX", 200)
                self.assertGreater(conn.ok("LASTVER"), version)
                time.sleep(0.3)
                self.assertEqual(conn.ok("GET", "lives"), None)

    def test_h31_ten_seconds_back_after_a_restart_behind_a_silence(self):
        """Nothing is in the log behind the expiry: the time that is kept beside it tells."""
        server = self.own_server(preload=WrongClock)
        conn = self.connect(server)
        conn.ok("SET", "expired", "session", "PX", 300)
        time.sleep(2.5)
        self.assertEqual(conn.ok("GET", "expired"), None)
        before = self.node_ms(conn)
        server.kill()
        server.preload.is_ahead_by(-10)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GET", "expired"), None)
        self.assertGreater(self.node_ms(conn), before - 5000)  # the clock is twice as far back

    def test_h31_ten_seconds_back_while_it_runs(self):
        server = self.own_server(preload=WrongClock)
        conn = self.connect(server)
        conn.ok("SET", "expired", "session", "PX", 300)
        time.sleep(0.4)
        server.preload.is_ahead_by(-10)
        self.eventually(lambda: "clock.stepped_back" in server.last_output())
        self.assertEqual(conn.ok("GET", "expired"), None)
        conn.ok("SET", "short", "session", "PX", 100)
        time.sleep(0.2)
        self.assertEqual(conn.ok("GET", "short"), None)

    def test_h31_a_day_ahead_for_a_moment(self):
        server = self.own_server(preload=WrongClock)
        conn = self.connect(server)
        conn.pipeline([("SET", "session:%d" % i, "data", "EX", 1800) for i in range(1000)])
        server.preload.is_ahead_by(DAY_S)
        self.eventually(lambda: "clock.jumped_forward" in server.last_output())
        time.sleep(0.3)
        self.assertEqual(conn.ok("DBSIZE"), 1000)
        self.assertEqual(conn.ok("GET", "session:7"), b"data")
        conn.ok("SET", "written meanwhile", "1", "EX", 1800)
        server.preload.is_ahead_by(0)
        self.eventually(lambda: "clock.caught_up" in server.last_output())
        self.assertGreater(conn.ok("TTL", "written meanwhile"), 1700)
        conn = self.restarted(server)  # nothing that was written in that moment makes time jump at the start
        self.assertEqual(conn.ok("DBSIZE"), 1001)
        self.assertGreater(conn.ok("TTL", "session:7"), 1700)
        self.assertLess(abs(self.node_ms(conn) - time.time() * 1000), 2000)


if __name__ == "__main__":
    unittest.main()
