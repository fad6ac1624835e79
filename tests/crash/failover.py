#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Three nodes, clients that write to the primary, and kills, freezes and promotions at random moments: is what was acknowledged still there?

    failover.py [--seconds 10] [--seed N] [--strikes kill,freeze,...] [--ack wait|replicas:1|replicas:1:disk|replicas:2] [--dir D]

A reply counts as an acknowledgement when a replica has the write, too: CLIENT ACK with a level, or WAIT 1 behind the commands. With replicas:1 two nodes have
it, one of them perhaps in memory only; so no second node is killed before the first has caught up. With the other levels two are killed at once. A reign: clients
compare all their keys with their ledgers (ledger.py), at that same level, and write; replicas are killed, frozen and started again;
a strike ends it. Then every replica is brought up, the one with the highest offset is promoted, the others follow; the old primary comes back sooner or later, as the
primary that it was, and is told. Now and then everybody converges: same keys, values, expiries and versions, same bytes of log.

With DCACHE_SERVER naming a redis-server the strikes come only when all replicas are in sync: Redis forgets its offsets at a restart.
The seed is printed; after a failure the directories are kept.
"""
import argparse
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crash.kill import PAIR, PIPELINE_MAX, SHARED, SharedCounters, now_ms  # noqa: E402
from crash.ledger import Ledger, Mismatch, Step, check_reply  # noqa: E402
from support import power  # noqa: E402
from support.cluster import GONE, Cluster, eventually  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.resp import Error, encode  # noqa: E402
from support.server import ServerFailed  # noqa: E402

# What ends a reign. The last three leave the primary where it is.
STRIKES = {"kill": 30, "kill_both": 15, "freeze": 15, "switch": 10, "bounce": 15, "power": 10, "none": 10}
TAME = {"kill": 50, "freeze": 30, "none": 20}  # what Redis survives
REFUSED = ("READONLY", "FENCED", "MASTERDOWN", "NOREPLICAS", "MISCONF", "UNBLOCKED", "LOADING")
WAIT_MS = 1000
LEVELS = ["replicas:1", "replicas:1:disk", "wait", "replicas:2"]


class Refused(Exception):
    """The node takes no writes; this one and those behind it have no effect."""


class Client(threading.Thread):
    """One connection for one reign: checks its keys, then writes until the connection ends."""

    def __init__(self, node, ledger, database, shared, options):
        super().__init__(daemon=True)
        self.node, self.ledger, self.database, self.shared, self.options = node, ledger, database, shared, options
        self.conn = None
        self.over = threading.Event()
        self.checked = threading.Event()
        self.go = threading.Event()
        self.failure = None
        self.survived = self.unconfirmed = 0

    def cut(self):
        """The reign is over: also for who waits for a frozen node."""
        self.over.set()
        self.go.set()
        conn = self.conn
        if conn is not None:
            try:
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def run(self):
        try:
            while not self.over.is_set():
                try:
                    with self.node.connect(timeout=30) as self.conn:
                        self.live()
                except (*GONE, Refused):
                    time.sleep(0.01)
        except (Mismatch, AssertionError) as error:
            self.failure = error
        finally:
            self.checked.set()

    def live(self):
        conn = self.conn
        conn.ok("SELECT", self.database)
        if self.options.ack != "wait":
            conn.ok("CLIENT", "ACK", self.options.ack)
        self.check()
        self.checked.set()
        self.go.wait()
        while not self.over.is_set():
            self.batch()

    def confirmed(self):
        """WAIT's part: everything that this connection has written is on a replica, too."""
        if self.options.ack != "wait":
            return True
        reply = self.conn.call("WAIT", 1, WAIT_MS)
        return isinstance(reply, int) and reply >= 1

    def read_keys(self, keys):
        """What the keys are, as it can't be lost any more; None: that isn't said yet. A write goes first: a primary that is about to fetch what it
        lost from its replicas answers reads with what it has, and holds writes."""
        if self.conn.call("SET", b"mark:" + self.ledger.name, "0") != "OK":
            return None
        get = "GET" if self.node.is_redis else "GETVER"
        words = [c for key in keys for c in ((get, key), ("PEXPIRETIME", key))]
        replies = self.conn.pipeline(words + [("SET", b"mark:" + self.ledger.name, "1")])
        if isinstance(replies[-1], Error) or any(isinstance(r, Error) and r.code == "UNCONFIRMED" for r in replies) or not self.confirmed():
            return None
        for reply in replies:
            if isinstance(reply, Error):
                raise Mismatch("%s: a key can't be read: %s" % (self.ledger.name, reply))
        found = {}
        for i, key in enumerate(keys):
            value, version = (replies[2 * i], 0) if self.node.is_redis else replies[2 * i]
            found[key] = (value, replies[2 * i + 1], version)
        return found

    def check(self):
        """Only what the level of acknowledgement covers is taken over: what else is there may still be lost."""
        keys = list(self.ledger.writer.keys)
        self.ledger.rng.shuffle(keys)
        while not self.over.is_set():
            began_ms = now_ms()
            found = self.read_keys(keys)
            if found is not None:
                self.survived += self.ledger.reconcile(found, began_ms, now_ms())
                return
            time.sleep(0.02)

    def draw(self):
        ledger = self.ledger
        kind = ledger.rng.random() if self.shared is not None else 1
        if kind < 0.1:
            step = Step(ledger.next_write, [("INCR", ledger.rng.choice(SHARED))], False)
            ledger.next_write += 1
            step.replies = step.apply(ledger.ahead)
            ledger.pending.append(step)
            return step
        return ledger.next_step(now_ms(), PAIR if kind < 0.6 else ())

    def batch(self):
        """Some steps at once. A reply that confirms one confirms all before it: they are in the log in this order."""
        ledger, conn = self.ledger, self.conn
        steps = [self.draw() for _ in range(ledger.rng.randrange(1, PIPELINE_MAX))]
        asked = ledger.rng.sample(ledger.writer.keys, 2) if not self.node.is_redis and ledger.rng.random() < 0.5 else []
        if self.shared is not None:
            for step in steps:
                self.shared.will_send(step)
        conn.send_raw(b"".join(encode(*words) for step in steps for words in step.wire())
                      + b"".join(encode("GETVER", key) for key in asked))
        done = []
        for step in steps:
            replies = [conn.read() for _ in step.expected()]
            if self.judge(step, replies):
                done.append((step, replies[-1] if step.is_transaction else replies))
                if self.options.ack != "wait":
                    self.acknowledge(done)
        versions = [(key, conn.read()) for key in asked]
        if self.options.ack == "wait" and self.confirmed():
            self.acknowledge(done)
        if not ledger.pending:
            for key, reply in versions:
                if not isinstance(reply, Error):
                    ledger.note_version(key, *reply)

    def judge(self, step, replies):
        """False: applied here, but not confirmed."""
        for reply in replies:
            if isinstance(reply, Error) and reply.code in REFUSED:
                raise Refused(reply)
            if isinstance(reply, Error) and reply.code == "EXECABORT":
                raise Refused(reply)
            if isinstance(reply, Error) and reply.code == "UNCONFIRMED":
                self.unconfirmed += 1
                return False
        for reply, wanted in zip(replies, step.expected()):
            check_reply(self.ledger.name, step, reply, wanted)
        return True

    def acknowledge(self, done):
        """What was done, and what was sent before it."""
        for step, replies in done:
            if self.shared is not None:
                self.shared.answered(step, replies)
            while step in self.ledger.pending:
                self.ledger.acknowledge()
        done.clear()


