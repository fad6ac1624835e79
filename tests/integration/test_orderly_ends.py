#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does SIGTERM in the middle of something long end the node in order, and does the next start have everything and go on with it?"""
import os
import signal
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.replicas import ReplicaCase  # noqa: E402
from support.server import temp_dir  # noqa: E402

MIB = 1 << 20
OK = b"+OK\r\n"
LONG_MS = 600_000
NOTED_S = 3  # who follows is noted, and synced
LATE_S = 0.2 * slowness(at_most=10)  # a disk call, so that there is a middle


class Case(ReplicaCase):
    def fill(self, node, mib, prefix="k", level="default"):
        """Values that can't be compressed; what is acknowledged."""
        values = {"%s:%d" % (prefix, i): os.urandom(MIB // 16) for i in range(16 * mib)}
        with node.connect(timeout=60 * slowness()) as conn:
            conn.ok("CLIENT", "ACK", level)
            for name, value in values.items():
                self.assertEqual(conn.call("SET", name, value), "OK")
        return values

    def has(self, node, values):
        with node.connect(timeout=60 * slowness()) as conn:
            wrong = [name for name, value in values.items() if conn.call("GET", name) != value]
        self.assertEqual(wrong, [])

    def count_up(self, node):
        """A client that counts until the node is gone. Returns where to look for the last number that it was told."""
        told = [0]

        def run():
            try:
                with node.connect(timeout=60 * slowness()) as conn:
                    while isinstance(n := conn.call("INCR", "count"), int):
                        told[0] = n
            except OSError:
                pass
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        self.eventually(lambda: told[0] > 0)
        return told

    def end(self, node, heals=False):
        """By SIGTERM; 'heals': its disk, a moment later."""
        node.process.send_signal(signal.SIGTERM)
        if heals:
            time.sleep(0.2)
            node.disk.heal()
        self.assertEqual(node.wait(), 0)
        node.check()
        if node.disk is not None:
            node.disk.heal()

    def is_clean(self, node):
        with node.connect(timeout=30) as conn:
            self.assertEqual((node.info(conn, "restart_clean"), node.info(conn, "restart_cut_bytes")), ("yes", "0"))


class Backups(Case):
    def ended_in(self, is_there, *words):
        """SIGTERM as soon as 'is_there(node, target)' sees that it is under way."""
        node = self.node(slow=True, log_segment_size="64mb")
        target = temp_dir(self) / "b"
        values = self.fill(node, 4)
        with node.connect(timeout=60 * slowness()) as conn, node.connect(timeout=60 * slowness()) as asks:
            self.assertEqual(asks.call("SAVE"), "OK")
            values.update(self.fill(node, 4, "later"))
            told = self.count_up(node)
            node.disk.write_takes(LATE_S)
            conn.send("BACKUP", target, *words)
            self.eventually(lambda: is_there(node, target), 30)
            self.end(node)
            replies = conn.read_until_closed(10)
        self.assertEqual([r for r in replies if not r.startswith(b"-")], [], "it wasn't finished")
        self.assertEqual(list(target.parent.iterdir()), [])
        node.start()
        self.is_clean(node)
        self.has(node, values)
        self.assertIn(int(self.ask(node, "GET", "count")), (told[0], told[0] + 1))
        self.assertEqual(list(node.dir.glob("snap-*.tmp")), [])
        self.assertIsInstance(self.ask(node, "BACKUP", target, timeout=60), int)

    def test_while_its_snapshot_is_written(self):
        self.ended_in(lambda node, _: list(node.dir.glob("snap-*.tmp")), "FRESH")

    def test_while_the_log_is_copied(self):
        self.ended_in(lambda _, target: list(target.parent.glob("b.incomplete/log-*")))


class Roles(Case):
    def pair(self, **options):
        primary = self.node()
        replica = self.replica(primary, slow=True, **options)
        values = self.fill(primary, 1)
        self.in_sync(primary, replica)
        return primary, replica, values

    def stands_and_goes_on(self, replica, replies, values):
        """What was said of the promotion holds, and it can be made."""
        replica.start()
        if OK in replies:
            self.assertEqual(self.state(replica)["role"], "master")
        self.has(replica, values)
        self.assertEqual(self.ask(replica, "REPLICAOF", "NO", "ONE", timeout=30), "OK")
        self.eventually(lambda: self.ask(replica, "SET", "new", 1) == "OK")

    def test_in_a_promotion_that_the_disk_holds_up(self):
        primary, replica, values = self.pair()
        primary.kill()
        replica.disk.sync_takes(600)
        with replica.connect(timeout=30) as conn:
            conn.send("REPLICAOF", "NO", "ONE")
            time.sleep(0.3)
            self.assertEqual(self.state(replica)["role"], "slave")
            self.end(replica, heals=True)
            self.stands_and_goes_on(replica, conn.read_until_closed(10), values)

    def is_taken(self, writer, told):
        """The order. Before, writes are refused, and then held; but a second later a silent peer counts as one that can't be reached, and on a busy
        machine that may be over before this looks."""
        writer.send("SET", "held", 1)
        time.sleep(0.3)
        told += (new := writer.drain())
        return not new or OK in new

    def test_in_a_promotion_that_asks_a_peer_which_is_silent(self):
        primary, replica, values = self.pair(**{"pull-timeout": LONG_MS})
        other = self.replica(primary)
        self.in_sync(primary, other)
        time.sleep(NOTED_S)
        other.process.send_signal(signal.SIGSTOP)
        self.addCleanup(lambda: other.process.send_signal(signal.SIGCONT))
        primary.kill()
        with replica.connect(timeout=30) as conn, replica.connect(timeout=30) as writer:
            conn.send("REPLICAOF", "NO", "ONE")
            told = []
            self.eventually(lambda: self.is_taken(writer, told))
            self.end(replica)
            replies = conn.read_until_closed(10)
            told += writer.read_until_closed(10)
        other.process.send_signal(signal.SIGCONT)
        self.stands_and_goes_on(replica, replies, values)
        self.assertEqual(self.ask(replica, "GET", "held"), b"1" if OK in told else None)

    def test_in_a_rewind(self):
        primary, replica, values = self.pair()
        for i, delay in enumerate((0, 0.01, 0.03, 0.06, 0.1, 0.2)):
            self.assertEqual(self.ask(replica, "REPLICAOF", "NO", "ONE"), "OK")
            self.assertEqual(self.ask(replica, "SET", "drill", i), "OK")
            self.assertEqual(self.ask(primary, "SET", "production", i), "OK")
            self.follow(replica, primary)
            time.sleep(delay)
            self.end(replica)
            replica.start()
            self.in_sync(primary, replica)
            self.assertEqual(self.ask(replica, "MGET", "drill", "production"), [None, b"%d" % i])
        self.same(primary, replica)
        self.has(replica, values)


class Copies(Case):
    def copy_under_way(self, primary):
        """A new replica that takes a copy, slowly."""
        replica = self.node(slow=True)
        replica.disk.write_takes(LATE_S)
        self.follow(replica, primary)
        self.eventually(lambda: list(replica.dir.glob("incoming/*")))
        return replica

    def test_of_who_takes_it(self):
        primary = self.node()
        values = self.fill(primary, 8)
        replica = self.copy_under_way(primary)
        for _ in range(2):  # one that was broken off before is in the way of nobody
            self.eventually(lambda: self.state(replica).get("master_sync_in_progress") == "1")
            self.end(replica)
            replica.disk.write_takes(LATE_S)
            replica.start()
        replica.disk.heal()
        self.in_sync(primary, replica, timeout=40)
        self.same(primary, replica)
        self.has(replica, values)

    def test_of_who_gives_it(self):
        primary = self.node()
        values = self.fill(primary, 8)
        replica = self.copy_under_way(primary)
        told = self.count_up(primary)
        self.end(primary)
        primary.start()
        self.is_clean(primary)
        self.assertIn(int(self.ask(primary, "GET", "count")), (told[0], told[0] + 1))
        self.has(primary, values)
        replica.disk.heal()
        self.in_sync(primary, replica, timeout=40)
        self.same(primary, replica)


class Pulls(Case):
    def lost_the_end(self, mib):
        """A primary that has lost in a power cut what its replica had acknowledged. It is down."""
        options = {"appendfsync": "no", "log_segment_size": "16mb", "pull-timeout": LONG_MS, "ack-timeout": LONG_MS}
        primary = self.node(slow=True, **options)
        replica = self.replica(primary, **options)
        values = self.fill(primary, 1, "before")
        self.in_sync(primary, replica)
        time.sleep(NOTED_S)
        lsn = self.written(primary)
        values.update(self.fill(primary, mib, "acknowledged", "replicas:1"))
        self.head = self.written(primary)
        self.lose(primary, lsn)
        return primary, replica, values, lsn

    def pulls_all(self, primary, replica, values):
        self.eventually(lambda: self.ask(primary, "SET", "new", 1) == "OK", 30)
        self.has(primary, values)
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.same_log(primary, replica)
        self.assertFalse(list(replica.dir.glob("cut-*")), "nothing of what was acknowledged is cut")

    def test_h02_while_the_replica_is_silent(self):
        primary, replica, values, _ = self.lost_the_end(1)
        replica.process.send_signal(signal.SIGSTOP)
        try:
            primary.start()
            with primary.connect(timeout=30) as conn:
                conn.send("SET", "held", 1)
                time.sleep(0.3)
                self.assertEqual(conn.drain(), [])
                self.end(primary)
                self.assertEqual(conn.read_until_closed(10), [])  # it wasn't done
        finally:
            replica.process.send_signal(signal.SIGCONT)
        primary.start()
        self.pulls_all(primary, replica, values)

    def test_h02_in_the_middle_of_what_is_pulled(self):
        primary, replica, values, lsn = self.lost_the_end(12)
        primary.options["log_buffer_size"] = "1mb"
        primary.disk.sync_takes(LATE_S)  # for each MB or less
        primary.start()
        self.eventually(lambda: self.written(primary) > lsn, 30)
        self.end(primary)
        primary.start()
        with primary.connect(timeout=30) as conn:
            self.assertLess(int(primary.info(conn, "restart_end_lsn")), self.head, "it had everything")
        self.pulls_all(primary, replica, values)


if __name__ == "__main__":
    unittest.main()
