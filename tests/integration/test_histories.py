#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a run handed out and lost is never handed out again: positions after clean and unclean ends."""
import signal
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.server import Server  # noqa: E402


def was_clean(conn):
    return b"restart_clean:yes" in conn.call("INFO", "persistence")


class Histories(unittest.TestCase):
    def restarted(self, server):
        server.start()
        return server.connect()

    def test_h05_a_run_whose_log_is_lost_leaves_a_gap(self):
        server = Server(threads=1)
        with server:
            conn = server.connect()
            conn.ok("SET", "a", "1")
            server.process.send_signal(signal.SIGTERM)
            server.wait()
            conn = self.restarted(server)
            self.assertTrue(was_clean(conn))
            conn.ok("SET", "k", "old")
            old = conn.call("GETVER", "k")[1]
            server.kill()
            newest = max(server.dir.glob("log-*.dcl"))
            with open(newest, "r+b") as segment: # a power cut: nothing behind the header has reached the disk
                size = newest.stat().st_size
                segment.seek(4096)
                segment.write(bytes(size - 4096))
            conn = self.restarted(server)
            self.assertFalse(was_clean(conn))
            self.assertEqual(conn.call("LOG", "STATUS", old), b"lost")
            conn.ok("SET", "k", "new")
            self.assertGreater(conn.call("GETVER", "k")[1], old)
            self.assertIsNone(conn.call("SET", "k", "x", "IFVER", old))
            self.assertEqual(conn.call("GET", "a"), b"1")


if __name__ == "__main__":
    unittest.main()