class Campaign:
    def __init__(self, args):
        self.args = args
        self.rng = random.Random(args.seed)
        root = Path(args.dir or "/tmp") / ("dcache-failover-%d-%d" % (args.seed, os.getpid()))
        root.mkdir(parents=True)
        secret = {}
        if args.encrypted:
            (root / "key").write_text("%064x\n" % self.rng.getrandbits(256))
            (root / "key").chmod(0o600)
            secret = {"ours-replication-key-file": root / "key"}
        self.cluster = Cluster(args.nodes, root, **secret)
        self.is_redis = self.cluster[0].is_redis
        if self.is_redis:
            args.ack = "wait"
        self.shared = SharedCounters()
        self.ledgers = [Ledger(b"c%d" % i, args.seed * 1000 + i, i >= args.clients // 2) for i in range(args.clients)]
        self.primary = None
        self.lost = {}  # node -> when it comes back
        self.clients = []
        self.counts = dict.fromkeys(STRIKES, 0)
        self.reigns = self.survived = self.unconfirmed = self.replica_kills = self.settled = self.compared = 0
        weights = TAME if self.is_redis else STRIKES
        self.frail = args.ack in ("wait", "replicas:1")  # two kills in a row may lose something
        self.to_catch_up = {}  # frail: replica that was killed -> the head that it has to reach
        self.strikes = {k: weights[k] for k in weights if (not args.strikes or k in args.strikes.split(","))
                        and not (self.frail and k == "kill_both")}

    def say(self, *words):
        if self.args.verbose:
            print("%8.3f %s" % (time.monotonic() - self.began, " ".join(map(str, words))), flush=True)

    # --- nodes ---

    def options(self):
        rng = self.rng
        return {"ours-appendfsync": rng.choice(["always", "everysec", "everysec", "no"]),
                "ours-log-segment-size": rng.choice(["1mb", "1mb", "4mb"]),
                "ours-snapshot-log-size": rng.choice(["0", "2mb", "8mb"]),
                "ours-snapshot-keep": rng.choice([1, 2]),
                "ours-warm-restart": rng.choice(["lazy", "full"])}

    def followers(self):
        """Nodes that follow the primary, or would if they ran."""
        return [n for n in self.cluster.others(self.primary) if n not in self.lost]

    def bring_back(self, everybody=False):
        """Old primaries whose time has come. They think that they still are."""
        for node, moment in list(self.lost.items()):
            if not everybody and time.monotonic() < moment:
                continue
            del self.lost[node]
            if node.frozen:
                self.say("thaw", node)
                node.thaw()
            elif not node.alive():
                self.say("start", node)
                node.start(**self.options())
            node.follow(self.primary)

    def bring_up_followers(self):
        for node in self.followers():
            if node.frozen:
                node.thaw()
            if not node.alive():
                node.launch(**self.options())
                if self.primary.alive() and not self.primary.frozen:
                    self.to_catch_up[node] = self.primary.offset()
        for node in self.followers():
            node.wait_ready()
            state = node.repl()  # a node that is killed right behind REPLICAOF may have forgotten it
            if state["role"] != "slave" or int(state["master_port"]) != self.primary.port:
                node.follow(self.primary)

    def succeed(self):
        """The old primary is gone, or thinks otherwise: the replica that has the most is promoted."""
        self.bring_up_followers()
        offsets = {n: n.offset() for n in self.followers()}
        new = max(offsets, key=offsets.get)
        self.say("promote", new, {n.name: o for n, o in offsets.items()})
        old, self.primary = self.primary, new
        new.promote()
        for node in offsets:
            if node is not new:
                node.follow(new)
        return old

    # --- one reign ---

    def crown(self):
        """Clients come and look."""
        self.bring_up_followers()
        half = len(self.ledgers) // 2
        self.clients = [Client(self.primary, ledger, 0 if i < half else i, self.shared if i < half else None, self.args)
                        for i, ledger in enumerate(self.ledgers)]
        for client in self.clients:
            client.start()
        deadline = time.monotonic() + 30 * slowness()
        for client in self.clients:
            while not client.checked.wait(0.05) and time.monotonic() < deadline:
                self.bring_back()  # perhaps nobody else is there to confirm
            if not client.checked.is_set():
                raise Mismatch("%s can't check its keys on %s\n%s\n%s" % (
                    client.ledger.name, self.primary, self.primary.repl(), self.primary.last_output()[-3000:]))
        self.raise_failures()
        self.reconcile_counters()
        for client in self.clients:
            client.go.set()

    def reconcile_counters(self):
        with self.primary.connect(timeout=30) as conn:
            def at_level():
                if self.args.ack != "wait":
                    return True
                conn.ok("SET", "mark:counters", "1")
                return conn.ok("WAIT", 1, WAIT_MS) >= 1
            if self.args.ack != "wait":
                conn.ok("CLIENT", "ACK", self.args.ack)
            eventually(lambda: conn.call("SET", "mark:counters", "0") == "OK", 30)
            self.shared.reconcile(conn)
            eventually(at_level, 30)

    def raise_failures(self):
        for client in self.clients:
            if client.failure is not None:
                raise client.failure

    def dethrone(self):
        for client in self.clients:
            client.cut()
        for client in self.clients:
            client.join(30)
            if client.is_alive():
                raise Mismatch("%s hangs" % client.ledger.name)
            self.survived += client.survived
            self.unconfirmed += client.unconfirmed
        self.raise_failures()

    def trouble(self, seconds):
        """Replicas come and go, one at a time: one of them must be there to confirm."""
        deadline = time.monotonic() + seconds
        down = None
        while time.monotonic() < deadline:
            self.bring_back()
            time.sleep(min(self.rng.uniform(0.02, 0.3), max(deadline - time.monotonic(), 0)))
            self.raise_failures()
            if not self.primary.alive():
                raise ServerFailed("%s ended: %s" % (self.primary, self.primary.last_output()[-4000:]))
            if self.is_redis:
                continue
            if down is not None:
                down.thaw()
                if not down.alive():
                    down.launch(**self.options())
                    down.wait_ready()
                    self.to_catch_up[down] = self.primary.offset()
                down = None
            elif self.rng.random() < 0.4 and len(self.followers()) > 1:
                down = self.rng.choice(self.followers())
                self.say("replica", down)
                if self.rng.random() < 0.7:
                    self.end(down)
                    self.replica_kills += 1
                    if not self.frail and self.rng.random() < 0.3 and self.args.ack.endswith("disk"):
                        self.say("lost", power.lose_what_is_not_durable(down.dir, self.told_durable(down)), "bytes")
                else:
                    down.freeze()

    def told_durable(self, node):
        """What the primary knows to be on the disk of a replica: it may have been acknowledged. The mark in the file may be older."""
        for name, line in self.primary.repl().items():
            fields = dict(word.split("=", 1) for word in line.split(",") if "=" in word)
            if name.startswith("slave") and fields.get("port") == str(node.port):
                return int(fields["durable"])
        return 2 ** 63  # it is gone already: nothing is taken

    def wait_for_the_frail(self):
        self.bring_up_followers()
        for node, head in self.to_catch_up.items():
            if node in self.followers():
                eventually(lambda n=node, h=head: n.follows(self.primary) and n.offset() >= h, 30,
                           lambda n=node, h=head: "%s doesn't get to %d: %s\n%s" % (n, h, n.repl(), n.last_output()[-3000:]))
        self.to_catch_up.clear()

    def strike(self):
        """Ends the reign."""
        kind, = self.rng.choices(list(self.strikes), self.strikes.values())
        if self.frail and not self.is_redis:
            self.wait_for_the_frail()
        if self.is_redis:
            for node in self.followers():
                eventually(lambda n=node: n.follows(self.primary), 30)
            if self.lost:
                kind = "none"
        self.say("strike", kind, self.primary)
        self.counts[kind] += 1
        absence = time.monotonic() + self.rng.choice([0.0, 0.3, 1.0, self.args.freeze_seconds])
        if kind in ("kill", "kill_both"):
            victims = [self.primary]
            if kind == "kill_both" and self.followers():
                victims.append(self.rng.choice(self.followers()))
            for node in victims:
                self.end(node)
            self.dethrone()
            self.lost[self.succeed()] = absence
        elif kind == "freeze":
            self.primary.freeze()
            self.dethrone()
            self.lost[self.succeed()] = absence
        elif kind == "switch":  # a promotion that the old primary hears of later
            self.dethrone()
            self.lost[self.succeed()] = 0
        elif kind == "bounce":  # faster than anybody can promote
            self.end(self.primary)
            time.sleep(self.rng.uniform(0, 0.2))
            self.primary.start(**self.options())
            self.dethrone()
        elif kind == "power":  # the same, and what wasn't durable is gone: the replicas have it
            self.power_cut()
            self.dethrone()
        else:
            self.dethrone()

    def end(self, node):
        """By kill -9, or now and then in order, whatever it is doing."""
        if self.rng.random() < 0.25:
            node.terminate()
        else:
            node.kill()

    def power_cut(self):
        node = self.primary
        node.kill()
        self.bring_up_followers()
        lost = power.lose_what_is_not_durable(node.dir)
        if power.can_reboot():
            node.wrapper = power.rebooted(self.cluster.folder, self.reigns)
        self.say("lost", lost, "bytes")
        node.start(**self.options())

    def settle(self):
        """Everybody has everything."""
        self.bring_back(everybody=True)
        self.bring_up_followers()
        self.cluster.wait_synced(self.primary, timeout=60)
        keys = self.cluster.check_equal()
        self.compared += self.cluster.check_logs()
        self.cluster.check()
        self.settled += 1
        self.say("settled,", keys, "keys,", self.compared, "bytes of log compared,", {n.name: n.counters()["sync_full"] for n in self.cluster})

    def run(self):
        self.began = time.monotonic()
        self.primary = self.cluster.start(0)
        while time.monotonic() - self.began < self.args.seconds or self.reigns < self.args.reigns:
            self.crown()
            self.trouble(self.rng.uniform(0.05, self.args.reign_seconds))
            self.strike()
            self.reigns += 1
            if self.rng.random() < 0.2:
                self.settle()
        self.crown()
        self.dethrone()
        self.settle()
        print("%d reigns (%s), %d kills of replicas; %d steps acknowledged or found, %d of them found without an acknowledgement, %d unconfirmed; "
              "%d times all were equal, %d bytes of log compared; %.1f s" % (
                  self.reigns, ", ".join("%s %d" % c for c in self.counts.items() if c[1]), self.replica_kills,
                  sum(ledger.acknowledged for ledger in self.ledgers), self.survived, self.unconfirmed, self.settled, self.compared,
                  time.monotonic() - self.began))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="go on for so long")
    parser.add_argument("--reigns", type=int, default=3, help="at least so many")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--ack", choices=LEVELS, help="how confirmation is asked for; else by the seed")
    parser.add_argument("--encrypted", action="store_true", help="links with a key; also by every third seed")
    parser.add_argument("--strikes", help="only these, with commas between: " + " ".join(STRIKES))
    parser.add_argument("--reign-seconds", type=float, default=1.5, help="the longest reign")
    parser.add_argument("--freeze-seconds", type=float, default=2.0, help="the longest absence of an old primary")
    parser.add_argument("--dir", help="where the directories are made")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if args.seed is None:
        args.seed = int.from_bytes(os.urandom(3), "little")
    if args.ack is None:
        args.ack = LEVELS[args.seed % len(LEVELS)]
    args.encrypted = args.encrypted or args.seed % 3 == 0
    return args


def main():
    args = parse()
    print("failover.py --seed %d --ack %s%s" % (args.seed, args.ack, " --encrypted" if args.encrypted else ""), flush=True)
    campaign = Campaign(args)
    try:
        campaign.run()
    except (Mismatch, ServerFailed, AssertionError, *GONE) as error:
        for node in campaign.cluster:
            if args.verbose and node.alive() and shutil.which("gdb"):
                print("--- threads of", node, flush=True)
                subprocess.run(["gdb", "-p", str(node.process.pid), "-batch", "-ex", "thread apply all bt 14"], stderr=subprocess.DEVNULL, check=False)
            node.kill()
        print("FAILED in reign %d: %s\nkept: %s" % (campaign.reigns, error, campaign.cluster.folder))
        return 1
    for node in campaign.cluster:
        node.kill()
    shutil.rmtree(campaign.cluster.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
