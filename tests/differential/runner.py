# SPDX-License-Identifier: BSD-3-Clause
"""Runs a script against a redis-server and the server under test, step by step, and stops at the first difference.

The redis-server is the oracle for how many messages a step causes on which connection: it has one thread, so a PING
on a control connection, sent after the reply, comes back when all pushes of the step are on their way. The server under
test then owes the same messages, within a time limit because its threads may deliver pushes later than the reply; what
it sends too much shows up in the next step, or in the check at the end.
"""
import time
from collections import Counter
from dataclasses import dataclass, field
from os.path import commonprefix

from differential import compare
from differential.commands import CONFIG
from differential.gen import is_subscription
from differential.ops import Op, format_op, wire
from support.resp import Closed, Conn, Error, decode, encode

REPLY_LIMIT_S = 10.0
COMMANDS = ("cmd", "inline")
EOF = b"(connection closed)"
SILENCE = b"(nothing within %d s)" % REPLY_LIMIT_S


@dataclass
class Mismatch(Exception):
    """Where and how the two servers differ."""
    op: Op
    redis: list
    dcache: list
    note: str = ""

    def __str__(self):
        same = len(commonprefix([b"".join(self.redis), b"".join(self.dcache)]))
        return "%s%s\n  redis\n%s\n  dcache\n%s" % (format_op(self.op)[:4000], self.note and "   <- " + self.note,
                                                  show(self.redis, same), show(self.dcache, same))


def show(messages, same):
    """Replies for people: long ones are cut to what surrounds the first difference."""
    lines = []
    for message in messages:
        start = max(min(same, len(message)) - 300, 0) if len(message) > 1000 else 0
        cut = message[start:start + 1000]
        lines.append("    %s%r%s" % ("... " if start else "", cut, " ..." if len(message) > start + 1000 else ""))
        same = max(same - len(message), 0)
    return "\n".join(lines) or "    (nothing)"


@dataclass
class Client:
    """One numbered connection of the script, opened on both servers."""
    redis: Conn
    dcache: Conn
    proto: int = 2
    in_multi: bool = False
    subscribed: bool = False  # since the last RESET
    queue: list = field(default_factory=list)


