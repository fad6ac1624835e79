#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do the copies of a node hold what it holds, in any order of starts, ends and roles?"""
import os
import random
import shutil
import signal
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import SlowDisk, WrongClock, first_lsn, flip, offset_of  # noqa: E402
from support.pace import BUILD, slowness  # noqa: E402
from support.replicas import ReplicaCase  # noqa: E402
from support.resp import Error  # noqa: E402


def fill(conn, count, prefix="key", length=20):
    conn.pipeline([("SET", "%s:%d" % (prefix, i), ("%d/" % i) * (length // 4)) for i in range(count)])


def every_kind(conn, r):
    """Commands that make every kind of effect."""
    key = "k%d" % r.randrange(50)
    other = "k%d" % r.randrange(50)
    dice = r.randrange(15)
    commands = [
        [("SET", key, "v" * r.randrange(100))],
        [("SET", key, r.randrange(10 ** 6), "PX", 100000)],
        [("INCR", "n%d" % r.randrange(9))],
        [("APPEND", key, "more")],
        [("SETRANGE", key, r.randrange(200), "xyz")],
        [("DEL", key, other)],
        [("EXPIRE", key, 1000)],
        [("PERSIST", key)],
        [("MSET", key, 1, other, 2, "third", 3)],
        [("COPY", key, other, "REPLACE")],
        [("GETDEL", key)],
        [("SETBIT", key, r.randrange(4000), 1)],
        [("MULTI",), ("SET", key, "in exec"), ("APPEND", key, "!"), ("DEL", other), ("EXEC",)],
        [("SELECT", r.randrange(4))],
        [("MULTI",), ("SET", key, 1), ("FLUSHDB",), ("SET", other, 2), ("EXEC",)] if r.randrange(8) == 0 else
        [("UNLINK", other)],
    ]
    conn.pipeline(commands[dice])


class Copies(ReplicaCase):
    def test_an_empty_node_becomes_a_replica_and_follows(self):
        primary, replica = self.node(), self.node()
        conn = self.connect(primary)
        fill(conn, 2000)
        self.assertEqual(self.ask(replica, "ROLE")[0], b"master")
        self.follow(replica, primary)
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(replica, "GET", "key:7"), conn.ok("GET", "key:7"))
        self.assertEqual(self.ask(replica, "ROLE")[:4], [b"slave", b"127.0.0.1", primary.port, b"connected"])
        conn.ok("SET", "later", "1")
        self.eventually(lambda: self.ask(replica, "GET", "later") == b"1")
        self.same(primary, replica)
        state = self.state(primary)
        self.assertEqual((state["role"], state["connected_slaves"]), ("master", "1"))
        self.assertRegex(state["slave0"], "ip=127.0.0.1,port=%d,state=online,offset=[0-9]+,lag=[01]," % replica.port)
        self.assertEqual(state["sync_full"], "1")
        self.check_lag(primary, replica)
        self.assertGreater(self.same_log(primary, replica), 0)

    def check_lag(self, primary, replica):
        """How far the replica is, from both sides: in INFO, and in ROLE DETAILS."""
        def details(node):
            words = self.ask(node, "ROLE", "DETAILS")
            return dict(zip(words[::2], words[1::2]))

        def behind():
            words = details(primary)[b"replicas"][0]
            return dict(zip(words[::2], words[1::2]))[b"lag-bytes"]
        seen = details(replica)
        self.assertEqual((seen[b"role"], seen[b"master-port"], seen[b"link"]), (b"slave", primary.port, b"connected"))
        self.assertEqual((seen[b"full-syncs"], seen[b"lag-bytes"], seen[b"lag-ms"]), (1, 0, 0))
        self.assertTrue(seen[b"full-sync-reason"])
        state = self.state(replica)
        self.assertEqual((state["replica_lag_bytes"], state["replica_lag_usec"]), ("0", "0"))
        self.assertTrue(state["replication_full_received_reason"])
        self.assertTrue(self.state(primary)["replication_full_sent_reason"])
        # The primary knows it by the acknowledgement, which comes behind the write.
        self.eventually(lambda: self.state(primary)["slave0"].partition("lag_bytes=")[2].partition(",")[0] == "0")
        replica.process.send_signal(signal.SIGSTOP)
        self.ask(primary, "SET", "unseen", "x" * 5000)
        self.assertGreater(behind(), 5000)
        self.assertIn(",lag_bytes=%d," % behind(), self.state(primary)["slave0"])
        replica.process.send_signal(signal.SIGCONT)
        self.eventually(lambda: behind() == 0)
        self.assertEqual(details(primary)[b"full-syncs"], 1)

    def test_every_kind_of_write_arrives(self):
        primary = self.node()
        replica = self.replica(primary)
        self.in_sync(primary, replica)  # so that it all comes by the log
        conn = self.connect(primary)
        r = random.Random(7)
        for _ in range(600):
            every_kind(conn, r)
        conn.ok("SELECT", 0)
        blob = os.urandom(3_000_000)
        conn.ok("SET", "blob", blob)
        conn.ok("SETRANGE", "blob", 1_000_000, "patched")
        conn.ok("SET", "gone", "x", "PX", 50)
        self.in_sync(primary, replica)
        time.sleep(0.1)  # else it may expire between the looks at both
        self.same(primary, replica)
        self.assertEqual(self.ask(replica, "GET", "blob")[999_990:1_000_010], blob[999_990:1_000_000] + b"patched" +
                         blob[1_000_007:1_000_010])
        self.assertIsNone(self.ask(replica, "GET", "gone"))
        conn.ok("FLUSHALL")
        conn.ok("SET", "after", 1)
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(replica, "KEYS", "*"), [b"after"])
        self.same(primary, replica)
        self.assertGreater(self.same_log(primary, replica), 3_000_000)

    def test_a_replica_that_was_away_gets_long_messages(self):
        primary = self.node()
        replica = self.replica(primary)
        self.in_sync(primary, replica)
        replica.kill()
        conn = self.connect(primary)
        r = random.Random(11)
        for i in range(5):
            fill(conn, 8000, "round", 40)  # frames over the ends of messages, enough for helpers
            conn.ok("MSET", *("round:%d" % k if k % 2 else "many/%d" % i for k in range(400)))
            for _ in range(100):
                every_kind(conn, r)
            conn.ok("SELECT", 0)
            conn.ok("SET", "blob:%d" % i, os.urandom(200_000 * (i + 1)))  # longer than some messages, and than none
            if i == 2:
                conn.ok("FLUSHALL")
        replica.start()
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.assertGreater(self.same_log(primary, replica), 3_000_000)
        self.assertEqual(self.state(primary)["sync_full"], "1")

    def test_a_copy_taken_under_load(self):
        primary, replica = self.node(), self.node()
        fill(self.connect(primary), 20000)
        with Writers(primary, 3):
            self.follow(replica, primary)
            self.eventually(lambda: self.state(replica).get("master_link_status") == "up", 20)
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.same_log(primary, replica)

    def copies_at_once(self, primary, *replicas, wanted):
        """Empty nodes are told to follow one whose disk gives a copy slowly, until so many were seen for a while. How many were under way at a time."""
        primary.disk.read_takes(0.5)  # a megabyte
        for replica in replicas:
            self.follow(replica, primary)
        seen = []

        def all_attached():
            seen.append(int(self.state(primary)["replication_copies_under_way"]))
            if seen.count(wanted) == 20:
                primary.disk.heal()
            return all(self.state(r).get("master_link_status") == "up" for r in replicas)
        self.eventually(all_attached, 60)
        self.in_sync(primary, *replicas)
        self.same(primary, *replicas)
        self.assertEqual(int(self.state(primary)["replication_copies_under_way"]), 0)
        return seen

    def test_one_full_copy_at_a_time_and_more_where_the_option_says_so(self):
        primary = self.node(slow=True)
        conn = self.connect(primary)
        for i in range(20):
            conn.pipeline([("SET", "key:%d:%d" % (i, j), os.urandom(10_000)) for j in range(100)])
        first, second, third, fourth = (self.node() for _ in range(4))
        seen = self.copies_at_once(primary, first, second, wanted=1)
        self.assertEqual(max(seen), 1, seen)
        self.assertIn("the source is sending a full copy to another replica", primary.output())
        conn.ok("CONFIG", "SET", "replication-full-copies", 2)
        seen = self.copies_at_once(primary, third, fourth, wanted=2)
        self.assertEqual(max(seen), 2, seen)
        self.assertEqual(self.state(primary)["sync_full"], "4")


class Writers:
    """Threads that write until the end of the block."""

    def __init__(self, node, count):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(node, i)) for i in range(count)]

    def run(self, node, seed):
        r = random.Random(seed)
        with node.connect(timeout=30) as conn:
            while not self.stop.is_set():
                every_kind(conn, r)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


