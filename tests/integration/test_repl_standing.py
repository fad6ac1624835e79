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
from support.pace import slowness  # noqa: E402
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

    def sent_away(self, node):
        """It follows a port where nobody is; the order has been carried out."""
        nowhere = free_port()
        self.order(node, "127.0.0.1", nowhere)
        self.eventually(lambda: "repl.follow target=127.0.0.1:%d" % nowhere in node.output())
        time.sleep(0.2)
        return nowhere

    def test_data_that_nobody_else_has_had_are_not_promoted(self):
        nowhere = free_port()
        empty = self.node(replicaof=["127.0.0.1", nowhere])
        self.assertEqual(self.seen(empty), ("slave", "0", True))
        stranger = self.node()
        self.ask(stranger, "SET", "x", 1)
        self.order(stranger, "127.0.0.1", nowhere)
        self.eventually(lambda: self.seen(stranger) == ("slave", "0", True))

    def test_a_promotion_does_not_wait_for_ever_for_what_a_peer_cannot_send(self):
        """The peer lives, and its memory has more than its disk takes."""
        primary, other = self.pair(**{"pull-timeout": 300})
        full = self.replica(primary, slow=True)
        self.in_sync(primary, other, full)
        self.eventually(lambda: self.state(primary)["connected_slaves"] == "2")
        time.sleep(2)  # a heartbeat tells each of the other one
        self.sent_away(other)
        full.disk.write_fails()
        with primary.connect(timeout=20) as conn:
            conn.ok("CLIENT", "ACK", "MEMORY+REPLICAS:1")
            self.assertEqual(conn.call("SET", "x", 2), "OK")
        primary.kill()
        self.assertEqual(self.ask(other, "REPLICAOF", "NO", "ONE", timeout=30), "OK")
        self.assertIn("sink.pull", other.output())
        self.assertIn("has sent nothing behind LSN", other.output())
        self.assertEqual(self.ask(other, "SET", "x", 3), "OK")

    def test_what_was_replicated_may_be_promoted_and_shows_no_branch_of_its_own(self):
        primary, replica = self.pair()
        self.assertEqual(self.seen(replica), ("slave", "100", False))
        time.sleep(3)  # until that is noted: each second, and synced
        primary.kill()
        replica.kill()
        replica.start()
        self.assertEqual(self.seen(replica), ("slave", "100", False))
        primary.start()
        self.ask(primary, "SET", "branch", 1)
        replica.kill()
        self.order(primary, "127.0.0.1", free_port())
        self.eventually(lambda: self.seen(primary) == ("slave", "100", True))
        self.sent_away(primary)  # also when it is told again, and after a restart
        self.assertEqual(self.seen(primary), ("slave", "100", True))
        primary.kill()
        primary.start()
        self.assertEqual(self.seen(primary), ("slave", "100", True))
        replica.start()
        self.order(replica, "NO", "ONE")
        self.eventually(lambda: self.seen(replica)[0] == "master")
        self.order(primary, "127.0.0.1", replica.port)
        self.in_sync(replica, primary)  # taken
        self.sent_away(primary)
        self.assertEqual(self.seen(primary), ("slave", "100", False))

    def test_a_replica_whose_next_source_dies_before_the_first_contact_shows_what_it_has(self):
        primary, replica = self.pair()
        offset = int(self.state(replica)["slave_repl_offset"])
        time.sleep(3)  # until that is noted: each second, and synced
        primary.kill()
        nowhere = self.sent_away(replica)
        self.assertEqual(self.seen(replica), ("slave", "100", False))
        replica.kill()
        replica.start()
        self.assertEqual(self.state(replica)["master_port"], str(nowhere))
        self.assertEqual(self.seen(replica), ("slave", "100", False))
        self.assertGreaterEqual(int(self.state(replica)["slave_repl_offset"]), offset)

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
        replica.disk.sync_takes(60)
        with replica.connect(timeout=30) as conn:
            conn.send("REPLICAOF", "NO", "ONE")
            time.sleep(0.3)
            self.assertEqual(self.seen(replica)[0], "slave")
            replica.kill()
            self.assertEqual(conn.read_until_closed(5), [])  # nothing was promised
        replica.disk.heal()
        replica.start()
        self.assertEqual(self.seen(replica)[0], "slave")
        self.assertEqual(self.epoch(replica), epoch)
        self.order(replica, "NO", "ONE")
        self.eventually(lambda: self.seen(replica)[0] == "master")
        self.assertEqual(self.epoch(replica), epoch + 1)

    def killed_behind_the_ok(self, node, *order, exec_it=False, takes=0.5):
        """The order, given while the metadata are slow; killed as soon as OK is there."""
        node.disk.metadata_take(takes)
        with node.connect(timeout=60) as conn:
            if exec_it:
                self.assertEqual(conn.pipeline([("MULTI",), order, ("PING",)]), ["OK", "QUEUED", "QUEUED"])
                order = ("EXEC",)
            conn.send(*order)
            time.sleep(0.3)
            self.assertEqual(self.ask(node, "PING"), "PONG")  # no worker waits for it
            reply = conn.read()
        node.kill()
        node.disk.heal()
        node.start()
        return reply

    def target(self, node):
        role = self.ask(node, "ROLE", timeout=20)  # it may be beginning anew already: the other's branch isn't its own
        return (role[0], role[1], role[2]) if role[0] == b"slave" else role[0]

    @unittest.skipUnless(SlowDisk.is_there(), "DCACHE_SLOW_DISK isn't there")
    def test_ok_to_replicaof_means_that_it_is_stored(self):
        primary, replica = self.pair(slow=True)
        other = free_port()
        self.assertEqual(self.killed_behind_the_ok(replica, "REPLICAOF", "127.0.0.1", other), "OK")
        self.assertEqual(self.target(replica), (b"slave", b"127.0.0.1", other))
        self.order(replica, "127.0.0.1", primary.port)
        self.in_sync(primary, replica)
        epoch = self.epoch(replica)
        self.assertEqual(self.killed_behind_the_ok(replica, "REPLICAOF", "NO", "ONE"), "OK")
        self.assertEqual(self.target(replica), b"master")
        self.assertGreater(self.epoch(replica), epoch)
        self.assertEqual(self.killed_behind_the_ok(replica, "REPLICAOF", "127.0.0.1", primary.port), "OK")  # a primary
        self.assertEqual(self.target(replica), (b"slave", b"127.0.0.1", primary.port))

    @unittest.skipUnless(SlowDisk.is_there(), "DCACHE_SLOW_DISK isn't there")
    def test_inside_exec_ok_means_the_same_and_else_an_error_tells(self):
        primary, replica = self.pair(slow=True)
        other = free_port()
        reply = self.killed_behind_the_ok(replica, "SLAVEOF", "127.0.0.1", other, exec_it=True, takes=0.02)  # EXEC waits, but not for long
        self.assertEqual(reply, ["OK", "PONG"])
        self.assertEqual(self.target(replica), (b"slave", b"127.0.0.1", other))
        replica.disk.metadata_take(60)
        with replica.connect(timeout=60) as conn:
            conn.pipeline([("MULTI",), ("SLAVEOF", "127.0.0.1", primary.port), ("PING",)])
            reply = conn.call("EXEC")  # doesn't wait for long
            self.assertIn("not stored yet", reply[0])
            self.assertEqual(reply[1:], ["PONG"])
            conn.ok("MULTI")  # whoever orders it behind something else isn't told OK either
            conn.pipeline([("PING",), ("SLAVEOF", "NO", "ONE")])
            reply = conn.call("EXEC")
            self.assertEqual(reply[0], "PONG")
            self.assertIn("not stored yet", reply[1])
            replica.disk.heal()
            self.assertEqual(conn.call("REPLICAOF", "NO", "ONE"), "OK")
        self.assertEqual(self.target(replica), b"master")

    @unittest.skipUnless(SlowDisk.is_there(), "DCACHE_SLOW_DISK isn't there")
    def test_an_order_that_can_not_be_stored_is_an_error_and_is_tried_again(self):
        primary = self.node(slow=True)
        self.ask(primary, "SET", "x", 1)
        port = free_port()
        primary.disk.metadata_fail()
        self.assertIn("isn't stored", self.ask(primary, "REPLICAOF", "127.0.0.1", port))
        self.assertIn("READONLY", self.ask(primary, "SET", "x", 2))
        primary.disk.heal()
        self.eventually(lambda: "server.restarting" in primary.output())
        primary.kill()
        primary.start()
        self.assertEqual(self.target(primary), (b"slave", b"127.0.0.1", port))

    @unittest.skipUnless(SlowDisk.is_there(), "DCACHE_SLOW_DISK isn't there")
    def test_an_order_that_another_one_follows_is_not_confirmed(self):
        replica = self.pair(slow=True)[1]
        replica.disk.metadata_take(60)
        with replica.connect(timeout=60) as one, replica.connect(timeout=60) as two:
            one.send("REPLICAOF", "127.0.0.1", free_port())
            time.sleep(0.3 * slowness())
            two.send("REPLICAOF", "NO", "ONE")
            time.sleep(0.3 * slowness())
            last = free_port()
            with replica.connect(timeout=60) as three:
                three.send("REPLICAOF", "127.0.0.1", last)
                time.sleep(0.3 * slowness())
                replica.disk.heal()  # only now is any of them stored
                self.assertEqual(three.read(), "OK")
            self.assertIn("another order", two.read())
            self.assertIn(one.read()[:11], ("OK", "ERR another"))
        self.assertEqual(self.target(replica), (b"slave", b"127.0.0.1", last))

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

    def test_a_primary_that_started_in_order_is_followed_again_and_again(self):
        """Its replica was to follow a node that may have been promoted: what it tells of that is above the primary's epoch."""
        primary, replica = self.pair()
        self.assertEqual(self.epoch(primary), 1)
        self.sent_away(replica)
        primary.terminate()
        primary.start()
        self.eventually(lambda: self.ask(primary, "SET", "x", 2) == "OK", 20)
        self.assertGreater(self.epoch(primary), 2)
        self.follow(replica, primary)
        self.in_sync(primary, replica)
        for node in (replica, primary, replica):
            node.terminate()
            node.start()
            self.eventually(lambda: self.ask(primary, "SET", "x", 3) == "OK", 20)
            self.in_sync(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "0")
        self.same(primary, replica)

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

    def test_a_host_name_may_be_long(self):
        """That of a source, of a replica, and of one that the source tells of: each is asked before a promotion."""
        host = "127.0.0.%0200d" % 1
        primary = self.node()
        one, two = [self.node(replicaof=[host, primary.port], **{"replica-announce-ip": host, "pull-timeout": 60000}) for _ in range(2)]
        self.in_sync(primary, one, two)
        self.eventually(lambda: self.state(primary)["connected_slaves"] == "2")
        for name in ("slave0", "slave1"):
            self.assertIn("ip=%s," % host, self.state(primary)[name])
        time.sleep(2)  # a heartbeat tells each of the other one
        self.sent_away(two)
        with primary.connect(timeout=20) as conn:
            conn.ok("CLIENT", "ACK", "REPLICAS:1")
            self.assertEqual(conn.call("SET", "x", 2), "OK")
        primary.kill()
        self.order(two, "NO", "ONE")
        self.assertEqual(self.ask(two, "GET", "x"), b"2")
        self.order(one, host, two.port)
        self.in_sync(two, one)
        self.order(one, "NO", "ONE")
        self.assertIn("peers_missing count=1 ", one.output())  # only who is dead

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
