# SPDX-License-Identifier: BSD-3-Clause
"""When are two replies the same? Byte for byte, except where the RULES below say otherwise.

A reply is compared as a tree: a leaf is the raw bytes of a scalar, an aggregate is (kind, children).
"""
from differential.commands import CONFIG, SHARED
from support.resp import AGGREGATES, BULKS, decode

TOLERANCE_S = 2


def tree(raw):
    node, end = _tree(raw, 0)
    assert end == len(raw)
    return node


def _tree(raw, pos):
    eol = raw.index(b"\r\n", pos)
    kind, after = raw[pos], eol + 2
    if kind in AGGREGATES and raw[pos + 1:eol] != b"-1":
        children = []
        for _ in range(int(raw[pos + 1:eol]) * AGGREGATES[kind]):
            child, after = _tree(raw, after)
            children.append(child)
        return (chr(kind), children), after
    if kind in BULKS and raw[pos + 1:eol] != b"-1":
        after += int(raw[pos + 1:eol]) + 2
    return raw[pos:after], after


def kind_of(node):
    return node[0] if isinstance(node, tuple) else node[:1].decode()


def is_error(node):
    return kind_of(node) in "-!"


def is_null(node):
    return node in (b"$-1\r\n", b"*-1\r\n", b"_\r\n")


# --- rules: (nodes of redis and of dcache, arguments) -> same? They see only pairs that differ and are no errors. ---

def near(tolerance):
    def rule(ours, theirs, _):
        if kind_of(ours) != ":" or kind_of(theirs) != ":":
            return False
        a, b = decode(ours), decode(theirs)
        return a >= 0 and b >= 0 and abs(a - b) <= tolerance
    return rule


def same_kind(ours, theirs, _):
    return kind_of(ours) == kind_of(theirs) and is_null(ours) == is_null(theirs)


def same_shape(ours, theirs, args):
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return ours[0] == theirs[0] and len(ours[1]) == len(theirs[1]) and all(
            same_shape(a, b, args) for a, b in zip(ours[1], theirs[1]))
    return same_kind(ours, theirs, args)


def unordered(ours, theirs, _):
    if kind_of(ours) != kind_of(theirs) or not isinstance(ours, tuple):
        return False
    return sorted(map(repr, ours[1])) == sorted(map(repr, theirs[1]))


def pairs(node):
    return dict(zip(node[1][::2], node[1][1::2]))


def config_get(ours, theirs, _):
    """The shared settings, in any order; what one side alone has is not compared."""
    shared = {b"$%d\r\n%s\r\n" % (len(name), name.encode()) for name in [*CONFIG, "requirepass"]}
    left, right = ({k: v for k, v in pairs(n).items() if k in shared} for n in (ours, theirs))
    return kind_of(ours) == kind_of(theirs) and left == right


def hello(ours, theirs, _):
    """The same fields, and the same protocol; versions and ids are each server's own."""
    proto = b"$5\r\nproto\r\n"
    left, right = pairs(ours), pairs(theirs)
    return kind_of(ours) == kind_of(theirs) and left.keys() == right.keys() and left[proto] == right[proto]


def command_info(ours, theirs, args):
    """Name, arity, flags (in any order), first, last and step; without names, only that there is a list."""
    if len(args) == 2:
        return same_kind(ours, theirs, args)

    def fields(node):
        return [None if not isinstance(c, tuple) else (c[1][:2], sorted(c[1][2][1]), c[1][3:6]) for c in node[1]]
    return kind_of(ours) == kind_of(theirs) and fields(ours) == fields(theirs)


def command_list(ours, theirs, args):
    """Every shared command is in both; each server has others too. With a filter: the same, in any order."""
    if len(args) > 2:
        return unordered(ours, theirs, args)
    wanted = {b"$%d\r\n%s\r\n" % (len(n), n.encode()) for n in SHARED}
    return kind_of(ours) == kind_of(theirs) and wanted <= set(ours[1]) and wanted <= set(theirs[1])