class Frozen(ReplicaCase):
    def test_h55_a_replica_that_gets_on_holds_no_log_back(self):
        primary = self.node(**{"replication-pin-size": "2mb"})
        conn = self.connect(primary)
        conn.ok("SET", "x", 1)
        replica = self.replica(primary)
        self.in_sync(primary, replica)
        for _ in range(3):
            for _ in range(3):
                self.assertEqual(set(conn.pipeline([("SET", "big", b"x" * 100_000)] * 11)), {"OK"})
                self.in_sync(primary, replica)  # each time a segment is full, and retention looks
            replica.kill()  # what this session held is free
            replica.start()
            self.in_sync(primary, replica)
        conn.ok("BGSAVE")
        self.assertNotIn("data.pin_dropped", primary.output())
        self.assertEqual(self.state(primary)["sync_full"], "1")
        replica.process.send_signal(signal.SIGSTOP)
        try:  # one that doesn't move
            self.eventually(lambda: conn.ok("SET", "big", b"x" * 1_000_000) and "data.pin_dropped" in primary.output(), 60)
        finally:
            replica.process.send_signal(signal.SIGCONT)

    def test_a_frozen_replica_costs_the_primary_nothing(self):
        primary = self.node(maxmemory="1gb")
        replica = self.replica(primary)
        other = self.replica(primary)
        self.in_sync(primary, replica, other)
        conn = self.connect(primary)
        fill(conn, 100)
        before = primary.rss()
        replica.process.send_signal(signal.SIGSTOP)
        try:
            slowest = 0
            for i in range(300):  # 30 MB over and over in one key: the data doesn't grow
                began = time.monotonic()
                conn.ok("SET", "big", b"x" * 100_000)
                slowest = max(slowest, time.monotonic() - began)
                if i % 50 == 0:
                    conn.ok("WAITAOF", 1, 0, 0)  # what isn't durable stays in memory, replica or not
            self.in_sync(primary, other)
            self.assertLess(slowest, 1.0 * slowness())
            if BUILD == 1:
                self.assertLess(primary.rss() - before, 40_000_000)
        finally:
            replica.process.send_signal(signal.SIGCONT)
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "2")


    def test_a_replica_that_comes_anew_has_one_link(self):
        """The link of its earlier life is still open: nothing has told the primary that its machine is gone."""
        primary = self.node(repl_timeout=60)
        replica = self.replica(primary, repl_timeout=60)
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(primary, "WAITAOF", 1, 1, 0), [1, 1])
        os.kill(replica.process.pid, signal.SIGSTOP)
        again = self.node(replicaof=["127.0.0.1", primary.port], repl_timeout=60)
        again.kill()
        shutil.rmtree(again.dir)
        shutil.copytree(replica.dir, again.dir)
        again.start()
        self.in_sync(primary, again)
        self.eventually(lambda: "the peer has come anew" in primary.output())
        self.eventually(lambda: self.state(primary)["connected_slaves"] == "1")  # the old link's own thread lets go of it
        replica.kill()


