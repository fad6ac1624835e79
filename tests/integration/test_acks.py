#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does a reply wait for what its client asked for, and is it told when that doesn't come? On a node without replicas."""
import signal
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, log_position  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.resp import Closed, Error, Push, encode  # noqa: E402
from support.server import ServerCase  # noqa: E402


class AckCase(DiskCase):
    def assertUnconfirmed(self, reply, why=""):
        self.assertIsInstance(reply, Error)
        self.assertEqual(reply.code, "UNCONFIRMED", reply)
        self.assertIn(why, reply)

    def lsn_of(self, reply):
        return int(reply.split("LSN ")[1].split(",")[0])

    def timed(self, conn, *words):
        start = time.monotonic()
        return conn.call(*words), time.monotonic() - start


class Levels(AckCase):
    def test_the_level_is_the_connections_own(self):
        server = self.own_server()
        conn, other = self.connect(server), self.connect(server)
        self.assertEqual(conn.ok("CLIENT", "ACK"), b"default")
        for asked, shown in (("DISK", b"disk"), ("replicas:2:DISK+os", b"os+replicas:2:disk"), ("quorum", b"quorum"),
                             ("memory", b"memory"), ("default", b"default"), ("disk", b"disk")):
            self.assertEqual(conn.ok("CLIENT", "ACK", asked), "OK")
            self.assertEqual(conn.ok("CLIENT", "ACK"), shown)
        self.assertEqual(other.ok("CLIENT", "ACK"), b"default")
        conn.ok("RESET")
        self.assertEqual(conn.ok("CLIENT", "ACK"), b"default")

    def test_what_is_no_level_changes_nothing(self):
        conn = self.connect(self.own_server())
        conn.ok("CLIENT", "ACK", "disk")
        for bad in ("", "disc", "replicas", "replicas:0", "replicas:33", "replicas:1+quorum", "os+disk", "disk+"):
            self.assertEqual(conn.call("CLIENT", "ACK", bad).code, "ERR")
        self.assertEqual(conn.call("CLIENT", "ACK", "disk", "os").code, "ERR")
        self.assertEqual(conn.ok("CLIENT", "ACK"), b"disk")

    def test_the_options_are_checked_and_shown(self):
        server = self.own_server(ack_level="Replicas:1+DISK", ack_timeout=200)
        conn = self.connect(server)
        self.assertEqual(conn.ok("CONFIG", "GET", "ack-level"), [b"ack-level", b"disk+replicas:1"])
        self.assertEqual(conn.call("CONFIG", "SET", "ack-level", "disc").code, "ERR")
        self.assertEqual(conn.ok("CONFIG", "GET", "ack-level")[1], b"disk+replicas:1")
        self.assertUnconfirmed(conn.call("SET", "k", "v"), "0 of 1 replicas have it after 200 ms (level disk+replicas:1)")
        conn.ok("CONFIG", "SET", "ack-level", "default")
        self.assertEqual(conn.call("SET", "k", "v"), "OK")

    def test_the_nodes_level_is_that_of_who_has_none(self):
        server = self.own_server(ack_level="replicas:1", ack_timeout=100)
        conn = self.connect(server)
        self.assertUnconfirmed(conn.call("SET", "k", "v"))
        conn.ok("CLIENT", "ACK", "os")
        self.assertEqual(conn.call("SET", "k", "v"), "OK")
        conn.ok("CLIENT", "ACK", "default")
        self.assertUnconfirmed(conn.call("SET", "k", "v"))
        self.assertUnconfirmed(conn.call("GET", "k"))
        self.assertEqual(conn.call("GET", "nothing"), None)

    def test_a_level_for_the_next_command_alone(self):
        conn = self.connect(self.own_server(ack_timeout=200))
        nobody = "0 of 1 replicas"
        replies = conn.pipeline([
            ("CLIENT", "ACK", "memory"), ("SET", "a", 1), ("CLIENT", "ACK", "replicas:1", "NEXT"), ("SET", "b", 1), ("SET", "c", 1), ("CLIENT", "ACK")])
        self.assertUnconfirmed(replies.pop(3), nobody)
        self.assertEqual(replies, ["OK", "OK", "OK", "OK", b"memory"])
        conn.ok("CLIENT", "ACK", "replicas:1", "next")  # in a turn of its own
        self.assertUnconfirmed(conn.call("INCR", "b"), nobody)
        self.assertEqual(conn.call("INCR", "c"), 2)
        conn.ok("CLIENT", "ACK", "replicas:1", "NEXT")
        conn.ok("CLIENT", "ACK", "memory")  # was the next one
        self.assertEqual(conn.call("INCR", "c"), 3)
        conn.ok("CLIENT", "ACK", "replicas:1", "NEXT")
        conn.ok("CLIENT", "ACK", "default", "NEXT")
        self.assertEqual(conn.call("INCR", "c"), 4)
        conn.ok("CLIENT", "ACK", "replicas:1", "NEXT")
        conn.ok("RESET")
        self.assertEqual(conn.call("INCR", "c"), 5)
        self.assertEqual(conn.call("CLIENT", "ACK", "replicas:1", "SOON").code, "ERR")
        self.assertEqual(conn.call("INCR", "c"), 6)

    def test_a_level_for_the_next_transaction(self):
        conn = self.connect(self.own_server(ack_timeout=200))
        replies = conn.pipeline([
            ("CLIENT", "ACK", "replicas:1", "NEXT"), ("MULTI",), ("INCR", "a"), ("EXEC",), ("INCR", "b")])
        self.assertUnconfirmed(replies[3], "0 of 1 replicas")
        self.assertEqual(replies[:3] + replies[4:], ["OK", "OK", "QUEUED", 1])
        conn.ok("CLIENT", "ACK", "replicas:1", "NEXT")
        conn.ok("MULTI")
        conn.ok("DISCARD")
        self.assertEqual(conn.call("INCR", "b"), 2)
        conn.ok("MULTI")
        conn.ok("INCR", "b")
        conn.ok("CLIENT", "ACK", "replicas:1", "NEXT")
        self.assertEqual(conn.call("EXEC"), [3, "OK"])  # it counts behind EXEC
        self.assertUnconfirmed(conn.call("INCR", "b"), "0 of 1 replicas")
        self.assertEqual(conn.call("INCR", "b"), 5)

    def test_a_disk_is_waited_for_by_who_asked_alone(self):
        server = self.own_server(slow=True, appendfsync="everysec", ack_timeout=60000)
        safe, quick, reader = (self.connect(server, timeout=30) for _ in range(3))
        safe.ok("SET", "k", "old")
        self.assertEqual(safe.ok("WAITAOF", 1, 0, 0), [1, 0])
        safe.ok("CLIENT", "ACK", "disk")
        reader.ok("CLIENT", "ACK", "disk")
        takes = 0.4 * slowness(at_most=10)
        server.disk.sync_takes(takes)
        self.assertLess(self.timed(quick, "SET", "k", "quick")[1], 0.75 * takes)
        start = time.monotonic()
        reader.send("GET", "k")
        reply, took = self.timed(safe, "SET", "other", "safe")
        self.assertEqual(reply, "OK")
        self.assertGreater(took, 0.75 * takes)
        self.assertEqual(reader.read(), b"quick")
        self.assertGreater(time.monotonic() - start, 0.75 * takes)
        server.disk.heal()

    def test_under_everysec_a_disk_level_does_not_wait_for_the_second(self):
        conn = self.connect(self.own_server(appendfsync="no"))
        conn.ok("CLIENT", "ACK", "disk")
        for n in range(5):
            reply, took = self.timed(conn, "SET", "k", n)
            self.assertEqual(reply, "OK")
            self.assertLess(took, 0.7 * slowness())
            self.assertLessEqual(conn.ok("LASTVER"), log_position(conn)["durable"])

    def test_memory_waits_for_nothing(self):
        server = self.own_server(slow=True, appendfsync="always")
        conn = self.connect(server)
        conn.ok("CLIENT", "ACK", "memory")
        server.disk.sync_takes(5)
        self.assertLess(max(self.timed(conn, "SET", "k", n)[1] for n in range(20)), min(2 * slowness(), 4))
        server.disk.heal()

    def test_without_a_log_there_is_no_level_that_needs_one(self):
        server = self.own_server(appendonly="no", ack_timeout=200)
        conn = self.connect(server)
        for level in ("os", "disk", "disk+replicas:1", "quorum:disk"):
            self.assertIn("appendonly", conn.call("CLIENT", "ACK", level))
        for level in ("memory", "quorum", "default"):
            conn.ok("CLIENT", "ACK", level)
            self.assertEqual(conn.call("SET", "k", level), "OK")
        conn.ok("CLIENT", "ACK", "replicas:1")
        self.assertUnconfirmed(conn.call("SET", "k", "v"))

    def test_a_log_that_is_given_up_does_not_quietly_mean_less(self):
        server = self.own_server(ack_timeout=30000)
        conn, admin = self.connect(server, timeout=60), self.connect(server)
        conn.ok("CLIENT", "ACK", "disk")
        self.assertEqual(conn.call("SET", "k", "1"), "OK")
        admin.ok("CONFIG", "SET", "appendonly", "no", "ack-timeout", 200)
        self.assertUnconfirmed(conn.call("SET", "k", "2"), "log isn't kept")
        admin.ok("CONFIG", "SET", "appendonly", "yes", "ack-timeout", 30000)
        self.assertEqual(conn.call("SET", "k", "3"), "OK")  # when its first snapshot is there

    def test_a_quorum_of_one_is_the_node(self):
        conn = self.connect(self.own_server(ack_timeout=30000), timeout=60)
        for level in ("quorum", "quorum:disk"):
            conn.ok("CLIENT", "ACK", level)
            self.assertEqual(conn.call("SET", "k", "v"), "OK")
        conn.ok("CONFIG", "SET", "ack-timeout", 200)  # none of the others comes
        for others, needed in ((1, 1), (2, 1), (3, 2), (4, 2)):
            conn.ok("CONFIG", "SET", "quorum-replicas", others)
            self.assertUnconfirmed(conn.call("SET", "k", "v"), "0 of %d replicas have it" % needed)
        self.assertEqual(conn.call("PING"), "PONG")


