#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does a node that starts anew in place stay the same for the world: process, run id, port, options, data?"""
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.resp import Conn, Error  # noqa: E402
from support.server import ServerCase, free_port, server_binary, temp_dir  # noqa: E402

SLOWNESS = float(os.environ.get("DCACHE_TEST_END_SECONDS", 1.0))


def run_id(conn):
    for line in conn.ok("INFO", "server").decode().splitlines():
        if line.startswith("run_id:"):
            return line[7:]
    raise AssertionError("INFO has no run_id")


def descriptors(pid):
    """What is open, sockets of clients aside: a restart closes those."""
    links = [os.readlink(entry.path) for entry in os.scandir("/proc/%d/fd" % pid)]
    return sorted(re.sub("[0-9a-f]{16}", "N", link.split(":")[0]) for link in links)


def restart(conn):
    """Asks for it and waits for the end of the connection."""
    conn.ok("DEBUG", "RESTART")
    conn.read_until_closed(20 * SLOWNESS)


class Writer(threading.Thread):
    """Writes one key after the other; connects again whenever its connection ends."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.name = server, name
        self.acked, self.refused, self.broken = {}, 0, 0
        self.longest_s = 0.0  # between two replies
        self.over = False

    def run(self):
        i, last = 0, time.monotonic()
        while not self.over:
            try:
                with Conn(self.server.address, timeout=30 * SLOWNESS) as conn:
                    while not self.over:
                        i += 1
                        key, value = b"%s:%d" % (self.name.encode(), i % 500), b"%d" % i
                        if conn.call("SET", key, value) == "OK":
                            self.acked[key] = i
                        now = time.monotonic()
                        self.longest_s, last = max(self.longest_s, now - last), now
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(0.001)
            except OSError:
                self.broken += 1


class Handover(ServerCase):
    @classmethod
    def setUpClass(cls):
        """No shared server."""

    def setUp(self):
        pass

    def test_under_load_nothing_acknowledged_is_lost_and_nobody_is_refused(self):
        server = self.own_server(threads=2, save="")
        pid = server.process.pid
        with server.connect() as conn:
            before = run_id(conn)
        writers = [Writer(server, "writer%d" % i) for i in range(4)]
        for writer in writers:
            writer.start()
            self.addCleanup(setattr, writer, "over", True)
        gaps = []
        for _ in range(5):
            time.sleep(0.2 * SLOWNESS)
            with server.connect() as conn:
                asked = time.monotonic()
                restart(conn)
            with server.connect(timeout=30 * SLOWNESS) as conn:
                conn.ok("SET", "k", "v")
                gaps.append(time.monotonic() - asked)
                self.assertEqual(run_id(conn), before)
        for writer in writers:
            writer.over = True
        for writer in writers:
            writer.join()
        self.assertTrue(server.alive())
        self.assertEqual(server.process.pid, pid)
        with server.connect() as conn:
            for writer in writers:
                self.assertGreater(len(writer.acked), 0)
                for key, i in writer.acked.items():
                    self.assertGreaterEqual(int(conn.ok("GET", key)), i)
        self.assertEqual([w.refused for w in writers], [0] * 4)
        self.assertEqual(server.output().count("server.ready"), 6)
        self.assertEqual(server.output().count("clean=yes"), 5)
        print("restart in place, ms until a write is served: %s; longest wait of a writer: %.0f ms" % (
            " ".join("%.0f" % (1000 * gap) for gap in gaps), 1000 * max(w.longest_s for w in writers)))

    def descriptors_that_stay(self, pid):
        """What is open twice: threads that begin or end have some for a moment."""
        before, now = None, descriptors(pid)
        deadline = time.monotonic() + 10 * slowness()
        while before != now:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)
            before, now = now, descriptors(pid)
        return now

    def test_nothing_stays_open(self):
        server = self.own_server(threads=2)
        pid = server.process.pid
        with server.connect() as conn:
            restart(conn)
        self.eventually(lambda: server.output().count("server.ready") == 2)
        seen = self.descriptors_that_stay(pid)
        for _ in range(3):
            with server.connect() as conn:
                conn.ok("PING")
                restart(conn)
        self.eventually(lambda: server.output().count("server.ready") == 5)
        self.assertEqual(self.descriptors_that_stay(pid), seen)
        self.assertEqual(Path("/proc/%d/comm" % pid).read_text().strip(), "dcache-server")

    def test_options_set_at_run_time_stay_and_paths_mean_the_same(self):
        folder = temp_dir(self)
        (folder / "data").mkdir()
        (folder / "node.conf").write_text("# mine\nmaxmemory-samples 7\ndir data\nlogfile node.log\npidfile node.pid\n")
        port = free_port()
        conf = ("port %d\nenable-debug-command yes\nunixsocket s\nsave 900 1 300 10\n" % port).encode()
        process = subprocess.Popen([server_binary(), "node.conf", "-", "--timeout", "77"], cwd=folder, stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdin.write(conf)
        process.stdin.close()
        self.eventually(lambda: (folder / "data" / "s").exists())
        with Conn(("127.0.0.1", port)) as conn:
            conn.ok("SET", "k", "v")
            conn.ok("CONFIG", "SET", "requirepass", 'pass "word"', "maxmemory", "100mb", "slowlog-max-len", 55)
            conn.ok("CONFIG", "SET", "notify-keyspace-events", "KEA", "save", "")
            expected = conn.call("CONFIG", "GET", "*")
            os.rename(folder / "node.conf", folder / "moved.conf")  # it isn't read again
            restart(conn)
            os.rename(folder / "moved.conf", folder / "node.conf")
        for address in (("127.0.0.1", port), str(folder / "data" / "s")):
            with Conn(address) as conn:
                self.assertEqual(conn.call("PING").code, "NOAUTH")
                conn.ok("AUTH", 'pass "word"')
                self.assertEqual(conn.call("CONFIG", "GET", "*"), expected)
                self.assertEqual(conn.ok("GET", "k"), b"v")
                conn.ok("CONFIG", "REWRITE")
        text = (folder / "node.conf").read_text()
        self.assertTrue(text.startswith("# mine\nmaxmemory-samples 7\n"), text)
        self.assertIn("slowlog-max-len 55", text)
        self.assertEqual((folder / "data" / "node.pid").read_text(), "%d\n" % process.pid)
        self.assertEqual((folder / "node.log").read_text().count("server.ready"), 2)
        process.terminate()
        self.assertEqual(process.wait(20), 0)
        self.assertFalse((folder / "data" / "s").exists())

    def test_a_signal_to_end_is_not_lost_in_a_restart(self):
        server = self.own_server(threads=2)
        with server.connect() as conn:
            conn.ok("SET", "k", "v")
            conn.send("DEBUG", "RESTART")
            server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)
        server.check()
        server.start()
        with server.connect() as conn:
            self.assertEqual(conn.ok("GET", "k"), b"v")

    def test_somebody_elses_signal_restarts_nothing(self):
        server = self.own_server(threads=2)
        server.process.send_signal(signal.SIGUSR1)
        with server.connect() as conn:
            conn.ok("PING")
        time.sleep(0.1)
        self.assertEqual(server.output().count("server.ready"), 1)

    def test_without_a_log_what_is_saved_at_an_end_is_there(self):
        server = self.own_server(threads=2, appendonly="no", save=["900", "1"])
        with server.connect() as conn:
            conn.ok("SET", "k", "v")
            restart(conn)
        with server.connect() as conn:
            self.assertEqual(conn.ok("GET", "k"), b"v")

    def test_debug_is_needed(self):
        server = self.own_server(threads=2, enable_debug_command="no")
        with server.connect() as conn:
            self.assertIsInstance(conn.call("DEBUG", "RESTART"), Error)
            conn.ok("PING")


if __name__ == "__main__":
    unittest.main()