class Roles(ReplicaCase):
    def test_a_replica_refuses_writes(self):
        primary = self.node()
        replica = self.replica(primary)
        self.in_sync(primary, replica)
        conn = self.connect(replica)
        refused = conn.call("SET", "a", 1)
        self.assertEqual((refused.code, refused), ("READONLY", "READONLY You can't write against a read only replica."))
        replies = conn.pipeline([("MULTI",), ("SET", "a", 1), ("EXEC",)])
        self.assertEqual([r.code if isinstance(r, Error) else r for r in replies], ["OK", "READONLY", "EXECABORT"])
        for command in [("FLUSHALL",), ("INCR", "a"), ("GETDEL", "a"), ("EXPIRE", "a", 1)]:
            self.assertEqual(conn.call(*command).code, "READONLY")
        self.assertIsNone(conn.ok("GET", "a"))

    def test_a_primary_that_loads_and_leaves_out_becomes_a_replica(self):
        """Its loaders write what they leave out, up to the end of the life that is over."""
        other = self.node()
        node = self.node(threads=2, warm_threads=4, maxmemory_policy="allkeys-lru")
        fill(self.connect(node), 40000, length=400)
        self.ask(node, "SAVE")
        node.options["maxmemory"] = 1  # nothing fits
        for delay in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1):
            node.kill()
            node.start()
            time.sleep(delay)
            self.follow(node, other)
            self.eventually(lambda: self.state(node)["role"] == "slave")
            self.assertEqual(self.ask(node, "REPLICAOF", "NO", "ONE"), "OK")

    def test_a_promoted_replica_takes_writes_and_begins_a_history(self):
        primary = self.node()
        replica = self.replica(primary)
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        before = self.state(replica)
        self.assertEqual(self.ask(replica, "REPLICAOF", "NO", "ONE"), "OK")
        self.assertEqual(self.ask(replica, "SET", "mine", 1), "OK")
        after = self.state(replica)
        self.assertEqual(after["role"], "master")
        self.assertEqual(after["master_replid2"], before["master_replid"])
        self.assertNotEqual(after["master_replid"], before["master_replid"])
        self.assertGreater(int(after["replication_epoch"]), int(before["replication_epoch"]))
        self.assertEqual(self.ask(replica, "GET", "key:5"), self.ask(primary, "GET", "key:5"))
        replica.kill()
        replica.start()  # the role was remembered, though the options still name the other one
        self.assertEqual(self.state(replica)["role"], "master")
        self.assertEqual(self.ask(replica, "GET", "mine"), b"1")

    def test_the_old_primary_follows_the_promoted_one_without_a_copy(self):
        primary = self.node()
        replica = self.replica(primary)
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        self.ask(replica, "REPLICAOF", "NO", "ONE")
        self.ask(replica, "SET", "new", 1)
        self.follow(primary, replica)
        self.in_sync(replica, primary)
        self.assertEqual(self.ask(primary, "GET", "new"), b"1")
        self.same(primary, replica)
        self.same_log(primary, replica)
        self.assertEqual(self.state(replica)["sync_full"], "0")

    def test_h51_a_drill_gives_up_its_branch_and_production_goes_on(self):
        primary = self.node()
        replica = self.replica(primary)
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        self.ask(replica, "REPLICAOF", "NO", "ONE")
        self.ask(replica, "SET", "drill", 1)
        self.ask(primary, "SET", "production", 1)
        self.follow(replica, primary)
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(replica, "MGET", "drill", "production"), [None, b"1"])
        self.assertEqual(self.ask(primary, "SET", "more", 1), "OK")
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.same_log(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "1")
        self.assertTrue(list(replica.dir.glob("cut-*")), "what was given up is kept aside")

    def test_h31_what_had_expired_stays_so_when_the_replica_is_promoted(self):
        primary = self.node()
        replica = self.replica(primary, preload=WrongClock)
        conn = self.connect(primary)
        conn.ok("SET", "session", 1, "PX", 300)
        conn.ok("SET", "stays", 1, "PX", 100000)
        time.sleep(0.4)
        conn.ok("SET", "x", 1)
        self.in_sync(primary, replica)
        self.assertIsNone(conn.ok("GET", "session"))
        replica.kill()
        replica.preload.is_ahead_by(-10)  # its own clock would bring the session back
        replica.start()
        self.in_sync(primary, replica)
        self.ask(replica, "REPLICAOF", "NO", "ONE")
        self.assertIsNone(self.ask(replica, "GET", "session"))
        self.assertEqual(self.ask(replica, "SET", "session", 2, "NX"), "OK")
        self.assertEqual(self.ask(replica, "GET", "stays"), b"1")

    def test_databases_that_a_replica_does_not_show_are_followed_and_kept(self):
        primary = self.node()
        replica = self.replica(primary, databases=4)
        self.assertEqual(self.ask(primary, "SET", "x", 1), "OK")
        self.in_sync(primary, replica)
        with primary.connect() as conn:
            conn.ok("SELECT", 10)
            conn.ok("SET", "x", 10)
        self.in_sync(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "1")
        self.assertNotIn(b"db10:", self.ask(replica, "INFO", "keyspace"))
        self.assertIn("DB index is out of range", self.ask(replica, "SELECT", 10))
        self.assertEqual(self.ask(replica, "REPLICAOF", "NO", "ONE"), "OK")
        for command in (("COPY", "x", "x", "DB", 10, "REPLACE"), ("MOVE", "x", 10)):
            self.assertIn("DB index is out of range", self.ask(replica, *command))
        replica.terminate()
        replica.start()  # from its log, with as few
        replica.terminate()
        replica.options["databases"] = 16
        replica.start()
        with replica.connect() as conn:
            conn.ok("SELECT", 10)
            self.assertEqual(conn.ok("GET", "x"), b"10")

    def test_a_replica_of_a_replica(self):
        primary = self.node()
        middle = self.replica(primary)
        fill(self.connect(primary), 500)
        self.in_sync(primary, middle)
        last = self.replica(middle)
        self.in_sync(primary, middle, last)
        self.ask(primary, "SET", "through", 1)
        self.in_sync(primary, middle, last)
        self.assertEqual(self.ask(last, "GET", "through"), b"1")
        self.assertEqual(self.state(middle)["connected_slaves"], "1")
        self.same(primary, middle, last)
        self.same_log(primary, middle, last)
        self.ask(middle, "REPLICAOF", "NO", "ONE")
        self.ask(middle, "SET", "mine", 1)
        self.in_sync(middle, last)  # into the new history, on the same link
        self.same(middle, last)
        self.same_log(middle, last)
        self.assertEqual(self.state(middle)["sync_full"], "1")


