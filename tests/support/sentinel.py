# SPDX-License-Identifier: BSD-3-Clause
"""Stock redis-sentinel processes around a cluster, configured by the example in conf/."""
import re
import shutil
import subprocess
import time

from support.cluster import GONE, LOCAL, eventually
from support.resp import Conn
from support.server import ROOT, Server, ServerFailed, free_port

NAME = "dcache"
PROGRAM = shutil.which("redis-sentinel")
# Sentinel looks every ten seconds and waits long before it corrects a node. Tests don't.
HURRY = ("info-period", 300, "publish-period", 400, "ping-period", 200)


class Sentinel(Server):
    """One sentinel."""

    def __init__(self, folder, number, primary, down_after_ms):  # pylint: disable=super-init-not-called
        self.binary, self.is_redis, self.conf = PROGRAM, True, folder / ("sentinel%d.conf" % number)
        self.log_path = folder / ("sentinel%d.output" % number)
        self.dir, self.process = folder, None
        self.port = free_port()
        self.address = (LOCAL, self.port)
        text = (ROOT / "conf/sentinel.conf").read_text()
        for pattern, line in ((r"port .*", "port %d\nbind %s\nprotected-mode no" % (self.port, LOCAL)), (r"dir .*", "dir %s" % folder),
                              (r"sentinel monitor .*", "sentinel monitor %s %s %d 2" % (NAME, primary.host, primary.port)),
                              (r"sentinel down-after.*", "sentinel down-after-milliseconds %s %d" % (NAME, down_after_ms))):
            text, count = re.subn(r"(?m)^%s$" % pattern, line, text)
            assert count == 1, "conf/sentinel.conf has no line " + pattern
        self.conf.write_text(text)
        with open(self.log_path, "ab") as log:
            self.process = self.popen(stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def command_line(self):
        return [self.binary, str(self.conf)]

    def ask(self, *words):
        with Conn(self.address, timeout=5) as conn:
            return conn.ok("SENTINEL", *words)

    def wait_ready(self):
        def answers():
            try:
                return self.ask("DEBUG", *HURRY)
            except GONE:
                if not self.alive():
                    raise ServerFailed(self.output()[-3000:]) from None
                return False
        eventually(answers, 15)

    def table(self, *words):
        """[{field: value}] of the nodes that it names."""
        return [{row[i].decode(): row[i + 1].decode() for i in range(0, len(row), 2)} for row in self.ask(*words)]

    def primary_port(self):
        return int(self.ask("GET-MASTER-ADDR-BY-NAME", NAME)[1])


class Sentinels:
    """Three of them."""

    def __init__(self, cluster, primary, down_after_ms=1500):
        self.cluster = cluster
        self.all = [Sentinel(cluster.folder, i, primary, down_after_ms) for i in range(3)]
        for sentinel in self.all:
            sentinel.wait_ready()

    def __iter__(self):
        return iter(self.all)

    def close(self):
        for sentinel in self.all:
            sentinel.kill()

    def addresses(self):
        return [s.address for s in self.all]

    def find(self, replicas, timeout=15):
        """Until each knows the replicas and the other sentinels, and finds nothing wrong with any."""
        ports = sorted(n.port for n in replicas)

        def known(sentinel):
            found = sentinel.table("REPLICAS", NAME)
            others = sentinel.table("SENTINELS", NAME)
            return (sorted(int(r["port"]) for r in found) == ports and all(r["flags"] == "slave" and r["master-link-status"] == "ok" for r in found)
                    and len(others) == 2 and all(o["flags"] == "sentinel" for o in others))
        for sentinel in self.all:
            eventually(lambda s=sentinel: known(s), timeout, lambda s=sentinel: "%s\n%s" % (s.table("REPLICAS", NAME), s.output()[-2000:]))

    def wait_for_another(self, primary, timeout=30):
        """The node that they name instead, once they agree."""
        def agreed():
            ports = {s.primary_port() for s in self.all}
            return len(ports) == 1 and (port := ports.pop()) != primary.port and port
        port = eventually(agreed, timeout, lambda: "\n".join(s.output()[-2500:] for s in self.all), 0.05)
        return next(n for n in self.cluster if n.port == port)

    def wait_for_role(self, node, primary, timeout=40):
        """Until the node follows the primary: sentinels have told it so."""
        eventually(lambda: follows(node, primary), timeout,
                   lambda: "%s: %s\n%s\n%s" % (node.name, node.repl(), node.last_output()[-2000:], self.all[0].output()[-3000:]), 0.05)


def follows(node, primary):
    try:
        return node.follows(primary)
    except ServerFailed:
        if not node.alive():
            raise
        time.sleep(0.05)
        return False