class Unconfirmed(AckCase):
    def test_the_error_names_the_lsn_and_the_write_is_there(self):
        server = self.own_server(ack_timeout=150)
        conn, other = self.connect(server), self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        reply, took = self.timed(conn, "SET", "k", "v")
        self.assertUnconfirmed(reply, "not confirmed: 0 of 1 replicas have it after 150 ms (level replicas:1)")
        self.assertGreaterEqual(took, 0.14)
        self.assertLess(took, 2 * slowness())
        self.assertEqual(self.lsn_of(reply), conn.ok("LASTVER"))
        self.assertEqual(other.ok("GET", "k"), b"v")

    def test_h44_a_client_that_retries_an_increment_asks_for_its_lsn_first(self):
        server = self.own_server(ack_timeout=150)
        conn = self.connect(server)
        conn.ok("SET", "n", 0)
        conn.ok("CLIENT", "ACK", "disk+replicas:1")
        reply = conn.call("INCR", "n")
        self.assertUnconfirmed(reply)
        lsn = self.lsn_of(reply)
        conn.ok("CLIENT", "ACK", "os")
        self.assertIn(conn.ok("LOG", "STATUS", lsn), (b"durable", b"written"))  # so it must not be done again
        self.assertEqual(conn.ok("GET", "n"), b"1")
        conn = self.restarted(server)  # the node was killed
        self.assertEqual(conn.ok("LOG", "STATUS", lsn), b"durable")
        self.assertEqual(conn.ok("GET", "n"), b"1")
        lost = log_position(conn)["head"] - 1
        self.assertGreater(lost, lsn)
        conn.ok("SET", "m", 0)
        self.assertEqual(conn.ok("LOG", "STATUS", lsn + 1000), b"lost")  # such a one would have to be

    def test_a_timeout_of_zero_is_for_ever(self):
        server = self.own_server(ack_timeout=0)
        conn, admin = self.connect(server), self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        conn.send("SET", "k", "v")
        time.sleep(0.5)
        self.assertEqual(conn.drain(), [])
        admin.ok("CONFIG", "SET", "ack-timeout", 1)
        self.assertUnconfirmed(conn.read())

    def test_a_slow_disk_is_not_waited_for_beyond_the_timeout(self):
        server = self.own_server(slow=True, appendfsync="always", ack_timeout=30000)
        conn = self.connect(server, timeout=60)
        conn.ok("SET", "k", "1")
        conn.ok("CONFIG", "SET", "ack-timeout", 300)
        server.disk.sync_takes(60)
        self.assertUnconfirmed(conn.call("SET", "k", "2"), "it isn't on this node's disk after 300 ms (level default)")
        self.assertEqual(conn.call("PING"), "PONG")
        server.disk.heal()
        self.eventually(lambda: log_position(conn)["durable"] >= conn.ok("LASTVER"))
        self.assertEqual(conn.call("GET", "k"), b"2")

    def test_order_stays_and_later_replies_are_confirmed(self):
        server = self.own_server(ack_timeout=60000)
        conn, admin = self.connect(server), self.connect(server)
        conn.send_raw(encode("SET", "a", "1") + encode("CLIENT", "ACK", "replicas:1") + encode("SET", "b", "2") +
                      encode("CLIENT", "ACK", "os") + encode("SET", "c", "3") + encode("GET", "a") +
                      encode("CLIENT", "ACK", "disk") + encode("SET", "d", "4"))
        self.assertEqual([conn.read(), conn.read()], ["OK", "OK"])
        self.eventually(lambda: admin.ok("GET", "d") == b"4")
        self.eventually(lambda: (p := log_position(admin))["durable"] >= p["head"])
        self.assertEqual(conn.drain(), [])  # the third holds up the others
        admin.ok("CONFIG", "SET", "ack-timeout", 1)
        replies = [conn.read() for _ in range(6)]
        self.assertUnconfirmed(replies[0])
        self.assertEqual(replies[1:], ["OK", "OK", b"1", "OK", "OK"])

    def test_in_a_pipeline_each_reply_is_judged_alone(self):
        server = self.own_server(ack_timeout=300)
        conn = self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        commands = [("PING",), ("SET", "a", "1"), ("GET", "nothing"), ("SET", "b", "2"), ("ECHO", "x"), ("GET", "a"),
                    ("NOSUCH",), ("CLIENT", "ACK")]
        replies = conn.pipeline(commands)
        self.assertEqual([replies[i] for i in (0, 2, 4, 7)], ["PONG", None, b"x", b"replicas:1"])
        self.assertEqual(replies[6].code, "ERR")
        for i in (1, 3, 5):
            self.assertUnconfirmed(replies[i])
        self.assertEqual(self.lsn_of(replies[1]), self.lsn_of(replies[5]))
        self.assertLess(self.lsn_of(replies[1]), self.lsn_of(replies[3]))
        many = conn.pipeline([("SET", "k%d" % n, n) for n in range(5000)])  # more than a turn keeps apart
        self.assertEqual({reply.code for reply in many}, {"UNCONFIRMED"})

    def test_replies_of_later_turns_that_need_nothing_survive_a_refusal(self):
        server = self.own_server(ack_timeout=400)
        conn, other = self.connect(server, proto=3), self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        conn.send("SUBSCRIBE", "c")
        self.assertIsInstance(conn.read(), Push)
        conn.send("SET", "k", "v")
        time.sleep(0.1)
        self.assertEqual(other.ok("PUBLISH", "c", "hello"), 1)
        conn.send("PING", "there")
        time.sleep(0.1)
        conn.send("SET", "k", "w")
        replies = [conn.read() for _ in range(4)]
        self.assertUnconfirmed(replies[0])
        self.assertEqual(replies[1:3], [[b"message", b"c", b"hello"], b"there"])
        self.assertUnconfirmed(replies[3])

    def test_large_values_are_refused_whole(self):
        server = self.own_server(ack_timeout=300)
        conn, other = self.connect(server), self.connect(server)
        large = b"x" * 300000
        conn.ok("CLIENT", "ACK", "replicas:1")
        other.ok("SET", "k", large)
        conn.send_raw(encode("PING", "first") + encode("GET", "k") + encode("GET", "k"))
        time.sleep(0.1)
        conn.send_raw(encode("CLIENT", "ACK", "os") + encode("GET", "k"))
        for _ in range(3):  # made in one turn, they wait together
            self.assertUnconfirmed(conn.read())
        self.assertEqual([conn.read(), conn.read()], ["OK", large])

    def test_what_was_confirmed_before_is_read_without_waiting(self):
        patience = slowness()
        server = self.own_server(ack_timeout=int(1000 * patience))
        conn = self.connect(server)
        conn.ok("SET", "k", "v")
        conn.ok("CLIENT", "ACK", "os+quorum")
        self.assertLess(self.timed(conn, "GET", "k")[1], 0.5 * patience)

    def test_transactions_wait_as_a_whole(self):
        server = self.own_server(ack_timeout=200)
        conn = self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        self.assertEqual(conn.pipeline([("MULTI",), ("SET", "a", "1"), ("CLIENT", "ACK", "os"), ("SET", "b", "2")]),
                         ["OK"] + ["QUEUED"] * 3)
        self.assertUnconfirmed(conn.call("EXEC"))
        self.assertEqual(conn.ok("CLIENT", "ACK"), b"os")
        self.assertEqual(conn.ok("MGET", "a", "b"), [b"1", b"2"])

    def test_silence_stays_silence(self):
        server = self.own_server(ack_timeout=200)
        conn = self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        conn.send_raw(encode("CLIENT", "REPLY", "SKIP") + encode("SET", "k", "v") + encode("SET", "k", "w"))
        self.assertUnconfirmed(conn.read())
        time.sleep(0.4)
        self.assertEqual(conn.drain(), [])

    def test_many_wait_and_all_are_told(self):
        server = self.own_server()
        conns, admin = [self.connect(server) for _ in range(50)], self.connect(server)
        for i, conn in enumerate(conns):
            conn.ok("CLIENT", "ACK", "replicas:1" if i % 2 else "disk")
        for n in range(3):
            admin.ok("CONFIG", "SET", "ack-timeout", 60000)
            for i, conn in enumerate(conns):
                conn.send("SET", "k%d" % i, n)
            self.assertEqual([conn.read() for conn in conns[::2]], ["OK"] * 25)
            admin.ok("CONFIG", "SET", "ack-timeout", 500)  # only now: the disk may be slow
            for conn in conns[1::2]:
                self.assertUnconfirmed(conn.read())
        self.assertEqual(int(server_info(admin, "stats", "unconfirmed_replies")), 75)

    def test_h42_the_end_refuses_what_waits_for_replicas(self):
        server = self.own_server(ack_timeout=60000)
        conn, other = self.connect(server), self.connect(server)
        conn.ok("CLIENT", "ACK", "replicas:1")
        me = conn.ok("CLIENT", "ID")
        conn.send_raw(encode("SET", "k", "v"))
        self.eventually(lambda: other.ok("GET", "k") == b"v")
        conn.send_raw(encode("PING"))
        self.eventually(lambda: b"cmd=ping" in other.ok("CLIENT", "LIST", "ID", me))
        server.process.send_signal(signal.SIGTERM)
        self.assertUnconfirmed(conn.read(), "the node ends")
        self.assertEqual(conn.read(), "PONG")
        with self.assertRaises(Closed):
            conn.read()
        self.assertEqual(server.wait(), 0)
        other.close()


