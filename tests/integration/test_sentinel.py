#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does stock redis-sentinel watch over three nodes: does it find them, and is a killed, a frozen, a replaced primary followed by everybody,
clients included?

DCACHE_SERVER may name a redis-server: what is tested is the same, but for versions and bytes of the log.
"""
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.cluster import Cluster, eventually  # noqa: E402
from support.resp import Conn, Error  # noqa: E402
from support.sentinel import NAME, PROGRAM, Sentinels  # noqa: E402

try:
    import redis
    from redis.sentinel import Sentinel as SentinelClient
except ImportError:
    redis = None

DOWN_AFTER_MS = 1500
BIG = 64 * 1024 - 1
BIG_COUNT = 500  # more than sockets hold


class Writer(threading.Thread):
    """A client that asks Sentinel where to write, and goes on through a failover. What so many replicas have as well is confirmed."""

    def __init__(self, addresses, replicas):
        super().__init__(daemon=True)
        self.replicas = replicas
        self.client = SentinelClient(addresses, socket_timeout=1.0).master_for(NAME, socket_timeout=2.0)
        self.ended = threading.Event()
        self.confirmed = {}
        self.errors = []
        self.sent = 0
        self.last_confirmed = time.monotonic()
        self.longest_pause = 0.0

    def run(self):
        while not self.ended.is_set():
            key, value = "w%d" % (self.sent % 500), "%d" % self.sent
            self.sent += 1
            self.confirmed.pop(key, None)  # a write that isn't confirmed may be there or not
            try:
                reply, replicas = self.client.pipeline(transaction=False).set(key, value).execute_command("WAIT", self.replicas, 1000).execute()
                if reply and replicas >= self.replicas:
                    self.confirmed[key] = value
                    now = time.monotonic()
                    self.longest_pause = max(self.longest_pause, now - self.last_confirmed)
                    self.last_confirmed = now
            except redis.RedisError as error:
                self.errors.append(repr(error))
                time.sleep(0.02)

    def wait_for_more(self, count=50, timeout=15):
        """Until it has confirmed so many from now on."""
        before = self.sent
        eventually(lambda: sum(int(v) >= before for v in dict(self.confirmed).values()) >= count, timeout,
                   lambda: "the client can't write: %s" % self.errors[-3:])

    def end(self):
        self.ended.set()
        self.join(20)
        assert not self.is_alive(), "the client hangs"


@unittest.skipUnless(PROGRAM and redis, "redis-sentinel or python3-redis isn't installed")
class Watched(unittest.TestCase):
    confirmed_by = 1  # and the primary; the replica that has the most is promoted

    def setUp(self):
        self.cluster = Cluster(3)
        self.addCleanup(self.cluster.close)
        self.primary = self.cluster.start()
        self.sentinels = Sentinels(self.cluster, self.primary, DOWN_AFTER_MS)
        self.addCleanup(self.sentinels.close)
        self.sentinels.find(self.cluster.others(self.primary))
        self.writer = Writer(self.sentinels.addresses(), self.confirmed_by)
        self.writer.start()
        self.addCleanup(self.writer.ended.set)
        self.writer.wait_for_more()

    def converge(self, primary):
        """Everybody follows, nobody lacks anything."""
        for node in self.cluster.others(primary):
            self.sentinels.wait_for_role(node, primary)
        self.writer.wait_for_more()
        self.writer.end()
        self.cluster.wait_synced(primary)
        for node in self.cluster:
            found = node.ok("MGET", *self.writer.confirmed)
            self.assertEqual({k: v.decode() for k, v in zip(self.writer.confirmed, found) if v is not None},
                             self.writer.confirmed, "a confirmed write is missing")
        self.assertGreater(self.cluster.check_equal(), 50)
        self.cluster.check_logs()
        self.sentinels.find(self.cluster.others(primary))
        print("longest pause of the client: %.1f s, %d errors on the way" % (self.writer.longest_pause, len(self.writer.errors)))


class Killed(Watched):
    def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(self):
        """By the replica that has the most."""
        # With equal offsets the smaller run id would win, so that one is kept behind.
        behind, ahead = sorted(self.cluster.others(self.primary), key=lambda n: n.info("server")["run_id"])
        behind.freeze()
        with self.primary.connect() as conn:
            for i in range(BIG_COUNT):
                conn.ok("SET", "big:%d" % (i % 8), b"%05d" % i * (BIG // 5))
            eventually(lambda: conn.ok("WAIT", 1, 100) >= 1)
        self.primary.kill()
        behind.thaw()
        self.assertLess(behind.offset(), ahead.offset())
        new = self.sentinels.wait_for_another(self.primary)
        self.assertIs(new, ahead)
        self.writer.wait_for_more()
        self.primary.start()
        self.converge(new)


class Frozen(Watched):
    def test_a_frozen_primary_is_replaced_and_comes_back_as_a_replica(self):
        """It gives up its branch when it goes on."""
        old = self.primary
        old.freeze()
        new = self.sentinels.wait_for_another(old)
        self.writer.wait_for_more()
        old.thaw()
        # A client that has heard of nothing. Its write is on no replica: it may be acknowledged, and is given up with the branch.
        with Conn(old.address, timeout=5) as conn:
            try:
                replies = [conn.call("SET", "divergent", "1"), conn.call("WAIT", 1, 100)]
            except ConnectionError:
                replies = [None, 0]
            self.assertTrue(isinstance(replies[1], Error) or replies[1] == 0, replies)
        self.sentinels.wait_for_role(old, new)
        self.converge(new)
        self.assertEqual(old.ok("EXISTS", "divergent"), 0)
        if replies[0] == "OK" and not old.is_redis:
            self.assertTrue(list(old.dir.glob("cut-*.bad")), "what was given up isn't kept")


class Planned(Watched):
    confirmed_by = 2  # the old primary goes on until it is told, perhaps with the other replica

    def test_sentinel_failover_moves_the_primary_and_clients_follow(self):
        old = self.primary
        self.sentinels.all[0].ask("FAILOVER", NAME)
        new = self.sentinels.wait_for_another(old)
        self.converge(new)
        self.assertEqual(old.repl()["role"], "slave")

    def test_sentinel_comes_behind_a_switch_that_a_node_was_told_to_make(self):
        """It finds that its primary follows somebody, and promotes: who has taken over, or a third. Clients find that one either way."""
        old = self.primary
        old.ok("FAILOVER")
        eventually(lambda: old.repl()["role"] == "slave", 15)
        new = self.sentinels.wait_for_another(old, 60)
        self.converge(new)

    def test_a_replica_that_is_not_announced_is_not_listed(self):
        hidden, other = self.cluster.others(self.primary)
        hidden.ok("CONFIG", "SET", "replica-announced", "no")
        self.sentinels.find([other])
        role = self.primary.ok("ROLE")
        self.assertEqual(sorted(int(r[1]) for r in role[2]), sorted(n.port for n in (hidden, other)))

    def test_one_more_replica_is_found(self):
        """Through INFO of the primary: the slaveN lines."""
        slaves = [v for k, v in self.primary.repl().items() if k.startswith("slave") and k[5:].isdigit()]
        self.assertEqual(len(slaves), 2)
        for line in slaves:
            fields = dict(word.split("=") for word in line.split(","))
            self.assertEqual(list(fields)[:5], ["ip", "port", "state", "offset", "lag"])
            self.assertEqual((fields["ip"], fields["state"]), ("127.0.0.1", "online"))
        role = self.primary.ok("ROLE")
        self.assertEqual(role[0], b"master")
        self.assertEqual(sorted(int(r[1]) for r in role[2]), sorted(n.port for n in self.cluster.others(self.primary)))
        replica = self.cluster.others(self.primary)[0]
        role = replica.ok("ROLE")
        self.assertEqual(role[:4], [b"slave", b"127.0.0.1", self.primary.port, b"connected"])


class Commands(unittest.TestCase):
    """What a sentinel sends, by hand."""

    def setUp(self):
        self.cluster = Cluster(2)
        self.addCleanup(self.cluster.close)
        self.primary = self.cluster.start()
        self.replica = self.cluster[1]

    def test_hello_reaches_subscribers_the_sender_among_them(self):
        for node in self.cluster:
            with node.connect(3) as one, node.connect() as other:
                one.send("SUBSCRIBE", "__sentinel__:hello")
                one.read()
                self.assertEqual(one.call("PUBLISH", "__sentinel__:hello", "from one"), 1)
                self.assertEqual(other.call("PUBLISH", "__sentinel__:hello", "from other"), 1)
                got = list(one.pushes)
                while len(got) < 2:
                    got.append(one.read())
                self.assertEqual([m[2] for m in got], [b"from one", b"from other"])

    def change_role(self, node, *target):
        """As Sentinel does it. The replies come, then the others are gone."""
        with node.connect() as idle, node.connect() as listener, node.connect() as sentinel:
            idle.ok("PING")
            listener.send("SUBSCRIBE", "__sentinel__:hello")
            listener.read()
            replies = sentinel.pipeline([("MULTI",), ("SLAVEOF", *target), ("CONFIG", "REWRITE"), ("CLIENT", "KILL", "TYPE", "normal"),
                                         ("CLIENT", "KILL", "TYPE", "pubsub"), ("EXEC",)])
            self.assertEqual(replies[:5], ["OK"] + ["QUEUED"] * 4)
            self.assertEqual(replies[5][:2], ["OK", "OK"], replies[5])
            # How many were killed isn't told: a node that starts anew with other data drops them anyway.
            self.assertEqual([type(r) for r in replies[5][2:]], [int, int], replies)
            for conn in (idle, listener):
                self.assertEqual(conn.read_until_closed(5), [])
        node.hang_up()

    def test_exec_with_slaveof_is_answered_and_the_other_clients_are_dropped(self):
        self.change_role(self.replica, "NO", "ONE")
        eventually(lambda: self.replica.call("SET", "a", "1") == "OK")
        self.change_role(self.primary, self.replica.host, self.replica.port)
        self.cluster.wait_synced(self.replica)
        self.assertEqual(self.primary.ok("GET", "a"), b"1")
        self.assertEqual(self.primary.call("SET", "a", "2").code, "READONLY")
        conf = self.primary.conf.read_text()
        self.assertRegex(conf, r'(?m)^(replicaof|slaveof) "?%s"? "?%d"?$' % (self.replica.host, self.replica.port))
        self.assertNotRegex(self.replica.conf.read_text(), r"(?m)^(replicaof|slaveof) ")

    def test_a_role_outlives_a_restart(self):
        self.change_role(self.replica, "NO", "ONE")
        eventually(lambda: self.replica.call("SET", "a", "1") == "OK")
        self.change_role(self.primary, self.replica.host, self.replica.port)
        self.cluster.wait_synced(self.replica)
        self.replica.kill()
        self.replica.start()
        self.primary.kill()
        self.primary.start()
        self.assertEqual(self.replica.repl()["role"], "master")
        self.assertEqual(self.primary.repl()["role"], "slave")
        self.cluster.wait_synced(self.replica)
        self.cluster.check_equal()

    def test_fields_that_sentinel_reads(self):
        for node in self.cluster:
            run_id = node.info("server")["run_id"]
            self.assertRegex(run_id, "^[0-9a-f]{40}$")
        text = self.replica.ok("INFO", "replication").decode()
        names = [line.split(":")[0] for line in text.splitlines()[1:] if line]
        self.assertEqual(names[0], "role")
        for name in ("master_host", "master_port", "master_link_status", "slave_priority", "slave_repl_offset", "replica_announced"):
            self.assertIn(name, names)
        self.primary.kill()
        down = eventually(lambda: (r := self.replica.repl())["master_link_status"] == "down" and r)
        self.assertIn("master_link_down_since_seconds", down)
        self.assertEqual(self.replica.call("SET", "a", "1").code, "READONLY")


if __name__ == "__main__":
    unittest.main()
