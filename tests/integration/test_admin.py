#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does the server tell and do what operators expect: CLIENT, MONITOR, SLOWLOG, LATENCY, INFO, MEMORY?"""
import re
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.resp import Closed, Error, encode  # noqa: E402
from support.server import ServerCase  # noqa: E402

INFO_FIELDS = {
    "server": "redis_version redis_mode os arch_bits process_id run_id tcp_port server_time_usec uptime_in_seconds "
              "uptime_in_days executable config_file",
    "clients": "connected_clients maxclients blocked_clients",
    "memory": "used_memory used_memory_human used_memory_rss used_memory_peak maxmemory maxmemory_human "
              "maxmemory_policy mem_fragmentation_ratio mem_allocator",
    "stats": "total_connections_received total_commands_processed instantaneous_ops_per_sec total_net_input_bytes "
             "total_net_output_bytes rejected_connections expired_keys evicted_keys keyspace_hits keyspace_misses "
             "pubsub_channels pubsub_patterns",
    "replication": "role connected_slaves",
    "cpu": "used_cpu_sys used_cpu_user",
}


def parse_info(text):
    return dict(line.split(":", 1) for line in text.decode().splitlines() if line and not line.startswith("#"))


def fields(line):
    return dict(word.split("=", 1) for word in line.decode().split(" "))


