#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do redis-cli and redis-benchmark, as Debian ships them, work against the server?"""
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.resp import encode  # noqa: E402
from support.server import ServerCase  # noqa: E402


class Tools(ServerCase):
    def run_tool(self, tool, *words, data=b""):
        if not shutil.which(tool):
            self.skipTest("no " + tool)
        done = subprocess.run([tool, "-p", str(self.server.port), *words], input=data, capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode()

    def cli(self, *words, data=b""):
        return self.run_tool("redis-cli", *words, data=data)


class RedisCli(Tools):
    def fill(self):
        conn = self.connect()
        conn.pipeline([("SET", "user:%d" % n, "x" * n) for n in range(200)])
        conn.pipeline([("SET", "other:%d" % n, n) for n in range(50)])

    def test_commands(self):
        self.assertEqual(self.cli("PING"), "PONG\n")
        self.assertEqual(self.cli("SET", "a", "1"), "OK\n")
        self.assertEqual(self.cli("-3", "GET", "a"), "1\n")
        self.assertEqual(self.cli("--no-raw", "MGET", "a", "none"), '1) "1"\n2) (nil)\n')
        self.assertEqual(self.cli("-n", "3", "DBSIZE"), "0\n")
        self.assertEqual(self.cli("-x", "SET", "in", data=b"from stdin"), "OK\n")
        self.assertEqual(self.cli("GET", "in"), "from stdin\n")
        lines = self.cli(data=b"SET b 2\nINCR b\nNOSUCH\nGET b\n").split("\n")
        self.assertEqual(lines, ["OK", "3", "ERR unknown command 'NOSUCH', with args beginning with: ", "", "3", ""])

    def test_info(self):
        text = self.cli("INFO")
        for section in ("# Server", "# Clients", "# Memory", "# Stats", "# CPU"):
            self.assertIn(section, text)
        self.assertIn("redis_version:", self.cli("-3", "INFO", "server"))

    def test_scan(self):
        self.fill()
        self.assertEqual(len(set(self.cli("--scan").split())), 250)
        self.assertEqual(set(self.cli("--scan", "--pattern", "other:*").split()), {"other:%d" % n for n in range(50)})

    def test_bigkeys_and_memkeys(self):
        self.fill()
        text = self.cli("--bigkeys")
        self.assertIn("Sampled 250 keys", text)
        self.assertRegex(text, r'Biggest string found .*"user:199".* has 199 bytes')
        self.assertIn("Sampled 250 keys", self.cli("--memkeys"))

    def test_pipe(self):
        text = self.cli("--pipe", data=b"".join(encode("SET", "p%d" % n, n) for n in range(10000)))
        self.assertIn("errors: 0, replies: 10000", text)
        self.assertEqual(self.connect().call("DBSIZE"), 10000)

    def test_help_that_is_asked_of_the_server(self):
        """An interactive session reads COMMAND DOCS; the client's own table tells what it makes of that."""
        docs = self.connect(3).call("COMMAND", "DOCS", "set", "get")
        self.assertEqual(set(docs), {b"set", b"get"})
        for entry in docs.values():
            self.assertLessEqual({b"summary", b"since", b"group"}, set(entry))
        self.assertIn(b"get", self.connect(3).call("COMMAND", "DOCS"))

    def test_repeat_and_latency(self):
        self.assertEqual(self.cli("-r", "5", "INCR", "n"), "1\n2\n3\n4\n5\n")
        self.assertRegex(self.cli("--raw", "--latency", "-i", "1"), r"^\d+ [\d.]+ [\d.]+ \d+")

    def test_monitor_pipe_of_errors(self):
        self.assertIn("ERR unknown command", self.cli("NOSUCH"))


class RedisBenchmark(Tools):
    def benchmark(self, *words):
        text = self.run_tool("redis-benchmark", "-q", *words)
        self.assertNotRegex(text.lower(), r"error|warning|could not")
        return text

    def test_the_usual_run(self):
        text = self.benchmark("-t", "set,get,incr,mset", "-n", "20000")
        self.assertEqual(text.count("requests per second"), 4)

    def test_pipelined_with_random_keys(self):
        self.benchmark("-t", "ping,set,get,incr", "-n", "20000", "-P", "16", "-r", "1000", "-d", "500")
        self.assertEqual(self.connect().call("DBSIZE"), 2000)

    def test_many_connections_and_threads(self):
        self.benchmark("-t", "set,get", "-n", "20000", "-c", "200", "--threads", "2")

    def test_a_command_of_ones_own_in_resp3(self):
        self.benchmark("-3", "-n", "5000", "-r", "100", "SET", "key:__rand_int__", "v", "EX", "100")


if __name__ == "__main__":
    unittest.main()