def restart_under_load(case, times):
    primary = case.node()
    replica = case.replica(primary)
    case.in_sync(primary, replica)
    with Writers(primary, 2):
        for i in range(times):
            replica.kill() if i % 3 else replica.terminate()
            replica.start()
            case.eventually(lambda: case.state(replica)["master_link_status"] == "up", 20)
    case.in_sync(primary, replica)
    case.same(primary, replica)
    case.same_log(primary, replica)
    case.assertEqual(case.state(primary)["sync_full"], "1")


class Restarts(ReplicaCase):
    def pair(self):
        primary = self.node()
        replica = self.replica(primary)
        fill(self.connect(primary), 1000)
        self.in_sync(primary, replica)
        return primary, replica

    def test_a_replica_goes_on_from_its_own_disk(self):
        primary, replica = self.pair()
        for end in (replica.terminate, replica.kill):
            end()
            self.ask(primary, "SET", end.__name__, 1)
            replica.start()
            self.in_sync(primary, replica)
            self.assertEqual(self.ask(replica, "GET", end.__name__), b"1")
        self.same(primary, replica)
        self.assertGreater(self.same_log(primary, replica), 0)
        self.assertEqual(self.state(primary)["sync_full"], "1")

    def test_the_primary_comes_back(self):
        primary, replica = self.pair()
        for end in (primary.terminate, primary.kill):
            end()
            self.eventually(lambda: self.state(replica)["master_link_status"] == "down")
            self.assertEqual(self.ask(replica, "GET", "key:5"), b"5/5/5/5/5/")
            primary.start()
            self.ask(primary, "SET", end.__name__, 1)
            self.in_sync(primary, replica)
            self.assertEqual(self.ask(replica, "GET", end.__name__), b"1")
        self.same(primary, replica)
        self.same_log(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "0")

    def test_h56_restarts_under_load_need_no_copy(self):
        restart_under_load(self, 6)

    def test_h52_an_emptied_primary_wipes_nobody(self):
        primary, replica = self.pair()
        primary.kill()
        for path in [*primary.segments(), *primary.snapshots()]:
            path.unlink()
        for path in (primary.dir / "meta").iterdir():
            path.unlink()
        primary.start()
        self.eventually(lambda: "no data" in self.state(replica).get("master_link_down_reason", ""))
        self.assertEqual(self.ask(replica, "GET", "key:5"), b"5/5/5/5/5/")
        self.follow(replica, primary)  # not even then, while there is nothing to take over
        self.eventually(lambda: "no data" in self.state(replica).get("master_link_down_reason", ""))
        self.assertEqual(self.ask(replica, "GET", "key:5"), b"5/5/5/5/5/")
        self.follow(replica, primary, "FORCE")
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(replica, "DBSIZE"), 0)


