# SPDX-License-Identifier: BSD-3-Clause
"""One step of a script for two servers, and the text form in which scripts are printed, saved and replayed.

    0 SET "a" "x\\x00y"        connection 0 sends a command
    +0 GET "a"                 the same, in one write with the line before
    0 :inline GET "a"          the same as an inline command
    1 :raw 1 "PING\\r\\n"      bytes as they are; one reply is expected
    1 :eof "*-5x\\r\\n"        bytes after which the server is expected to close
    0 :scan MATCH "a*"         a full SCAN iteration, compared as a set
    0 :sleep 30                milliseconds
    0 :proto 3                 connection 0 speaks RESP3 from here on (HELLO)

Words may be bare, "quoted with \\x escapes", "repeated"*20000, or rnd:SEED:LENGTH for bytes that don't compress.
A line with # in front is a comment.
"""
import random
import re
from typing import NamedTuple

from support.resp import encode

WORD = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\*(\d+))?|(\S+)')
ESCAPE = re.compile(r'\\(x[0-9a-fA-F]{2}|.)')
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class Op(NamedTuple):
    conn: int
    verb: str          # "cmd", "inline", "raw", "eof", "scan", "sleep", "proto"
    args: tuple        # of bytes; for raw: (count, bytes)
    joined: bool = False


class Named(bytes):
    """Bytes with a short name for scripts."""
    text = ""


def repeated(pattern, times):
    value = Named(pattern * times)
    value.text = "%s*%d" % (quote(pattern), times)
    return value


def noise(seed, length):
    value = Named(random.Random(seed).randbytes(length))
    value.text = "rnd:%d:%d" % (seed, length)
    return value


def quote(data):
    return '"%s"' % "".join(
        chr(b) if 32 <= b < 127 and b not in b'"\\' else {10: "\\n", 13: "\\r"}.get(b, "\\x%02x" % b) for b in data)


def wire(op):
    """The bytes of a command."""
    return b" ".join(quote(a).encode() for a in op.args) + b"\r\n" if op.verb == "inline" else encode(*op.args)


def word(data):
    if isinstance(data, Named):
        return data.text
    if re.fullmatch(rb"[A-Za-z0-9_@#.*+-]+", data) and not data.startswith(b"#"):
        return data.decode()
    return quote(data)


def format_op(op):
    parts = ["%s%d" % ("+" if op.joined else "", op.conn)]
    if op.verb != "cmd":
        parts.append(":" + op.verb)
    return " ".join(parts + [word(a) for a in op.args])


def unquote(text):
    def one(match):
        code = match.group(1)
        return chr(int(code[1:], 16)) if code[0] == "x" and len(code) == 3 else ESCAPES.get(code, code)
    return ESCAPE.sub(one, text).encode("latin-1")


def parse_word(match):
    quoted, times, bare = match.groups()
    if bare is None:
        return repeated(unquote(quoted), int(times)) if times else unquote(quoted)
    if bare.startswith("rnd:"):
        return noise(*map(int, bare.split(":")[1:]))
    return bare.encode()


def parse_op(line):
    """The Op of one line, or None for a comment or an empty line."""
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    head, _, rest = line.partition(" ")
    args = [parse_word(m) for m in WORD.finditer(rest)]
    verb = "cmd"
    if args and args[0].startswith(b":"):
        verb = args.pop(0)[1:].decode()
    return Op(int(head.lstrip("+")), verb, tuple(args), head.startswith("+"))


def parse_script(text):
    return [op for op in map(parse_op, text.splitlines()) if op]


def format_script(ops):
    return "\n".join(map(format_op, ops)) + "\n"
