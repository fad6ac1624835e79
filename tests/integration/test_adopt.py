#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does a start take over another data set that was noted for it: a copy from another node, or its own log cut at a fork?"""
import os
import random
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.disk import DiskCase, log_position, run_server  # noqa: E402
from support.server import server_binary, temp_dir  # noqa: E402

NOTE = Path(server_binary()).parent / "adopt_note"
SEED = int(os.environ.get("DC_SEED", os.getpid()))
KILLS = 5


def note(server, *words):
    """What a link would note before it lets the node start anew."""
    subprocess.run([NOTE, server.dir, *map(str, words)], check=True, timeout=60)


def contents(conn):
    """{key: (value, version, whether it expires)}"""
    found = {}
    cursor = b"0"
    while True:
        cursor, keys = conn.ok("SCAN", cursor, "COUNT", 1000)
        for key in keys:
            found[key] = (conn.ok("GET", key), conn.ok("GETVER", key)[1], conn.ok("TTL", key) > 0)
        if cursor == b"0":
            return found


class Adopt(DiskCase):
    def fill(self, conn, prefix, count):
        conn.pipeline([("SET", "%s:%d" % (prefix, i), "value %d" % i * 3) for i in range(count)])

    def another_node(self):
        """The folder of a backup, and what is in it."""
        server = self.own_server()
        conn = self.connect(server)
        self.fill(conn, "new", 2000)
        conn.ok("SET", "blob", "x" * 200_000)
        conn.ok("SET", "session", "s", "EX", 1000)
        conn.ok("SAVE")
        self.fill(conn, "newer", 100)
        conn.ok("DEL", "new:7")
        folder = temp_dir(self) / "backup"
        conn.ok("BACKUP", folder)
        found = contents(conn)
        server.terminate()
        return folder, found

    def give_copy(self, server, folder, pattern="*.dc*"):
        incoming = server.dir / "incoming"
        incoming.mkdir()
        for file in folder.glob(pattern):
            shutil.copy(file, incoming)
        note(server, "copy")

    def old_node(self):
        server = self.own_server()
        conn = self.connect(server)
        self.fill(conn, "old", 3000)
        conn.ok("SAVE")
        self.fill(conn, "late", 100)
        return server, conn

    def in_place(self, server, conn):
        conn.ok("DEBUG", "RESTART")
        conn.read_until_closed(30)
        return self.connect(server, timeout=30)

    def test_a_copy_takes_the_place_of_what_was_there(self):
        folder, expected = self.another_node()
        server, _ = self.old_node()
        server.terminate()
        self.give_copy(server, folder)
        conn = self.restarted(server)
        self.assertEqual(contents(conn), expected)
        self.assertIn("A copy was taken over", server.last_output())
        self.eventually(lambda: not list(server.dir.glob("replaced-*")))
        self.assertFalse((server.dir / "incoming").exists())
        conn.ok("SET", "mine", "1")
        expected = contents(conn)
        conn = self.in_place(server, conn)
        self.assertEqual(contents(conn), expected)
        conn.ok("SAVE")
        conn = self.restarted(server)  # a kill
        self.assertEqual(contents(conn), expected)

    def test_a_snapshot_alone_is_a_copy(self):
        folder, expected = self.another_node()
        server, _ = self.old_node()
        server.terminate()
        self.give_copy(server, folder, "*.dcs")
        conn = self.restarted(server)
        found = contents(conn)
        self.assertEqual(found["blob".encode()], expected[b"blob"])
        self.assertEqual(sum(key.startswith(b"new:") for key in found), 2000)
        self.assertEqual(len(found), 2002)

    def test_a_start_that_is_killed_is_gone_on_with(self):
        folder, expected = self.another_node()
        server, _ = self.old_node()
        server.terminate()
        self.give_copy(server, folder)
        kept = temp_dir(self) / "kept"
        shutil.copytree(server.dir, kept)
        rng = random.Random(SEED)
        print("DC_SEED=%d" % SEED)
        took = 0.05
        for _ in range(KILLS):
            shutil.rmtree(server.dir)
            shutil.copytree(kept, server.dir)
            for _ in range(2):
                with open(server.dir / "output.log", "ab") as log:
                    process = server.popen(stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                time.sleep(rng.random() * took)
                process.kill()
                process.wait()
            began = time.monotonic()
            conn = self.restarted(server)
            took = max(took, time.monotonic() - began)
            self.assertEqual(contents(conn), expected)
            conn.close()
            server.kill()

    def test_a_copy_that_cannot_be_used_leaves_what_was_there(self):
        server, conn = self.old_node()
        expected = contents(conn)
        server.terminate()
        note(server, "copy")  # of which there is nothing
        conn = self.restarted(server)
        self.assertEqual(contents(conn), expected)
        self.assertIn("A full copy is needed", server.last_output())
        conn = self.in_place(server, conn)
        self.assertEqual(contents(conn), expected)
        self.assertEqual(server.output().count("A full copy is needed"), 1)  # not of a primary: all goes on from what it has

    def test_an_old_data_set_without_metadata_is_not_a_new_node(self):
        server, _ = self.old_node()
        server.terminate()
        (server.dir / "replaced-1").mkdir()
        for file in server.dir.glob("*.dc?"):
            file.rename(server.dir / "replaced-1" / file.name)
        shutil.rmtree(server.dir / "meta")
        code, output = run_server(server)
        self.assertEqual(code, 1)
        self.assertIn("replaced-1", output)

    def test_h50_a_tail_behind_the_fork_is_kept_aside(self):
        server = self.own_server()
        conn = self.connect(server)
        self.fill(conn, "a", 500)
        conn.ok("SAVE")
        self.fill(conn, "b", 100)
        expected = contents(conn)
        position = log_position(conn)
        history = server.segments()[-1].stem.split("-")[2]
        conn.ok("SET", "a:1", "tail")
        self.fill(conn, "tail", 100)
        conn.ok("SAVE")
        self.fill(conn, "tail", 200)
        server.kill()
        server.start()  # a history of its own
        conn = self.connect(server)
        self.fill(conn, "tail", 300)
        server.terminate()
        note(server, "rewind", position["head"], history)
        conn = self.restarted(server)
        self.assertEqual(contents(conn), expected)
        self.assertIn("The log was cut at the fork, LSN %d" % position["head"], server.last_output())
        self.assertEqual(len(server.snapshots()), 1)
        aside = list(server.dir.glob("cut-*.bad"))
        self.assertEqual(sum(file.name.endswith(".dcs.bad") for file in aside), 1)
        self.assertIn(b"tail:17", b"".join(file.read_bytes() for file in aside))
        conn.ok("SET", "after", "1")
        expected = contents(conn)
        self.assertEqual(contents(self.in_place(server, conn)), expected)
        self.assertEqual(contents(self.restarted(server)), expected)
        self.assertEqual(sorted(server.dir.glob("cut-*.bad")), sorted(aside))

    def test_h50_where_no_snapshot_allows_it_a_copy_is_needed(self):
        server = self.own_server(log_segment_size="1mb")
        conn = self.connect(server)
        self.fill(conn, "a", 100)
        position = log_position(conn)
        history = server.segments()[-1].stem.split("-")[2]
        self.fill(conn, "b", 100)
        conn.ok("SAVE")
        expected = contents(conn)
        server.terminate()
        for file in server.segments():
            file.unlink()
        note(server, "rewind", position["head"], history)
        conn = self.restarted(server)
        self.assertEqual(contents(conn), expected)
        self.assertIn("A full copy is needed", server.last_output())


if __name__ == "__main__":
    unittest.main()
