# SPDX-License-Identifier: BSD-3-Clause
"""What a client has sent, what was acknowledged, and which states a server may be in after it was killed.

A client owns its keys. It sends steps (a command, or a transaction); each step changes the state of the keys in one way, which step()
foretells together with the replies. The log keeps the order of a connection, so after a crash the keys must be as they were after the
first n steps, for one n between what was acknowledged and what was sent: nothing acknowledged is missing, nothing is half there, nothing that
was removed is back. Versions that were told are part of it: an entry that wasn't written again has the version that it had.
"""
import random

from support.resp import Error

ANY = object()  # a reply that isn't foretold
FAR_MS = 10 ** 9
CLOCK_MARGIN_MS = 150  # what expires so near to now may be there or not
NO_KEY = "ERR no such key"


class Mismatch(AssertionError):
    """The server isn't in a state that it may be in."""


class Entry:
    """One key: never changed, replaced. `write` is the number of the write that made it: two entries with the same are the same version."""
    __slots__ = ("value", "expires_ms", "write")

    def __init__(self, value, expires_ms, write):
        self.value, self.expires_ms, self.write = value, expires_ms, write

    def __repr__(self):
        return "%r%s (write %d)" % (self.value[:60], "" if self.expires_ms is None else " until %d" % self.expires_ms,
                                    self.write)


def shorter(value):
    return value if value is None or len(value) <= 60 else value[:60] + b"...(%d)" % len(value)


# --- commands: each changes a dict of entries and returns the reply that it must get ------------------------------------

def do_set(state, n, key, value):
    state[key] = Entry(value, None, n)
    return "OK"


def do_set_pxat(state, n, key, value, _, at_ms):
    state[key] = Entry(value, int(at_ms), n)
    return "OK"


def do_getset(state, n, key, value):
    old = state.get(key)
    state[key] = Entry(value, None, n)
    return old and old.value


def do_append(state, n, key, tail):
    old = state.get(key)
    state[key] = Entry((old.value if old else b"") + tail, old and old.expires_ms, n)
    return len(state[key].value)


def do_setrange(state, n, key, at, text):
    old = state.get(key)
    value = old.value if old else b""
    value = value.ljust(at, b"\0")
    state[key] = Entry(value[:at] + text + value[at + len(text):], old and old.expires_ms, n)
    return len(state[key].value)


def do_incrby(state, n, key, by):
    old = state.get(key)
    value = int(old.value if old else 0) + by
    state[key] = Entry(b"%d" % value, old and old.expires_ms, n)
    return value


def do_incr(state, n, key):
    return do_incrby(state, n, key, 1)


def do_getdel(state, _, key):
    old = state.pop(key, None)
    return old and old.value


def do_del(state, _, *keys):
    count = sum(state.pop(key, None) is not None for key in keys)
    return ANY if any(b":f" in key for key in keys) else count  # what expires may be gone


def do_mset(state, n, *pairs):
    for key, value in zip(pairs[::2], pairs[1::2]):
        state[key] = Entry(value, None, n)
    return "OK"


def do_rename(state, n, key, to):
    old = state.pop(key, None)
    if old is None:
        return NO_KEY
    state[to] = Entry(old.value, old.expires_ms, n)
    return "OK"


def do_copy(state, n, key, to, _):
    old = state.get(key)
    if old is not None:
        state[to] = Entry(old.value, old.expires_ms, n)
    return int(old is not None)


def do_pexpireat(state, n, key, at_ms):
    old = state.get(key)
    if old is not None:
        state[key] = Entry(old.value, at_ms, n)
    return int(old is not None)


def do_persist(state, n, key):
    old = state.get(key)
    if old is None or old.expires_ms is None:
        return 0
    state[key] = Entry(old.value, None, n)
    return 1


def do_flushdb(state, *_):
    state.clear()
    return "OK"


def do_get(state, _, key):
    old = state.get(key)
    return old and old.value


def do_incr_shared(*_):
    return ANY


EFFECTS = {"SET": do_set, "GETSET": do_getset, "APPEND": do_append, "SETRANGE": do_setrange, "INCRBY": do_incrby,
           "INCR": do_incr, "GETDEL": do_getdel, "DEL": do_del, "MSET": do_mset, "RENAME": do_rename, "COPY": do_copy,
           "PEXPIREAT": do_pexpireat, "PERSIST": do_persist, "FLUSHDB": do_flushdb, "GET": do_get}


def foretell(state, n, words):
    """Changes the state as the command does; returns its reply."""
    if words[1:] and words[1].startswith(b"shared:"):
        return do_incr_shared()
    if words[0] == "SET" and len(words) == 5:
        return do_set_pxat(state, n, *words[1:])
    return EFFECTS[words[0]](state, n, *words[1:])


