#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Kills a server again and again while clients write, and looks whether everything that it acknowledged is there.

    kill.py [--kills 10] [--seed N] [--seconds 0] [--dir D] [--setting everysec]

Each client has a ledger (ledger.py). A round: start (lazily, so that the checks run on cold ranges), compare every key with the ledgers, write until
a random moment, kill -9. What a round does besides is drawn from the seed: appendfsync, length of segments, snapshots that run when
the kill comes, snapshots by growth of the log, kills of the restart itself, an orderly end now and then, runs without a log in between. The seed is printed; after a failure
the directory with all files is kept.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crash.ledger import Ledger, Mismatch, Step, check_reply, shorter  # noqa: E402
from support.pace import slowness  # noqa: E402
from support.resp import Closed, Conn, Error, encode  # noqa: E402
from support.server import BAD_OUTPUT, Server, ServerFailed, free_port, server_binary  # noqa: E402

SETTINGS = ("always", "everysec", "no")
PIPELINE_MAX = 24
BALLAST_DB = 15
SCRATCH_DB = 14  # what is written without a log
START_TIMEOUT_S = 20
SHARED = [b"shared:%d" % i for i in range(3)]
PAIR = [b"shared:pair:a", b"shared:pair:b"]  # always counted together
GONE = (Closed, ConnectionError, BrokenPipeError)


def now_ms():
    return int(time.time() * 1000)


