#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Is what many connections do at once, on all workers, still one order for everybody?"""
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.server import ServerCase  # noqa: E402

SECONDS = 1.0
KEYS = ["a", "b", "c", "d{1}", "e{2}", "f{3}"]  # in slots of their own


class Crowd(ServerCase):
    options = {"threads": 4}

    def crowd(self, *jobs):
        """Runs each job in a thread of its own with a connection of its own, and raises what any of them raised."""
        failures, results = [], [None] * len(jobs)

        def work(index, job):
            try:
                with self.server.connect() as conn:
                    results[index] = job(conn)
            except BaseException as failure:  # handed to the test's own thread
                failures.append(failure)

        threads = [threading.Thread(target=work, args=pair) for pair in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60 * slowness())
        self.assertFalse(any(t.is_alive() for t in threads), "stuck")
        if failures:
            raise failures[0]
        return results


class Counters(Crowd):
    def test_counters_add_up(self):
        def job(conn):
            for _ in range(10):
                conn.pipeline([("INCR", "n"), ("INCRBY", "m", 3), ("DECR", "d"), ("INCRBYFLOAT", "f", "0.5"),
                               ("BITFIELD", "bits", "INCRBY", "u32", "#1", "1"), ("APPEND", "s", "xy")] * 50)
        self.crowd(*[job] * 12)
        conn = self.connect()
        self.assertEqual(conn.call("MGET", "n", "m", "d", "f"), [b"6000", b"18000", b"-6000", b"3000"])
        self.assertEqual(conn.call("BITFIELD", "bits", "GET", "u32", "#1"), [6000])
        self.assertEqual(conn.call("STRLEN", "s"), 12000)

    def test_every_increment_gives_its_own_number(self):
        numbers = self.crowd(*[lambda c: c.pipeline([("INCR", "n")] * 1000)] * 8)
        self.assertEqual(sorted(n for part in numbers for n in part), list(range(1, 8001)))
        self.assertTrue(all(part == sorted(part) for part in numbers))

    def test_one_winner_each(self):
        def job(conn):
            won = [conn.pipeline([("SET", "lock%d" % n, "x", "NX") for n in range(300)]).count("OK"), 0]
            gate.wait()
            won[1] = sum(v is not None for v in conn.pipeline([("GETDEL", "lock%d" % n) for n in range(300)]))
            return won
        gate = threading.Barrier(8)
        self.assertEqual([sum(w) for w in zip(*self.crowd(*[job] * 8))], [300, 300])

    def test_msetnx_is_all_or_nothing(self):
        def job(conn):
            keys = [("p%d" % n, "q%d" % n, "r%d" % (n * 7 % 200)) for n in range(200)]
            return conn.pipeline([("MSETNX", p, "x", q, "x", r, "x") for p, q, r in keys]).count(1)
        won = sum(self.crowd(*[job] * 8))
        self.assertEqual(self.connect().call("DBSIZE"), 3 * won)


class Atomicity(Crowd):
    def until(self):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            yield

    def test_exec_is_seen_whole(self):
        def writer(conn, mark):
            for n, _ in enumerate(self.until()):
                value = "%s%d" % (mark, n)
                commands = [("MULTI",)] + [("SET", k, value) for k in KEYS] + [("MGET", *KEYS), ("EXEC",)]
                replies = conn.pipeline(commands) if n % 2 else [conn.call(*c) for c in commands]
                self.assertEqual(replies[-1][-1], [value.encode()] * len(KEYS))

        def reader(conn):
            seen = set()
            for _ in self.until():
                values = set(conn.call("MGET", *KEYS))
                self.assertEqual(len(values), 1, "half of an EXEC: %r" % values)
                seen |= values
            return len(seen)

        def reader_in_exec(conn):
            for _ in self.until():
                values = set(conn.pipeline([("MULTI",)] + [("GET", k) for k in reversed(KEYS)] + [("EXEC",)])[-1])
                self.assertEqual(len(values), 1, "half of an EXEC: %r" % values)
        seen = self.crowd(lambda c: writer(c, "x"), lambda c: writer(c, "y"), reader, reader, reader_in_exec)
        self.assertGreater(seen[2], 5, "the reader hardly saw anything change")

    def test_mset_is_seen_whole(self):
        def writer(conn):
            for n, _ in enumerate(self.until()):
                conn.ok("MSET", *[w for k in KEYS for w in (k, n)])

        def reader(conn):
            for _ in self.until():
                self.assertEqual(len(set(conn.call("MGET", *KEYS))), 1)
        self.crowd(writer, writer, reader, reader)

    def test_a_renamed_key_is_never_gone_and_never_double(self):
        self.connect().ok("SET", "here", "v")

        def mover(conn):
            for _ in self.until():
                conn.ok("RENAME", "here", "there")
                conn.ok("RENAME", "there", "here")

        def reader(conn):
            for _ in self.until():
                self.assertEqual(sorted(map(bool, conn.call("MGET", "here", "there"))), [False, True])
                self.assertEqual(conn.call("EXISTS", "there", "here"), 1)
        self.crowd(mover, reader, reader)

    def test_flush_in_the_middle_of_writers(self):
        def flusher(conn):
            for _ in self.until():
                conn.ok("FLUSHALL")

        def writer(conn):
            for n, _ in enumerate(self.until()):
                key = "k%d" % n
                replies = conn.pipeline([("MULTI",), ("SET", key, "1"), ("FLUSHALL",), ("SET", key, "2"),
                                         ("GET", key), ("EXEC",)])
                self.assertEqual(replies[-1], ["OK", "OK", "OK", b"2"])
                self.assertIn(conn.call("GET", key), (b"2", None))
        self.crowd(flusher, writer, writer)
        self.connect().ok("FLUSHALL")
        self.assertEqual(self.connect().call("DBSIZE"), 0)


