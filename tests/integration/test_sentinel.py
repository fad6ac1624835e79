#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does a stock redis-sentinel fail over, and does the old primary come back as a replica?"""
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.replicas import ReplicaCase  # noqa: E402
from support.resp import Conn  # noqa: E402
from support.server import REDIS, free_port, temp_dir  # noqa: E402

CONF = """port {port}
dir {dir}
sentinel monitor main 127.0.0.1 {primary} 2
sentinel down-after-milliseconds main {down}
sentinel failover-timeout main 20000
"""


@unittest.skipUnless(REDIS and shutil.which("redis-sentinel"), "there is no redis-sentinel")
class Failover(ReplicaCase):
    def sentinels(self, primary):
        ports = [free_port() for _ in range(3)]
        for port in ports:
            folder = temp_dir(self)
            conf = folder / "sentinel.conf"
            conf.write_text(CONF.format(port=port, dir=folder, primary=primary.port, down=1000))
            process = subprocess.Popen([REDIS, str(conf), "--sentinel"], stdout=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
        return ports

    def sentinel(self, port, *command):
        try:
            with Conn(("127.0.0.1", port), timeout=5) as conn:
                return conn.call(*command)
        except OSError:
            return None

    def knows_all(self, port, replicas):
        fields = [dict(zip(f[::2], f[1::2])) for f in self.sentinel(port, "SENTINEL", "REPLICAS", "main") or []]
        good = [f for f in fields if f[b"master-link-status"] == b"ok"]
        quorum = self.sentinel(port, "SENTINEL", "CKQUORUM", "main")
        return len(good) == replicas and quorum is not None and quorum.startswith("OK 3")

    def primary_port(self, port):
        return int(self.sentinel(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])

    def fail_over(self, end, come_back):
        primary = self.node()
        replicas = [self.replica(primary), self.replica(primary)]
        with primary.connect() as conn:
            conn.pipeline([("SET", "key:%d" % i, i) for i in range(200)])
        self.in_sync(primary, *replicas)
        ports = self.sentinels(primary)
        self.eventually(lambda: all(self.knows_all(port, 2) for port in ports), 30)
        end(primary)
        self.eventually(lambda: self.primary_port(ports[0]) != primary.port, 30)
        new = next(r for r in replicas if r.port == self.primary_port(ports[0]))
        self.eventually(lambda: self.ask(new, "SET", "after", 1) == "OK", 20)
        self.assertEqual(self.ask(new, "GET", "key:199"), b"199")
        come_back(primary)
        others = [primary] + [r for r in replicas if r is not new]
        self.eventually(lambda: all(self.state(node)["role"] == "slave" for node in others), 40)
        self.in_sync(new, *others, timeout=40)
        self.same(new, *others)
        self.same_log(new, *others)
        self.assertEqual(self.state(new)["sync_full"], "0")

    def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(self):
        self.fail_over(lambda node: node.kill(), lambda node: node.start())

    def test_a_frozen_primary_is_replaced_and_comes_back_as_a_replica(self):
        self.fail_over(lambda node: node.process.send_signal(signal.SIGSTOP),
                       lambda node: (time.sleep(1), node.process.send_signal(signal.SIGCONT)))


if __name__ == "__main__":
    unittest.main()
