#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Is a node that was killed right at once, while most of its data isn't loaded yet?"""
import multiprocessing
import os
import random
import re
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, flushes  # noqa: E402
from support.pace import BUILD, slowness  # noqa: E402
from support.resp import Error  # noqa: E402
from support.server import temp_dir  # noqa: E402

COUNT = 300_000 if BUILD == 1 else 75_000  # so many that a single thread loads them for a while


def key(i):
    return b"key:%d" % i


def value(i):
    return b"value %d/" % i * 3


class Times(DiskCase):
    """Expiry over a restart."""

    def test_h30_a_longer_expiry_in_the_log_outlives_the_first_one(self):
        server = self.own_server()
        conn = self.connect(server)
        names = ["expire", "persist", "set", "pexpireat", "keepttl", "gone"]
        life = 1.5 * slowness(at_most=10)  # for a snapshot and six commands
        for name in names:
            conn.ok("SET", name, "session", "PX", int(1000 * life))
        conn.ok("SAVE")
        conn.ok("EXPIRE", "expire", 1800)
        conn.ok("PERSIST", "persist")
        conn.ok("SET", "set", "session")
        conn.ok("PEXPIREAT", "pexpireat", int(time.time() * 1000) + 1_800_000)
        conn.ok("EXPIRE", "keepttl", 1800)
        conn.ok("SET", "keepttl", "session", "KEEPTTL")
        server.kill()
        time.sleep(life + 0.1)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", *names), [b"session"] * 5 + [None])
        self.assertEqual(conn.ok("TTL", "persist"), -1)
        self.assertGreater(conn.ok("TTL", "expire"), 1700)
        self.assertGreater(conn.ok("TTL", "keepttl"), 1700)

    def test_h30_without_a_snapshot(self):
        server = self.own_server()
        conn = self.connect(server)
        life = 0.3 * slowness(at_most=10)
        conn.ok("SET", "a", "session", "PX", int(1000 * life))
        conn.ok("EXPIRE", "a", 1800)
        conn.ok("SET", "b", "1", "PX", int(1000 * life))
        server.kill()
        time.sleep(life + 0.1)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("MGET", "a", "b"), [b"session", None])

    def test_h21_a_counter_that_expired_begins_anew_with_its_new_expiry(self):
        server = self.own_server()
        conn = self.connect(server)
        conn.ok("SET", "c", 41, "PX", 200)
        conn.ok("SAVE")
        time.sleep(0.3)
        self.assertEqual(conn.ok("INCR", "c"), 1)
        conn.ok("EXPIRE", "c", 100)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GET", "c"), b"1")
        self.assertGreater(conn.ok("TTL", "c"), 90)
        self.assertEqual(conn.ok("INCR", "c"), 2)

    def test_what_expires_while_the_node_is_down_is_gone(self):
        server = self.own_server()
        conn = self.connect(server)
        conn.pipeline([("SET", "k%d" % i, "v", "PX", 400) for i in range(1000)])
        conn.ok("SAVE")
        conn.ok("SET", "stays", "1")
        server.kill()
        time.sleep(0.6)
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GET", "k7"), None)
        self.assertEqual(conn.ok("KEYS", "*"), [b"stays"])
        self.assertEqual(conn.ok("SET", "k8", "new", "NX"), "OK")


