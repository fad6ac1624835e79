# SPDX-License-Identifier: BSD-3-Clause
"""A network of namespaces in which nodes can be cut off from one another (Linux, as root, iproute2).

Each place is a namespace with an address; all hang on one bridge, and so does the test, which always reaches everybody. A cut drops packets:
connections don't end, they fall silent.
"""
import itertools
import os
import shutil
import subprocess

from support.server import ServerFailed

COUNTER = itertools.count()


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], capture_output=True, check=False)
    if check and done.returncode != 0:
        raise ServerFailed("ip %s: %s" % (" ".join(words), done.stderr.decode()))
    return done.returncode == 0


def why_not():
    """Why there can be no such network here; None: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 isn't installed"
    name = "dcprobe%d" % os.getpid()
    if not ip("netns", "add", name, check=False):
        return "network namespaces aren't permitted here"
    good = ip("link", "add", name[-12:] + "a", "type", "veth", "peer", "name", name[-12:] + "b", check=False)
    if good:
        ip("link", "del", name[-12:] + "a")
    ip("netns", "del", name)
    return None if good else "veth isn't there"


class NetLab:
    def __init__(self, count):
        number = (os.getpid() * 7 + next(COUNTER)) % 60000
        self.tag = "dc%d" % number
        self.net = "10.%d.%d" % (64 + number // 250 % 190, number % 250)
        self.places = ["%sn%d" % (self.tag, i) for i in range(count)]
        self.addresses = ["%s.%d" % (self.net, i + 10) for i in range(count)]
        self.cuts = set()
        try:
            self.build()
        except ServerFailed:
            self.close()
            raise

    def build(self):
        ip("link", "add", self.tag, "type", "bridge")
        ip("addr", "add", self.net + ".1/24", "dev", self.tag)
        ip("link", "set", self.tag, "up")
        for i, place in enumerate(self.places):
            ip("netns", "add", place)
            ip("link", "add", place, "type", "veth", "peer", "name", "eth0", "netns", place)
            ip("link", "set", place, "master", self.tag)
            ip("link", "set", place, "up")
            ip("-n", place, "addr", "add", self.addresses[i] + "/24", "dev", "eth0")
            ip("-n", place, "link", "set", "eth0", "up")
            ip("-n", place, "link", "set", "lo", "up")

    def close(self):
        for place in self.places:
            ip("netns", "del", place, check=False)
        ip("link", "del", self.tag, check=False)

    def wrapper(self, i):
        """Words before the command line of what shall run there."""
        return ["ip", "netns", "exec", self.places[i]]

    def cut(self, i, j, both=True):
        """From now on nothing gets from i to j (nor back)."""
        for a, b in ((i, j), (j, i))[:1 + both]:
            if (a, b) not in self.cuts:
                ip("-n", self.places[a], "route", "add", "blackhole", self.addresses[b] + "/32")
                self.cuts.add((a, b))

    def isolate(self, i):
        for j in range(len(self.places)):
            if j != i:
                self.cut(i, j)

    def heal(self):
        for a, b in self.cuts:
            ip("-n", self.places[a], "route", "del", "blackhole", self.addresses[b] + "/32")
        self.cuts.clear()

