#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does FAILOVER hand over without losing anything, with a short pause, and give writes back when it doesn't come about?"""
import signal
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.replicas import ReplicaCase  # noqa: E402
from support.resp import Error  # noqa: E402

PAUSE_MAX = 3.0  # seconds, on a quiet machine


class Counter(threading.Thread):
    """Counts on whichever node takes writes; knows what was acknowledged, and the longest time without."""

    def __init__(self, key, nodes):
        super().__init__(daemon=True)
        self.key, self.nodes = key, nodes
        self.ended = threading.Event()
        self.acknowledged = 0
        self.calls = 0
        self.pause = 0.0
        self.last = time.monotonic()

    def run(self):
        at = 0
        while not self.ended.is_set():
            try:
                with self.nodes[at % len(self.nodes)].connect(timeout=5) as conn:
                    self.count(conn)
            except OSError:
                pass
            at += 1
            time.sleep(0.002)

    def count(self, conn):
        while not self.ended.is_set():
            self.calls += 1
            reply = conn.call("INCR", self.key)
            if isinstance(reply, Error):
                return
            self.acknowledged += 1
            self.pause = max(self.pause, time.monotonic() - self.last)
            self.last = time.monotonic()

    def end(self):
        self.ended.set()
        self.join(20)


class Failover(ReplicaCase):
    def counters(self, nodes, count=3):
        counters = [Counter("n%d" % i, nodes) for i in range(count)]
        for counter in counters:
            counter.start()
            self.addCleanup(counter.ended.set)
        self.eventually(lambda: all(c.acknowledged > 200 for c in counters))
        return counters

    def go_on(self, counters):
        before = [c.acknowledged for c in counters]
        self.eventually(lambda: all(c.acknowledged > b + 200 for c, b in zip(counters, before)), 20)

    def is_over(self, old, new):
        return self.state(new)["role"] == "master" and self.state(old).get("master_link_status") == "up"

    def switch(self, old, new, counters, *words):
        epoch = int(self.state(old)["replication_epoch"])
        self.go_on(counters)
        for c in counters:
            c.pause = 0
        self.assertEqual(self.ask(old, "FAILOVER", *words), "OK")
        self.eventually(lambda: self.is_over(old, new), 20)
        self.go_on(counters)
        self.assertEqual(int(self.state(new)["replication_epoch"]), epoch + 1)
        self.assertEqual(self.state(old)["master_port"], str(new.port))
        self.assertLess(max(c.pause for c in counters), PAUSE_MAX * slowness())
        print("longest pause of writes: %.3f s" % max(c.pause for c in counters))

    def check(self, counters, *nodes):
        for c in counters:
            c.end()
        for c in counters:
            value = int(self.ask(nodes[0], "GET", c.key))
            # A connection that broke may have hidden a reply, never taken one back.
            self.assertGreaterEqual(value, c.acknowledged)
            self.assertLessEqual(value, c.calls)
        self.in_sync(*nodes)
        self.same(*nodes)
        self.same_log(*nodes)

    def test_there_and_back_with_writers_loses_nothing(self):
        a = self.node()
        b = self.replica(a)
        self.in_sync(a, b)
        copies = self.state(b)["replication_full_received"]
        counters = self.counters([a, b])
        self.switch(a, b, counters, "TO", "127.0.0.1", b.port)
        self.assertEqual(self.state(a)["replication_full_received"], "0")
        self.assertEqual(self.state(b)["master_failover_state"], "no-failover")
        self.switch(b, a, counters)
        self.assertEqual(self.state(b)["replication_full_received"], copies)
        self.assertEqual(self.state(a)["replication_full_sent"], "0")
        self.check(counters, a, b)
        for node in (a, b):
            self.assertEqual(list(node.dir.glob("cut-*")), [], "something was cut")
        self.restarted(b)
        self.eventually(lambda: self.state(b).get("master_link_status") == "up")

    def test_the_other_replica_follows(self):
        a = self.node()
        b, c = self.replica(a), self.replica(a)
        self.in_sync(a, b, c)
        copies = self.state(c)["replication_full_received"]
        counters = self.counters([a, b])
        self.switch(a, b, counters, "TO", "127.0.0.1", b.port, "TIMEOUT", int(5000 * slowness()))
        self.follow(c, b)
        self.eventually(lambda: self.state(c).get("master_link_status") == "up")
        self.assertEqual(self.state(c)["replication_full_received"], copies)
        self.check(counters, b, a, c)

    def freeze(self, node):
        node.process.send_signal(signal.SIGSTOP)
        self.addCleanup(node.process.send_signal, signal.SIGCONT)

    def test_who_has_told_another_one_to_take_over_does_not_call_its_reads_fresh(self):
        a = self.node()
        b = self.replica(a)
        self.in_sync(a, b)
        with a.connect(timeout=30) as conn, b.connect(timeout=30) as other:
            conn.ok("SET", "k", "old")
            self.in_sync(a, b)
            conn.ok("CLIENT", "MAXSTALE", 60000)
            self.assertEqual(conn.call("GET", "k"), b"old")
            other.ok("CONFIG", "SET", "requirepass", "unknown")  # so that nobody hears that it has taken over
            conn.ok("FAILOVER", "TO", "127.0.0.1", b.port, "FORCE", "TIMEOUT", 1)
            self.eventually(lambda: other.call("SET", "k", "new") == "OK")
            self.assertEqual(self.state(a)["master_failover_state"], "failover-in-progress")
            reply = conn.call("GET", "k")
            self.assertIsInstance(reply, Error)
            self.assertEqual(reply.code, "STALE")
            other.ok("CONFIG", "SET", "requirepass", "")
        self.eventually(lambda: self.is_over(a, b), 20)
        self.eventually(lambda: self.ask(a, "GET", "k") == b"new")

    def test_time_and_abort_give_writes_back(self):
        a = self.node(**{"repl-timeout": 60})
        b = self.replica(a)
        self.in_sync(a, b)
        self.freeze(b)
        with a.connect(timeout=30) as conn, a.connect(timeout=30) as other:
            conn.ok("SET", "x", 1)
            patience = 0.4 * slowness(at_most=10)  # long enough for the three looks at it
            began = time.monotonic()
            self.assertEqual(other.ok("FAILOVER", "TIMEOUT", int(1000 * patience)), "OK")
            self.assertEqual(self.state(a)["master_failover_state"], "waiting-for-sync")
            self.assertEqual(other.ok("GET", "x"), b"1")
            self.assertEqual(conn.call("INCR", "x"), 2)  # it was held, not refused
            self.assertGreater(time.monotonic() - began, 0.85 * patience)
            self.assertEqual(self.state(a)["master_failover_state"], "no-failover")
            self.assertEqual(other.ok("FAILOVER"), "OK")
            self.assertIn("already in progress", other.call("FAILOVER"))
            self.assertIn("not allowed while failing over", other.call("REPLICAOF", "127.0.0.1", b.port))
            conn.send("INCR", "x")
            time.sleep(0.1)
            self.assertEqual(other.ok("GET", "x"), b"2")
            self.assertEqual(other.ok("FAILOVER", "ABORT"), "OK")
            self.assertEqual(conn.read(), 3)
            self.assertIn("No failover", other.call("FAILOVER", "ABORT"))
        b.process.send_signal(signal.SIGCONT)
        self.in_sync(a, b)
        self.assertEqual(self.state(b)["role"], "slave")

    def test_who_cannot_be_reached_is_not_promoted(self):
        """It would take writes, and nobody would hear of it."""
        a = self.node()
        b = self.replica(a, replica_announce_port=1)
        self.in_sync(a, b)
        self.assertEqual(self.ask(a, "FAILOVER"), "OK")
        self.eventually(lambda: self.state(a)["master_failover_state"] == "no-failover")
        self.assertEqual(self.ask(a, "INCR", "x"), 1)
        self.in_sync(a, b)
        self.assertEqual(self.state(b)["role"], "slave")
        self.assertIn("answers at the address that it announces", a.output())

    def test_of_two_the_one_that_can_be_reached_takes_over(self):
        """Whichever of them is asked first."""
        for first in (0, 1):
            a = self.node()
            replicas = []
            for i in range(2):
                wrong = {"replica-announce-port": 1} if i == first else {}
                replicas.append(self.replica(a, **wrong))
                self.in_sync(a, replicas[-1])
            counters = self.counters([a, *replicas])
            self.switch(a, replicas[1 - first], counters)
            self.follow(replicas[first], replicas[1 - first])
            self.check(counters, replicas[1 - first], a, replicas[first])

    def test_force_takes_over_whoever_is_named(self):
        a = self.node(**{"repl-timeout": 60})
        b = self.replica(a)
        self.in_sync(a, b)
        self.freeze(b)
        self.ask(a, "SET", "late", 1)
        self.assertEqual(self.ask(a, "FAILOVER", "TO", "127.0.0.1", b.port, "FORCE", "TIMEOUT", 200), "OK")
        self.eventually(lambda: self.state(a)["master_failover_state"] == "failover-in-progress")
        b.process.send_signal(signal.SIGCONT)
        self.eventually(lambda: self.is_over(a, b), 20)
        self.assertEqual(self.ask(b, "GET", "late"), b"1")

    def test_what_is_refused(self):
        a = self.node()
        self.assertIn("requires connected replicas", self.ask(a, "FAILOVER"))
        b = self.replica(a)
        self.in_sync(a, b)
        self.assertIn("is a replica", self.ask(b, "FAILOVER"))
        self.assertIn("is not a replica", self.ask(a, "FAILOVER", "TO", "127.0.0.1", 1))
        self.assertIn("requires both", self.ask(a, "FAILOVER", "TO", "127.0.0.1", b.port, "FORCE"))
        self.assertIn("greater than 0", self.ask(a, "FAILOVER", "TIMEOUT", 0))
        self.assertIn("syntax", self.ask(a, "FAILOVER", "TO", "127.0.0.1"))
        self.assertIn("syntax", self.ask(a, "FAILOVER", "NOW"))
        self.assertEqual(self.ask(a, "SET", "x", 1), "OK")


if __name__ == "__main__":
    unittest.main()
