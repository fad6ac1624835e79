#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do ack levels, WAIT, READAFTER and min-replicas-to-write keep their word with real replicas?"""
import math
import select
import signal
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.replicas import ReplicaCase  # noqa: E402
from support.resp import Error, encode  # noqa: E402


class Case(ReplicaCase):
    def cluster(self, count, **options):
        """A primary and its replicas, in sync."""
        primary = self.node(**{"ack-timeout": 10000, **options})
        replicas = [self.replica(primary, **options) for _ in range(count)]
        self.in_sync(primary, *replicas)
        return primary, *replicas

    def freeze(self, node):
        node.process.send_signal(signal.SIGSTOP)
        threads = Path("/proc/%d/task" % node.process.pid)
        self.eventually(lambda: {(t / "stat").read_text().rsplit(")", 1)[1].split()[0] for t in threads.iterdir()} == {"T"})
        self.addCleanup(lambda: node.alive() and node.process.send_signal(signal.SIGCONT))

    def thaw(self, node):
        node.process.send_signal(signal.SIGCONT)

    def timed(self, conn, *words):
        start = time.monotonic()
        return conn.call(*words), time.monotonic() - start

    def assertCode(self, code, reply):
        self.assertIsInstance(reply, Error)
        self.assertEqual(reply.code, code, reply)