class Runner:
    def __init__(self, redis, dcache, settings=()):
        """redis and dcache are Servers; settings are pairs for CONFIG SET on both before each script."""
        self.servers = (redis, dcache)
        self.settings = [(n, v[0]) for n, v in CONFIG.items()] + list(settings)
        self.clients = {}
        self.control = None
        self.protos = {}
        self.seen = Counter()  # (command, kind of reply): what a run has covered

    # --- connections ---

    def reset(self):
        """Both servers empty and configured as at the start, no connection open."""
        self.close()
        for server in self.servers:
            if not server.alive():
                server.start()
        self.control = [s.connect() for s in self.servers]
        for conn in self.control:
            conn.ok("FLUSHALL")
            for name, value in self.settings:
                conn.ok("CONFIG", "SET", name, value)
        self.protos = {}

    def close(self):
        for client in self.clients.values():
            client.redis.close()
            client.dcache.close()
        for conn in self.control or ():
            try:
                conn.call("CONFIG", "SET", "requirepass", "")  # a script may have left one
            except (ConnectionError, TimeoutError):
                pass
            conn.close()
        self.clients, self.control = {}, None

    def client(self, number):
        if number not in self.clients:
            proto = self.protos.get(number, 2)
            conns = [server.connect(timeout=REPLY_LIMIT_S) for server in self.servers]
            client = self.clients[number] = Client(*conns, proto=proto)
            if proto != 2:
                for conn in (client.redis, client.dcache):
                    conn.call("HELLO", proto)  # may fail while a script has set a password
        return self.clients[number]

    # --- a script ---

    def run(self, ops):
        """Returns None, or the Mismatch and how many ops were run until then."""
        done = 0
        try:
            self.reset()
            for group in groups(ops):
                done += len(group)
                self.step(group)
            self.check_quiet(ops[-1])
        except Mismatch as found:
            return found, done - len(group) + next((n for n, op in enumerate(group, 1) if op is found.op), len(group))
        except (ConnectionError, TimeoutError) as error:
            if self.servers[1].alive():
                raise
            return Mismatch(ops[done - 1], [], [str(error).encode()], "the server under test is gone"), done
        finally:
            self.close()
        return None

    def step(self, group):
        op = group[0]
        if op.verb == "sleep":
            time.sleep(int(op.args[0]) / 1000)
        elif op.verb == "proto":
            self.set_proto(op)
        elif op.verb == "scan":
            self.scan(op)
        elif op.verb in ("raw", "eof"):
            count = int(op.args[0]) if op.verb == "raw" else None
            self.exchange([op], b"".join(op.args[op.verb == "raw":]), count)
        elif group := [o for o in group if not self.breaks_redis(o)]:
            self.exchange(group, b"".join(map(wire, group)), 0 if is_subscription(op.args[0]) else len(group))

    def breaks_redis(self, op):
        """Redis 7.0 writes pushes and the answers to SUBSCRIBE into the array of an EXEC: that is no RESP any more."""
        client = self.client(op.conn)
        if is_subscription(op.args[0]):
            client.subscribed = not client.in_multi
            return client.in_multi
        client.subscribed = client.subscribed and op.args[0].upper() != b"RESET"
        return client.subscribed and op.args[0].upper() == b"MULTI"

    def set_proto(self, op):
        self.protos[op.conn] = int(op.args[0])
        client = self.client(op.conn)
        if not client.in_multi:
            self.exchange([op._replace(verb="cmd", args=(b"HELLO", op.args[0]))], encode("HELLO", op.args[0]), 1)

    def exchange(self, group, data, replies):
        """Sends data; replies: how many are due, 0 = one message or more, None = whatever comes until the close."""
        client = self.client(group[0].conn)
        send_quietly(client.dcache, data)
        send_quietly(client.redis, data)
        expected = self.collect_redis(client, replies, group[-1])
        for number, messages in expected.items():
            conn = self.clients[number].dcache
            got = [read_one(conn) if m != EOF else read_end(conn) for m in messages]
            if self.clients[number] is client:
                self.compare_own(client, group, messages, got, in_order=replies != 0)
            elif not compare.same_messages(messages, got):
                raise Mismatch(group[-1], messages, got, "pushed to connection %d" % number)
        if expected[group[0].conn][-1:] == [EOF]:
            self.clients.pop(group[0].conn)

    def collect_redis(self, client, replies, op):
        """The messages of this step by number of connection, the issuing one first."""
        own, seen = [], 0
        try:
            while replies is None or seen < max(replies, 1):
                own.append(client.redis.read_raw())
                seen += replies == 0 or not own[-1].startswith(b">")
        except Closed:
            own.append(EOF)
        except TimeoutError as error:
            raise RuntimeError("redis doesn't answer as the script expects: " + format_op(op)) from error
        numbers = {n: c for n, c in self.clients.items() if c is not client}
        found = {next(n for n, c in self.clients.items() if c is client): own, **{n: [] for n in numbers}}
        again = True
        while again:
            self.control[0].ok("PING")
            again = False
            for number, other in self.clients.items():
                if found[number][-1:] == [EOF]:
                    continue
                found[number] += other.redis.drain()
                if other.redis.eof:
                    found[number].append(EOF)
                elif other.redis.buf:  # the rest of a long message
                    found[number].append(other.redis.read_raw())
                    again = True
        return found

    # --- comparison ---

    def compare_own(self, client, group, redis, dcache, in_order):
        if not in_order:
            if not compare.same_messages(redis, dcache, group[0].args):
                raise Mismatch(group[0], redis, dcache)
            return
        left, right = ([m for m in side if not m.startswith(b">")] for side in (redis, dcache))
        ops = group + [group[-1]] * (len(left) - len(group))  # an EOF, or the replies of a raw step
        for op, ours, theirs in zip(ops, left, right):
            self.compare_reply(client, op, ours, theirs)
        pushes = [[m for m in side if m.startswith(b">")] for side in (redis, dcache)]
        if len(left) != len(right) or not compare.same_messages(*pushes):
            raise Mismatch(group[-1], redis, dcache, "pushes differ")

    def compare_reply(self, client, op, ours, theirs):
        if op.verb in COMMANDS:
            name = op.args[0].upper()
            self.seen[name, ours[:70].split(b"'")[0] if ours[:1] == b"-" else ours[:1]] += 1
            queue, client.queue = client.queue, track(client, name, op.args, ours)
            if EOF not in (ours, theirs) and SILENCE != theirs:
                if compare.same_reply(ours, theirs, op.args, queue) and (
                        ours == theirs or name != b"DUMP" or self.same_dump(ours, theirs)):
                    return
        if ours != theirs:
            raise Mismatch(op, [ours], [theirs])

    def same_dump(self, ours, theirs):
        """Two payloads are the same if each server restores the other's to the same value."""
        if not (ours.startswith(b"$") and theirs.startswith(b"$")):
            return False
        payloads = [decode(theirs), decode(ours)]
        if None in payloads:
            return False
        values = []
        for conn, payload in zip(self.control, payloads):
            restored = conn.call("RESTORE", "restored by diff.py", 0, payload, "REPLACE")
            if isinstance(restored, Error):
                return False
            values.append(conn.call("GETDEL", "restored by diff.py"))
        return values[0] == values[1]

    def scan(self, op):
        """A whole iteration on each side: the same keys, each at least once."""
        client = self.client(op.conn)
        if client.in_multi:
            return
        found = []
        for conn in (client.redis, client.dcache):
            keys, cursor = set(), b"0"
            while True:
                raw = conn.call_raw("SCAN", cursor, *op.args)
                reply = decode(raw)
                if not (isinstance(reply, list) and len(reply) == 2):
                    keys = raw
                    break
                cursor = reply[0]
                keys.update(reply[1])
                if cursor == b"0":
                    break
            found.append(keys)
        if found[0] != found[1]:
            raise Mismatch(op, *([repr(sorted(f) if isinstance(f, set) else f).encode()] for f in found))

    def check_quiet(self, op):
        """Nothing may be left over, and the server under test must still be there."""
        time.sleep(0.1)
        self.control[1].ok("PING")
        for number, client in self.clients.items():
            rest = client.dcache.drain()
            if rest or client.dcache.eof:
                raise Mismatch(op, [], rest + [EOF] * client.dcache.eof, "left over on connection %d" % number)


