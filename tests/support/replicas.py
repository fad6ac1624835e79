# SPDX-License-Identifier: BSD-3-Clause
"""Nodes that follow each other: how far they are, whether their logs hold the same bytes.

A replica that takes over a copy begins anew in place: its connections break, its process stays. ask() tries again then.
"""
import os
import struct
import time

from support.disk import DiskCase, SEGMENT_HEADER_LEN, first_lsn, offset_of
from support.pace import slowness

QUICK = {"repl-ping-replica-period": 1, "repl-timeout": 5, "log-segment-size": "1mb"}


class ReplicaCase(DiskCase):
    """Tests with several nodes."""
    slowness = 1.0

    def node(self, **options):
        return self.own_server(**{**QUICK, **options})

    def replica(self, primary, **options):
        """Another node, which follows from its first start on."""
        return self.node(replicaof=["127.0.0.1", primary.port], **options)

    def ask(self, node, *command, timeout=15.0):
        """One command on a connection of its own, again while the node is beginning anew."""
        timeout *= slowness()
        deadline = time.monotonic() + timeout
        while True:
            try:
                with node.connect(timeout=timeout) as conn:
                    return conn.call(*command)
            except OSError:
                if time.monotonic() > deadline or not node.alive():
                    raise
                time.sleep(0.02)

    def state(self, node):
        """INFO replication and stats as a dictionary."""
        text = self.ask(node, "INFO", "replication", "stats").decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def follow(self, node, primary, *words):
        self.assertIn(self.ask(node, "REPLICAOF", "127.0.0.1", primary.port, *words)[:2], ("OK", b"OK"))

    def is_in_sync(self, primary, replica):
        head = int(self.state(primary)["master_repl_offset"])
        state = self.state(replica)
        return state.get("master_link_status") == "up" and int(state["slave_repl_offset"]) >= head

    def in_sync(self, primary, *replicas, timeout=20.0):
        """Waits until all replicas have what the primary has now."""
        for replica in replicas:
            self.eventually(lambda r=replica: self.is_in_sync(primary, r), timeout)

    def same(self, *nodes):
        """All of them show the same keys, values, versions and expiries."""
        first = content(nodes[0])
        for node in nodes[1:]:
            self.assertEqual(first, content(node))

    def same_log(self, *nodes):
        """Where their logs overlap they hold the same bytes. Returns how many were compared."""
        logs = [log_pieces(node, self.written(node)) for node in nodes]
        compared = 0
        for other in logs[1:]:
            for history, start, data in logs[0]:
                for history2, start2, data2 in other:
                    low, high = max(start, start2), min(start + len(data), start2 + len(data2))
                    if history == history2 and low < high:
                        self.assertEqual(data[low - start:high - start], data2[low - start2:high - start2],
                                         "LSN %d to %d of history %x" % (low, high, history))
                        compared += high - low
        return compared

    def lose(self, node, lsn):
        """What a power cut leaves of a log that wasn't synced: everything up to 'lsn'."""
        node.kill()
        path = max(node.segments(), key=first_lsn)
        with open(path, "r+b") as file:
            file.seek(offset_of(path, lsn))
            file.write(bytes(os.path.getsize(path) - file.tell()))

    def lose_behind(self, node, lsn):
        """The same, where that are several segments and snapshots."""
        node.kill()
        for path in node.segments():
            if first_lsn(path) >= lsn:
                os.unlink(path)
        for path in node.dir.glob("snap-*"):
            if int(path.name.split("-")[1], 16) > lsn:
                path.unlink()
        self.lose(node, lsn)

    def written(self, node):
        reply = self.ask(node, "LOG", "POSITION")
        return dict(zip(reply[::2], reply[1::2]))[b"written"]


def content(node, databases=4):
    found = {}
    with node.connect(timeout=30) as conn:
        for db in range(databases):
            conn.ok("SELECT", db)
            keys = sorted(conn.ok("KEYS", "*"))
            for at in range(0, len(keys), 1000):
                part = keys[at:at + 1000]
                replies = conn.pipeline([c for key in part for c in (("GETVER", key), ("PEXPIRETIME", key))])
                found.update(((db, key), replies[2 * i:2 * i + 2]) for i, key in enumerate(part))
    return found


def log_pieces(node, end):
    """(history, first LSN, bytes) of each segment; zeros behind the end are left out."""
    pieces = []
    for path in node.segments():
        data = path.read_bytes()
        first, history = struct.unpack_from("<QQ", data, 48)
        body = data[SEGMENT_HEADER_LEN:]
        if first <= end < first + len(body):
            body = body[:end - first]
        pieces.append((history, first, body.rstrip(b"\0")))
    return pieces
