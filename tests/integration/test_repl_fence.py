#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does an old primary that was replaced while it was away stop taking writes as soon as it can know, and follow, with nothing lost that the new one had
acknowledged?"""
import re
import shutil
import signal
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.replicas import ReplicaCase  # noqa: E402
from support.resp import encode  # noqa: E402

FENCED = "another one has become the primary"
# Who follows is noted each 5 s at most. It doesn't grow with the load: after 30 s a log is synced by itself, also without appendfsync.
NOTED_S = 7


class Fence(ReplicaCase):
    def three(self):
        primary = self.node()
        replicas = [self.replica(primary, **{"ack-timeout": 60000}) for _ in range(2)]  # one of them becomes the primary
        with primary.connect() as conn:
            self.assertEqual(set(conn.pipeline([("SET", "old:%d" % i, i) for i in range(100)])), {"OK"})
        self.in_sync(primary, *replicas)
        return primary, replicas[0], replicas[1]

    def succeeded_by(self, new, other):
        """The replica is promoted, the other one follows it; what it acknowledges from then on has two copies."""
        self.assertEqual(self.ask(new, "REPLICAOF", "NO", "ONE"), "OK")
        self.follow(other, new)
        with new.connect(timeout=20) as conn:
            conn.ok("CLIENT", "ACK", "REPLICAS:1")
            self.assertEqual(set(conn.pipeline([("SET", "new:%d" % i, i) for i in range(100)])), {"OK"})

    def has_all(self, *nodes):
        for node in nodes:
            with node.connect(timeout=20) as conn:
                for prefix in ("old", "new"):
                    self.assertEqual(conn.pipeline([("GET", "%s:%d" % (prefix, i)) for i in range(100)]), [b"%d" % i for i in range(100)])

    def test_a_primary_that_was_frozen_fences_itself_and_follows_when_told(self):
        primary, new, other = self.three()
        with primary.connect(timeout=30) as client:
            client.ok("SET", "branch", "before")
            self.in_sync(primary, new, other)
            primary.process.send_signal(signal.SIGSTOP)
            try:
                self.succeeded_by(new, other)
                client.send("SET", "branch", "while it was frozen")
            finally:
                primary.process.send_signal(signal.SIGCONT)
            client.read()  # nobody had told it yet, or it was quicker
            self.eventually(lambda: client.call("SET", "branch", "behind")[:8] == "READONLY", 20)
            self.assertIn(FENCED, client.call("SET", "branch", "behind"))
            self.assertEqual(client.ok("GET", "old:1"), b"1")  # reads go on
            self.assertIsNone(client.call("GET", "new:1"))
        fence = re.search(r"repl.fenced epoch=(\d+) history=([0-9a-f]{16})", primary.output())
        self.assertEqual(fence[1], self.state(new)["replication_epoch"])  # the rank of who fenced it
        self.assertTrue(any(path.name.endswith("-%s.dcl" % fence[2]) for path in new.segments()), fence[0])
        state = self.state(primary)
        self.assertEqual((state["role"], state["slave_priority"]), ("slave", "0"))
        self.assertEqual(self.ask(primary, "ROLE")[0], b"slave")
        primary.kill()
        primary.start()  # a fence is remembered
        self.assertIn(FENCED, self.ask(primary, "SET", "branch", "behind"))
        self.follow(primary, new)
        self.in_sync(new, primary, other, timeout=40)
        self.same(new, primary, other)
        self.has_all(new, primary, other)
        self.assertEqual(self.ask(new, "GET", "branch"), b"before")
        self.assertEqual(self.ask(new, "SET", "branch", "of the new one"), "OK")

    def test_h42_a_fence_refuses_what_waits(self):
        """Writes that no replica has got: an OK, at whatever time, would be one for what the new primary hasn't."""
        primary, new, other = self.three()
        self.assertEqual(self.ask(primary, "CONFIG", "SET", "ack-timeout", 600_000), "OK")  # it isn't what refuses them
        clients = [self.connect(primary, timeout=60 * slowness()) for _ in range(4)]
        for level, client in zip(("replicas:1", "replicas:2", "quorum", "default"), clients):
            client.ok("CLIENT", "ACK", level)
            self.assertEqual(client.call("SET", "branch", "before"), "OK")
        self.in_sync(primary, new, other)
        new.kill()
        other.kill()
        for i, client in enumerate(clients[:3]):
            client.send_raw(encode("SET", "wait:%d" % i, 1) + encode("INCR", "wait:%d" % i) + encode("GET", "wait:%d" % i))
        clients[3].send_raw(encode("SET", "wait:3", 2) + encode("WAIT", 1, 0))
        names = ["wait:%d" % i for i in range(4)]
        self.eventually(lambda: self.ask(primary, "MGET", *names) == [b"2"] * 4)
        self.assertEqual(clients[3].read(), "OK")  # has asked for nothing more
        self.assertEqual([client.drain() for client in clients], [[]] * 4)
        primary.process.send_signal(signal.SIGSTOP)
        try:
            new.start()
            other.start()
            self.succeeded_by(new, other)
        finally:
            primary.process.send_signal(signal.SIGCONT)
        for client in clients[:3]:
            replies = [client.read() for _ in range(3)]
            self.assertEqual([getattr(reply, "code", reply) for reply in replies], ["UNCONFIRMED"] * 3)
            self.assertIn("another node has become the primary", replies[0])
        self.assertIn("another node has become the primary", clients[3].read())  # WAIT
        for client in clients:
            reply = client.call("SET", "branch", "behind")
            self.assertEqual(getattr(reply, "code", reply), "READONLY")
            self.assertIn(FENCED, reply)
            self.assertEqual(client.call("PING"), "PONG")  # nothing more was owed
        self.assertEqual(self.ask(new, "EXISTS", *names), 0)
        self.follow(primary, new)
        self.in_sync(new, primary, other, timeout=40)
        self.same(new, primary, other)
        self.has_all(new, primary, other)

    def test_a_killed_primary_with_nothing_to_give_up_follows_its_successor(self):
        primary, new, other = self.three()
        time.sleep(NOTED_S)
        primary.kill()
        self.succeeded_by(new, other)
        primary.start()
        self.eventually(lambda: self.ask(primary, "ROLE")[0] == b"slave", 20)
        self.assertIn(self.ask(primary, "ROLE")[2], (new.port, other.port))  # who answered first, or knows better
        self.in_sync(new, primary, other, timeout=40)
        self.same(new, primary, other)
        self.has_all(primary)
        self.assertIn("READONLY", self.ask(primary, "SET", "branch", 1))

    def test_who_has_the_address_of_a_lost_peer_is_asked_too(self):
        """Another disk, another id: it was copied from the new primary, which is dead when the old one comes back."""
        primary, new, other = self.three()
        time.sleep(NOTED_S)
        primary.kill()
        self.succeeded_by(new, other)
        other.kill()
        shutil.rmtree(other.dir)
        other.dir.mkdir()
        other.options["replicaof"] = ["127.0.0.1", new.port]
        other.start()
        self.in_sync(new, other, timeout=40)
        new.kill()
        primary.start()
        self.eventually(lambda: "repl.fenced" in primary.last_output(), 30)
        self.assertIn(FENCED, self.ask(primary, "SET", "branch", 1))

    def test_who_ends_a_fence_without_a_disk_stays_fenced(self):
        """Else it would take writes in the history that another node has left behind."""
        primary = self.node(slow=True)
        other = self.replica(primary)
        self.assertEqual(self.ask(primary, "SET", "branch", "before"), "OK")
        self.in_sync(primary, other)
        primary.process.send_signal(signal.SIGSTOP)
        try:
            self.assertEqual(self.ask(other, "REPLICAOF", "NO", "ONE"), "OK")
        finally:
            primary.process.send_signal(signal.SIGCONT)
        self.eventually(lambda: FENCED in str(self.ask(primary, "SET", "branch", "behind")), 20)
        primary.disk.sync_fails()
        primary.disk.write_fails()
        self.assertIn("isn't stored", self.ask(primary, "REPLICAOF", "NO", "ONE", timeout=30))
        self.assertIn(FENCED, self.ask(primary, "SET", "branch", "behind"))
        self.assertEqual(self.state(primary)["role"], "slave")
        primary.disk.heal()
        self.eventually(lambda: self.ask(primary, "REPLICAOF", "NO", "ONE") == "OK", 30)
        self.eventually(lambda: self.ask(primary, "SET", "branch", "its own") == "OK", 10)
        self.assertGreater(int(self.state(primary)["replication_epoch"]), int(self.state(other)["replication_epoch"]))

    def test_what_a_primary_lost_is_fetched_when_a_fence_ends_that_came_before(self):
        """A replica has what the primary acknowledged and lost in a power cut. Before the primary hears it, a branch of a higher epoch fences it; then that
        branch gives way."""
        primary = self.node(appendfsync="no", **{"pull-timeout": 60000})
        drill, other = (self.replica(primary) for _ in range(2))
        self.assertEqual(self.ask(primary, "SET", "old", 1), "OK")
        self.in_sync(primary, drill, other)
        self.assertEqual(self.ask(drill, "REPLICAOF", "NO", "ONE"), "OK")
        self.assertEqual(self.ask(drill, "SET", "drill", 1), "OK")
        drill.kill()
        with primary.connect(timeout=20) as conn:
            conn.ok("CLIENT", "ACK", "REPLICAS:1")
            self.assertEqual(conn.call("SET", "kept", 1), "OK")
            lsn = self.written(primary)
            self.assertEqual(conn.call("SET", "late", 1), "OK")
        time.sleep(NOTED_S)
        other.process.send_signal(signal.SIGSTOP)
        try:
            self.lose(primary, lsn)
            primary.start()  # nobody answers
            drill.start()
            self.eventually(lambda: "repl.fenced" in primary.last_output(), 30)
        finally:
            other.process.send_signal(signal.SIGCONT)
        self.follow(drill, primary)
        self.in_sync(primary, drill, other, timeout=40)
        self.assertEqual(self.state(primary)["role"], "master")
        for node in (primary, drill, other):
            self.assertEqual((self.ask(node, "GET", "late"), self.ask(node, "GET", "drill")), (b"1", None))
        self.same(primary, drill, other)
        self.assertFalse(list(other.dir.glob("cut-*")), "nothing of what was acknowledged is cut")


if __name__ == "__main__":
    unittest.main()
