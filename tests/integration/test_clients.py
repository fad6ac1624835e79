#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do real client libraries work: python3-redis and hiredis, each with a session store and a rate limiter?

Debian installs the library for its own python3, hence the first line.
"""
import json
import secrets
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.server import ServerCase, server_binary  # noqa: E402

try:
    import redis
except ImportError:
    redis = None

HERE = Path(__file__).resolve().parent


class SessionStore:
    """Sessions with a sliding expiry."""

    def __init__(self, client, ttl_ms):
        self.client, self.ttl_ms = client, ttl_ms

    def login(self, user):
        token = secrets.token_hex(8)
        data = json.dumps({"user": user, "at": time.time()})
        assert self.client.set("session:" + token, data, px=self.ttl_ms, nx=True)
        self.client.expire("seen:" + user, 86400)
        return token

    def user(self, token):
        data = self.client.getex("session:" + token, px=self.ttl_ms)
        return json.loads(data)["user"] if data else None

    def logout(self, token):
        return self.client.delete("session:" + token) == 1


class FixedWindow:
    """At most `limit` hits per window: INCR and EXPIRE NX in one transaction."""

    def __init__(self, client, limit, window_s):
        self.client, self.limit, self.window_s = client, limit, window_s

    def allow(self, who):
        with self.client.pipeline(transaction=True) as pipe:
            pipe.incr("window:" + who)
            pipe.expire("window:" + who, self.window_s, nx=True)
            return pipe.execute()[0] <= self.limit


class TokenBucket:
    """Tokens taken by compare-and-set."""

    def __init__(self, client, capacity):
        self.client, self.capacity = client, capacity

    def take(self, who):
        def transaction(pipe):
            tokens = pipe.get("bucket:" + who)
            left = self.capacity if tokens is None else int(tokens)
            pipe.multi()
            if left:
                pipe.set("bucket:" + who, left - 1, ex=100)
            return left > 0
        return self.client.transaction(transaction, "bucket:" + who, value_from_callable=True, watch_delay=0.001)


@unittest.skipUnless(redis, "no python3-redis")
class PythonRedis(ServerCase):
    def setUp(self):
        super().setUp()
        self.client = redis.Redis(port=self.server.port, socket_timeout=10 * slowness())
        self.addCleanup(self.client.close)

    def in_threads(self, count, job):
        failures = []

        def work(number):
            try:
                with redis.Redis(port=self.server.port, socket_timeout=10 * slowness()) as client:
                    job(client, number)
            except BaseException as failure:  # handed to the test's own thread
                failures.append(failure)
        threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if failures:
            raise failures[0]

    def test_sessions(self):
        pace = slowness(at_most=10)
        store = SessionStore(self.client, int(400 * pace))
        token, other = store.login("ann"), store.login("bob")
        for _ in range(4):  # kept alive by use, well beyond its first expiry
            time.sleep(0.15 * pace)
            self.assertEqual(store.user(token), "ann")
        self.assertIsNone(store.user(other))
        self.assertTrue(store.logout(token))
        self.assertIsNone(store.user(token))
        self.assertFalse(store.logout(token))

    def test_sessions_of_many_workers(self):
        tokens = {}

        def job(client, number):
            store = SessionStore(client, 60000)
            for n in range(50):
                tokens[store.login("user%d-%d" % (number, n))] = "user%d-%d" % (number, n)
        self.in_threads(6, job)
        store = SessionStore(self.client, 60000)
        self.assertEqual({t: store.user(t) for t in tokens}, tokens)
        found = {k.decode() for k in self.client.scan_iter("session:*", count=20)}
        self.assertEqual(found, {"session:" + t for t in tokens})

    def test_fixed_window(self):
        allowed = []

        def job(client, _):
            allowed.extend(FixedWindow(client, 30, 60).allow("ann") for _ in range(20))
        self.in_threads(5, job)
        self.assertEqual((len(allowed), sum(allowed)), (100, 30))
        self.assertGreater(self.client.ttl("window:ann"), 50)
        short = FixedWindow(self.client, 1, 5)
        self.assertEqual([short.allow("bob"), short.allow("bob")], [True, False])
        time.sleep(5.1)
        self.assertTrue(short.allow("bob"))

    def test_token_bucket(self):
        taken = []
        self.in_threads(6, lambda client, _: taken.extend(TokenBucket(client, 40).take("ann") for _ in range(15)))
        self.assertEqual((len(taken), sum(taken)), (90, 40))
        self.assertEqual(self.client.get("bucket:ann"), b"0")

    def test_the_library_s_own_parsing(self):
        """Replies that the library takes apart: INFO, CLIENT LIST, COMMAND, SLOWLOG, CONFIG, SCAN."""
        client = self.client
        client.mset({"a": 1, "b": 2.5})
        self.assertEqual(client.info("keyspace")["db0"]["keys"], 2)
        self.assertIn("redis_version", client.info())
        self.assertIn(client.client_id(), [int(c["id"]) for c in client.client_list()])
        self.assertEqual(client.client_info()["db"], 0)
        self.assertEqual(client.command()["get"]["arity"], 2)
        self.assertTrue(client.config_set("maxmemory-samples", 6))
        self.assertEqual(client.config_get("maxmemory-samples"), {"maxmemory-samples": "6"})
        self.assertIsInstance(client.slowlog_get(), list)
        self.assertIsInstance(client.time(), tuple)
        self.assertEqual(client.incrbyfloat("b", 0.25), 2.75)
        self.assertEqual(client.bitfield("bits").set("u8", 0, 200).incrby("u8", 0, 100, "SAT").execute(), [0, 255])
        self.assertEqual(client.execute_command("LCS", "a", "b"), b"")
        self.assertTrue(client.copy("a", "c"))
        self.assertEqual(client.restore("d", 0, client.dump("a")), b"OK")
        self.assertEqual(client.object("encoding", "d"), b"int")
        self.assertEqual(client.set("a", 5, xx=True, get=True), b"1")
        self.assertRaises(redis.ResponseError, client.execute_command, "NOSUCH")
        self.assertRaises(redis.ResponseError, client.incr, "b")
        self.assertEqual(client.memory_usage("nosuch"), None)

    def test_pubsub(self):
        listener = self.client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe("news")
        listener.psubscribe("n*")
        while listener.get_message(timeout=0.2):
            pass
        self.assertEqual(self.client.publish("news", "hello"), 2)
        got = [listener.get_message(timeout=2) for _ in range(4)]
        self.assertEqual([m["type"] for m in got if m], ["message", "pmessage"])
        self.assertEqual(self.client.pubsub_numsub("news"), [(b"news", 1)])
        listener.close()

    def test_password_database_and_name(self):
        server = self.own_server(requirepass="pw", threads=2)
        with redis.Redis(port=server.port, password="pw", db=3, client_name="app") as client:
            client.set("x", 1)
            self.assertEqual(client.client_getname(), "app")
            self.assertEqual(client.info("keyspace").keys(), {"db3"})
        with redis.Redis(port=server.port, password="wrong") as client:
            self.assertRaises(redis.ResponseError, client.ping)


class Hiredis(ServerCase):
    """client_hiredis is built beside the server."""

    def test_session_store_rate_limiter_pipeline_and_subscriber(self):
        program = Path(server_binary()).parent / "client_hiredis"
        if not program.exists():
            self.skipTest("no client_hiredis beside the server")
        done = subprocess.run([program, str(self.server.port)], capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""))


if __name__ == "__main__":
    unittest.main()
