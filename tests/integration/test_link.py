#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does a connection become a link, and nothing of it stay with the clients?"""
import socket
import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.resp import encode  # noqa: E402
from support.server import ServerCase, ServerFailed, temp_dir  # noqa: E402

BEAT, BYE = 5, 11


def message(kind, body):
    return struct.pack("<IB", len(body) + 1, kind) + body


class Wire:
    """A bare socket to a node."""

    def __init__(self, case, server=None):
        self.sock = socket.create_connection((server or case.server).address, timeout=10)
        case.addCleanup(self.sock.close)
        self.data = b""

    def send(self, data):
        self.sock.sendall(data)

    def read(self, length):
        while len(self.data) < length:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError("closed behind %r" % self.data)
            self.data += more
        got, self.data = self.data[:length], self.data[length:]
        return got

    def line(self):
        got = b""
        while not got.endswith(b"\r\n"):
            got += self.read(1)
        return got[:-2].decode()

    def ends(self):
        """What is no greeting ends the link: nothing comes, or a BYE; certainly no RESP."""
        rest = self.data
        try:
            self.send(message(BEAT, bytes(40)))
            while more := self.sock.recv(65536):
                rest += more
        except OSError:
            pass
        if rest:
            length, kind = struct.unpack_from("<IB", rest)
            assert (kind, length) == (BYE, len(rest) - 4), rest


def field(info, name):
    return int(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)[name])


class Handover(ServerCase):
    options = {"threads": 2}

    def clients(self, conn):
        return field(conn.call("INFO", "clients"), "connected_clients")

    def received(self, conn):
        return field(conn.call("INFO", "stats"), "total_connections_received")

    def wait_for_clients(self, conn, wanted):
        self.eventually(lambda: self.clients(conn) == wanted)

    def test_the_answer_is_the_last_of_redis_protocol(self):
        wire = Wire(self)
        wire.send(encode("REPLSTREAM", "1"))
        self.assertEqual(wire.line(), "+OK")
        wire.ends()

    def test_what_was_sent_before_is_answered_and_what_comes_behind_is_no_request(self):
        wire, conn = Wire(self), self.connect()
        wire.send(encode("SET", "before", "x" * 100000) + encode("GET", "before") + encode("REPLSTREAM", "1")
                  + encode("SET", "behind", "x") + message(9, bytes(8)) + b"\xff\x00garbage\r\n")
        self.assertEqual(wire.line(), "+OK")
        self.assertEqual(wire.line(), "$100000")
        self.assertEqual(wire.read(100002), b"x" * 100000 + b"\r\n")
        self.assertEqual(wire.line(), "+OK")
        wire.ends()
        self.assertEqual(conn.call("EXISTS", "before", "behind"), 1)

    def test_a_link_is_no_client(self):
        conn = self.connect()
        before = 1
        self.wait_for_clients(conn, before)  # that of setUp has gone
        wires = [Wire(self) for _ in range(20)]
        for wire in wires:
            wire.send(encode("CLIENT", "SETNAME", "peer"))
            self.assertEqual(wire.line(), "+OK")
        self.assertEqual(self.clients(conn), before + 20)
        for wire in wires:
            wire.send(encode("REPLSTREAM", "1"))
            self.assertEqual(wire.line(), "+OK")
        self.wait_for_clients(conn, before)
        self.assertNotIn(b"name=peer", conn.call("CLIENT", "LIST"))

    def test_refused_where_it_makes_no_sense(self):
        conn = self.connect()
        conn.ok("MULTI")
        self.assertIn("not allowed inside a transaction", conn.call("REPLSTREAM", "1"))
        conn = self.connect()
        self.assertIn("protocol 1", conn.call("REPLSTREAM", "2"))
        self.assertIn("protocol 1", conn.call("REPLSTREAM", "x"))
        self.assertIn("wrong number of arguments", conn.call("REPLSTREAM"))
        self.assertEqual(conn.call("PING"), "PONG")
        wire = Wire(self)
        wire.send(encode("REPLSTREAM", "7") + encode("PING"))  # what follows a refusal is a request
        self.assertIn("-ERR", wire.line())
        self.assertEqual(wire.line(), "+PONG")
        wire = Wire(self)
        wire.send(encode("HELLO", "3") + encode("SUBSCRIBE", "c") + encode("REPLSTREAM", "1"))
        while not wire.line().startswith("-ERR a connection that listens"):
            pass

    def test_a_pause_holds_it_and_what_follows_stays_whole(self):
        conn, wire = self.connect(), Wire(self)
        conn.ok("CLIENT", "PAUSE", "300", "ALL")
        wire.send(encode("PING") + encode("REPLSTREAM", "1") + message(9, bytes(8)))
        self.assertEqual(wire.line(), "+PONG")
        self.assertEqual(wire.line(), "+OK")
        wire.ends()

    def test_a_peer_that_leaves_at_once_harms_nobody(self):
        conn = self.connect()
        before = 1
        self.wait_for_clients(conn, before)  # that of setUp has gone
        received = self.received(conn)
        for _ in range(50):
            wire = Wire(self)
            wire.send(encode("SET", "k", "v") + encode("REPLSTREAM", "1"))
            wire.sock.close()
        self.eventually(lambda: self.received(conn) == received + 50)  # not all may have been seen yet
        self.wait_for_clients(conn, before)