class PowerCuts(ReplicaCase):
    """The primary's disk has less than the primary had told its replicas."""

    def pair(self, announced="yes", **options):
        primary = self.node(appendfsync="no", **options)
        replica = self.replica(primary, replica_announced=announced)
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        lsn = self.written(primary)
        fill(self.connect(primary), 100, prefix="late")
        self.in_sync(primary, replica)
        self.eventually(lambda: self.written(replica) >= self.written(primary))  # applied isn't written
        return primary, replica, lsn

    def has_fetched(self, primary, replica):
        self.assertEqual(self.ask(primary, "SET", "new", 1), "OK")
        self.assertEqual(self.ask(primary, "GET", "late:99"), self.ask(replica, "GET", "late:99"))
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.same_log(primary, replica)
        self.assertEqual(self.state(primary)["role"], "master")

    def test_h02_a_primary_fetches_what_it_lost_from_its_replica(self):
        primary, replica, lsn = self.pair()
        self.eventually(lambda: "slave0" in self.state(primary))
        time.sleep(3)  # the metadata know the replica: noted each second, and synced
        self.lose(primary, lsn)
        primary.start()
        self.has_fetched(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "0")

    def forget_log(self, node, conn, lsn):
        """'node' keeps no log from before 'lsn' on, as it does behind a newer snapshot."""
        def is_gone():
            fill(conn, 50, prefix="more", length=40_000)
            return self.ask(node, "SAVE") == "OK" and min(map(first_lsn, node.segments())) > lsn
        self.eventually(is_gone)

    def test_h02_a_primary_fetches_a_copy_where_the_log_of_what_it_lost_is_gone(self):
        """A replica that had snapshots since clears its log away; what it has acknowledged it has nevertheless."""
        primary = self.node(appendfsync="no", log_segment_size="1mb")
        replica = self.replica(primary, snapshot_keep=1, log_segment_size="1mb")
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        lsn = self.written(primary)
        fill(self.connect(primary), 100, prefix="late")
        self.forget_log(replica, self.connect(primary), lsn)
        self.in_sync(primary, replica)
        time.sleep(3)  # the metadata know the replica: noted each second, and synced
        self.lose_behind(primary, lsn)
        primary.start()
        self.has_fetched(primary, replica)
        primary.kill()
        primary.start()
        self.has_fetched(primary, replica)

    def test_h02_a_promoted_replica_fetches_a_copy_where_the_log_is_gone(self):
        primary = self.node(appendfsync="no")
        behind, ahead = (self.replica(primary, snapshot_keep=1, log_segment_size="1mb", appendfsync="no") for _ in range(2))
        fill(self.connect(primary), 100)
        self.in_sync(primary, behind)
        lsn = self.written(behind)
        fill(self.connect(primary), 100, prefix="late")
        self.forget_log(ahead, self.connect(primary), lsn)
        self.in_sync(primary, ahead)
        self.in_sync(primary, behind)
        time.sleep(3)  # as above
        primary.kill()
        self.lose_behind(behind, lsn)
        behind.start()
        self.assertEqual(self.ask(behind, "REPLICAOF", "NO", "ONE"), "OK")
        self.eventually(lambda: self.state(behind)["role"] == "master")
        self.follow(ahead, behind)
        self.has_fetched(behind, ahead)

    def test_h02_a_replica_that_is_not_announced_is_asked_too(self):
        """replica-announced is for Sentinel: what such a replica acknowledges counts like that of any other."""
        primary, replica, lsn = self.pair(announced="no")
        self.eventually(lambda: "slave0" in self.state(primary))
        self.assertIn("port=%d," % replica.port, self.state(primary)["slave0"])
        self.assertEqual(self.state(replica)["replica_announced"], "0")
        time.sleep(3)  # as above
        self.lose(primary, lsn)
        primary.start()
        self.has_fetched(primary, replica)

    def test_h02_what_does_not_fit_into_memory_is_left_out_once_nobody_has_more(self):
        """Leaving out is a write, which may not stand where a peer may have other bytes."""
        primary, replica, lsn = self.pair(maxmemory_policy="allkeys-lru", pull_timeout=600_000)
        time.sleep(3)  # the metadata know the replica: noted each second, and synced
        self.lose(primary, lsn)
        os.kill(replica.process.pid, signal.SIGSTOP)
        primary.options["maxmemory"] = 1  # nothing fits
        primary.start()
        conn = self.connect(primary)
        self.eventually(lambda: primary.info(conn, "warm_percent") == "100")
        self.assertEqual(self.written(primary), lsn)
        conn.ok("CONFIG", "SET", "maxmemory", 0)
        os.kill(replica.process.pid, signal.SIGCONT)
        self.has_fetched(primary, replica)

    def test_h05_runs_without_a_log_give_no_version_twice(self):
        """What the first of them handed out no log can tell, and nobody who is asked."""
        primary = self.node(appendonly="no", pull_timeout=300)
        replica = self.replica(primary)
        fill(self.connect(primary), 100)
        self.in_sync(primary, replica)
        self.ask(primary, "SAVE")
        time.sleep(3)  # the metadata know the replica: noted each second, and synced
        replica.kill()
        versions = []
        for n in range(3):
            primary.kill()
            primary.start()
            self.assertEqual(self.ask(primary, "SET", "k", n), "OK")
            versions.append(self.ask(primary, "GETVER", "k")[1])
        self.assertLess(versions[0], versions[1])
        self.assertLess(versions[1], versions[2])

    def test_h01_what_nobody_could_tell_the_primary_is_cut_from_the_replica(self):
        primary, replica, lsn = self.pair(**{"pull-timeout": 300})
        replica.kill()
        self.lose(primary, lsn)
        primary.start()
        self.assertEqual(self.ask(primary, "SET", "new", 1), "OK")
        self.assertEqual(self.ask(primary, "EXISTS", "late:99"), 0)
        replica.start()
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(replica, "EXISTS", "late:99"), 0)
        self.same(primary, replica)
        self.same_log(primary, replica)
        self.assertEqual(self.state(primary)["sync_full"], "0")
        self.assertTrue(list(replica.dir.glob("cut-*")), "what was cut is kept aside")