def encoding(theirs, ours, _):
    """A bit command that changes nothing makes a raw string of it in Redis, and leaves it alone here."""
    return theirs == b"$3\r\nraw\r\n" and ours in (b"$3\r\nint\r\n", b"$6\r\nembstr\r\n")


def refcount(theirs, ours, _):
    """Inside EXEC Redis counts the references of its own replication as well; a copy of a small integer isn't shared."""
    return (theirs, ours) in ((b":2\r\n", b":1\r\n"), (b":1\r\n", b":2147483647\r\n"))


def dump(theirs, ours, _):
    """Redis compresses what gains by it (type 0, form 0xc3); the runner compares what such a payload restores to."""
    return same_kind(theirs, ours, _) and theirs.partition(b"\r\n")[2].startswith(b"\x00\xc3")


RULES = {
    "TTL": near(TOLERANCE_S), "EXPIRETIME": near(TOLERANCE_S),
    "PTTL": near(TOLERANCE_S * 1000), "PEXPIRETIME": near(TOLERANCE_S * 1000),
    "KEYS": unordered, "RANDOMKEY": same_kind, "SCAN": lambda a, b, _: kind_of(a) == kind_of(b), "TIME": same_shape,
    "MEMORY USAGE": same_kind, "OBJECT IDLETIME": near(10), "OBJECT FREQ": same_kind,
    "OBJECT ENCODING": encoding, "OBJECT REFCOUNT": refcount, "DUMP": dump,
    "CLIENT ID": same_kind, "CLIENT LIST": same_kind, "CLIENT INFO": same_kind,
    "CONFIG GET": config_get, "HELLO": hello, "PUBSUB CHANNELS": unordered, "PUBSUB SHARDCHANNELS": unordered,
    "COMMAND": lambda a, b, args: len(args) == 1 and same_kind(a, b, args), "COMMAND COUNT": same_kind,
    "COMMAND LIST": command_list, "COMMAND INFO": command_info,
    "LATENCY RESET": same_kind, "SLOWLOG LEN": same_kind,
}


def rule_of(args):
    names = [a.upper().decode("latin-1") for a in args[:2]]
    return RULES.get(" ".join(names)) or RULES.get(names[0])


def same_node(ours, theirs, args):
    if ours == theirs:
        return True
    rule = rule_of(args)
    if rule is None or is_error(ours) or is_error(theirs):
        return False
    return rule(ours, theirs, args)


def same_reply(ours, theirs, args, queue=()):
    """Two raw replies to one command. queue holds the commands of the transaction that an EXEC has run."""
    if ours == theirs:
        return True
    left, right = tree(ours), tree(theirs)
    if args[0].upper() == b"EXEC" and isinstance(left, tuple) and isinstance(right, tuple):
        return len(left[1]) == len(right[1]) == len(queue) and all(map(same_node, left[1], right[1], queue))
    return same_node(left, right, args)


def stream_of(raw):
    """The part of the messages whose order counts: Redis delivers to several patterns in no fixed order."""
    node = tree(raw)
    if isinstance(node, tuple) and len(node[1]) == 4 and node[1][0] == b"$8\r\npmessage\r\n":
        return node[1][1]
    return b""


def same_messages(ours, theirs, args=()):
    """Two lists of pub/sub messages: in order for each pattern; the answers to 'unsubscribe from all' in any order."""
    if ours == theirs:
        return True
    if len(ours) != len(theirs):
        return False
    if len(args) == 1 and args[0].upper().endswith(b"UNSUBSCRIBE"):
        left, right = map(tree, ours), map(tree, theirs)
        split = [[(n[0], n[1][0], n[1][1]) for n in side] for side in (left, right)]
        return sorted(map(repr, split[0])) == sorted(map(repr, split[1])) and [m.rsplit(b":")[-1] for m in ours] == [
            m.rsplit(b":")[-1] for m in theirs]
    streams = {stream_of(m) for m in ours}
    return all([m for m in ours if stream_of(m) == s] == [m for m in theirs if stream_of(m) == s] for s in streams)