class Clients(ServerCase):
    def listed(self, conn):
        return {int(c["id"]): c for c in map(fields, conn.call("CLIENT", "LIST").strip().split(b"\n"))}

    def test_list_and_info(self):
        one, two = self.connect(), self.connect(3)
        one.ok("CLIENT", "SETNAME", "first")
        one.ok("SELECT", 5)
        two.send("SUBSCRIBE", "c")
        two.read()
        ids = [c.call("CLIENT", "ID") for c in (one, two)]
        self.assertLess(ids[0], ids[1])
        clients = self.listed(one)
        mine, other = clients[ids[0]], clients[ids[1]]
        self.assertEqual((mine["name"], mine["db"], mine["sub"], mine["multi"]), ("first", "5", "0", "-1"))
        self.assertEqual((other["name"], other["db"], other["sub"], other["resp"]), ("", "0", "1", "3"))
        self.assertEqual(mine["addr"], "127.0.0.1:%d" % one.sock.getsockname()[1])
        self.assertEqual(mine["laddr"], "127.0.0.1:%d" % self.server.port)
        self.assertTrue(mine["cmd"].startswith("client"))
        others = {"age", "idle", "flags", "psub", "ssub", "qbuf", "omem", "tot-mem", "events", "user"}
        self.assertLessEqual(others, set(mine))
        self.assertEqual(fields(one.call("CLIENT", "INFO").strip())["id"], str(ids[0]))
        self.assertEqual(set(map(int, re.findall(rb"\bid=(\d+)", one.call("CLIENT", "LIST", "ID", *ids)))), set(ids))
        self.assertIn(b" id=%d " % ids[1], b" " + one.call("CLIENT", "LIST", "TYPE", "pubsub"))

    def test_list_in_multi_and_idle(self):
        one, two = self.connect(), self.connect()
        identity = one.call("CLIENT", "ID")
        one.pipeline([("MULTI",), ("PING",), ("PING",)])
        self.assertEqual(self.listed(two)[identity]["multi"], "2")
        self.eventually(lambda: int(self.listed(two)[identity]["idle"]) >= 1)

    def test_kill(self):
        killer = self.connect()
        for how in ("id", "addr", "old", "laddr-type"):
            victim = self.connect()
            identity, address = victim.call("CLIENT", "ID"), "127.0.0.1:%d" % victim.sock.getsockname()[1]
            if how == "id":
                self.assertEqual(killer.call("CLIENT", "KILL", "ID", identity), 1)
            elif how == "addr":
                self.assertEqual(killer.call("CLIENT", "KILL", "ADDR", address, "ID", identity), 1)
            elif how == "old":
                self.assertEqual(killer.call("CLIENT", "KILL", address), "OK")
            else:
                laddr = "127.0.0.1:%d" % self.server.port
                self.assertGreaterEqual(killer.call("CLIENT", "KILL", "LADDR", laddr, "TYPE", "normal"), 1)
            self.assertRaises(Closed, victim.read)
            self.assertEqual(killer.call("PING"), "PONG")
            self.eventually(lambda i=identity: i not in self.listed(killer))

    def test_kill_by_type_and_of_oneself(self):
        killer, listener = self.connect(), self.connect()
        listener.ok("SUBSCRIBE", "c")
        self.assertEqual(killer.call("CLIENT", "KILL", "TYPE", "pubsub"), 1)
        self.assertRaises(Closed, listener.read)
        self.assertEqual(killer.call("PUBLISH", "c", "x"), 0)
        self.assertEqual(killer.call("CLIENT", "KILL", "ID", killer.call("CLIENT", "ID"), "SKIPME", "no"), 1)
        self.assertRaises(Closed, killer.read)

    def test_killed_transaction_leaves_nothing(self):
        killer, victim = self.connect(), self.connect()
        victim.pipeline([("WATCH", "a"), ("MULTI",), ("SET", "a", "1")])
        identity = [i for i, c in self.listed(killer).items() if c["multi"] == "1"]
        self.assertEqual(len(identity), 1)
        killer.ok("CLIENT", "KILL", "ID", identity[0])
        self.assertIsNone(killer.call("GET", "a"))

    def test_pause_of_writes(self):
        conn, reader, writer = self.connect(), self.connect(), self.connect()
        conn.ok("SET", "a", "1")
        pause = 0.4 * slowness(at_most=10)
        start = time.monotonic()
        conn.ok("CLIENT", "PAUSE", int(pause * 1000), "WRITE")
        self.assertEqual(reader.call("GET", "a"), b"1")
        self.assertLess(time.monotonic() - start, 0.75 * pause)
        writer.ok("SET", "a", "2")
        self.assertGreater(time.monotonic() - start, 0.85 * pause)

    def test_pause_of_all(self):
        conn, reader = self.connect(), self.connect()
        pause = 0.5 * slowness(at_most=10)
        start = time.monotonic()
        conn.ok("CLIENT", "PAUSE", int(pause * 1000))
        reader.send("GET", "a")
        self.assertRaises(TimeoutError, reader.read, 0.4 * pause)
        self.assertIsNone(reader.read(10 * pause))
        self.assertGreater(time.monotonic() - start, 0.9 * pause)

    def test_unpause(self):
        conn, writer = self.connect(), self.connect()
        conn.ok("CLIENT", "PAUSE", 20000, "WRITE")
        writer.send_raw(encode("GET", "a") + encode("SET", "a", "1") + encode("GET", "a"))
        self.assertIsNone(writer.read())
        self.assertRaises(TimeoutError, writer.read, 0.2)
        conn.ok("CLIENT", "UNPAUSE")
        self.assertEqual([writer.read(5), writer.read()], ["OK", b"1"])

    def test_a_pause_in_the_middle_of_a_batch(self):
        conn = self.connect()
        start = time.monotonic()
        conn.send_raw(encode("CLIENT", "PAUSE", "300", "ALL") + 5 * encode("INCR", "a") + encode("GET", "a"))
        self.assertEqual(conn.read(), "OK")
        self.assertEqual([conn.read(5) for _ in range(6)], [1, 2, 3, 4, 5, b"5"])
        self.assertGreater(time.monotonic() - start, 0.25)
        conn.send_raw(encode("CLIENT", "PAUSE", "20000", "WRITE") + 5 * encode("INCR", "a"))
        self.assertEqual(conn.read(), "OK")
        conn.close()
        other = self.connect()
        other.ok("CLIENT", "UNPAUSE")
        self.assertEqual(other.call("GET", "a"), b"5")

    def test_reply_off_and_skip(self):
        conn = self.connect()
        conn.send("CLIENT", "REPLY", "OFF")
        for n in range(100):
            conn.send("INCR", "n")
        conn.send("CLIENT", "REPLY", "ON")
        self.assertEqual(conn.read(), "OK")
        conn.send("CLIENT", "REPLY", "SKIP")
        conn.send("INCR", "n")
        self.assertEqual(conn.call("GET", "n"), b"101")

    def test_no_touch_and_setinfo(self):
        conn = self.connect()
        if isinstance(conn.call("CLIENT", "NO-TOUCH", "on"), Error):
            self.skipTest("a server without CLIENT NO-TOUCH")
        conn.ok("CLIENT", "SETINFO", "LIB-NAME", "tests")
        conn.ok("CLIENT", "SETINFO", "LIB-VER", "1.0")
        self.assertIn(b"lib-name=tests lib-ver=1.0", conn.call("CLIENT", "INFO"))
        self.assertIsInstance(conn.call("CLIENT", "SETINFO", "LIB-NAME", "a b"), Error)
        conn.ok("CLIENT", "NO-TOUCH", "off")
        self.assertIsInstance(conn.call("CLIENT", "NO-TOUCH", "x"), Error)