class Damage(ReplicaCase):
    def test_who_needs_a_part_of_the_log_that_has_rotted_gets_a_copy(self):
        """The snapshot that is there ends before it: only a fresh one helps."""
        primary = self.node()
        replica = self.replica(primary)
        conn = self.connect(primary)
        fill(conn, 100)
        self.in_sync(primary, replica)
        copies = int(self.state(primary)["sync_full"])
        replica.terminate()
        fill(conn, 100, "before")
        conn.ok("SAVE")
        fill(conn, 100, "behind")
        version = conn.ok("GETVER", "behind:50")[1]
        conn.ok("WAITAOF", 1, 0, 0)
        segment = max((s for s in primary.segments() if first_lsn(s) <= version), key=first_lsn)
        flip(segment, offset_of(segment, version) - 1)
        replica.start()
        self.in_sync(primary, replica, timeout=40)
        self.same(primary, replica)
        conn.ok("SET", "later", 1)
        self.in_sync(primary, replica)
        state = self.state(primary)
        self.assertEqual(int(state["sync_full"]), copies + 1)
        self.assertIn("can't be read", state["replication_full_sent_reason"])
        self.assertIn("source.log_damaged", primary.output())

    def test_who_has_what_has_rotted_on_the_source_goes_on(self):
        """The hash of the bytes before its place is another one than the source's, which are right no more."""
        primary = self.node()
        replica = self.replica(primary)
        conn = self.connect(primary)
        self.in_sync(primary, replica)  # its log begins here
        fill(conn, 1000)
        version = conn.ok("GETVER", "key:999")[1]
        fill(conn, 10, prefix="behind")
        self.in_sync(primary, replica)
        replica.terminate()
        conn.ok("WAITAOF", 1, 0, 0)
        conn.ok("SET", "later", 1)
        segment = max((s for s in primary.segments() if first_lsn(s) <= version), key=first_lsn)
        flip(segment, offset_of(segment, version) - 1)
        copies = self.state(primary)["sync_full"]
        replica.start()
        self.in_sync(primary, replica)
        self.same(primary, replica)
        self.assertIn("source.log_damaged", primary.output())
        self.assertEqual(self.state(primary)["sync_full"], copies)

    @unittest.skipUnless(SlowDisk.is_there(), "DCACHE_SLOW_DISK isn't there")
    def test_a_broken_disk_under_a_log_that_only_replicas_read_stops_no_write(self):
        """They lack what was written meanwhile, and get a copy when the disk is well."""
        primary = self.node(slow=True, appendonly="no", save="")
        replica = self.replica(primary)
        conn = self.connect(primary)
        fill(conn, 100)
        self.in_sync(primary, replica)
        for trouble in ("write_fails", "sync_fails"):
            getattr(primary.disk, trouble)()
            end = time.monotonic() + 3 * slowness()  # seconds: it is synced once in each
            while time.monotonic() < end:
                self.assertEqual(conn.call("INCR", "n"), int(conn.call("GET", "n")))
                time.sleep(0.01)
            self.assertIn("log.given_up", primary.output())
            primary.disk.heal()
            self.in_sync(primary, replica, timeout=60)
            self.same(primary, replica)
        self.assertNotIn("log.trouble", primary.output())


