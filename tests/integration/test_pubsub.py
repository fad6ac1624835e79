#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do messages arrive complete and in order across connections and workers? Does a deaf subscriber harm nobody?"""
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.resp import Closed, Push  # noqa: E402
from support.server import ServerCase  # noqa: E402

MIB = 1 << 20


class Delivery(ServerCase):
    options = {"threads": 4}

    def test_many_subscribers_get_everything_in_order(self):
        publishers, messages = 4, 300
        listeners = [self.connect(proto) for proto in (2, 3) * 8]
        for conn in listeners:
            self.assertEqual(list(self.subscribe(conn, "SUBSCRIBE", "c")), [b"subscribe", b"c", 1])

        def publish(who, receivers):
            with self.server.connect() as conn:
                receivers += conn.pipeline([("PUBLISH", "c", "%d %d" % (who, n)) for n in range(messages)])

        receivers = []
        threads = [threading.Thread(target=publish, args=(who, receivers)) for who in range(publishers)]
        for thread in threads:
            thread.start()
        for conn in listeners:
            last = [-1] * publishers
            for _ in range(publishers * messages):
                kind, channel, body = conn.read()
                self.assertEqual((kind, channel), (b"message", b"c"))
                who, n = map(int, body.split())
                self.assertEqual(n, last[who] + 1, "message of publisher %d lost, doubled or out of order" % who)
                last[who] = n
        for thread in threads:
            thread.join()
        self.assertEqual(receivers, [len(listeners)] * publishers * messages)

    @staticmethod
    def subscribe(conn, *command):
        conn.send(*command)
        return conn.read()

    def test_order_across_channels_and_kinds(self):
        """One publisher's messages on different channels and patterns arrive in the order in which it sent them."""
        listener, publisher = self.connect(3), self.connect()
        for command in (["SUBSCRIBE", "a"], ["PSUBSCRIBE", "b*"], ["SSUBSCRIBE", "s"]):
            self.subscribe(listener, *command)
        kinds = (("PUBLISH", "a"), ("PUBLISH", "bb"), ("SPUBLISH", "s"))
        publisher.pipeline([(*kinds[n % 3], n) for n in range(900)])
        self.assertEqual([int(listener.read()[-1]) for _ in range(900)], list(range(900)))

    def test_channel_before_pattern(self):
        listener = self.connect(3)
        self.subscribe(listener, "PSUBSCRIBE", "c*")
        self.subscribe(listener, "SUBSCRIBE", "c1")
        self.assertEqual(self.connect().call("PUBLISH", "c1", "x"), 2)
        self.assertEqual(listener.read(), Push([b"message", b"c1", b"x"]))
        self.assertEqual(listener.read(), Push([b"pmessage", b"c*", b"c1", b"x"]))

    def test_the_answer_to_subscribe_comes_before_the_first_message(self):
        stop = threading.Event()

        def publish():
            with self.server.connect() as conn:
                while not stop.is_set():
                    conn.pipeline([("PUBLISH", "busy", "x")] * 20)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for _ in range(50):
                conn = self.connect()
                self.assertEqual(self.subscribe(conn, "SUBSCRIBE", "busy"), [b"subscribe", b"busy", 1])
                self.assertEqual(conn.read(), [b"message", b"busy", b"x"])
                conn.send("UNSUBSCRIBE", "busy")
                while (reply := conn.read())[0] == b"message":
                    pass
                self.assertEqual(reply, [b"unsubscribe", b"busy", 0])
                self.assertEqual(conn.call("PING"), "PONG")  # and nothing comes after it
                conn.close()
        finally:
            stop.set()
            thread.join()

    def test_subscribers_that_come_and_go(self):
        def churn():
            for n in range(60):
                with self.server.connect() as conn:
                    conn.send("SUBSCRIBE", *["churn%d" % m for m in range(n % 7 + 1)])
                    conn.read()
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        conn = self.connect()
        while any(t.is_alive() for t in threads):
            conn.pipeline([("PUBLISH", "churn%d" % m, "x") for m in range(7)])
        for thread in threads:
            thread.join()
        self.eventually(lambda: conn.call("PUBSUB", "CHANNELS", "churn*") == [])
        self.assertEqual(conn.call("PUBLISH", "churn0", "x"), 0)

    def test_keyspace_events_across_workers(self):
        listeners = [self.connect(3) for _ in range(4)]
        conn = self.connect()
        conn.ok("CONFIG", "SET", "notify-keyspace-events", "E$g")
        for listener in listeners:
            self.subscribe(listener, "SUBSCRIBE", "__keyevent@0__:set")
        writers = [self.connect() for _ in range(4)]
        for n in range(50):
            for number, writer in enumerate(writers):
                writer.ok("SET", "w%d:%d" % (number, n), "x")
        conn.ok("CONFIG", "SET", "notify-keyspace-events", "")
        expected = [b"w%d:%d" % (number, n) for n in range(50) for number in range(4)]
        for listener in listeners:
            self.assertEqual([listener.read()[-1] for _ in range(200)], expected)

    def test_keyspace_events_tell_of_expiry(self):
        listener, conn = self.connect(), self.connect()
        conn.ok("CONFIG", "SET", "notify-keyspace-events", "Ex")
        self.subscribe(listener, "SUBSCRIBE", "__keyevent@0__:expired")
        conn.ok("SET", "short", "x", "PX", 50)
        self.assertEqual(listener.read(10), [b"message", b"__keyevent@0__:expired", b"short"])
        conn.ok("CONFIG", "SET", "notify-keyspace-events", "")


class DeafSubscribers(ServerCase):
    options = {"threads": 2}

    def test_h43_subscriber_and_monitor_with_a_full_output_limit(self):
        """Pushes and MONITOR lines that nobody reads: order kept up to where the connection is cut, memory bounded."""
        deaf, conn = self.connect(3, rcvbuf=8192), self.connect()
        deaf.send("SUBSCRIBE", "c")
        deaf.send("MONITOR")
        self.assertEqual([deaf.read(), deaf.read()], [[b"subscribe", b"c", 1], "OK"])
        before = peak = self.server.rss()
        receivers = 1
        for n in range(3000):
            receivers = conn.call("PUBLISH", "c", ("%06d" % n) + "x" * 100000)
            peak = max(peak, self.server.rss()) if n % 50 == 0 else peak
            if receivers == 0:
                break
        self.assertEqual(receivers, 0, "300 MB sent to a subscriber that reads nothing")
        self.assertLess(peak - before, 150 * MIB)
        numbers, lines = [], 0
        try:
            while True:
                message = deaf.read(20)
                if isinstance(message, Push):
                    numbers.append(int(message[2][:6]))
                else:
                    self.assertIn('"PUBLISH" "c" "%06d' % lines, message)
                    lines += 1
        except Closed:
            pass
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertLessEqual(abs(lines - len(numbers)), 1)

    def test_a_deaf_subscriber_does_not_hold_up_the_others(self):
        deaf, listener, conn = self.connect(rcvbuf=8192), self.connect(), self.connect()
        for each in (deaf, listener):
            each.ok("SUBSCRIBE", "c")
        worst = 0.0
        for n in range(1000):
            start = time.monotonic()
            conn.ok("PUBLISH", "c", ("%06d" % n) + "x" * 50000)
            self.assertEqual(int(listener.read()[2][:6]), n)
            worst = max(worst, time.monotonic() - start)
        self.assertLess(worst, slowness())
        self.eventually(lambda: conn.call("PUBSUB", "NUMSUB", "c") == [b"c", 1])


if __name__ == "__main__":
    unittest.main()
