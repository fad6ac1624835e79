# SPDX-License-Identifier: BSD-3-Clause
"""Random command streams from the tables of commands.py; the same seed gives the same stream."""
import random

from differential import rdbvalue
from differential.commands import CONFIG, FAMILIES, OPTIONS, SHARED, TABLE
from differential.ops import Op, noise, repeated

INT_MAX, INT_MIN = 2**63 - 1, -2**63
KEYS = [b"a", b"b", b"c", b"d", b"e", b"{t}x", b"{t}y", b"key:000123", b"", b"\x00\xff k\r\n", b"k" * 300]
WORDS = [b"foo", b"BAR", b"x", b"", b"-1", b"0", b"NX", b"EX", b"getx", b"\x00", b"a b", b"'q'", b"9" * 20, b"*",
         b"w" * 140]
BAD_INTS = [b"abc", b"", b" 1", b"1 ", b"01", b"+1", b"-0", b"1.0", b"0x10", b"1e3", b"9223372036854775808",
            b"-9223372036854775809", b"18446744073709551616", b"1" * 40, b"--1", b"\x00", b"-"]
EDGE_INTS = [INT_MAX, INT_MIN, INT_MAX - 1, INT_MIN + 1, 2**31, -2**31 - 1, 2**32, 9999, 10000, -1, 0, 10**18]
FLOATS = [b"0", b"1.5", b"-2.25", b"3.0e3", b"1e-7", b"5e20", b"1e17", b"-1e17", b"0.1", b"3.14159265358979", b"1e308",
          b"1e400", b"1e4932", b"inf", b"-inf", b"nan", b"NaN", b"+inf", b"infinity", b"0x1p4", b".5", b"5.", b"1e",
          b" 1", b"1 ", b"", b"abc", b"1,5", b"-0.0", b"1e-4951", b"1" + b"0" * 20, b"0.00000000000000001",
          b"10000.5", b"-10000.5"]
OFFSETS = list(range(-12, 13)) * 2 + [20, 44, 45, 63, 64, 100, 1000, -1000, 100000]
HUGE_OFFSETS = [536870912, 536870913, -536870913, INT_MAX, INT_MIN, 2**32]
BIT_OFFSETS = list(range(0, 72)) + [1000, 80000]
BAD_BIT_OFFSETS = [b"-1", b"4294967296", b"9223372036854775807", b"abc", b"", b"1.5", b"#1", b"18446744073709551616"]
FIELD_TYPES = [b"i1", b"u1", b"i5", b"u8", b"i8", b"u16", b"i16", b"i32", b"u31", b"u63", b"i63", b"i64"]
BAD_FIELD_TYPES = [b"u64", b"i65", b"u0", b"i0", b"x8", b"8", b"u", b"", b"i-1", b"I8", b"u08"]
LONE_KEYS = [k for k in KEYS if not k.startswith(b"{t}")]  # each has a slot of its own
CHANNELS = [b"c1", b"c2", b"c3", b"news", b"", b"c[1]"]
CHANNEL_PATTERNS = [b"c*", b"c?", b"c[12]", b"*", b"n[^a]ws", b"c\\[1\\]", b"[a-c]1", b""]
PATTERNS = [b"*", b"a*", b"?", b"[a-c]", b"[^a]", b"{t}*", b"key:*", b"k*k", b"\\a", b"",
            b"nothing*", b"[", b"a[", b"*\x00*", b"[b-a]"]