class Watch(Crowd):
    def test_watch_never_misses(self):
        """Compare-and-set increments from eight connections: none is lost, whatever they collide on."""
        def job(conn):
            done = retries = 0
            while done < 100:
                conn.ok("WATCH", "n")
                value = int(conn.call("GET", "n") or 0)
                result = conn.pipeline([("MULTI",), ("SET", "n", value + 1), ("EXEC",)])[-1]
                done += result is not None
                retries += result is None
            return retries
        retries = self.crowd(*[job] * 8)
        self.assertEqual(self.connect().call("GET", "n"), b"800")
        self.assertGreater(sum(retries), 0, "they never collided")

    def test_watch_of_two_keys(self):
        """Moves between two accounts keep the sum, and each of them counts."""
        self.connect().ok("MSET", "x", 10000, "y", 10000)

        def job(conn):
            for n in range(60):
                while True:
                    conn.ok("WATCH", "x", "y")
                    x, y = map(int, conn.call("MGET", "x", "y"))
                    self.assertEqual(x + y, 20000)
                    if conn.pipeline([("MULTI",), ("SET", "x", x - n), ("SET", "y", y + n), ("EXEC",)])[-1] is not None:
                        break
        self.crowd(*[job] * 5)
        moved = 5 * sum(range(60))
        self.assertEqual(self.connect().call("MGET", "x", "y"), [b"%d" % (10000 - moved), b"%d" % (10000 + moved)])

    def test_h41_a_missing_key_that_came_and_went(self):
        one, other = self.connect(), self.connect()
        one.ok("WATCH", "ghost")
        other.ok("SET", "ghost", "1")
        other.ok("DEL", "ghost")
        self.assertEqual(one.pipeline([("MULTI",), ("SET", "x", "1"), ("EXEC",)]), ["OK", "QUEUED", None])
        self.assertEqual(one.call("EXISTS", "x"), 0)
        one.ok("WATCH", "ghost")
        self.assertEqual(one.pipeline([("MULTI",), ("SET", "x", "1"), ("EXEC",)])[-1], ["OK"])

    def test_h7_flush_inside_exec(self):
        one = self.connect()
        one.ok("SET", "old", "0")
        queue = [("SET", "a", "1"), ("FLUSHALL",), ("SET", "b", "2"), ("DBSIZE",)]
        replies = one.pipeline([("MULTI",), *queue, ("EXEC",)])
        self.assertEqual(replies[-1], ["OK", "OK", "OK", 1])
        self.assertEqual(self.connect().call("MGET", "old", "a", "b"), [None, None, b"2"])


class Scans(Crowd):
    def test_scan_during_writes_shows_every_key_that_stays(self):
        self.connect().pipeline([("SET", "stay:%d" % n, n) for n in range(3000)])

        def churn(conn):
            for n in range(40):
                conn.pipeline([("SET", "go:%d:%d" % (n, m), m) for m in range(200)])
                conn.pipeline([("DEL", "go:%d:%d" % (n, m)) for m in range(200)])

        def scan(conn):
            for count in (7, 50, 1000):
                seen, cursor = set(), b"0"
                while True:
                    cursor, keys = conn.call("SCAN", cursor, "MATCH", "stay:*", "COUNT", count)
                    seen.update(keys)
                    if cursor == b"0":
                        break
                self.assertEqual(len(seen), 3000)
        self.crowd(churn, scan, scan)

    def test_random_key_is_a_key(self):
        conn = self.connect()
        self.assertIsNone(conn.call("RANDOMKEY"))
        conn.pipeline([("SET", "r%d" % n, n) for n in range(100)])
        seen = set(conn.pipeline([("RANDOMKEY",)] * 2000))
        self.assertLessEqual(seen, {b"r%d" % n for n in range(100)})
        self.assertGreater(len(seen), 50)


if __name__ == "__main__":
    unittest.main()
