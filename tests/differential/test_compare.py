#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does the comparison see differences? Each rule that forgives something is shown what it must not forgive."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from differential import rdbvalue  # noqa: E402
from differential.compare import same_messages, same_reply  # noqa: E402
from differential.gen import Generator  # noqa: E402
from differential.ops import format_script, parse_script  # noqa: E402


def bulks(kind, *items):
    return b"%s%d\r\n" % (kind, len(items)) + b"".join(b"$%d\r\n%s\r\n" % (len(i), i) for i in items)


# command, one reply, another reply, the same?
REPLIES = [
    ("GET a", b"$1\r\nx\r\n", b"$1\r\nx\r\n", True),
    ("GET a", b"$1\r\nx\r\n", b"$1\r\ny\r\n", False),
    ("GET a", b"$-1\r\n", b"_\r\n", False),
    ("GET a", b"+x\r\n", b"$1\r\nx\r\n", False),
    ("INCR a", b":1\r\n", b":2\r\n", False),
    ("TTL a", b":1000\r\n", b":1002\r\n", True),
    ("TTL a", b":1000\r\n", b":1003\r\n", False),
    ("TTL a", b":-1\r\n", b":-2\r\n", False),
    ("TTL a", b":0\r\n", b":-1\r\n", False),
    ("TTL a", b":1\r\n", b"$1\r\n1\r\n", False),
    ("PTTL a", b":100000\r\n", b":102000\r\n", True),
    ("PTTL a", b":100000\r\n", b":102001\r\n", False),
    ("TTL a b", b"-ERR one\r\n", b"-ERR two\r\n", False),
    ("KEYS *", bulks(b"*", b"a", b"b"), bulks(b"*", b"b", b"a"), True),
    ("KEYS *", bulks(b"*", b"a", b"b"), bulks(b"*", b"a", b"a"), False),
    ("MGET a b", bulks(b"*", b"a", b"b"), bulks(b"*", b"b", b"a"), False),
    ("RANDOMKEY", b"$1\r\na\r\n", b"$1\r\nb\r\n", True),
    ("RANDOMKEY", b"$1\r\na\r\n", b"$-1\r\n", False),
    ("CONFIG GET m*", bulks(b"*", b"maxmemory", b"0", b"ours", b"1"), bulks(b"*", b"maxmemory", b"0"), True),
    ("CONFIG GET m*", bulks(b"*", b"maxmemory", b"0"), bulks(b"*", b"maxmemory", b"1"), False),
    ("CONFIG GET m*", bulks(b"%", b"maxmemory", b"0").replace(b"%2", b"%1"), bulks(b"*", b"maxmemory", b"0"), False),
    ("COMMAND LIST", bulks(b"*", b"get"), bulks(b"*", b"get", b"set"), False),
    ("COMMAND INFO get", b"*1\r\n*6\r\n$3\r\nget\r\n:2\r\n*2\r\n+a\r\n+b\r\n:1\r\n:1\r\n:1\r\n",
     b"*1\r\n*7\r\n$3\r\nget\r\n:2\r\n*2\r\n+b\r\n+a\r\n:1\r\n:1\r\n:1\r\n*0\r\n", True),
    ("COMMAND INFO get", b"*1\r\n*6\r\n$3\r\nget\r\n:2\r\n*2\r\n+a\r\n+b\r\n:1\r\n:1\r\n:1\r\n",
     b"*1\r\n*6\r\n$3\r\nget\r\n:3\r\n*2\r\n+a\r\n+b\r\n:1\r\n:1\r\n:1\r\n", False),
    ("PUBSUB NUMSUB a", b"*2\r\n$1\r\na\r\n:1\r\n", b"*2\r\n$1\r\na\r\n:2\r\n", False),
]