def server_info(conn, section, field):
    lines = dict(line.split(":", 1) for line in conn.ok("INFO", section).decode().split("\r\n") if ":" in line)
    return lines[field]


class Waiting(AckCase):
    def setUp(self):
        self.server = self.own_server()
        self.conn = self.connect(self.server)

    def test_wait_answers_how_many_have_it(self):
        conn = self.conn
        self.assertEqual(conn.ok("WAIT", 0, 0), 0)
        conn.ok("SET", "k", "v")
        self.assertEqual(conn.ok("WAIT", 0, 10000), 0)
        self.assertEqual(conn.ok("WAIT", -1, 10000), 0)
        reply, took = self.timed(conn, "WAIT", 1, 300)
        self.assertEqual(reply, 0)
        self.assertGreaterEqual(took, 0.25)
        self.assertLess(took, 2 * slowness())

    def test_waiting_does_not_hold_up_others_and_ends_with_the_connection(self):
        conn, other = self.conn, self.connect(self.server)
        conn.send("WAIT", 1, 0)
        time.sleep(0.2)
        self.assertEqual(conn.drain(), [])
        self.assertLess(self.timed(other, "SET", "k", "v")[1], slowness())
        conn.close()
        other.ok("PING")

    def test_a_client_that_waits_can_be_woken(self):
        conn, other = self.conn, self.connect(self.server)
        me = conn.ok("CLIENT", "ID")
        self.assertEqual(other.ok("CLIENT", "UNBLOCK", me), 0)
        for how, expected in ((("TIMEOUT",), 0), ((), 0), (("ERROR",), "UNBLOCKED client unblocked via CLIENT UNBLOCK")):
            conn.send("WAIT", 1, 0)
            self.eventually(lambda: server_info(other, "clients", "blocked_clients") == "1")
            self.assertEqual(other.ok("CLIENT", "UNBLOCK", me, *how), 1)
            self.assertEqual(conn.read(), expected)
        self.assertEqual(server_info(other, "clients", "blocked_clients"), "0")
        self.assertEqual(conn.ok("WAIT", 1, 50), 0)
        conn.send("READAFTER", 1 << 50, 0)
        self.eventually(lambda: server_info(other, "clients", "blocked_clients") == "1")
        conn.close()
        self.eventually(lambda: server_info(other, "clients", "blocked_clients") == "0")

    def test_inside_a_transaction_nothing_waits(self):
        conn = self.conn
        conn.pipeline([("MULTI",), ("SET", "k", "v"), ("WAIT", 1, 0), ("WAITAOF", 0, 1, 0), ("READAFTER", 1 << 50, 0)])
        start = time.monotonic()
        replies = conn.call("EXEC")
        self.assertLess(time.monotonic() - start, slowness())
        self.assertEqual(replies[:2], ["OK", 0])
        self.assertEqual(replies[2][1], 0)
        self.assertEqual(replies[3].code, "BEHIND")

    def test_bad_arguments_are_refused_in_the_words_of_redis(self):
        for words, text in ((("WAIT", "x", 0), "ERR value is not an integer or out of range"),
                            (("WAIT", 1, "x"), "ERR timeout is not an integer or out of range"),
                            (("WAIT", 1, -1), "ERR timeout is negative"),
                            (("WAIT", 1, (1 << 63) - 1), "ERR timeout is out of range"),
                            (("WAIT", 1), "ERR wrong number of arguments for 'wait' command"),
                            (("WAITAOF", 0, -1, 0), "ERR value is out of range, must be positive"),
                            (("WAITAOF", 2, 0, 0), "ERR value is out of range, must be between 0 and 1"),
                            (("WAITAOF", 0, 1, -1), "ERR timeout is negative"),
                            (("READAFTER", "x", 1), "ERR LSN is not an integer or out of range"),
                            (("READAFTER", 1, -1), "ERR timeout is negative")):
            self.assertEqual(self.conn.call(*words), text)

    def test_waitaof_waits_for_replicas_disks(self):
        conn = self.conn
        conn.ok("SET", "k", "v")
        reply, took = self.timed(conn, "WAITAOF", 1, 1, 300)
        self.assertEqual(reply, [1, 0])
        self.assertGreaterEqual(took, 0.25)

    def test_readafter(self):
        conn, other = self.conn, self.connect(self.server)
        other.ok("SET", "k", "v")
        lsn = other.ok("LASTVER")
        self.assertEqual(conn.ok("READAFTER", lsn, 1000), "OK")
        self.assertEqual(conn.ok("READAFTER", 0, 1000), "OK")
        reply, took = self.timed(conn, "READAFTER", lsn + 100, 200)
        self.assertEqual(reply, "BEHIND this node has applied LSN %d, not yet %d" % (lsn, lsn + 100))
        self.assertGreaterEqual(took, 0.15)
        conn.send_raw(encode("READAFTER", lsn + 1, 10000) + encode("GET", "k"))
        time.sleep(0.05)
        other.ok("SET", "k", "w")
        self.assertEqual([conn.read(), conn.read()], ["OK", b"w"])

    def test_h05_readafter_of_a_lost_position_says_so(self):
        self.conn.ok("SET", "k", "v")
        lsn = self.conn.ok("LASTVER")
        conn = self.restarted(self.server)
        self.assertEqual(conn.ok("READAFTER", lsn, 1000), "OK")
        reply, took = self.timed(conn, "READAFTER", lsn + 1000, 60000)
        self.assertEqual(reply.code, "LOST")
        self.assertLess(took, min(5 * slowness(), 50))

    def test_maxstale(self):
        conn = self.conn
        self.assertEqual(conn.ok("CLIENT", "MAXSTALE"), 0)
        self.assertEqual(conn.ok("CLIENT", "MAXSTALE", 500), "OK")
        self.assertEqual(conn.ok("CLIENT", "MAXSTALE"), 500)
        self.assertEqual(conn.call("GET", "k"), None)  # a primary isn't behind
        self.assertEqual(conn.call("CLIENT", "MAXSTALE", -1).code, "ERR")
        conn.ok("RESET")
        self.assertEqual(conn.ok("CLIENT", "MAXSTALE"), 0)