class Levels(Case):
    def test_who_waits_hears_it_whatever_other_workers_do(self):
        """Workers read the acknowledgements that they wait for; one that is busy with something else holds up nobody but its own clients."""
        primary, _ = self.cluster(1, threads=2, **{"ack-timeout": 60000})
        conns = [self.connect(primary, timeout=60) for _ in range(6)]
        pace = slowness(at_most=5)
        for conn in conns:
            conn.ok("CLIENT", "ACK", "replicas:1")
            self.assertEqual(conn.call("SET", "k", "0"), "OK")  # from now on both workers listen
        for ask in (("SET", "k", "1"), ("WAIT", 1, 60000)):
            for conn in conns[1:]:
                conn.ok("CLIENT", "ACK", "replicas:1" if ask[0] == "SET" else "default")
                conn.ok("SET", "k", "2")
            conns[0].send("DEBUG", "SLEEP", 2 * pace)
            time.sleep(0.2 * pace)
            start = time.monotonic()
            for conn in conns[1:]:
                conn.send("SET", "k", "3")
                conn.send(*ask)
            quick = 0
            waiting = {conn.sock: conn for conn in conns[1:]}
            while waiting and time.monotonic() < start + pace:
                for sock in select.select(list(waiting), [], [], 0.1)[0]:
                    conn = waiting.pop(sock)
                    self.assertEqual([conn.read(), conn.read()], ["OK", "OK" if ask[0] == "SET" else 1])
                    quick += 1
            self.assertGreater(quick, 0)
            self.assertGreater(len(waiting), 0)  # those who have the busy worker
            for conn in waiting.values():
                self.assertEqual([conn.read(), conn.read()], ["OK", "OK" if ask[0] == "SET" else 1])
            self.assertEqual(conns[0].read(), "OK")

    def test_a_frozen_replica_does_not_count_and_counts_again(self):
        primary, one, two = self.cluster(2)
        conn = self.connect(primary, timeout=30)
        conn.ok("CLIENT", "ACK", "replicas:2")
        self.assertEqual(conn.call("SET", "k", "0"), "OK")
        self.freeze(two)
        patience_ms = int(300 * slowness(at_most=10))  # the other one must have it by then
        conn.ok("CONFIG", "SET", "ack-timeout", patience_ms)
        reply = conn.call("SET", "k", "1")
        self.assertCode("UNCONFIRMED", reply)
        self.assertIn("1 of 2 replicas have it after %d ms (level replicas:2)" % patience_ms, reply)
        conn.ok("CONFIG", "SET", "ack-timeout", 20000)
        conn.ok("CLIENT", "ACK", "replicas:1")
        self.assertEqual(conn.call("SET", "k", "2"), "OK")
        self.thaw(two)
        conn.ok("CLIENT", "ACK", "os+replicas:2")
        self.assertEqual(conn.call("SET", "k", "3"), "OK")
        for node in (one, two):
            self.eventually(lambda n=node: self.ask(n, "GET", "k") == b"3")

    def test_disks_of_replicas_are_asked_to_hurry(self):
        primary, *_ = self.cluster(2, appendfsync="no")
        conn = self.connect(primary, timeout=30)
        conn.ok("CLIENT", "ACK", "disk+replicas:2:disk")
        for n in range(5):
            reply, took = self.timed(conn, "SET", "k", n)
            self.assertEqual(reply, "OK")
            self.assertLess(took, 5 * slowness())  # by themselves they sync after 30 seconds
        conn.ok("CLIENT", "ACK", "default")
        conn.ok("SET", "k", "v")
        reply, took = self.timed(conn, "WAITAOF", 1, 2, 30000)
        self.assertEqual(reply, [1, 2])
        self.assertLess(took, 5 * slowness())

    def test_a_quorum_outlives_a_minority_and_is_remembered(self):
        primary, one, two = self.cluster(2)
        conn = self.connect(primary, timeout=30)
        conn.ok("CLIENT", "ACK", "quorum")
        self.assertEqual(conn.call("SET", "k", "0"), "OK")
        one.kill()
        self.assertEqual(conn.call("SET", "k", "1"), "OK")
        two.kill()
        self.eventually(lambda: self.state(primary)["connected_slaves"] == "0")
        conn.ok("CONFIG", "SET", "ack-timeout", 300)
        self.assertCode("UNCONFIRMED", conn.call("SET", "k", "2"))
        primary.terminate()
        primary.options["ack-timeout"] = 300
        primary.start()
        conn = self.connect(primary, timeout=30)
        conn.ok("CLIENT", "ACK", "quorum")
        self.assertCode("UNCONFIRMED", conn.call("SET", "k", "3"))
        one.start()
        self.eventually(lambda: conn.call("SET", "k", "4") == "OK", 30)

    def test_h02_what_a_replica_has_acknowledged_outlives_the_primary(self):
        primary, replica = self.cluster(1)
        acknowledged = [0] * 4

        def write(i):
            with primary.connect(timeout=30) as conn:
                conn.ok("CLIENT", "ACK", "replicas:1")
                try:
                    for n in range(1, 1 << 30):
                        if conn.call("SET", "w%d" % i, n) == "OK":
                            acknowledged[i] = n
                except OSError:
                    pass  # it was killed

        threads = [threading.Thread(target=write, args=(i,)) for i in range(len(acknowledged))]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        primary.kill()
        for thread in threads:
            thread.join()
        self.ask(replica, "REPLICAOF", "NO", "ONE")
        self.eventually(lambda: self.state(replica)["role"] == "master")
        for i, n in enumerate(acknowledged):
            self.assertGreater(n, 0)
            self.assertGreaterEqual(int(self.ask(replica, "GET", "w%d" % i)), n)

    def test_h42_a_demotion_refuses_what_waits(self):
        primary, replica = self.cluster(1, **{"ack-timeout": 60000})
        other = self.node()
        conns = [self.connect(primary, timeout=30) for _ in range(3)]
        for i, conn in enumerate(conns):
            conn.ok("CLIENT", "ACK", "replicas:2")
            conn.send("SET", "k%d" % i, "v")
        self.eventually(lambda: self.ask(primary, "MGET", "k0", "k1", "k2") == [b"v"] * 3)
        self.assertEqual([conn.drain() for conn in conns], [[]] * 3)
        self.ask(primary, "REPLICAOF", "127.0.0.1", other.port)
        for conn in conns:
            self.assertCode("UNCONFIRMED", conn.read())
        self.freeze(other)
        self.freeze(replica)