class Time(ReplicaCase):
    def test_h30_a_session_lives_on_a_replica_that_lags(self):
        primary = self.node()
        replica = self.replica(primary)
        conn = self.connect(primary)
        self.in_sync(primary, replica)
        life = 2 * slowness()
        began = time.monotonic()
        conn.ok("SET", "session", "s", "PX", int(life * 1000))
        conn.ok("SET", "gone", "s", "PX", int(life * 1000))
        self.in_sync(primary, replica)
        replica.kill()
        self.assertEqual(conn.ok("EXPIRE", "session", 1800), 1)
        time.sleep(max(0.0, began + life + 0.2 - time.monotonic()))
        replica.start()
        self.in_sync(primary, replica)
        self.assertEqual(self.ask(replica, "MGET", "session", "gone"), [b"s", None])
        left = self.ask(replica, "TTL", "session")
        self.assertGreater(left + time.monotonic() - began, 1790)

    def behind_two(self):
        """The primary is gone; of three replicas the first has all, the second lacks an EXPIRE, the third is silent: a promotion of the second asks."""
        primary = self.node(threads=1)
        ahead, behind, silent = [self.replica(primary, **{"pull-timeout": 600_000}) for _ in range(3)]
        conn = self.connect(primary)
        self.in_sync(primary, ahead, behind, silent)
        time.sleep(2)  # a heartbeat tells each of the others
        life = 2 * slowness()
        began = time.monotonic()
        conn.ok("SET", "session", "s", "PX", int(life * 1000))
        conn.ok("SET", "gone", "s", "PX", int(life * 1000))
        self.in_sync(primary, ahead, behind, silent)
        self.assertEqual(self.ask(behind, "REPLICAOF", "127.0.0.1", 1), "OK")
        os.kill(silent.process.pid, signal.SIGSTOP)
        self.assertEqual(conn.ok("EXPIRE", "session", 1800), 1)
        conn.ok("SET", "last", 1)
        self.in_sync(primary, ahead)
        primary.kill()
        time.sleep(max(0.0, began + life + 7 - time.monotonic()))  # by the clock alone the session could be reclaimed
        return ahead, behind, silent

    def promoted(self, behind):
        self.assertEqual(self.ask(behind, "REPLICAOF", "NO", "ONE"), "OK")
        self.eventually(lambda: self.ask(behind, "GET", "last") == b"1")
        self.assertEqual(self.ask(behind, "MGET", "session", "gone"), [b"s", None])
        self.assertGreater(self.ask(behind, "TTL", "session"), 1700)

    def test_h30_a_session_lives_on_a_replica_that_pulls_before_it_is_promoted(self):
        """Its role is a primary's already, its clock isn't: what it pulls was written by another one's."""
        ahead, behind, silent = self.behind_two()
        self.assertEqual(self.ask(behind, "DBSIZE"), 2)
        self.promoted(behind)
        self.assertNotIn("sink.unshown", behind.output())
        os.kill(silent.process.pid, signal.SIGCONT)

    def test_h30_a_session_lives_on_a_replica_of_a_replica_that_is_cut_off(self):
        """The source's clock runs on, but it hasn't heard what the primary did meanwhile."""
        primary = self.node()
        middle = self.replica(primary)
        last = self.replica(middle)
        conn = self.connect(primary)
        life = 2 * slowness()
        conn.ok("SET", "session", "s", "PX", int(life * 1000))
        conn.ok("SET", "gone", "s", "PX", int(life * 1000))
        self.in_sync(primary, middle, last)
        copies = self.state(middle)["sync_full"]
        self.assertEqual(self.ask(middle, "REPLICAOF", "127.0.0.1", 1), "OK")
        self.assertEqual(conn.ok("EXPIRE", "session", 1800), 1)
        time.sleep(life + 5 + 1 * slowness())  # by the clock alone both could be reclaimed
        self.assertEqual(self.ask(last, "DBSIZE"), 2)
        self.follow(middle, primary)
        self.in_sync(primary, middle, last)
        for node in (middle, last):
            self.assertEqual(self.ask(node, "MGET", "session", "gone"), [b"s", None])
        self.eventually(lambda: self.ask(last, "DBSIZE") == 1, 30)  # by the primary's clock one of them is
        self.assertEqual(self.state(middle)["sync_full"], copies)


if __name__ == "__main__":
    unittest.main()
