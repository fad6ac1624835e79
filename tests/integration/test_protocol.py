#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does the server take input in any shape: many commands at once, byte by byte, half frames, endless frames?"""
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.resp import Closed, Error, encode  # noqa: E402
from support.server import ServerCase  # noqa: E402

MIB = 1 << 20


class Pipelining(ServerCase):
    def test_ten_thousand_commands_in_one_write(self):
        conn = self.connect()
        replies = conn.pipeline([("INCR", "n")] * 5000 + [("SET", "k%d" % n, n) for n in range(5000)])
        self.assertEqual(replies[:5000], list(range(1, 5001)))
        self.assertEqual(set(replies[5000:]), {"OK"})
        self.assertEqual(conn.call("DBSIZE"), 5001)

    def test_replies_keep_the_order_of_commands_of_every_kind(self):
        conn = self.connect()
        commands, expected = [], []
        for n in range(2000):
            commands += [("SET", "k", n), ("GET", "k"), ("NOSUCH",), ("ECHO", n), ("MULTI",), ("INCR", "k"), ("EXEC",)]
            unknown = "ERR unknown command 'NOSUCH', with args beginning with: "
            expected += ["OK", b"%d" % n, unknown, b"%d" % n, "OK", "QUEUED", [n + 1]]
        self.assertEqual(conn.pipeline(commands), expected)

    def test_byte_by_byte(self):
        conn = self.connect()
        script = encode("SET", "k", "v" * 20) + encode("GET", "k") + b"PING\r\n" + encode("MGET", "k", "none") + b"GET k\r\n"
        script *= 20
        for at in range(len(script)):
            conn.send_raw(script[at:at + 1])
        for _ in range(20):
            self.assertEqual([conn.read() for _ in range(5)], ["OK", b"v" * 20, "PONG", [b"v" * 20, None], b"v" * 20])

    def test_pieces_of_every_size(self):
        conn = self.connect()
        value = bytes(range(256)) * 40
        script = encode("SET", "k", value) + encode("GET", "k")
        for size in (2, 3, 5, 7, 11, 64, 100, 1000, 1459, 4096):
            for at in range(0, len(script), size):
                conn.send_raw(script[at:at + size])
            self.assertEqual([conn.read(), conn.read()], ["OK", value])

    def test_large_values_in_a_pipeline(self):
        conn = self.connect()
        values = [bytes([n]) * (300000 + n) for n in range(20)]
        self.assertEqual(conn.pipeline(("SET", "k%d" % n, v) for n, v in enumerate(values)), ["OK"] * 20)
        self.assertEqual(conn.pipeline(("GET", "k%d" % n) for n in range(20)), values)

    def test_client_that_closes_in_the_middle(self):
        for cut in (1, 3, 10, 25):
            conn = self.connect()
            conn.send_raw(encode("SET", "x", "1") * 50 + encode("SET", "cut", "1")[:cut])
            conn.close()
        self.eventually(lambda: self.connect().call("EXISTS", "x") == 1)
        self.assertEqual(self.connect().call("EXISTS", "cut"), 0)


class Unfinished(ServerCase):
    def test_half_a_frame_then_the_rest(self):
        frame = encode("SET", "slow", "value" * 1000)
        conns = [self.connect() for _ in range(20)]
        for n, conn in enumerate(conns):
            conn.send_raw(frame[:1 + n * 250])
        time.sleep(1.5)
        self.assertEqual(self.connect().call("EXISTS", "slow"), 0)
        for n, conn in enumerate(conns):
            conn.send_raw(frame[1 + n * 250:])
            self.assertEqual(conn.read(), "OK")

    def test_half_frames_hold_little_memory(self):
        before = self.server.rss()
        conns = [self.connect() for _ in range(300)]
        for conn in conns:
            conn.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc")
        time.sleep(0.5)
        self.assertEqual(self.connect().call("PING"), "PONG")
        self.assertLess(self.server.rss() - before, 300 * 64 * 1024 + 8 * MIB)

    def test_announced_bytes_are_not_memory(self):
        before = self.server.rss()
        conns = [self.connect() for _ in range(20)]
        for conn in conns:
            conn.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500000000\r\nabc")
        for conn in conns:
            conn.send_raw(b"d")
        time.sleep(0.5)
        self.assertEqual(self.connect().call("PING"), "PONG")
        self.assertLess(self.server.rss() - before, 200 * MIB)

    def test_announced_arguments_are_not_memory(self):
        before = self.server.rss()
        for _ in range(20):
            self.connect().send_raw(b"*1000000\r\n$4\r\nMGET\r\n")
        time.sleep(0.3)
        self.assertEqual(self.connect().call("PING"), "PONG")
        self.assertLess(self.server.rss() - before, 200 * MIB)


class Oversized(ServerCase):
    def test_a_million_tiny_arguments(self):
        before = self.server.rss()
        conn = self.connect(timeout=60)
        self.connect().ok("SET", "a", "1")
        conn.send_raw(b"*1000001\r\n$6\r\nEXISTS\r\n" + b"$1\r\na\r\n" * 1000000)
        try:
            reply = conn.read()
            self.assertTrue(reply == 1000000 or isinstance(reply, Error), reply)
        except Closed:
            pass
        conn.close()
        self.assertEqual(self.connect().call("PING"), "PONG")
        self.assertLess(self.server.rss() - before, 500 * MIB)

    def test_a_long_line_is_refused(self):
        conn = self.connect()
        try:
            for _ in range(100):
                conn.send_raw(b"x" * MIB)
        except ConnectionError:
            pass
        else:
            self.fail("took 100 MB without a line end")
        self.assertEqual(self.connect().call("PING"), "PONG")

    def test_a_bulk_over_the_limit_is_refused_at_its_header(self):
        conn = self.connect()
        conn.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n")
        self.assertEqual(conn.read(), "ERR Protocol error: invalid bulk length")
        self.assertRaises(Closed, conn.read)

    def test_random_bytes_do_no_harm(self):
        import random
        rng = random.Random(11)
        for n in range(300):
            conn = self.connect()
            lead = rng.choice([b"", b"*", b"*3\r\n$3\r\nSET\r\n", b"*2\r\n$", b"$5\r\n", b"*1\r\n$4\r\nPING\r\n"])
            try:
                conn.send_raw(lead + rng.randbytes(rng.randrange(1, 2000)) + b"\r\n")
                conn.drain()
            except (ConnectionError, ValueError, AssertionError):
                pass
            conn.close()
        self.assertEqual(self.connect().call("PING"), "PONG")


if __name__ == "__main__":
    unittest.main()