class SystemKeyspace(DiskCase):
    """What the node keeps beside the databases."""

    def test_h4_a_database_knows_its_last_flush_after_a_restart(self):
        server = self.own_server(save="")
        conn = self.connect(server)
        conn.ok("SET", "a", 1)
        conn.ok("SELECT", 9)
        conn.ok("SET", "a", 1)
        conn.ok("FLUSHDB")
        only_nine = flushes(conn)
        self.assertEqual(only_nine, {9: conn.ok("LASTVER")})
        conn.ok("FLUSHDB")  # there is nothing to flush
        self.assertEqual(flushes(conn), only_nine)
        conn = self.restarted(server)  # from the log
        self.assertEqual(flushes(conn), only_nine)
        conn.ok("DBSIZE")  # all is loaded: what isn't yet counts as something to flush
        replies = conn.pipeline([("MULTI",), ("SET", "gone", 1), ("FLUSHALL",), ("INFO", "dcache"), ("SET", "b", 2),
                                 ("LASTVER",), ("EXEC",)])[-1]
        self.assertNotIn(b"db0_flushed_lsn", replies[2])  # inside EXEC it has no version yet
        both = flushes(conn)
        self.assertGreater(both[0], only_nine[9])
        self.assertLess(both[0], replies[-1])
        self.assertEqual(both, {**only_nine, 0: both[0]})
        conn.ok("SAVE")
        conn.ok("SET", "late", 1)
        for _ in range(2):  # from the snapshot, which is younger than the flush
            conn = self.restarted(server)
            self.assertEqual(flushes(conn), both)
            self.assertEqual(sorted(conn.ok("KEYS", "*")), [b"b", b"late"])
        conn = self.restarted(server, databases=4)
        self.assertEqual(flushes(conn), {0: both[0]})
        conn = self.restarted(server, databases=16)
        self.assertEqual(flushes(conn), both)
        conn.ok("DBSIZE")  # what is cold counts as not empty
        conn.ok("FLUSHALL")
        self.assertGreater(flushes(conn)[0], both[0])
        self.assertEqual(flushes(conn)[9], both[9])

    def test_no_client_reaches_it(self):
        server = self.own_server()
        conn = self.connect(server)
        for _ in range(2):
            conn.ok("SET", "a", 1)
            conn.ok("FLUSHALL")
            self.assertIsInstance(conn.call("SELECT", 65535), Error)
            self.assertIsInstance(conn.call("SELECT", 16), Error)
            conn.ok("SET", "k", 1)
            self.assertIsInstance(conn.call("MOVE", "k", 65535), Error)
            self.assertIsInstance(conn.call("COPY", "k", "k", "DB", 65535), Error)
            conn.ok("DEL", "k")
            for db in range(16):
                conn.ok("SELECT", db)
                self.assertEqual(conn.ok("DBSIZE"), 0)
                self.assertEqual(conn.ok("KEYS", "*"), [])
                self.assertEqual(conn.ok("SCAN", 0, "COUNT", 100000), [b"0", []])
                self.assertEqual(conn.ok("RANDOMKEY"), None)
                self.assertEqual(conn.ok("EXISTS", "flush:0"), 0)
            self.assertEqual(conn.ok("INFO", "keyspace").split(), [b"#", b"Keyspace"])
            self.assertIn(b"\nkeys:0\r", conn.ok("INFO", "dcache"))
            conn = self.restarted(server)


