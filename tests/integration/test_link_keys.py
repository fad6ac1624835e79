#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""With replication-key-file: can anybody who listens read something, and is a wrong or missing key told on both sides?"""
import os
import socket
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.resp import encode  # noqa: E402
from support.server import Server, ServerCase, temp_dir  # noqa: E402

KEY, OTHER_KEY = "00112233445566778899aabbccddeeff" * 2, "10112233445566778899aabbccddeeff" * 2
NEEDLE = b"what nobody may read"


class Wire:
    """Between a replica and its primary: passes everything on and keeps it."""

    def __init__(self, case, target):
        self.target, self.seen, self.lock, self.ends = target, bytearray(), threading.Lock(), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        case.addCleanup(self.close)
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        for end in [self.listener] + self.ends:
            end.close()

    def accept(self):
        while True:
            try:
                inner = self.listener.accept()[0]
                self.ends.append(inner)
                outer = socket.create_connection(self.target)
                self.ends.append(outer)
            except OSError:
                return
            for a, b in ((inner, outer), (outer, inner)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, source, sink):
        try:
            while data := source.recv(65536):
                with self.lock:
                    self.seen += data
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def saw(self, what):
        with self.lock:
            return what in self.seen


def sends_links_away():
    """A node without replication says so instead of waiting for a greeting."""
    with Server() as server, socket.create_connection(server.address) as sock:
        sock.settimeout(1)
        got = b""
        try:
            sock.sendall(encode("REPLSTREAM", "1"))
            while more := sock.recv(4096):
                got += more
        except OSError:
            pass
        return b"no replication" in got


class Keys(ServerCase):
    @classmethod
    def setUpClass(cls):
        if sends_links_away():
            raise unittest.SkipTest("this node has no replication")

    def setUp(self):
        pass  # every test has servers of its own

    def node(self, **options):
        return self.own_server(**{"repl-timeout": 5, **options})

    def ask(self, node, *command, timeout=15.0):
        """One command on a connection of its own, again while the node is beginning anew with a copy."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with node.connect(timeout=timeout) as conn:
                    return conn.call(*command)
            except OSError:
                if time.monotonic() > deadline or not node.alive():
                    raise
                time.sleep(0.02)

    def link_status(self, node):
        text = self.ask(node, "INFO", "replication").decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line).get("master_link_status")

    def wait_until(self, condition, timeout=20.0):
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertTrue(condition())

    def key_file(self, text=KEY):
        path = temp_dir(self) / "key"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def told(self, node, words):
        self.wait_until(lambda: words in node.output())

    def copy_through(self, wire, primary, replica):
        self.wait_until(lambda: self.link_status(replica) == "up")
        with primary.connect() as conn:
            for i in range(200):
                conn.ok("SET", "later:%d" % i, NEEDLE + b" " + os.urandom(2000))
            conn.ok("SET", "large", NEEDLE * 40000)
        self.wait_until(lambda: self.ask(replica, "STRLEN", "large") == len(NEEDLE) * 40000)
        for key in ("first", "later:0", "later:199", "large"):
            self.assertEqual(self.ask(replica, "GETVER", key), self.ask(primary, "GETVER", key))
        self.assertGreater(len(wire.seen), 400000)

    def start_pair(self, key, **options):
        keys = {"replication_key_file": self.key_file()} if key else {}
        primary = self.node(**keys, **options)
        self.ask_with(primary, options.get("requirepass"), "SET", "first", NEEDLE)
        wire = Wire(self, primary.address)
        return primary, wire, keys

    def ask_with(self, node, password, *command):
        with node.connect() as conn:
            if password:
                conn.ok("AUTH", password)
            return conn.ok(*command)

    def test_in_clear_everything_can_be_read(self):  # so the search below would find it
        primary, wire, keys = self.start_pair(key=False)
        replica = self.node(replicaof=["127.0.0.1", wire.port], **keys)
        self.copy_through(wire, primary, replica)
        self.assertTrue(wire.saw(NEEDLE))

    def test_with_a_key_nothing_can_be_read(self):
        primary, wire, keys = self.start_pair(key=True)
        replica = self.node(replicaof=["127.0.0.1", wire.port], **keys)
        self.copy_through(wire, primary, replica)
        for what in (NEEDLE, b"later:1", b"snap-", b"dcachesn", bytes.fromhex(KEY), KEY.encode()):
            self.assertFalse(wire.saw(what), what)
        self.assertTrue(wire.saw(b"REPLSTREAM"))

    def test_the_key_stands_for_the_password(self):
        primary, wire, keys = self.start_pair(key=True, requirepass="hunter2")
        replica = self.node(replicaof=["127.0.0.1", wire.port], masterauth="not this one", **keys)
        self.wait_until(lambda: self.link_status(replica) == "up")
        self.assertEqual(self.ask(replica, "GET", "first"), NEEDLE)
        self.assertFalse(wire.saw(b"not this one"))
        self.assertFalse(wire.saw(b"AUTH"))

    def test_another_key_is_told_on_both_sides(self):
        primary, wire, _ = self.start_pair(key=True)
        replica = self.node(replicaof=["127.0.0.1", wire.port], replication_key_file=self.key_file(OTHER_KEY))
        words = "has another key: compare the files that replication-key-file names"
        self.told(primary, words)
        self.told(replica, words)
        self.told(primary, "link.refused")
        self.assertEqual(self.link_status(replica), "down")
        self.assertIsNone(self.ask(replica, "GET", "first"))
        self.assertFalse(wire.saw(NEEDLE))

    def test_a_missing_key_is_told_on_both_sides(self):
        for on_primary in (True, False):
            primary, wire, _ = self.start_pair(key=on_primary)
            keys = {} if on_primary else {"replication_key_file": self.key_file()}
            replica = self.node(replicaof=["127.0.0.1", wire.port], **keys)
            words = "takes encrypted links only" if on_primary else "this node has no replication-key-file"
            self.told(primary, words)
            self.told(primary, "link.refused")
            self.told(replica, words)
            time.sleep(0.2)
            self.assertEqual(self.link_status(replica), "down")
            self.assertFalse(wire.saw(NEEDLE))


if __name__ == "__main__":
    unittest.main()