class Waiting(Case):
    def test_wait_and_waitaof_count_replicas(self):
        primary, one, two = self.cluster(2)
        conn = self.connect(primary, timeout=30)
        conn.ok("SET", "k", "v")
        self.assertEqual(conn.ok("WAIT", 2, 0), 2)
        self.assertEqual(conn.ok("WAITAOF", 1, 2, 0), [1, 2])
        self.freeze(one)
        conn.ok("SET", "k", "w")
        patience = 0.3 * slowness(at_most=10)  # the other one must have it by then
        reply, took = self.timed(conn, "WAIT", 2, int(1000 * patience))
        self.assertEqual(reply, 1)
        self.assertGreaterEqual(took, patience - 0.05)
        self.assertEqual(conn.ok("WAIT", 1, 0), 1)
        conn.send("WAIT", 2, 0)
        self.assertEqual(conn.drain(), [])
        self.thaw(one)
        self.assertEqual(conn.read(), 2)
        for command in (("WAIT", 1, 0), ("WAITAOF", 0, 1, 0)):
            self.assertIn("cannot be used with replica instances", self.ask(two, *command))

    def test_a_replica_shows_what_it_has_under_the_option_of_its_primary(self):
        """All nodes have one configuration: the level is meant for who is the primary."""
        for level in ("replicas:1", "quorum:disk"):
            with self.subTest(level):
                primary, replica = self.cluster(1, **{"ack-level": level})
                self.assertEqual(self.ask(primary, "SET", "k", "v"), "OK")
                self.in_sync(primary, replica)
                self.assertEqual(self.ask(replica, "GET", "k"), b"v")
                replica.kill()
                replica.start()
                self.assertEqual(self.ask(replica, "GET", "k"), b"v")

    def test_what_a_frozen_replica_has_not_read_does_not_make_it_fresh(self):
        """Heartbeats lie in its socket, too: none of them says anything of the time since."""
        primary, replica = self.cluster(1)
        writer, reader = self.connect(primary, timeout=30), self.connect(replica, timeout=30)
        stale, count = 1.5 + 0.5 * slowness(at_most=10), 5000
        reader.ok("CLIENT", "MAXSTALE", int(1000 * stale))
        self.eventually(lambda: not isinstance(reader.call("GET", "n"), Error))
        self.freeze(replica)
        written, end = [], time.monotonic() + 3 * stale
        while time.monotonic() < end:
            written.append(time.monotonic())
            writer.ok("SET", "n", len(written))
            time.sleep(0.01)
        reader.send_raw(encode("GET", "n") * count)
        thawed = time.monotonic()
        self.thaw(replica)
        for _ in range(count):
            reply = reader.read()
            if not isinstance(reply, Error):
                age = thawed - (written[int(reply) - 1] if reply is not None else 0)
                self.assertLess(age, stale + 0.5)
        self.eventually(lambda: reader.call("GET", "n") == b"%d" % len(written))

    def test_a_replica_without_a_log_is_no_disk(self):
        primary = self.node(**{"ack-timeout": 300})
        replica = self.replica(primary, appendonly="no")
        self.in_sync(primary, replica)
        conn = self.connect(primary, timeout=30)
        conn.ok("SET", "k", "v")
        self.assertEqual(conn.ok("WAIT", 1, 0), 1)
        self.assertEqual(conn.ok("WAITAOF", 1, 1, 100), [1, 0])
        conn.ok("CLIENT", "ACK", "replicas:1")
        conn.ok("SET", "k", "w")
        conn.ok("CLIENT", "ACK", "replicas:1:disk")
        self.assertCode("UNCONFIRMED", conn.call("SET", "k", "x"))
        self.assertEqual(self.ask(replica, "CONFIG", "SET", "appendonly", "yes"), "OK")
        self.assertEqual(conn.ok("WAITAOF", 1, 1, 0), [1, 1])  # behind its first snapshot

    def test_read_your_writes_on_a_replica(self):
        primary, replica = self.cluster(1)
        writer, reader = self.connect(primary, timeout=30), self.connect(replica, timeout=30)
        for n in range(300):
            writer.ok("SET", "k", n)
            self.assertEqual(reader.pipeline([("READAFTER", writer.ok("LASTVER"), 10000), ("GET", "k")]),
                             ["OK", b"%d" % n])
        self.freeze(primary)
        reply, took = self.timed(reader, "READAFTER", writer_ahead(reader), 200)
        self.assertCode("BEHIND", reply)
        self.assertGreaterEqual(took, 0.15)

    def test_h05_a_replica_says_which_position_was_lost(self):
        primary, one, two = self.cluster(2)
        conn = self.connect(primary)
        conn.ok("SET", "k", "v")
        self.in_sync(primary, one, two)
        self.freeze(one)
        self.freeze(two)
        for _ in range(32):  # more than the kernel takes for them
            conn.ok("SET", "big", b"x" * 1_000_000)
        conn.ok("SET", "k", "lost")
        lost = conn.ok("LASTVER")
        primary.kill()
        self.thaw(one)
        self.thaw(two)
        reader = self.connect(two, timeout=30)
        lsn = reader.ok("LASTVER")
        self.assertEqual(lsn, 0)
        self.assertCode("BEHIND", reader.call("READAFTER", lost, 300))
        self.ask(one, "REPLICAOF", "NO", "ONE")
        self.follow(two, one)
        self.in_sync(one, two)
        for node in (one, two):
            self.assertCode("LOST", self.ask(node, "READAFTER", lost, 10000))
            self.assertEqual(self.ask(node, "GET", "k"), b"v")

    def test_a_replica_says_when_it_may_be_stale(self):
        primary, replica = self.cluster(1)
        self.ask(primary, "SET", "k", "v")
        self.in_sync(primary, replica)
        conn = self.connect(replica, timeout=30)
        conn.ok("CLIENT", "MAXSTALE", 3000)
        self.eventually(lambda: conn.call("GET", "k") == b"v")
        self.freeze(primary)
        self.eventually(lambda: conn.call("GET", "k") != b"v")
        self.assertCode("STALE", conn.call("GET", "k"))
        self.assertEqual(conn.call("PING"), "PONG")
        conn.ok("CLIENT", "MAXSTALE", 0)
        self.assertEqual(conn.call("GET", "k"), b"v")
        conn.ok("CLIENT", "MAXSTALE", 3000)
        self.thaw(primary)
        self.eventually(lambda: conn.call("GET", "k") == b"v")


    def test_a_replica_of_a_replica_says_when_that_may_be_stale(self):
        """Having all that its source has told of isn't having all that the primary has, on a new link either."""
        primary, middle = self.cluster(1)
        self.ask(primary, "SET", "k", "v")
        last = self.replica(middle)
        self.in_sync(primary, middle, last)

        def read():
            with self.connect(last, timeout=30) as conn:
                conn.ok("CLIENT", "MAXSTALE", 3000)
                return conn.call("GET", "k")
        self.eventually(lambda: read() == b"v")
        self.freeze(primary)
        self.eventually(lambda: isinstance(read(), Error))
        last.kill()
        last.start()
        self.eventually(lambda: self.state(last)["master_link_status"] == "up")
        for _ in range(30):
            self.assertCode("STALE", read())
            time.sleep(0.05)
        self.thaw(primary)
        self.eventually(lambda: read() == b"v")