class Warming(DiskCase):
    """H32: everything on a node whose ranges are cold."""
    options = {"warm_threads": 1, "threads": 2, "appendfsync": "everysec"}

    def server_with_data(self, **options):
        """300k keys, most of them in a snapshot, some behind it; killed."""
        server = self.own_server(**{**self.options, **options})
        with server.connect(timeout=60) as conn:
            for start in range(0, COUNT, 5000):
                pairs = [w for i in range(start, min(start + 5000, COUNT)) for w in (key(i), value(i))]
                conn.ok("MSET", *pairs)
            conn.ok("SELECT", 1)
            conn.ok("MSET", *[w for i in range(1000) for w in (key(i), b"db1")])
            conn.ok("SAVE")
            conn.ok("SELECT", 0)
            conn.ok("MSET", *[w for i in range(0, COUNT, 1000) for w in (key(i), b"changed")])
            conn.ok("DEL", *[key(i) for i in range(1, COUNT, 1000)])
        server.kill()
        return server

    def expected(self, i):
        return b"changed" if i % 1000 == 0 else None if i % 1000 == 1 else value(i)

    def count(self):
        return COUNT - len(range(1, COUNT, 1000))

    def cold(self, server):
        """A connection right after the start, with a word on whether it was in time."""
        conn = self.restarted(server)
        self.was_cold |= server.info(conn, "async_loading") == "1"
        return conn

    def test_h32_commands_while_warming(self):
        server = self.server_with_data()
        self.was_cold = False
        for check in (self.reads, self.transactions, self.names, self.counts, self.flushes, self.kills, self.saves):
            with self.subTest(check.__name__):
                check(server)
                if server.alive():
                    server.kill()
        self.assertTrue(self.was_cold, "warm before anything could be asked")

    def reads(self, server):
        conn = self.cold(server)
        rng = random.Random(1)
        for _ in range(30):
            some = [rng.randrange(COUNT) for _ in range(50)] + [0, 1, 1000, 1001]
            self.assertEqual(conn.ok("MGET", *map(key, some)), [self.expected(i) for i in some])
        self.assertEqual(conn.ok("EXISTS", key(1), key(2)), 1)
        self.assertEqual(conn.ok("SET", key(2), "x", "NX"), None)
        self.assertEqual(conn.ok("STRLEN", key(3)), len(value(3)))

    def transactions(self, server):
        conn = self.cold(server)
        some = list(range(5, COUNT, COUNT // 200))
        conn.ok("WATCH", *map(key, some[:10]))
        conn.ok("MULTI")
        for i in some:
            conn.ok("GET", key(i))
        conn.ok("RENAME", key(some[0]), b"elsewhere")
        conn.ok("RENAME", b"elsewhere", key(some[0]))
        conn.ok("SELECT", 1)
        conn.ok("GET", key(4))
        conn.ok("SELECT", 0)
        replies = conn.ok("EXEC")
        self.assertEqual(replies[:len(some)], [self.expected(i) for i in some])
        self.assertEqual(replies[-2], b"db1")

    def names(self, server):
        conn = self.cold(server)
        found, cursor = [], b"0"
        while True:
            cursor, some = conn.ok("SCAN", cursor, "COUNT", 10_000)
            found += some
            if cursor == b"0":
                break
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual(set(found), {key(i) for i in range(COUNT) if i % 1000 != 1})
        conn = self.cold(server)
        self.assertEqual(conn.ok("RANDOMKEY")[:4], b"key:")
        conn = self.cold(server)
        wanted = {key(i) for i in range(COUNT) if i % 1000 != 1 and str(i).startswith("12")}
        self.assertEqual(set(conn.ok("KEYS", "key:12*")), wanted)

    def counts(self, server):
        conn = self.cold(server)
        self.assertEqual(conn.ok("DBSIZE"), self.count())
        conn.ok("SELECT", 1)
        self.assertEqual(conn.ok("DBSIZE"), 1000)

    def flushes(self, server):
        conn = self.cold(server)
        conn.ok("SELECT", 1)
        conn.ok("FLUSHDB")
        conn.ok("SET", "after", "1")
        self.assertEqual(conn.ok("GET", key(5)), None)
        conn.ok("SELECT", 0)
        self.assertEqual(conn.ok("GET", key(5)), value(5))
        conn = self.cold(server)
        self.assertEqual(conn.ok("DBSIZE"), self.count())
        conn.ok("SELECT", 1)
        self.assertEqual(conn.ok("KEYS", "*"), [b"after"])

    def kills(self, server):
        rng = random.Random(2)
        written = {}
        for n in range(5):
            conn = self.cold(server)
            for _ in range(20):
                i = rng.randrange(2, COUNT, 1000)
                conn.ok("APPEND", key(i), "+")
                written[i] = written.get(i, 0) + 1
            conn.ok("SET", "kill:%d" % n, n)
        conn = self.cold(server)
        for i, count in written.items():
            self.assertEqual(conn.ok("GET", key(i)), value(i) + b"+" * count)
        self.assertEqual(conn.ok("MGET", *["kill:%d" % n for n in range(5)]), [b"%d" % n for n in range(5)])
        conn.ok("DEL", *["kill:%d" % n for n in range(5)])
        for i in written:
            conn.ok("SET", key(i), value(i))

    def saves(self, server):
        """A snapshot waits for what is cold."""
        conn = self.cold(server)
        self.assertIn("Background saving", conn.ok("BGSAVE"))
        conn.ok("SET", key(7), "late")
        conn = self.cold(server)
        conn.ok("SAVE")
        conn = self.cold(server)
        self.assertEqual(conn.ok("MGET", key(7), key(8)), [b"late", value(8)])
        self.assertEqual(conn.ok("DBSIZE"), self.count())
        conn = self.cold(server)
        conn.ok("FLUSHALL")
        conn.ok("SET", "only", "1")
        self.assertEqual(conn.ok("DBSIZE"), 1)
        conn = self.cold(server)
        self.assertEqual(conn.ok("KEYS", "*"), [b"only"])

    def test_h32_a_backup_while_warming(self):
        """It is made of the files that are there, and doesn't wait."""
        server = self.server_with_data()
        backups = temp_dir(self)
        self.was_cold = False
        for attempt in range(8):  # beside other work a backup may be slower than the loading; one that waits for it always is
            conn = self.cold(server)
            conn.ok("SET", key(0), "late")
            folder = backups / str(attempt)
            conn.ok("BACKUP", folder)
            first = server.info(conn, "async_loading") == "1"
            if first or BUILD > 1:  # a sanitizer makes it slower, too
                break
        self.assertTrue(first or BUILD > 1, "always warm before the backup was there")
        server.kill()
        copy = self.own_server(dir=folder)
        conn = self.connect(copy, timeout=30)
        self.assertEqual(conn.ok("MGET", key(0), key(1), key(2), key(1000)), [b"late", None, value(2), b"changed"])
        self.assertEqual(conn.ok("DBSIZE"), self.count())

    def field(self, conn, name):
        """A number of INFO's."""
        return int(re.search(rb"(?m)^%s:(\d+)" % name.encode(), conn.ok("INFO", "everything"))[1])

    def keys_of_both(self, conn):
        conn.ok("SELECT", 1)
        count = conn.ok("DBSIZE")
        conn.ok("SELECT", 0)
        return count + conn.ok("DBSIZE")

    def share_of(self, conn, numbers):
        return sum(v is not None for v in conn.ok("MGET", *map(key, numbers))) / len(numbers)

    def test_h33_what_is_touched_stays_when_memory_is_short(self):
        server = self.server_with_data(slow=True)
        conn = self.restarted(server)
        conn.ok("DBSIZE")
        used = []
        for _ in range(5):  # what the loaders had goes
            time.sleep(0.2 * slowness(at_most=10))
            used.append(self.field(conn, "used_memory"))
        server.disk.read_takes(0.02 * slowness(at_most=10))  # loading takes seconds
        conn = self.restarted(server, maxmemory=min(used) * 17 // 20)
        self.assertEqual(self.field(conn, "async_loading"), 1)
        self.assertLess(self.field(conn, "warm_ranges"), self.field(conn, "warm_ranges_total") // 2)
        hot = [i for i in range(2, COUNT, COUNT // 50) if self.expected(i) is not None]
        hot = [i for i, found in zip(hot, conn.ok("MGET", *map(key, hot))) if found is not None]  # the rest was left out
        self.assertGreater(len(hot), 10 if BUILD == 1 else 3)  # a sanitizer's own memory leaves room for few
        self.assertEqual(self.field(conn, "async_loading"), 1)
        self.assertLess(self.field(conn, "warm_ranges"), self.field(conn, "warm_ranges_total"))
        left_out = self.field(conn, "warm_keys_left_out")
        server.disk.heal()
        count = self.keys_of_both(conn)  # asked for, the rest comes
        self.assertEqual(self.field(conn, "async_loading"), 0)
        self.assertEqual(self.field(conn, "warm_ranges"), self.field(conn, "warm_ranges_total"))
        self.assertGreater(self.field(conn, "warm_keys_left_out"), left_out)  # of ranges that came behind the hot ones
        self.eventually(lambda: self.keys_of_both(conn) + sum(self.field(conn, f) for f in ("warm_keys_left_out", "evicted_keys")) == self.count() + 1000)
        self.assertGreater(count, COUNT // (8 if BUILD == 1 else 16))  # a sanitizer has memory of its own, and is slow to tell
        others = [i for i in range(7, COUNT, 997) if self.expected(i) is not None]
        hot_share, cold_share = self.share_of(conn, hot), self.share_of(conn, others)
        self.assertGreater(hot_share, 0.9 if BUILD == 1 else 0.6)
        self.assertGreater(hot_share, cold_share)

    def test_h33_a_limit_that_is_lifted_while_warming_counts_no_longer(self):
        server = self.server_with_data(slow=True)
        for option, lifted in (("maxmemory", 0), ("maxmemory-policy", "noeviction")):
            server.disk.read_takes(0.02 * slowness(at_most=10))  # loading takes seconds
            conn = self.restarted(server, maxmemory=1)  # nothing fits
            conn.ok("CONFIG", "SET", option, lifted)
            left_out = self.field(conn, "warm_keys_left_out")
            self.assertLess(self.field(conn, "warm_ranges"), self.field(conn, "warm_ranges_total") // 2)
            server.disk.heal()
            self.eventually(lambda: self.field(conn, "async_loading") == 0, 60)
            self.assertLess(self.field(conn, "warm_keys_left_out") - left_out, COUNT // 20)  # of the range that was in hand

    def end_quickly(self, server):
        start = time.monotonic()
        server.terminate()
        self.assertLess(time.monotonic() - start, 5 * slowness())

    def nothing_is_missing(self, server):
        conn = self.restarted(server)
        self.assertEqual(server.info(conn, "restart_clean"), "yes")
        self.assertEqual(conn.ok("DBSIZE"), self.count())

    def test_h35_an_orderly_end_is_quick_also_while_warming(self):
        server = self.server_with_data()
        for wait_s in (0, 0.05, None):
            conn = self.restarted(server)
            if wait_s is None:
                conn.ok("DBSIZE")
            else:
                time.sleep(wait_s)
            self.end_quickly(server)
        self.nothing_is_missing(server)

    def test_an_orderly_end_gives_a_snapshot_up(self):
        server = self.server_with_data()
        for words in (("SAVE",), ("BGSAVE",)):
            conn = self.restarted(server, snapshot_level=19, snapshot_threads=1)
            conn.ok("DBSIZE")
            before = server.snapshots()
            conn.send(*words)
            time.sleep(0.05)
            self.end_quickly(server)
            self.assertEqual(server.snapshots(), before)  # it would have taken seconds
        self.nothing_is_missing(server)

    def test_the_first_answer_comes_at_once(self):
        server = self.server_with_data()
        conn = self.restarted(server)
        conn.ok("SAVE")
        for _ in range(8):  # beside other work the loading may be over before anybody asks; one who waits for it never sees it
            server.kill()
            start = time.monotonic()
            server.start()
            with server.connect() as conn:
                self.assertEqual(conn.ok("GET", key(77)), value(77))
                cold = server.info(conn, "async_loading") == "1"
            self.assertLess(time.monotonic() - start, 3 * slowness())
            if cold:
                break
        self.assertTrue(cold, "everything was loaded at each first answer")

    def test_warm_restart_full_answers_when_everything_is_there(self):
        server = self.server_with_data()
        conn = self.restarted(server, warm_restart="full")
        self.assertEqual(server.info(conn, "async_loading"), "0")
        self.assertEqual(server.info(conn, "warm_percent"), "100")
        self.assertEqual(conn.ok("DBSIZE"), self.count())

    def test_many_clients_on_cold_ranges(self):
        server = self.server_with_data()
        server.start()
        failures = []

        def work(seed):
            rng = random.Random(seed)
            try:
                with server.connect(timeout=30) as conn:
                    for n in range(60):
                        some = [rng.randrange(COUNT) for _ in range(20)]
                        if conn.ok("MGET", *map(key, some)) != [self.expected(i) for i in some]:
                            failures.append("MGET %s" % some)
                        conn.ok("INCR", "shared")
                        conn.ok("SET", "own:%d:%d" % (seed, n), n)
            except (AssertionError, OSError) as error:
                failures.append(error)
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        conn = self.restarted(server)
        self.assertEqual(conn.ok("GET", "shared"), b"480")
        self.assertEqual(conn.ok("DBSIZE"), self.count() + 481)


class Large(DiskCase):
    def beside(self, server, act):
        """What 'act' returns, how long it took, and how much longer another connection had to wait for a reply meanwhile than one to an
        idle server. The others are asked by a process of its own: in this one a large reply stops every thread."""
        def ask():
            waits, idle_waits = [], []
            with server.connect(timeout=30) as other, self.idle.connect(timeout=30) as idle:
                while not waits or not over.is_set():
                    for conn, found in ((other, waits), (idle, idle_waits)):
                        start = time.monotonic()
                        conn.call("GET", "small")
                        found.append(time.monotonic() - start)
                    began.set()
            told.put(max(waits) - max(idle_waits))
        fork = multiprocessing.get_context("fork")
        began, over, told = fork.Event(), fork.Event(), fork.Queue()
        process = fork.Process(target=ask, daemon=True)
        process.start()
        self.assertTrue(began.wait(30 * slowness()))
        start = time.monotonic()
        try:
            reply = act()
        finally:
            took = time.monotonic() - start
            over.set()
        slowest = told.get(timeout=30 * slowness())
        process.join()
        return reply, took, slowest

    def test_h15_neighbours_do_not_wait_for_a_large_value(self):
        server, self.idle = self.own_server(threads=2, warm_threads=1, log_segment_size="1mb"), self.own_server(threads=1)
        text = os.urandom(1 << 20) * 64
        conn, waits = self.connect(server, timeout=60), {}
        conn.ok("SET", "small", "1")
        for words in (("SET", "large", text), ("SAVE",), ("APPEND", "large", "end"), ("WAITAOF", 1, 0, 0)):
            _, *waits[words[0]] = self.beside(server, lambda w=words: conn.ok(*w))
        conn = self.restarted(server)
        value, *waits["GET"] = self.beside(server, lambda: conn.ok("GET", "large"))  # loaded when it is asked for
        self.assertTrue(value == text + b"end")
        for what, (took, slowest) in waits.items():
            with self.subTest(what):  # who waited for it would have waited for nearly all of it
                self.assertLess(slowest, max(0.5 * slowness(), took / 2))


class Reports(DiskCase):
    def test_the_report_of_a_restart(self):
        server = self.own_server()
        conn = self.connect(server)
        self.assertEqual(server.info(conn, "restart_clean"), "new")
        conn.pipeline([("SET", "k%d" % i, i) for i in range(100)])
        conn.ok("SAVE")
        conn.pipeline([("SET", "late%d" % i, i) for i in range(10)])
        conn = self.restarted(server)
        conn.ok("DBSIZE")
        self.assertEqual(server.info(conn, "restart_snapshot"), server.snapshots()[0].name)
        self.assertEqual(server.info(conn, "restart_frames"), "10")
        self.assertGreaterEqual(int(server.info(conn, "restart_ready_ms")), int(server.info(conn, "restart_scan_ms")))
        self.assertEqual(server.info(conn, "restart_cut_bytes"), "0")
        self.assertEqual(server.info(conn, "warm_keys_loaded"), "100")
        self.assertIn("recover.found", server.last_output())
        self.eventually(lambda: "recover.warm" in server.last_output())  # whoever loads the last range says so behind it

    def test_large_values_and_all_databases(self):
        server = self.own_server(log_segment_size="1mb")
        conn = self.connect(server, timeout=30)
        big = {i: (b"%d-" % i) * (400_000 + i) for i in range(6)}
        for i, text in big.items():
            conn.ok("SELECT", i)
            conn.ok("SET", "big", text, "EX", 1000)
            conn.ok("SETRANGE", "big", 100, "here")
            if i == 2:
                conn.ok("SAVE")
        conn = self.restarted(server)
        for i, text in big.items():
            conn.ok("SELECT", i)
            self.assertEqual(conn.ok("GET", "big"), text[:100] + b"here" + text[104:])
            self.assertGreater(conn.ok("TTL", "big"), 900)


if __name__ == "__main__":
    unittest.main()