class Watching(ServerCase):
    LINE = re.compile(r'^\d{10}\.\d{6} \[(\d+) 127\.0\.0\.1:(\d+)\] (.*)$')

    def test_monitor(self):
        monitor, conn = self.connect(), self.connect()
        monitor.ok("MONITOR")
        conn.pipeline([("SET", "a", "x y\r\n\x00\"\\"), ("SELECT", "3"), ("get", b"\xff"), ("AUTH", "hidden"),
                       ("NOSUCH",), ("GET",), ("PING",)])
        lines = []
        while not lines or '"PING"' not in lines[-1][2]:
            lines.append(self.LINE.match(monitor.read()).groups())
        self.assertEqual({line[1] for line in lines}, {str(conn.sock.getsockname()[1])})
        self.assertEqual([line[2] for line in lines], [
            r'"SET" "a" "x y\r\n\x00\"\\"', '"SELECT" "3"', r'"get" "\xff"', '"AUTH" "(redacted)"', '"PING"'])
        self.assertEqual([line[0] for line in lines], ["0", "3", "3", "3", "3"])
        monitor.send("RESET")
        self.assertEqual(monitor.read(), "RESET")
        conn.ok("PING")
        self.assertEqual(monitor.call("PING"), "PONG")

    def test_monitor_sees_all_workers(self):
        monitor = self.connect()
        monitor.ok("MONITOR")
        threads = [threading.Thread(target=self.echo, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        last = [-1] * 6
        for _ in range(6 * 200):
            who, n = re.search(r'"ECHO" "(\d+)-(\d+)"', monitor.read()).groups()
            self.assertEqual(int(n), last[int(who)] + 1)
            last[int(who)] = int(n)
        for thread in threads:
            thread.join()

    def echo(self, who):
        with self.server.connect() as conn:
            for n in range(200):
                conn.call("ECHO", "%d-%d" % (who, n))

    def test_slowlog(self):
        conn = self.connect()
        conn.ok("CONFIG", "SET", "slowlog-log-slower-than", 0)
        conn.ok("CONFIG", "SET", "slowlog-max-len", 5)
        conn.ok("CLIENT", "SETNAME", "slow")
        conn.ok("SLOWLOG", "RESET")
        conn.ok("SET", "k", "v" * 200)
        conn.call("DEL", *["k%d" % n for n in range(40)])
        newest, other = conn.call("SLOWLOG", "GET", 2)
        self.assertEqual(newest[3][:2] + newest[3][-1:], [b"DEL", b"k0", b"... (10 more arguments)"])
        self.assertEqual(len(newest[3]), 32)
        self.assertEqual(other[3], [b"SET", b"k", b"v" * 128 + b"... (72 more bytes)"])
        self.assertEqual(newest[0], other[0] + 1)
        self.assertLess(abs(newest[1] - time.time()), 5)
        self.assertEqual(newest[4:], [b"127.0.0.1:%d" % conn.sock.getsockname()[1], b"slow"])
        conn.pipeline([("PING",)] * 20)
        self.assertEqual(conn.call("SLOWLOG", "LEN"), 5)
        conn.ok("CONFIG", "SET", "slowlog-log-slower-than", 20000)
        conn.ok("SLOWLOG", "RESET")
        conn.ok("DEBUG", "SLEEP", "0.05")
        entries = [(e[3], e[2] >= 50000) for e in conn.call("SLOWLOG", "GET") if e[3][0] == b"DEBUG"]  # a slow machine has others
        self.assertEqual(entries, [([b"DEBUG", b"SLEEP", b"0.05"], True)])

    def test_latency_histogram(self):
        conn = self.connect(3)
        conn.ok("CONFIG", "RESETSTAT")
        conn.pipeline([("SET", "a", "1")] * 100 + [("GET", "a")] * 50)
        histogram = conn.call("LATENCY", "HISTOGRAM", "set", "get", "del")
        self.assertEqual({name: entry[b"calls"] for name, entry in histogram.items()}, {b"set": 100, b"get": 50})
        buckets = histogram[b"set"][b"histogram_usec"]
        self.assertEqual(list(buckets), sorted(buckets))
        self.assertEqual(list(buckets.values())[-1], 100)
        self.assertIn(b"set", conn.call("LATENCY", "HISTOGRAM"))


class Information(ServerCase):
    def test_info_has_the_fields_that_tools_read(self):
        conn = self.connect()
        conn.ok("SET", "a", "1", "EX", 1000)
        conn.ok("SET", "b", "1")
        for section, names in INFO_FIELDS.items():
            text = conn.call("INFO", section)
            title = section.upper() if section == "cpu" else section.title()
            self.assertTrue(text.startswith(b"# %s\r\n" % title.encode()), text[:40])
            self.assertEqual(set(names.split()) - set(parse_info(text)), set(), "INFO " + section)
        everything = parse_info(conn.call("INFO"))
        self.assertEqual(set(" ".join(INFO_FIELDS.values()).split()) - set(everything), set())
        self.assertRegex(everything["db0"], r"^keys=2,expires=1,avg_ttl=\d+")
        self.assertEqual(everything["tcp_port"], str(self.server.port))
        self.assertEqual(everything["process_id"], str(self.server.process.pid))
        some = parse_info(conn.call("INFO", "keyspace", "clients")).keys()
        self.assertEqual(some & {"db0", "connected_clients", "role"}, {"db0", "connected_clients"})
        self.assertEqual(conn.call("INFO", "nosuch"), b"")

    def test_counters_move(self):
        conn = self.connect()
        conn.ok("CONFIG", "RESETSTAT")
        conn.pipeline([("SET", "a", "1"), ("GET", "a"), ("GET", "no"), ("MGET", "a", "no", "a"), ("EXISTS", "a"),
                       ("GET",), ("NOSUCH",), ("INCR", "x"), ("SET", "t", "1", "PX", 1)])
        time.sleep(0.05)
        self.assertIsNone(conn.call("GET", "t"))
        info = parse_info(conn.call("INFO", "everything"))
        self.assertEqual((int(info["keyspace_hits"]), int(info["keyspace_misses"])), (4, 3))
        self.assertGreaterEqual(int(info["total_commands_processed"]), 8)
        self.assertRegex(info["cmdstat_set"],
                         r"^calls=2,usec=\d+,usec_per_call=[\d.]+,rejected_calls=0,failed_calls=0$")
        self.assertRegex(info["cmdstat_get"], r"^calls=3,.*rejected_calls=1,")
        self.assertRegex(info["errorstat_ERR"], r"^count=2$")
        self.eventually(lambda: int(parse_info(conn.call("INFO", "stats"))["expired_keys"]) == 1)
        before = int(parse_info(conn.call("INFO", "stats"))["total_connections_received"])
        for _ in range(5):
            self.connect().ok("PING")
        self.assertEqual(int(parse_info(conn.call("INFO", "stats"))["total_connections_received"]), before + 5)

    def test_memory_is_counted(self):
        conn = self.own_server(threads=1, appendonly="no").connect() # a log keeps bytes until they are durable
        before = int(parse_info(conn.call("INFO", "memory"))["used_memory"])
        conn.pipeline([("SET", "m%d" % n, "x" * 10000) for n in range(2000)])
        self.eventually(lambda: 20e6 < int(parse_info(conn.call("INFO", "memory"))["used_memory"]) - before < 40e6)
        self.assertTrue(10000 <= conn.call("MEMORY", "USAGE", "m1") < 13000)

    def test_time_and_debug_sleep(self):
        conn, other = self.connect(), self.connect()
        seconds, micros = map(int, conn.call("TIME"))
        self.assertLess(abs(seconds + micros / 1e6 - time.time()), 2)
        start = time.monotonic()
        conn.ok("DEBUG", "SLEEP", "0.2")
        self.assertGreaterEqual(time.monotonic() - start, 0.19)
        other.ok("PING")


if __name__ == "__main__":
    unittest.main()