class Node(Server):
    """A server on one directory that is started and killed often. Doesn't wait for the start."""

    def __init__(self, directory):  # pylint: disable=super-init-not-called
        self.binary, self.is_redis, self.conf = server_binary(), False, None
        self.dir, self.options, self.process = Path(directory), {}, None
        self.log_path = self.dir.parent / "output.log"

    def launch(self, **options):
        self.options = options
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        with open(self.log_path, "ab") as log:
            log.write(b"--- %s\n" % " ".join(self.command_line()).encode())
            log.flush()
            self.output_start = log.tell()
            self.process = self.popen(stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def output(self):
        """Of this run."""
        with open(self.log_path, "rb") as log:
            log.seek(self.output_start)
            return log.read().decode("utf-8", "replace")

    def check_output(self):
        bad = BAD_OUTPUT.search(self.output())
        if bad:
            raise ServerFailed(self.output()[bad.start():][:6000])

    def reach(self):
        """A connection, as soon as there can be one."""
        deadline = time.monotonic() + START_TIMEOUT_S * slowness()
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailed("exit code %d at start\n%s" % (self.process.returncode, self.output()[-4000:]))
            try:
                return Conn(self.address, timeout=30)
            except OSError:
                time.sleep(0.002)
        raise ServerFailed("no connection\n" + self.output()[-4000:])


class SharedCounters:
    """Counters that all clients increment: no increment is lost, none is given to two."""

    def __init__(self):
        self.lock = threading.Lock()
        self.base = {key: 0 for key in SHARED + PAIR}  # when it was last read at a start
        self.sent = dict.fromkeys(self.base, 0)  # since then
        self.seen = {key: set() for key in self.base}

    def will_send(self, step):
        with self.lock:
            for words in step.commands:
                if words[0] == "INCR" and words[1] in self.sent:
                    self.sent[words[1]] += 1

    def answered(self, step, replies):
        with self.lock:
            for words, reply in zip(step.commands, replies):
                if words[0] == "INCR" and words[1] in self.sent:
                    key = words[1]
                    if reply in self.seen[key] or not self.base[key] < reply <= self.base[key] + self.sent[key]:
                        raise Mismatch("%s was counted to %d twice or without reason" % (key, reply))
                    self.seen[key].add(reply)

    def reconcile(self, conn):
        keys = list(self.base)
        values = dict(zip(keys, (int(v or 0) for v in conn.ok("MGET", *keys))))
        for key, value in values.items():
            least = max(self.seen[key], default=self.base[key])
            if not least <= value <= self.base[key] + self.sent[key]:
                raise Mismatch("%s is %d: %d was acknowledged, %d sent" % (key, value, least,
                                                                          self.base[key] + self.sent[key]))
        if values[PAIR[0]] != values[PAIR[1]]:
            raise Mismatch("half of a transaction: %s" % {k: values[k] for k in PAIR})
        self.base = values
        self.sent = dict.fromkeys(self.base, 0)
        self.seen = {key: set() for key in self.base}


class Client(threading.Thread):
    """One connection for one life of the server: checks its keys, then writes until the end."""

    def __init__(self, node, ledger, database, shared, go):
        super().__init__(daemon=True)
        self.node, self.ledger, self.database, self.shared, self.go = node, ledger, database, shared, go
        self.checked = threading.Event()
        self.failure = None
        self.survived = None

    def run(self):
        try:
            with self.node.reach() as conn:
                conn.ok("SELECT", self.database)
                self.check(conn)
                self.checked.set()
                self.go.wait()
                while True:
                    self.batch(conn)
        except GONE:
            pass
        except ServerFailed as error:
            self.failure = None if self.node.process.returncode == -signal.SIGKILL else error
        except (Mismatch, AssertionError, TimeoutError) as error:
            self.failure = error
        finally:
            self.checked.set()

    def check(self, conn):
        ledger = self.ledger
        keys = list(ledger.writer.keys)
        ledger.rng.shuffle(keys)
        began_ms = now_ms()
        replies = conn.pipeline([c for key in keys for c in (("GETVER", key), ("PEXPIRETIME", key))])
        for reply in replies:
            if isinstance(reply, Error):
                raise Mismatch("%s: a key can't be read: %s" % (ledger.name, reply))
        found = {key: (replies[2 * i][0], replies[2 * i + 1], replies[2 * i][1]) for i, key in enumerate(keys)}
        self.survived = ledger.reconcile(found, began_ms, now_ms())
        if ledger.writer.has_database and ledger.rng.random() < 0.3:
            self.check_names(conn)

    def check_names(self, conn):
        """A database of his own holds his keys and no others, and says so in all ways."""
        cursor, names = b"0", set()
        while True:
            cursor, some = conn.ok("SCAN", cursor, "COUNT", 100)
            names.update(some)
            if cursor == b"0":
                break
        lasting = {key for key, e in self.ledger.state.items() if e.expires_ms is None or e.expires_ms > now_ms() + 10 ** 6}
        if not lasting <= names <= set(self.ledger.state):
            raise Mismatch("%s: SCAN gives %s, the ledger has %s" % (self.ledger.name, sorted(names),
                                                                     sorted(self.ledger.state)))
        names = set(conn.ok("KEYS", "*"))
        if not lasting <= names <= set(self.ledger.state):
            raise Mismatch("%s: KEYS gives %s, the ledger has %s" % (self.ledger.name, sorted(names),
                                                                     sorted(self.ledger.state)))

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

    def batch(self, conn):
        ledger = self.ledger
        steps = [self.draw() for _ in range(ledger.rng.randrange(1, PIPELINE_MAX))]
        asked = ledger.rng.sample(ledger.writer.keys, 2) if ledger.rng.random() < 0.5 else []
        if self.shared is not None:
            for step in steps:
                self.shared.will_send(step)
        conn.send_raw(b"".join(encode(*words) for step in steps for words in step.wire())
                      + b"".join(encode("GETVER", key) for key in asked))
        for step in steps:
            expected = step.expected()
            replies = [conn.read() for _ in expected]
            for reply, wanted in zip(replies, expected):
                check_reply(ledger.name, step, reply, wanted)
            if self.shared is not None:
                self.shared.answered(step, replies[-1] if step.is_transaction else replies)
            ledger.acknowledge()
        for key in asked:
            value, version = conn.read()
            ledger.note_version(key, value, version)


class Ballast:
    """Many keys that never change, so that there is something to load and to walk over."""

    def __init__(self, count):
        self.count = count

    @staticmethod
    def pair(i):
        return b"ballast:%d" % i, (b"%d/" % i) * (5 + i % 17)

    def write(self, conn):
        conn.ok("SELECT", BALLAST_DB)
        for start in range(0, self.count, 1000):
            pairs = [self.pair(i) for i in range(start, min(start + 1000, self.count))]
            conn.ok("MSET", *(w for pair in pairs for w in pair))

    def check(self, conn, rng, everything):
        conn.ok("SELECT", BALLAST_DB)
        for _ in range(20):
            some = [self.pair(rng.randrange(self.count)) for _ in range(5)]
            found = conn.ok("MGET", *(key for key, _ in some))
            for (key, value), got in zip(some, found):
                if got != value:
                    raise Mismatch("%s is %s" % (key, got and shorter(got)))
        if everything and (size := conn.ok("DBSIZE")) != self.count:
            raise Mismatch("%d keys of %d are there" % (size, self.count))
        conn.ok("SELECT", 0)


class Campaign:
    def __init__(self, args):
        self.args = args
        self.rng = random.Random(args.seed)
        root = Path(args.dir or "/tmp") / ("dcache-kill-%d-%d" % (args.seed, os.getpid()))
        (root / "data").mkdir(parents=True)
        self.root = root
        self.node = Node(root / "data")
        self.shared = SharedCounters()
        self.ledgers = [Ledger(b"c%d" % i, args.seed * 1000 + i, i >= args.clients // 2) for i in range(args.clients)]
        self.ballast = Ballast(args.ballast)
        self.kills = self.acknowledged = self.survived = self.early = self.unlogged = self.rounds = 0

    def options(self):
        rng = self.rng
        setting = self.args.setting or rng.choice(SETTINGS)
        return {"appendfsync": setting, "threads": 2, "save": "", "warm-threads": rng.choice([1, 2]),
                "warm-restart": rng.choice(["lazy", "lazy", "lazy", "full"]),
                "log-segment-size": rng.choice(["1mb", "1mb", "4mb", "64mb"]),
                "log-buffer-size": rng.choice(["1mb", "16mb", "128mb"]),
                "snapshot-keep": rng.choice([1, 1, 2]),
                "snapshot-log-size": rng.choice(["0", "1mb", "4mb"]),
                "snapshot-threads": rng.choice([1, 2])}

    def kill(self):
        self.node.process.kill()
        self.node.process.wait()

    def kill_early(self):
        """The restart itself is killed, also while it reads and cuts."""
        while self.rng.random() < 0.35:
            self.node.launch(**self.options())
            time.sleep(self.rng.uniform(0.0, 0.2))
            if self.node.process.poll() is not None:
                raise ServerFailed("exit code %d at start\n%s" % (self.node.process.returncode, self.node.output()[-4000:]))
            self.kill()
            self.early += 1

    def run_without_a_log(self):
        """Killed, mostly while it writes a snapshot, or one for a log that begins. What it wrote itself may be lost, as a whole; nothing else."""
        self.node.launch(**{**self.options(), "appendonly": "no"})
        with self.node.reach() as conn:
            conn.ok("SELECT", SCRATCH_DB)
            a, b = conn.ok("MGET", "a", "b")
            if a != b:
                raise Mismatch("half of a transaction of a run without a log: %s, %s" % (a, b))
            conn.ok("SCAN", 0)  # snapshots wait until all is loaded, and so does this
            deadline = time.monotonic() + self.rng.uniform(0.0, 0.3)
            while time.monotonic() < deadline:
                if self.rng.random() < 0.3:
                    conn.ok("CONFIG", "SET", "appendonly", self.rng.choice(["yes", "no"]))
                conn.call("BGSAVE")
                for i in range(self.rng.randrange(200)):
                    conn.pipeline([("MULTI",), ("SET", "a", i), ("SET", "b", i), ("EXEC",)])
        self.kill()
        self.node.check_output()
        self.unlogged += 1

    def pause_the_log(self, conn):
        """From the new log's first snapshot on everything that was acknowledged is promised again."""
        conn.ok("CONFIG", "SET", "appendonly", "no")
        time.sleep(self.rng.uniform(0.0, 0.05))
        conn.ok("CONFIG", "SET", "appendonly", "yes")
        deadline = time.monotonic() + START_TIMEOUT_S * slowness()
        while b"aof_rewrite_in_progress:1" in conn.ok("INFO", "persistence"):
            if time.monotonic() > deadline:
                raise Mismatch("the log's first snapshot doesn't come")
            time.sleep(0.002)

    def trouble(self, clients, moment):
        """Until the moment to end: snapshots, now and then a time without a log."""
        deadline = time.monotonic() + moment
        saves = self.rng.random() < 0.6
        with self.node.reach() as conn:
            if self.rng.random() < 0.25:
                self.pause_the_log(conn)
            while (left := deadline - time.monotonic()) > 0:
                if saves:
                    reply = conn.call("BGSAVE")
                    if isinstance(reply, Error) and "in progress" not in reply:
                        raise Mismatch("BGSAVE: " + reply)
                time.sleep(min(left, self.rng.uniform(0.02, 0.3)))
        for client in clients:
            if client.failure is not None:
                raise client.failure

    def end(self):
        """Mostly a kill."""
        if self.rng.random() < 0.1:
            self.node.process.terminate()
            if self.node.wait(20) != 0:
                raise ServerFailed("exit code %d\n%s" % (self.node.process.returncode, self.node.output()[-4000:]))
            return
        self.kill()
        self.kills += 1

    def round(self):
        try:
            self.life()
        except GONE:
            pass  # says why below
        if self.node.process.returncode not in (0, -signal.SIGKILL):
            raise ServerFailed("the server ended: %d\n%s" % (self.node.process.returncode, self.node.output()[-4000:]))
        self.rounds += 1

    def life(self):
        """A start, the checks, load, an end."""
        self.kill_early()
        while self.rng.random() < 0.15:
            self.run_without_a_log()
        self.node.launch(**self.options())
        go = threading.Event()
        clients = [Client(self.node, ledger, 0 if i < len(self.ledgers) // 2 else i,
                          self.shared if i < len(self.ledgers) // 2 else None, go) for i, ledger in enumerate(self.ledgers)]
        try:
            with self.node.reach() as conn:
                for client in clients:
                    client.start()
                self.shared.reconcile(conn)
                if self.rounds == 0:
                    self.ballast.write(conn)
                self.ballast.check(conn, self.rng, self.rng.random() < 0.3)
            for client in clients:
                client.checked.wait()
                if client.failure is not None:
                    raise client.failure
            self.survived += sum(c.survived for c in clients)
            go.set()
            self.trouble(clients, self.rng.uniform(0.02, self.args.round_seconds))
            self.end()
        finally:
            self.node.kill()
            go.set()
            for client in clients:
                if client.ident is not None:
                    client.join(30)
        self.node.check_output()
        for client in clients:
            if client.failure is not None:
                raise client.failure

    def run(self):
        began = time.monotonic()
        while self.kills < self.args.kills or time.monotonic() - began < self.args.seconds:
            self.round()
        total = sum(ledger.acknowledged for ledger in self.ledgers)
        print("%d kills under load, %d at the start, %d without a log, %d orderly ends; %d steps found again, %d of them had not been acknowledged; %.1f s"
              % (self.kills, self.early, self.unlogged, self.rounds - self.kills, total, self.survived, time.monotonic() - began))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="end after so many under load")
    parser.add_argument("--seconds", type=float, default=0, help="go on at least so long")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--ballast", type=int, default=20_000, help="keys that never change")
    parser.add_argument("--round-seconds", type=float, default=1.0, help="the longest life of a server under load")
    parser.add_argument("--setting", choices=SETTINGS, help="appendfsync; else drawn for every start")
    parser.add_argument("--dir", help="where the directory is made")
    args = parser.parse_args()
    if args.seed is None:
        args.seed = int.from_bytes(os.urandom(3), "little")
    return args


def main():
    args = parse()
    print("kill.py --seed %d --kills %d" % (args.seed, args.kills), flush=True)
    campaign = Campaign(args)
    try:
        campaign.run()
    except (Mismatch, ServerFailed, AssertionError, TimeoutError) as error:
        campaign.node.kill()
        print("FAILED in round %d, after %d kills: %s\nkept: %s" % (campaign.rounds, campaign.kills, error, campaign.root))
        return 1
    shutil.rmtree(campaign.root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