def groups(ops):
    """Steps: runs of joined commands of one connection stay together."""
    group = []
    for op in ops:
        joins = group and op.joined and op.verb in COMMANDS and group[-1].verb in COMMANDS and op.conn == group[-1].conn
        if group and not (joins and not is_subscription(op.args[0]) and not is_subscription(group[-1].args[0])):
            yield group
            group = []
        group.append(op)
    if group:
        yield group


def track(client, name, args, reply):
    """Follows MULTI by what redis answers; returns the queue from here on."""
    if reply == b"+QUEUED\r\n":
        return client.queue + [args]
    if name == b"MULTI" and reply == b"+OK\r\n":
        client.in_multi = True
        return []
    if name in (b"EXEC", b"DISCARD", b"RESET", b"QUIT"):
        client.in_multi = client.in_multi and reply.startswith(b"-ERR wrong number")
        return client.queue if client.in_multi else []
    return client.queue


def send_quietly(conn, data):
    """A server may close while it is still being written to: what counts is what it answers."""
    try:
        conn.send_raw(data)
    except ConnectionError:
        pass


def read_one(conn):
    try:
        return conn.read_raw()
    except TimeoutError:
        return SILENCE
    except ConnectionError:
        return EOF


def read_end(conn):
    """EOF if the connection ends here, otherwise what came instead."""
    try:
        return conn.read_raw()
    except TimeoutError:
        return SILENCE
    except ConnectionError:
        return EOF
