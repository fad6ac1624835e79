#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do conditions on versions and values let exactly the writes pass that they should? What Redis has no words for."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.resp import Error  # noqa: E402
from support.server import ServerCase  # noqa: E402

MIB = 1 << 20


class Versions(ServerCase):
    def setUp(self):
        super().setUp()
        self.conn = self.connect()

    def call(self, *args):
        return self.conn.call(*args)

    def version(self, key):
        return self.call("GETVER", key)[1]

    def refused(self, text, *args):
        answer = self.call(*args)
        self.assertIsInstance(answer, Error)
        self.assertIn(text, str(answer))

    def test_getver_answers_value_and_version(self):
        self.assertEqual(self.call("GETVER", "k"), [None, 0])
        self.call("SET", "k", "one")
        value, first = self.call("GETVER", "k")
        self.assertEqual(value, b"one")
        self.assertGreater(first, 0)
        self.assertEqual(self.call("GETVER", "k"), [b"one", first])

    def test_every_kind_of_write_gives_a_higher_version(self):
        last = 0
        for write in (("SET", "k", "5"), ("SET", "k", "5"), ("INCR", "k"), ("APPEND", "k", "1"),
                      ("SETRANGE", "k", 0, "7"), ("SETBIT", "k", 0, 1), ("BITFIELD", "k", "SET", "u8", 0, 9),
                      ("EXPIRE", "k", 1000), ("PERSIST", "k"), ("GETEX", "k", "EX", 1000), ("SET", "k", "x" * MIB),
                      ("APPEND", "k", "y"), ("GETSET", "k", "z"), ("BITOP", "NOT", "k", "k"),
                      ("MSET", "k", "1", "other", "2"), ("INCRBYFLOAT", "k", "0.5")):
            self.call(*write)
            now = self.version("k")
            self.assertGreater(now, last, write)
            last = now

    def test_what_changes_nothing_keeps_the_version(self):
        self.call("SET", "k", "abc", "EX", 1000)
        self.call("SETBIT", "k", 100, 1)
        before = self.version("k")
        for attempt in (("SETNX", "k", "x"), ("SET", "k", "x", "NX"), ("SET", "k", "x", "IFVER", 1),
                        ("SET", "k", "x", "IFEQ", "x"), ("SETRANGE", "k", 1, ""), ("SETBIT", "k", 100, 1),
                        ("BITFIELD", "k", "OVERFLOW", "FAIL", "INCRBY", "u1", 100, 1), ("GETEX", "k"),
                        ("BITFIELD", "k", "GET", "u8", 0), ("MSETNX", "new", 1, "k", 2), ("INCR", "k"),
                        ("DELEX", "k", "IFVER", 1), ("GET", "k")):
            self.call(*attempt)
            self.assertEqual(self.version("k"), before, attempt)

    def test_a_bitfield_that_only_lengthens_gives_a_higher_version(self):
        self.call("SET", "k", "a")
        self.call("WATCH", "k")
        before = self.version("k")
        failing = ("BITFIELD", "k", "OVERFLOW", "FAIL", "SET", "u2", 50, 9)
        self.assertEqual(self.connect().call(*failing), [None])
        self.assertEqual(self.call("GET", "k"), b"a" + bytes(6))
        self.assertGreater(self.version("k"), before)
        self.call("MULTI")
        self.assertIsNone(self.call("EXEC"))

    def test_set_ifver_lets_one_of_two_writers_pass(self):
        self.call("SET", "k", "one")
        seen = self.version("k")
        self.assertEqual(self.call("SET", "k", "two", "IFVER", seen), "OK")
        self.assertIsNone(self.call("SET", "k", "three", "IFVER", seen))
        self.assertEqual(self.call("GET", "k"), b"two")

    def test_set_ifver_0_creates(self):
        self.assertEqual(self.call("SET", "k", "one", "IFVER", 0), "OK")
        self.assertIsNone(self.call("SET", "k", "two", "IFVER", 0))
        self.call("DEL", "k")
        self.assertIsNone(self.call("SET", "k", "two", "IFVER", 12345))
        self.assertIsNone(self.call("GET", "k"))

    def test_a_version_does_not_come_back_after_a_delete(self):
        self.call("SET", "k", "one")
        seen = self.version("k")
        self.call("DEL", "k")
        self.call("SET", "k", "one")
        self.assertIsNone(self.call("SET", "k", "two", "IFVER", seen))

    def test_set_ifeq(self):
        self.assertIsNone(self.call("SET", "k", "x", "IFEQ", ""))
        for value in ("text", "12", "x" * (2 * MIB), ""):
            self.call("SET", "k", value)
            self.assertIsNone(self.call("SET", "k", "new", "IFEQ", value + "y"))
            self.assertEqual(self.call("SET", "k", "new", "IFEQ", value, "EX", 100), "OK")
            self.assertEqual(self.call("TTL", "k"), 100)

    def test_conditions_with_get_and_a_time(self):
        self.call("SET", "k", "one")
        seen = self.version("k")
        self.assertEqual(self.call("SET", "k", "two", "GET", "IFVER", seen, "KEEPTTL"), b"one")
        self.assertEqual(self.call("SET", "k", "three", "GET", "IFVER", seen), b"two")
        self.assertEqual(self.call("SET", "k", "three", "IFEQ", "no", "GET"), b"two")
        self.assertIsNone(self.call("SET", "new", "x", "IFVER", 0, "GET"))
        self.assertEqual(self.call("MGET", "k", "new"), [b"two", b"x"])

    def test_conditions_exclude_each_other(self):
        for options in (("NX", "IFVER", 1), ("IFVER", 1, "XX"), ("IFEQ", "a", "NX"), ("IFEQ", "a", "IFVER", 1),
                        ("IFVER",), ("IFEQ",)):
            self.refused("syntax error", "SET", "k", "v", *options)
        for version in ("-1", "x", "", "01", "18446744073709551616"):
            self.refused("value is not an integer", "SET", "k", "v", "IFVER", version)
        self.refused("syntax error", "GETEX", "k", "IFVER", 1)

    def test_delex(self):
        self.assertEqual(self.call("DELEX", "k"), 0)
        self.call("MSET", "a", "1", "b", "two", "c", "3", "d", "4")
        self.assertEqual(self.call("DELEX", "a"), 1)
        self.assertEqual(self.call("DELEX", "b", "IFEQ", "one"), 0)
        self.assertEqual(self.call("DELEX", "b", "IFEQ", "two"), 1)
        self.assertEqual(self.call("DELEX", "c", "ifne", "3"), 0)
        self.assertEqual(self.call("DELEX", "c", "IFNE", "2"), 1)
        seen = self.version("d")
        self.assertEqual(self.call("DELEX", "d", "IFVER", seen + 1), 0)
        self.assertEqual(self.call("DELEX", "d", "IFVER", 0), 0)
        self.assertEqual(self.call("DELEX", "d", "IFVER", seen), 1)
        self.assertEqual(self.call("EXISTS", "a", "b", "c", "d"), 0)
        for gone in (("IFEQ", ""), ("IFNE", "x"), ("IFVER", 0), ("IFVER", seen)):
            self.assertEqual(self.call("DELEX", "d", *gone), 0)
        for wrong in (("IFVER",), ("NX", 1), ("IFVER", 1, "IFEQ", 2), ("IFVER", 1, 2)):
            self.refused("syntax error", "DELEX", "d", *wrong)

    def test_lastver_is_the_version_of_the_connections_last_write(self):
        self.assertEqual(self.call("LASTVER"), 0)
        self.call("SET", "k", "one")
        self.assertEqual(self.call("LASTVER"), self.version("k"))
        self.connect().call("SET", "k", "two")
        self.assertLess(self.call("LASTVER"), self.version("k"))

    def test_lastver_of_a_move_is_the_version_of_what_is_there(self):
        self.call("MSET", "{k}a", "one", "other", "short")
        for value in ("1", "text", "x" * MIB):
            for pair in (("{k}a", "{k}b"), ("{k}b", "other"), ("other", "{k}a")):
                self.call("SET", pair[0], value)
                self.assertEqual(self.call("RENAME", *pair), "OK")
                self.assertEqual(self.call("GETVER", pair[1]), [value.encode(), self.call("LASTVER")])
                self.assertEqual(self.call("EXISTS", pair[0]), 0)
        self.call("MULTI")
        self.call("RENAMENX", "{k}a", "{k}b")
        self.call("LASTVER")
        self.assertEqual(self.call("EXEC"), [1, self.version("{k}b")])
        self.call("MOVE", "{k}b", 1)
        last = self.call("LASTVER")
        self.call("SELECT", 1)
        self.assertEqual(self.version("{k}b"), last)

    def test_versions_inside_a_transaction_are_those_that_the_commit_gives(self):
        self.call("SET", "k", "one")
        seen = self.version("k")
        queue = (("SET", "k", "two", "IFVER", seen), ("GETVER", "k"), ("SET", "k", "three", "IFVER", seen),
                 ("SET", "new", 1, "IFVER", 0), ("SET", "new", 2, "IFVER", 0), ("LASTVER",))
        self.call("MULTI")
        for command in queue:
            self.call(*command)
        first, (value, version), second, created, again, last = self.call("EXEC")
        self.assertEqual((first, value, second, created, again), ("OK", b"two", None, "OK", None))
        self.assertEqual(version, self.version("k"))
        self.assertEqual(last, self.version("new"))


class Encodings(ServerCase):
    def test_a_bit_command_makes_a_string_raw_only_if_it_changes_it(self):
        conn = self.connect()
        for value, name in (("12", b"int"), ("text", b"embstr")):
            conn.call("SET", "k", value)
            conn.call("SETBIT", "k", 0, 0)
            conn.call("BITFIELD", "k", "OVERFLOW", "FAIL", "SET", "u1", 0, 2)
            self.assertEqual(conn.call("OBJECT", "ENCODING", "k"), name)
            conn.call("SETBIT", "k", 0, 1)
            self.assertEqual(conn.call("OBJECT", "ENCODING", "k"), b"raw")


if __name__ == "__main__":
    unittest.main()