EDGE_TIMES = [b"%d" % n for n in (INT_MAX, INT_MIN, INT_MAX // 1000, INT_MAX // 1000 + 1)]
FAR_SECONDS = 4102444800  # 2100-01-01
SIZES = [1, 3, 8, 12, 19, 20, 21, 40, 43, 44, 45, 46, 63, 64, 65, 100, 255, 256, 1000]
BIG_SIZES = [4000, 4096, 16384, 32768, 65535, 65536, 65537, 70000, 100000]


class Generator:
    """Draws groups of operations; a group with more than one goes to the servers in one write."""

    def __init__(self, seed, mode="all", connections=1, proto=2, limit=0):
        """limit: the largest value in bytes, if that is small enough for offsets near it to be drawn."""
        self.rng = random.Random("%s/%s/%s" % (seed, mode, proto))
        self.connections, self.proto = connections, proto
        self.huge = HUGE_OFFSETS + [limit - 2, limit - 1, limit] * bool(limit)
        self.in_multi = [False] * connections
        self.watching = [False] * connections
        self.subscribed = [False] * connections
        self.families = list(FAMILIES[mode])
        self.family_weights = list(FAMILIES[mode].values())
        self.templates = {}
        for family in self.families:
            rows = [line.split(None, 1) for line in TABLE[family].strip().splitlines()]
            self.templates[family] = ([r[1].split() for r in rows], [int(r[0]) for r in rows])

    # --- kinds of values, by the name that templates use ---

    def k(self):
        r = self.rng.random()
        return self.rng.choice(KEYS[:5] if r < 0.75 else KEYS)

    def wk(self):
        """A key to watch. Writing and removing another key of its slot may abort here what Redis runs."""
        return self.rng.choice(LONE_KEYS[:5] if self.rng.random() < 0.8 else LONE_KEYS)

    def lk(self):
        return self.rng.choice([b"l1", b"l2"])

    def lv(self):
        return bytes(self.rng.choices(b"abc", k=self.rng.choice([0, 3, 10, 40, 200])))

    def v(self):
        rng, r = self.rng, self.rng.random()
        if r < 0.35:
            return b"%d" % rng.randint(-20, 20)
        if r < 0.45:
            return b"%d" % rng.choice(EDGE_INTS)
        if r < 0.55:
            return rng.choice(FLOATS + BAD_INTS)
        if r < 0.60:
            return rng.choice(WORDS)
        if r < 0.86:
            return bytes(rng.choices(b"abcdefgh", k=rng.choice(SIZES)))
        if r < 0.96:
            return rng.randbytes(rng.choice(SIZES[:16]))
        size = rng.choice(BIG_SIZES)
        if rng.random() < 0.5:
            return noise(rng.randrange(1000), size)
        return repeated(bytes(rng.choices(b"abcdef", k=rng.choice([1, 7, 16]))), size // 10)

    def i(self):
        r = self.rng.random()
        if r < 0.6:
            return b"%d" % self.rng.randint(-30, 300)
        if r < 0.8:
            return b"%d" % self.rng.choice(EDGE_INTS)
        return self.rng.choice(BAD_INTS)

    def f(self):
        return b"%d" % self.rng.randint(-9, 9) if self.rng.random() < 0.2 else self.rng.choice(FLOATS)

    def off(self):
        r = self.rng.random()
        return b"%d" % self.rng.choice(OFFSETS if r < 0.94 else self.huge) if r < 0.97 else self.rng.choice(BAD_INTS)

    def bit(self):
        return self.rng.choice([b"0", b"1"] * 50 + [b"2", b"-1", b"a", b"", b"01"])

    def bitoff(self):
        return b"%d" % self.rng.choice(BIT_OFFSETS) if self.rng.random() < 0.95 else self.rng.choice(BAD_BIT_OFFSETS)

    def bfoff(self):
        r = self.rng.random()
        if r < 0.4:
            return b"#%d" % self.rng.randint(0, 9)
        return b"%d" % self.rng.randint(0, 150) if r < 0.95 else self.rng.choice(BAD_BIT_OFFSETS)

    def bftype(self):
        return self.rng.choice(FIELD_TYPES if self.rng.random() < 0.95 else BAD_FIELD_TYPES)

    def _time(self, low, high):
        """Far from every other time that is drawn, so that GT and LT never hang on a millisecond."""
        r = self.rng.random()
        if r < 0.86:
            return b"%d" % self.rng.randint(low, high)
        return self.rng.choice([b"0", b"-1", b"-1000"] + BAD_INTS + EDGE_TIMES)

    def sec(self):
        return self._time(3600, 10**7)

    def msec(self):
        return self._time(3600 * 1000, 10**10)

    def at(self):
        return self._time(FAR_SECONDS, 2 * FAR_SECONDS)

    def atms(self):
        return self._time(FAR_SECONDS * 1000, 2000 * FAR_SECONDS)

    def farat(self):
        return b"%d" % self.rng.randint(FAR_SECONDS, 2 * FAR_SECONDS)

    def faratms(self):
        return b"%d" % self.rng.randint(FAR_SECONDS * 1000, 2000 * FAR_SECONDS)

    def restorems(self):
        return b"0" if self.rng.random() < 0.6 else self.msec()

    def db(self):
        return self.rng.choice([b"0"] * 24 + [b"1", b"2", b"15"] * 8 + [b"16", b"-1", b"x", b"", b"99999999999"])

    def badint(self):
        return self.rng.choice(BAD_INTS)

    def count(self):
        return self.rng.choice([b"1", b"3", b"10", b"1000", b"0", b"-1", b"x", b"9223372036854775807"])

    def freq(self):
        return self.rng.choice([b"0", b"5", b"255", b"256", b"-1", b"x"])

    def cursor(self):
        return self.rng.choice([b"0", b"0", b"0", b"x", b"-1", b"", b"18446744073709551616"])

    def bigid(self):
        return b"%d" % self.rng.randint(10**12, 10**13)

    def payload(self):
        rng, r = self.rng, self.rng.random()
        if r < 0.3:
            edges = [0, 1, -1, 127, -128, 128, 32767, -32769, 2**31 - 1, -2**31]
            encoded = rdbvalue.integer(rng.choice(edges + [rng.randint(-1000, 1000)]))
        elif r < 0.5:
            encoded = rdbvalue.lzf(bytes(rng.choices(b"abc", k=rng.randint(1, 9))), rng.choice([2, 5, 50, 3000]))
        else:
            encoded = rdbvalue.plain(self.v())
        good = rdbvalue.payload(encoded, rng.choice([10, 10, 10, 9, 6, 11]))
        if rng.random() < 0.8:
            return good
        cut = rng.randrange(len(good))
        flipped = good[:cut] + bytes([good[cut] ^ 1 << rng.randrange(8)]) + good[cut + 1:]
        return rng.choice([good[:cut], flipped, good + b"x", b"", rdbvalue.payload(encoded[:-1]),
                           rdbvalue.payload(encoded, kind=99), rdbvalue.payload(encoded + b"junk")])

    def word(self):
        return self.rng.choice(WORDS)

    def name(self):
        return self.rng.choice([b"bob", b"", b"with space", b"line\nfeed", b"n-1", b"\xc3\xa9"])

    def hellover(self):
        return self.rng.choice([b"%d" % self.proto] * 20 + [b"1", b"4", b"x", b"", b"9" * 19])

    def shared(self):
        return self.rng.choice(SHARED).encode()

    def getkeys(self):
        """A word that stands for a whole other command."""
        return self.expand(self.rng.choices(*self.templates[self.rng.choice(["string", "key"])])[0])

    def cfgname(self):
        return self.rng.choice(list(CONFIG)).encode()

    def cfg(self):
        name = self.rng.choice(list(CONFIG))
        return [name.encode(), self.rng.choice(CONFIG[name]).encode()]

    def notify(self):
        """Never all classes with n: Redis, refusing the next CONFIG SET, would forget the n. Never m: in RESP3 Redis
        writes the misses of an MGET into its array."""
        return self.rng.choice([b"KEA", b"KA", b"EA", b"K$", b"Egx", b"", b"AKE", b"bogus", b"KEg$lshxen"])

    def chan(self):
        return self.rng.choice(CHANNELS)

    def chanpat(self):
        return self.rng.choice(CHANNEL_PATTERNS)

    def eventpat(self):
        return self.rng.choice([b"__key*__:*", b"__keyspace@0__:*", b"__keyevent@*__:del", b"__keyevent@0__:*"])

    def pat(self):
        return self.rng.choice(PATTERNS)

    # --- templates ---

    def options(self, name):
        """Up to four, most often one or two; contradictions come by themselves."""
        for _ in range(self.rng.choice([0, 1, 1, 1, 2, 2, 3, 4])):
            yield from self.expand(self.rng.choice(OPTIONS[name]).split())

    def token(self, text):
        """The arguments that one word of a template stands for."""
        rng = self.rng
        if "/" in text:
            text = rng.choice(text.split("/"))
        if text.startswith(":"):
            return list(self.options(text[1:]))
        if text.endswith(("+", "*")) and text[:-1].islower():
            times = rng.choice([1, 1, 2, 3]) - (text[-1] == "*")
            return [arg for _ in range(times) for arg in self.token(text[:-1])]
        method = getattr(self, text, None) if text.isidentifier() and text.islower() else None
        if method is None:
            return [text.lower().encode() if rng.random() < 0.1 else text.encode()]
        value = method()
        return value if isinstance(value, list) else [value]

    def expand(self, template):
        return [arg for text in template for arg in self.token(text)]

    def spoil(self, args):
        """Wrong arity, wrong order, wrong kind: what a client does by mistake."""
        rng, at = self.rng, self.rng.randrange(len(args))
        how = rng.randrange(5)
        if how == 0 and len(args) > 1:
            args.pop()
        elif how == 1 and at:
            args.pop(at)
        elif how == 2:
            args.append(self.word())  # never a small number: it could become a short expiry
        elif how == 3 and at:
            args[at] = rng.choice([self.word, self.badint])()
        elif at:
            args.insert(at, args[at])
        return args

    def command(self, conn):
        """The arguments of the next command for a connection, following its state as far as the generator knows it."""
        rng = self.rng
        if self.in_multi[conn] and rng.random() < 0.2:
            args = [b"EXEC"] if rng.random() < 0.9 else [b"DISCARD"]
            self.note(conn, args)
            return args
        stuck = self.subscribed[conn] and self.proto == 2
        family = "subscribe" if stuck and rng.random() < 0.8 else rng.choices(self.families, self.family_weights)[0]
        if family == "subscribe" and self.in_multi[conn]:
            family = "string" if "string" in self.families else "pubsub"
        rows = self.templates.get(family)
        args = self.expand(rng.choices(*rows)[0])
        if rng.random() < 0.07 and not is_subscription(args[0]):
            args = self.spoil(args)
        if args[0].upper() == b"BITFIELD" and any(self.watching):
            # What only makes a string longer is no change to the watches of Redis.
            args = [b"SAT" if arg.upper() == b"FAIL" else arg for arg in args]
        self.note(conn, args)
        return args

    def note(self, conn, args):
        name = args[0].upper()
        if name in (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"):
            self.subscribed[conn] = True
        elif name in (b"RESET", b"QUIT"):
            self.subscribed[conn] = self.in_multi[conn] = self.watching[conn] = False
        elif name == b"WATCH":
            self.watching[conn] = True
        elif name in (b"EXEC", b"DISCARD") and len(args) == 1 and self.in_multi[conn]:
            self.in_multi[conn] = self.watching[conn] = False
        elif name == b"MULTI" and len(args) == 1:
            self.in_multi[conn] = True

    def group(self):
        """The next operations for one connection."""
        rng, conn = self.rng, self.rng.randrange(self.connections)
        if rng.random() < 0.01:
            return [Op(conn, "scan", tuple(self.expand([":scan"])))]
        ops = []
        for _ in range(rng.choice([1, 1, 1, 2, 3, 8, 20])):
            args = tuple(self.command(conn))
            inline = rng.random() < 0.02 and sum(map(len, args)) < 4000 and args[0]
            op = Op(conn, "inline" if inline else "cmd", args, bool(ops))
            name = op.args[0].upper()
            if is_subscription(name) or name in (b"QUIT", b"RESET"):
                ops.append(op._replace(joined=False))
                return ops + ([Op(conn, "proto", (b"%d" % self.proto,))] if name == b"RESET" else [])
            ops.append(op)
        return ops

    def stream(self, count):
        """About `count` operations."""
        ops = []
        while len(ops) < count:
            ops += self.group()
        return ops


def is_subscription(name):
    return name.upper().endswith(b"SUBSCRIBE")
