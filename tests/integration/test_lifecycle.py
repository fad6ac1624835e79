#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does the server start as configured and end as asked: options, files, CONFIG REWRITE, SHUTDOWN, signals?"""
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pace import slowness  # noqa: E402
from support.resp import Error, encode  # noqa: E402
from support.server import Server, ServerCase, server_binary, temp_dir  # noqa: E402


class Ending(unittest.TestCase):
    def busy_server(self):
        """A server with idle, subscribed, half-finished and writing clients."""
        server = Server(threads=2)
        self.addCleanup(server.stop)
        conns = [server.connect() for _ in range(40)]
        for conn in conns:
            self.addCleanup(conn.close)
        conns[0].ok("SUBSCRIBE", "c")
        conns[1].ok("MONITOR")
        conns[2].send_raw(b"*3\r\n$3\r\nSET\r\n")
        conns[3].ok("MULTI")
        conns[4].send_raw(encode("SET", "k", "x" * 1000) * 1000)
        return server, conns

    def ends_within(self, server, start):
        self.assertEqual(server.wait(30), 0)
        self.assertLess(time.monotonic() - start, 5 * slowness())
        server.check()

    def test_sigterm_and_sigint(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server, conns = self.busy_server()
            start = time.monotonic()
            server.process.send_signal(number)
            self.ends_within(server, start)
            conns[5].read_until_closed(5)

    def test_shutdown(self):
        for words in (["SHUTDOWN"], ["SHUTDOWN", "NOSAVE"], ["shutdown", "now", "force"]):
            server, conns = self.busy_server()
            start = time.monotonic()
            conns[6].send(*words)
            self.ends_within(server, start)
            self.assertEqual(conns[6].read_until_closed(5), [])

    def test_shutdown_asked_wrongly(self):
        with Server(threads=2) as server, server.connect() as conn:
            self.assertEqual(conn.call("SHUTDOWN", "NOSUCH"), "ERR syntax error")
            self.assertEqual(conn.call("SHUTDOWN", "SAVE", "NOSAVE"), "ERR syntax error")
            self.assertEqual(conn.call("SHUTDOWN", "ABORT"), "ERR No shutdown in progress.")
            self.assertEqual(conn.call("PING"), "PONG")

    def test_replies_are_whole_until_the_end(self):
        server = Server(threads=2)
        self.addCleanup(server.stop)
        results = []

        def work():
            with server.connect() as conn:
                try:
                    while True:
                        conn.pipeline([("SET", "k", "v" * 5000), ("GET", "k")] * 10)
                except ConnectionError:
                    results.append(bytes(conn.buf))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        start = time.monotonic()
        server.process.terminate()
        self.ends_within(server, start)
        for thread in threads:
            thread.join(10)
        self.assertEqual(results, [b""] * 4)

    def test_the_port_is_free_again(self):
        server = Server(threads=2)
        self.addCleanup(server.stop)
        conns = [server.connect() for _ in range(10)]
        for _ in range(2):
            server.process.terminate()
            self.assertEqual(server.wait(), 0)
            server.start()
        for conn in conns:
            conn.close()
        with server.connect() as conn:
            self.assertEqual(conn.call("PING"), "PONG")


class Configuration(ServerCase):
    def setUp(self):
        self.folder = temp_dir(self)

    def test_file_then_options(self):
        conf = self.folder / "node.conf"
        conf.write_text('# a comment\n\nmaxmemory-samples 7\nmaxmemory 200mb\nMaxClients 77\ndatabases 8\n'
                        'requirepass "with space"\n')
        server = self.own_server(conf=conf, threads=2, maxclients=88)
        conn = server.connect()
        self.addCleanup(conn.close)
        self.assertEqual(conn.call("PING").code, "NOAUTH")
        conn.ok("AUTH", "with space")
        expected = {"maxmemory-samples": b"7", "maxmemory": b"209715200", "maxclients": b"88", "databases": b"8"}
        for name, value in expected.items():
            self.assertEqual(conn.call("CONFIG", "GET", name), [name.encode(), value])
        conn.ok("SELECT", 7)
        self.assertIsInstance(conn.call("SELECT", 8), Error)

    def test_rewrite_keeps_comments_and_survives_a_restart(self):
        conf = self.folder / "node.conf"
        conf.write_text("# keep me\nmaxmemory-samples 7\n# and me\ntimeout 0\n")
        server = self.own_server(conf=conf, threads=2)
        with server.connect() as conn:
            conn.ok("CONFIG", "SET", "maxmemory-samples", 9, "slowlog-max-len", 55)
            conn.ok("CONFIG", "REWRITE")
        lines = conf.read_text().splitlines()
        self.assertLessEqual({"# keep me", "# and me", "maxmemory-samples 9", "slowlog-max-len 55"}, set(lines))
        self.assertNotIn("maxmemory-samples 7", lines)
        server.process.terminate()
        self.assertEqual(server.wait(), 0)
        server.start()
        with server.connect() as conn:
            self.assertEqual(conn.call("CONFIG", "GET", "slowlog-max-len"), [b"slowlog-max-len", b"55"])
            self.assertEqual(conn.call("CONFIG", "GET", "maxmemory-samples"), [b"maxmemory-samples", b"9"])

    def test_rewrite_without_a_file(self):
        with self.server.connect() as conn:
            self.assertEqual(conn.call("CONFIG", "REWRITE"), "ERR The server is running without a config file")

    def test_a_bad_setting_stops_the_start(self):
        for words in (["--no-such-option", "1"], ["--port", "notaport"], ["--maxmemory", "12zz"],
                      ["--maxmemory-policy", "nosuch"], [str(self.folder / "missing.conf")]):
            done = subprocess.run([server_binary(), *words], capture_output=True, timeout=20, cwd=self.folder)
            self.assertGreater(done.returncode, 0, words)
            self.assertTrue(done.stderr + done.stdout, "no word about " + words[0])

    def test_version_and_help(self):
        for word in ("--version", "--help"):
            done = subprocess.run([server_binary(), word], capture_output=True, timeout=20)
            self.assertTrue((done.stdout + done.stderr).strip(), word)

    def test_a_port_in_use_is_named(self):
        words = ["--port", str(self.server.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        done = subprocess.run([server_binary(), *words], capture_output=True, timeout=20, cwd=self.folder)
        self.assertGreater(done.returncode, 0)
        self.assertIn(str(self.server.port).encode(), done.stderr + done.stdout)

    def test_logfile(self):
        path = self.folder / "node.log"
        server = self.own_server(threads=2, logfile=path)
        server.stop()
        self.assertGreater(path.stat().st_size, 0)


if __name__ == "__main__":
    unittest.main()
