#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does the ledger see what it is there to see? Each fault that a server could have, shown to it by hand."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crash.ledger import FAR_MS, Ledger, Mismatch, Step  # noqa: E402

NOW_MS = 1_000_000
A, B, F = b"c:s0", b"c:s1", b"c:f0"


class Judged(unittest.TestCase):
    def setUp(self):
        self.ledger = Ledger(b"c", 1, False)

    def send(self, *commands, acknowledged=True, transaction=False):
        ledger = self.ledger
        step = Step(ledger.next_write, list(commands), transaction)
        ledger.next_write += len(commands)
        step.replies = step.apply(ledger.ahead)
        ledger.pending.append(step)
        if acknowledged:
            ledger.acknowledge()
        return step

    def find(self, now_ms=NOW_MS, **keys):
        """A server that has these keys: s0=(value, expiry, version)."""
        found = {key: (None, -2, 0) for key in self.ledger.writer.keys}
        found.update({b"c:" + name.encode(): entry for name, entry in keys.items()})
        return self.ledger.reconcile(found, now_ms, now_ms + 1)

    def refuses(self, **keys):
        with self.assertRaises(Mismatch):
            self.find(**keys)

    def test_what_was_acknowledged_must_be_there(self):
        self.send(("SET", A, b"1"))
        self.refuses()

    def test_what_was_not_may_be_there_or_not(self):
        for found in ({}, {"s0": (b"1", -1, 5)}):
            self.setUp()
            self.send(("SET", A, b"1"), acknowledged=False)
            self.assertEqual(self.find(**found), len(found))

    def test_an_older_value_is_a_lost_write(self):
        self.send(("SET", A, b"1"))
        self.send(("SET", A, b"2"))
        self.refuses(s0=(b"1", -1, 5))

    def test_a_removed_key_stays_away(self):
        self.send(("SET", A, b"1"))
        self.send(("DEL", A))
        self.refuses(s0=(b"1", -1, 5))

    def test_no_step_without_those_before_it(self):
        self.send(("SET", A, b"1"), acknowledged=False)
        self.send(("SET", B, b"2"), acknowledged=False)
        self.refuses(s1=(b"2", -1, 5))

    def test_half_a_rename(self):
        self.send(("SET", A, b"1"))
        self.send(("RENAME", A, B), acknowledged=False)
        self.refuses()
        self.refuses(s0=(b"1", -1, 5), s1=(b"1", -1, 6))
        self.assertEqual(self.find(s1=(b"1", -1, 6)), 1)

    def test_half_a_transaction(self):
        self.send(("SET", A, b"1"), ("SET", B, b"2"), acknowledged=False, transaction=True)
        self.refuses(s0=(b"1", -1, 5))
        self.assertEqual(self.find(), 0)

    def test_an_expiry_is_part_of_it(self):
        self.send(("SET", A, b"1"))
        self.send(("PEXPIREAT", A, NOW_MS + FAR_MS))
        self.refuses(s0=(b"1", -1, 5))
        self.find(s0=(b"1", NOW_MS + FAR_MS, 5))

    def test_what_has_expired_stays_away_and_what_has_not_is_there(self):
        self.send(("SET", F, b"1", "PXAT", NOW_MS + 5000))
        self.refuses()
        self.find(f0=(b"1", NOW_MS + 5000, 5))
        self.find(now_ms=NOW_MS + 5000)
        self.refuses(now_ms=NOW_MS + 9000, f0=(b"1", NOW_MS + 5000, 5))

    def test_a_version_that_was_told_stays(self):
        self.send(("SET", A, b"1"))
        self.ledger.note_version(A, b"1", 100)
        self.refuses(s0=(b"1", -1, 101))
        self.find(s0=(b"1", -1, 100))

    def test_versions_of_a_key_rise(self):
        self.send(("SET", A, b"1"))
        self.ledger.note_version(A, b"1", 100)
        self.send(("DEL", A))
        self.send(("SET", A, b"2"))
        self.refuses(s0=(b"2", -1, 99))
        self.find(s0=(b"2", -1, 120))

    def test_foretold_states_of_all_commands(self):
        self.send(("SET", A, b"abc"))
        self.assertEqual(self.send(("APPEND", A, b"de")).replies, [5])
        self.assertEqual(self.send(("SETRANGE", A, 7, b"x")).replies, [8])
        self.assertEqual(self.send(("COPY", A, B, "REPLACE")).replies, [1])
        self.assertEqual(self.send(("GETDEL", A)).replies, [b"abcde\0\0x"])
        self.assertEqual(self.send(("INCRBY", A, 5)).replies, [5])
        self.assertEqual(self.send(("PERSIST", A)).replies, [0])
        self.find(s0=(b"5", -1, 9), s1=(b"abcde\0\0x", -1, 8))


if __name__ == "__main__":
    unittest.main()