class MinReplicas(ServerCase):
    def test_writes_are_refused_before_they_happen(self):
        conn = self.connect()
        conn.ok("SET", "k", "v")
        self.assertNotIn(b"min_slaves_good_slaves", conn.ok("INFO", "replication"))
        conn.ok("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            self.assertEqual(conn.call("SET", "k", "w"), "NOREPLICAS Not enough good replicas to write.")
            self.assertEqual(conn.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])[2].code, "EXECABORT")
            self.assertEqual(conn.ok("GET", "k"), b"v")
            self.assertEqual(conn.pipeline([("MULTI",), ("GET", "k"), ("EXEC",)]), ["OK", "QUEUED", [b"v"]])
            self.assertIn(b"min_slaves_good_slaves:0\r\n", conn.ok("INFO", "replication"))
            conn.ok("CONFIG", "SET", "min-slaves-max-lag", 0)
            self.assertEqual(conn.call("SET", "k", "w"), "OK")
        finally:
            conn.ok("CONFIG", "SET", "min-replicas-to-write", 0, "min-replicas-max-lag", 10)

    def test_the_old_names_mean_the_same(self):
        conn = self.connect()
        conn.ok("CONFIG", "SET", "min-slaves-max-lag", 7)
        self.assertEqual(conn.ok("CONFIG", "GET", "min-replicas-max-lag"), [b"min-replicas-max-lag", b"7"])
        self.assertEqual(conn.ok("CONFIG", "GET", "min-slaves-max-lag"), [b"min-slaves-max-lag", b"7"])
        conn.ok("CONFIG", "SET", "min-replicas-max-lag", 10)


if __name__ == "__main__":
    unittest.main()