class Comparison(unittest.TestCase):
    def test_replies(self):
        for command, one, other, same in REPLIES:
            with self.subTest(command=command, one=one, other=other):
                args = tuple(command.encode().split())
                self.assertEqual(same_reply(one, other, args), same)
                self.assertEqual(same_reply(other, one, args), same)

    def test_only_a_raw_string_of_redis_may_be_something_else_here(self):
        args, raw, short = (b"OBJECT", b"ENCODING", b"a"), b"$3\r\nraw\r\n", b"$6\r\nembstr\r\n"
        self.assertTrue(same_reply(raw, short, args))
        self.assertFalse(same_reply(short, raw, args))
        self.assertFalse(same_reply(short, b"$3\r\nint\r\n", args))

    def test_only_what_redis_compresses_may_be_dumped_otherwise(self):
        args = (b"DUMP", b"a")
        plain, number, packed = (b"$%d\r\n\x00%s\r\n" % (len(form) + 1, form)
                                 for form in (b"\x0212", b"\xc0\x0c", b"\xc3\x05\x20a..."))
        self.assertFalse(same_reply(number, plain, args))
        self.assertTrue(same_reply(packed, plain, args))
        self.assertFalse(same_reply(plain, packed, args))
        self.assertFalse(same_reply(packed, b"$-1\r\n", args))

    def test_only_small_integers_may_be_shared_more_than_in_redis(self):
        args, own, shared = (b"OBJECT", b"REFCOUNT", b"a"), b":1\r\n", b":2147483647\r\n"
        self.assertTrue(same_reply(own, shared, args))
        self.assertFalse(same_reply(shared, own, args))
        self.assertFalse(same_reply(own, b":2\r\n", args))

    def test_elements_of_exec_follow_their_own_commands(self):
        queue = [(b"TTL", b"a"), (b"GET", b"a")]
        self.assertTrue(same_reply(b"*2\r\n:99\r\n:5\r\n", b"*2\r\n:100\r\n:5\r\n", (b"EXEC",), queue))
        self.assertFalse(same_reply(b"*2\r\n:99\r\n:5\r\n", b"*2\r\n:99\r\n:6\r\n", (b"EXEC",), queue))
        self.assertFalse(same_reply(b"*2\r\n:99\r\n:5\r\n", b"*1\r\n:99\r\n", (b"EXEC",), queue))
        one, other = (b"*1\r\n" + bulks(b"*", *keys) for keys in ((b"a", b"b"), (b"b", b"a")))
        self.assertTrue(same_reply(one, other, (b"EXEC",), [(b"KEYS", b"*")]))
        self.assertFalse(same_reply(one, other, (b"EXEC",), [(b"MGET", b"a", b"b")]))
        self.assertFalse(same_reply(b"*-1\r\n", b"*0\r\n", (b"EXEC",), []))

    def test_order_of_messages(self):
        one, two = (bulks(b"*", b"message", b"c", n) for n in (b"1", b"2"))
        p, q = (bulks(b"*", b"pmessage", n, b"c", b"1") for n in (b"p*", b"q*"))
        self.assertFalse(same_messages([one, two], [two, one]))
        self.assertFalse(same_messages([one, one], [one]))
        self.assertTrue(same_messages([p, q], [q, p]))
        self.assertFalse(same_messages([p, q], [p, p]))

    def test_unsubscribing_from_all_is_in_any_order_but_counts_down(self):
        def gone(name, left):
            return b"*3\r\n$11\r\nunsubscribe\r\n$1\r\n%s\r\n:%d\r\n" % (name, left)
        args = (b"UNSUBSCRIBE",)
        self.assertTrue(same_messages([gone(b"a", 1), gone(b"b", 0)], [gone(b"b", 1), gone(b"a", 0)], args))
        self.assertFalse(same_messages([gone(b"a", 1), gone(b"b", 0)], [gone(b"b", 0), gone(b"a", 1)], args))
        self.assertFalse(same_messages([gone(b"a", 1), gone(b"b", 0)], [gone(b"a", 1), gone(b"c", 0)], args))


class Scripts(unittest.TestCase):
    def test_text_form_is_complete(self):
        for mode in ("all", "multi", "pubsub"):
            ops = Generator(5, mode, 3, 3).stream(2000)
            self.assertEqual(parse_script(format_script(ops)), ops)

    def test_same_seed_same_stream(self):
        self.assertEqual(Generator(5).stream(500), Generator(5).stream(500))
        self.assertNotEqual(Generator(5).stream(500), Generator(6).stream(500))

    def test_checksum_of_payloads(self):
        self.assertEqual(rdbvalue.crc64(b"123456789"), 0xE9C6D914C4B8D9CA)


if __name__ == "__main__":
    unittest.main()
