#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What does a node say of itself to Sentinel, and what does it remember of orders, when a change of its role isn't complete?"""
import struct
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import SlowDisk  # noqa: E402
from support.replicas import ReplicaCase  # noqa: E402
from support.server import free_port  # noqa: E402


class Standing(ReplicaCase):
    def pair(self, **options):
        primary = self.node()
        replica = self.replica(primary, **options)
        self.ask(primary, "SET", "x", 1)
        self.in_sync(primary, replica)
        return primary, replica

    def epoch(self, node):
        return int(self.state(node)["replication_epoch"])

    def seen(self, node):
        state = self.state(node)
        return state["role"], state.get("slave_priority"), state.get("slave_repl_offset") == "0"

    def order(self, node, *target):
        self.assertIn(self.ask(node, "REPLICAOF", *target)[:2], ("OK", b"OK"))

    def test_data_that_nobody_else_has_had_are_not_promoted(self):
        nowhere = free_port()
        empty = self.node(replicaof=["127.0.0.1", nowhere])
        self.assertEqual(self.seen(empty), ("slave", "0", True))
        stranger = self.node()
        self.ask(stranger, "SET", "x", 1)
        self.order(stranger, "127.0.0.1", nowhere)
        self.eventually(lambda: self.seen(stranger) == ("slave", "0", True))

    def test_what_was_replicated_may_be_promoted_and_shows_no_branch_of_its_own(self):
        primary, replica = self.pair()
        self.assertEqual(self.seen(replica), ("slave", "100", False))
        time.sleep(0.5)  # until that is noted
        primary.kill()
        replica.kill()
        replica.start()
        self.assertEqual(self.seen(replica), ("slave", "100", False))
        primary.start()
        self.ask(primary, "SET", "branch", 1)
        replica.kill()
        self.order(primary, "127.0.0.1", free_port())
        self.eventually(lambda: self.seen(primary) == ("slave", "100", True))

    def test_a_fenced_node_is_a_replica_to_sentinel(self):
        primary, replica = self.pair()
        self.order(replica, "NO", "ONE")
        self.eventually(lambda: self.seen(replica)[0] == "master")
        self.eventually(lambda: self.seen(primary)[:2] == ("slave", "0"))
        self.assertIn("READONLY", self.ask(primary, "SET", "x", 2))
        self.assertEqual(self.ask(primary, "ROLE")[0], b"slave")
        self.order(primary, "NO", "ONE")
        self.eventually(lambda: self.seen(primary)[0] == "master")
        self.assertGreater(self.epoch(primary), self.epoch(replica))

    @unittest.skipUnless(SlowDisk.is_there(), "DCACHE_SLOW_DISK isn't there")
    def test_a_promotion_that_is_cut_off_changes_nothing(self):
        primary, replica = self.pair(slow=True)
        epoch = self.epoch(replica)
        primary.kill()
        replica.disk.sync_takes(3)
        with replica.connect(timeout=30) as conn:
            conn.ok("REPLICAOF", "NO", "ONE")
            time.sleep(0.3)
            self.assertIn(b"role:slave", conn.ok("INFO", "replication"))
        replica.kill()
        replica.disk.heal()
        replica.start()
        self.assertEqual(self.seen(replica)[0], "slave")
        self.assertEqual(self.epoch(replica), epoch)
        self.order(replica, "NO", "ONE")
        self.eventually(lambda: self.seen(replica)[0] == "master")
        self.assertEqual(self.epoch(replica), epoch + 1)

    def test_a_primary_that_asks_at_its_start_can_be_chosen(self):
        primary, replica = self.pair()
        epoch = self.epoch(primary)
        replica.kill()
        primary.kill()
        primary.options["pull-timeout"] = 60000
        primary.start()
        with primary.connect(timeout=20) as conn:
            conn.send("SET", "x", 2)
            time.sleep(0.5)
            self.assertEqual(self.ask(primary, "GET", "x"), b"1")
            self.order(primary, "NO", "ONE")
            self.assertEqual(conn.read(), "OK")
        self.assertEqual(self.epoch(primary), epoch + 1)
        self.assertEqual(self.seen(primary)[0], "master")

    def test_orders_that_nobody_has_taken_raise_the_epoch(self):
        primary, replica = self.pair()
        epoch = self.epoch(replica)
        for _ in range(2):
            self.order(replica, "127.0.0.1", free_port())
            time.sleep(0.1)
        self.order(replica, "127.0.0.1", primary.port)
        self.in_sync(primary, replica)  # taken
        primary.kill()
        for _ in range(3):
            self.order(replica, "127.0.0.1", free_port())
            time.sleep(0.3)
        replica.kill()
        replica.start()
        self.order(replica, "NO", "ONE")
        self.eventually(lambda: self.seen(replica)[0] == "master")
        self.assertEqual(self.epoch(replica), epoch + 1 + 3)

    def test_a_copy_of_other_data_brings_other_peers(self):
        primary, replica = self.pair()
        other = self.node()
        self.ask(other, "SET", "y", 1)
        self.order(replica, "127.0.0.1", other.port)
        self.in_sync(other, replica)
        self.assertEqual(self.ask(replica, "KEYS", "*"), [b"y"])
        primary.kill()
        other.kill()
        self.order(replica, "NO", "ONE")
        self.eventually(lambda: self.seen(replica)[0] == "master")
        self.assertIn("peers_missing count=1", replica.output())

    def test_the_backlog_is_the_log_on_the_disk(self):
        primary = self.node()
        self.ask(primary, "SET", "x", "v" * 10000)
        state = self.state(primary)
        self.assertEqual(state["repl_backlog_active"], "1")
        first, length = int(state["repl_backlog_first_byte_offset"]), int(state["repl_backlog_histlen"])
        self.assertGreater(length, 10000)
        self.assertLessEqual(first, int(state["master_repl_offset"]))
        self.assertEqual(state["repl_backlog_size"], str(length))

    def test_older_names_of_options(self):
        node = self.node(**{"slave-priority": 7})
        with node.connect() as conn:
            for old, new, value in (("slave-priority", "replica-priority", "8"), ("slave-announce-ip", "replica-announce-ip", "10.0.0.1"),
                                    ("slave-announce-port", "replica-announce-port", "77"), ("repl-ping-slave-period", "repl-ping-replica-period", "3"),
                                    ("slave-serve-stale-data", "replica-serve-stale-data", "no"), ("min-slaves-max-lag", "min-replicas-max-lag", "9")):
                conn.ok("CONFIG", "SET", old, value)
                self.assertEqual(conn.ok("CONFIG", "GET", new), [new.encode(), value.encode()])
                self.assertEqual(conn.ok("CONFIG", "GET", old), [old.encode(), value.encode()])
            self.assertEqual(conn.ok("CONFIG", "GET", "slave-read-only"), [b"slave-read-only", b"yes"])

    def test_an_ack_of_what_was_not_sent_ends_the_link(self):
        primary = self.node()
        self.ask(primary, "SET", "x", 1)
        hello = struct.pack("<HBBI16s16sQQQHHIQ", 1, 1, 2, 8, b"p" * 16, b"d" * 16, 0, 0, 0, 1234, 0, 0, 0)
        ack = struct.pack("<QQQ", 10 ** 6, 10 ** 6, 10 ** 6)
        with primary.connect(timeout=10) as conn:
            self.assertEqual(conn.call("REPLSTREAM", "1"), "OK")
            conn.send_raw(message(1, hello))
            self.eventually(lambda: self.state(primary)["connected_slaves"] == "1")
            conn.send_raw(message(4, ack))
            self.eventually(lambda: self.state(primary)["connected_slaves"] == "0")
        self.assertEqual(self.ask(primary, "WAIT", 1, 10), 0)
        self.assertIn("source.wrong_ack", primary.output())


def message(kind, body):
    return struct.pack("<IB", len(body) + 1, kind) + body


if __name__ == "__main__":
    unittest.main()