def writer_ahead(conn):
    """A position that nobody has reached."""
    words = conn.ok("LOG", "POSITION")
    return dict(zip(words[::2], words[1::2]))[b"head"] + 1000


class MinReplicas(Case):
    def test_h54_a_primary_without_its_replicas_stops_writing(self):
        primary, replica = self.cluster(1)
        conn = self.connect(primary, timeout=30)
        conn.ok("CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", math.ceil(2 * slowness()))
        self.eventually(lambda: self.state(primary)["min_slaves_good_slaves"] == "1")  # it has been heard of
        self.assertEqual(conn.call("SET", "k", "v"), "OK")
        self.freeze(replica)
        self.eventually(lambda: conn.call("SET", "k", "w") != "OK")
        self.assertCode("NOREPLICAS", conn.call("SET", "k", "w"))
        self.assertEqual(self.state(primary)["min_slaves_good_slaves"], "0")
        self.assertIsNotNone(conn.call("GET", "k"))
        self.thaw(replica)
        self.eventually(lambda: conn.call("SET", "k", "x") == "OK")

    def test_a_replica_that_has_nothing_to_acknowledge_is_a_good_one(self):
        primary = self.node()
        replica = self.replica(primary, **{"repl-ping-replica-period": 60})  # is for those who follow it
        self.in_sync(primary, replica)
        conn = self.connect(primary, timeout=30)
        lag = math.ceil(2 * slowness())
        conn.ok("CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", lag)
        self.eventually(lambda: conn.call("SET", "k", "v") == "OK")
        time.sleep(2 * lag)  # it beats twice a second
        self.assertEqual(conn.call("SET", "k", "v"), "OK")


if __name__ == "__main__":
    unittest.main()