class Step:
    """Commands that are applied together or not at all: one, or those between MULTI and EXEC."""
    __slots__ = ("first_write", "commands", "is_transaction", "replies")

    def __init__(self, first_write, commands, is_transaction):
        self.first_write, self.commands, self.is_transaction = first_write, commands, is_transaction
        self.replies = None

    def apply(self, state):
        return [foretell(state, self.first_write + i, words) for i, words in enumerate(self.commands)]

    def wire(self):
        return [("MULTI",), *self.commands, ("EXEC",)] if self.is_transaction else self.commands

    def expected(self):
        """Replies in the order of the wire."""
        if self.is_transaction:
            return ["OK"] + ["QUEUED"] * len(self.commands) + [self.replies]
        return self.replies

    def __repr__(self):
        return " ; ".join(" ".join(str(shorter(w) if isinstance(w, bytes) else w) for w in c) for c in self.commands)


# --- what a client does next --------------------------------------------------------------------------------------------

class Writer:
    """Draws steps on a client's keys. Strings, numbers and keys that soon expire are three pools, so that every reply is foretold."""

    def __init__(self, name, rng, has_database, big=True):
        self.rng, self.has_database, self.big = rng, has_database, big
        # A few share a slot through a tag; a transaction or RENAME then has one lock, else several.
        self.strings = [b"%s:s%d" % (name, i) for i in range(8)] + [b"{%s}s%d" % (name, i) for i in range(4)]
        self.numbers = [b"%s:n%d" % (name, i) for i in range(6)]
        self.fleeting = [b"%s:f%d" % (name, i) for i in range(6)]
        self.keys = self.strings + self.numbers + self.fleeting
        self.makers = [(self.string_write, 30), (self.string_change, 20), (self.string_move, 12), (self.remove, 10),
                       (self.expiry, 12), (self.number, 25), (self.fleeting_write, 8), (self.read, 8)]
        self.weights = [w for _, w in self.makers]

    def value(self, n):
        """Different for every write, so that states are told apart."""
        size = self.rng.random()
        head = b"%d." % n
        if self.big and size < 0.002:
            return head * (self.rng.randrange(66_000, 1_200_000) // len(head))  # of its own allocation; longer than a segment
        if size < 0.1:
            return head * self.rng.randrange(1, 400)
        return head * self.rng.randrange(1, 12)

    def string_write(self, n, _):
        kind = self.rng.randrange(4)
        if kind == 0:
            keys = self.rng.sample(self.strings, 3)
            return ("MSET", *(w for i, key in enumerate(keys) for w in (key, b"%d.%d" % (n, i))))
        return ("GETSET" if kind == 1 else "SET", self.rng.choice(self.strings), self.value(n))

    def string_change(self, n, _):
        key = self.rng.choice(self.strings)
        if self.rng.random() < 0.5:
            return ("APPEND", key, b"+%d" % n)
        return ("SETRANGE", key, self.rng.randrange(0, 300), b"<%d>" % n)

    def string_move(self, _, __):
        key, to = self.rng.sample(self.strings, 2)
        return ("RENAME", key, to) if self.rng.random() < 0.6 else ("COPY", key, to, "REPLACE")

    def remove(self, _, __):
        kind = self.rng.random()
        if kind < 0.03 and self.has_database:
            return ("FLUSHDB",)
        if kind < 0.4:
            return ("GETDEL", self.rng.choice(self.strings))
        return ("DEL", *self.rng.sample(self.keys, self.rng.randrange(1, 4)))

    def expiry(self, _, now_ms):
        key = self.rng.choice(self.strings + self.numbers)
        if self.rng.random() < 0.3:
            return ("PERSIST", key)
        return ("PEXPIREAT", key, now_ms + FAR_MS + self.rng.randrange(10 ** 6))

    def number(self, _, __):
        key = self.rng.choice(self.numbers)
        if self.rng.random() < 0.5:
            return ("INCR", key)
        return ("INCRBY", key, self.rng.randrange(-1000, 1000))

    def fleeting_write(self, n, now_ms):
        return ("SET", self.rng.choice(self.fleeting), b"%d" % n, "PXAT", now_ms + self.rng.choice([50, 500, 3000, 20_000]))

    def read(self, _, __):
        return ("GET", self.rng.choice(self.strings + self.numbers))

    def command(self, n, now_ms):
        maker, = self.rng.choices(self.makers, self.weights)
        return maker[0](n, now_ms)

    def step(self, n, now_ms, shared=()):
        """A step whose first write has the number n."""
        if self.rng.random() < 0.15:
            count = self.rng.randrange(1, 6)
            commands = [c for c in (self.command(n + i, now_ms) for i in range(count))]
            return Step(n, commands + [("INCR", key) for key in shared], True)
        return Step(n, [self.command(n, now_ms)], False)


# --- the ledger ---------------------------------------------------------------------------------------------------------

class Ledger:
    """Of one client: the state after what was acknowledged, the steps sent since, the versions told."""

    def __init__(self, name, seed, has_database, big=True):
        self.name = name
        self.rng = random.Random(seed)
        self.writer = Writer(name, self.rng, has_database, big)
        self.state = {}  # after what was acknowledged
        self.ahead = {}  # after what was sent
        self.pending = []  # steps sent and not acknowledged
        self.next_write = 1
        self.acknowledged = 0
        self.told = {}  # (key, number of the write) -> version
        self.highest = {}  # key -> highest version told

    def next_step(self, now_ms, shared=()):
        step = self.writer.step(self.next_write, now_ms, shared)
        self.next_write += len(step.commands)
        step.replies = step.apply(self.ahead)
        self.pending.append(step)
        return step

    def acknowledge(self):
        """The oldest pending step was answered."""
        self.pending.pop(0).apply(self.state)
        self.acknowledged += 1

    def note_version(self, key, value, version):
        """A reply of GETVER that came when nothing was pending."""
        entry = self.state.get(key)
        if entry is None or value is None:
            return
        if value != entry.value:
            raise Mismatch("%s: %s is %s, not %s" % (self.name, key, shorter(value), entry))
        known = self.told.setdefault((key, entry.write), version)
        if known != version:
            raise Mismatch("%s: %s had version %d and has %d without a write" % (self.name, key, known, version))
        self.highest[key] = max(self.highest.get(key, 0), version)

    def reconcile(self, found, began_ms, ended_ms):
        """After a restart: found is {key: (value, expiry, version)}, read between the two times. Takes over the state that it shows."""
        state, reasons, match = dict(self.state), [], None
        for count in range(len(self.pending) + 1):
            if count > 0:
                self.pending[count - 1].apply(state)
            reason = self.difference(state, found, began_ms, ended_ms)
            if reason is None:
                match = (count, dict(state))
            else:
                reasons.append(reason)
        if match is None:
            raise Mismatch("%s: no state between the %d acknowledged steps and the %d sent fits:\n%s\n%s" % (
                self.name, self.acknowledged, self.acknowledged + len(self.pending),
                "\n".join("  after %d: %s" % (self.acknowledged + i, r) for i, r in enumerate(reasons)),
                "\n".join("  sent %d: %r" % (self.acknowledged + i + 1, s) for i, s in enumerate(self.pending))))
        survived = match[0]
        self.acknowledged += survived
        self.state = match[1]
        self.ahead = dict(self.state)
        self.pending.clear()
        self.told = {k: v for k, v in self.told.items() if k[0] in self.state and self.state[k[0]].write == k[1]}
        return survived

    def difference(self, state, found, began_ms, ended_ms):
        """Why the keys can't be in this state; None = they can."""
        for key in self.writer.keys:
            entry, (value, expires_ms, version) = state.get(key), found[key]
            if entry is None or (entry.expires_ms is not None and entry.expires_ms < began_ms - CLOCK_MARGIN_MS):
                if value is not None:
                    return "%s is back: %s (%s)" % (key, shorter(value), "removed" if entry is None else "expired")
                continue
            may_be_gone = entry.expires_ms is not None and entry.expires_ms < ended_ms + CLOCK_MARGIN_MS
            if value is None and may_be_gone:
                continue
            if value is None:
                return "%s is missing: %r" % (key, entry)
            if value != entry.value:
                return "%s is %s, not %r" % (key, shorter(value), entry)
            if expires_ms != (-1 if entry.expires_ms is None else entry.expires_ms) and not (may_be_gone and expires_ms == -2):
                return "%s expires at %d, not as %r" % (key, expires_ms, entry)
            told = self.told.get((key, entry.write))
            if told is not None and told != version:
                return "%s has version %d, not %d: %r" % (key, version, told, entry)
            if version < self.highest.get(key, 0):
                return "%s went back from version %d to %d" % (key, self.highest[key], version)
        return None


def check_reply(name, step_text, reply, expected):
    """Raises unless the reply is as foretold."""
    if expected is ANY:
        good = isinstance(reply, int)
    elif isinstance(expected, list):
        good = isinstance(reply, list) and len(reply) == len(expected)
        for one, other in zip(reply if good else (), expected):
            check_reply(name, step_text, one, other)
    elif expected == NO_KEY:
        good = isinstance(reply, Error) and reply == NO_KEY
    else:
        good = reply == expected and not isinstance(reply, Error)
    if not good:
        raise Mismatch("%s: %r answered %s, not %s" % (name, step_text, shorter(reply) if isinstance(reply, bytes) else reply,
                                                       shorter(expected) if isinstance(expected, bytes) else expected))