class Password(ServerCase):
    options = {"requirepass": "secret"}

    def test_a_stranger_gets_no_link(self):
        wire = Wire(self)
        wire.send(encode("REPLSTREAM", "1"))
        self.assertTrue(wire.line().startswith("-NOAUTH"))
        wire.send(encode("AUTH", "secret") + encode("REPLSTREAM", "1"))
        self.assertEqual(wire.line(), "+OK")
        self.assertEqual(wire.line(), "+OK")
        wire.ends()


class Gated(ServerCase):
    options = {"appendfsync": "always"}

    def test_replies_that_wait_for_the_disk_go_first(self):
        for _ in range(20):
            wire = Wire(self)
            wire.send(encode("SET", "k", "v") * 10 + encode("REPLSTREAM", "1"))
            for _ in range(11):
                self.assertEqual(wire.line(), "+OK")
            wire.ends()


KEY = "00112233445566778899aabbccddeeff" * 2


class Keys(ServerCase):
    """What is said before the handshake; that itself is in unit/test_link_secure.c."""

    def key_file(self, text=KEY + "\n", mode=0o600):
        path = temp_dir(self) / "key"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def ask(self, server, *words):
        wire = Wire(self, server)
        wire.send(encode("REPLSTREAM", *words))
        return wire.line()

    def test_with_a_key_only_encrypted_links(self):
        server = self.own_server(replication_key_file=self.key_file(), requirepass="secret")
        reason = "this node takes encrypted links only: the other one needs a replication-key-file with the same key"
        self.assertEqual(self.ask(server, "1"), "-ERR " + reason)
        self.assertIn('link.refused peer=127.0.0.1:', server.output())
        self.assertIn('reason="%s"' % reason, server.output())
        self.assertTrue(self.ask(server, "1", "UNSECURE").startswith("-ERR syntax"))
        self.assertEqual(self.ask(server, "1", "SECURE"), "+OK")  # the key stands for the password
        conn = server.connect()
        self.assertIn("NOAUTH", conn.call("GET", "k"))
        self.assertNotIn("link.key_readable", server.output())
        self.assertNotIn(KEY[:16], server.output())

    def test_without_a_key_no_encrypted_links(self):
        server = self.own_server()
        reason = "the link is to be encrypted, but this node has no replication-key-file"
        self.assertEqual(self.ask(server, "1", "SECURE"), "-ERR " + reason)
        self.assertIn('reason="%s"' % reason, server.output())
        self.assertEqual(self.ask(server, "1"), "+OK")

    def test_a_bad_key_file_is_refused_at_the_start(self):
        for text, said in (("", "0 hex digits, where a key has 64"), (KEY[:-1], "63 hex digits"),
                           (KEY + KEY, "128 hex digits"), ("key=" + KEY, "character 1 is no hex digit")):
            with self.assertRaises(ServerFailed) as failed:
                self.own_server(replication_key_file=self.key_file(text))
            self.assertIn(said, str(failed.exception))
        with self.assertRaises(ServerFailed) as failed:
            self.own_server(replication_key_file="/nowhere/key")
        self.assertIn("replication-key-file /nowhere/key: No such file or directory", str(failed.exception))

    def test_a_key_that_others_can_read_is_told(self):
        server = self.own_server(replication_key_file=self.key_file(mode=0o644))
        self.assertIn("link.key_readable", server.output())
        self.assertIn("mode=0644 wanted=0600", server.output())


if __name__ == "__main__":
    unittest.main()
