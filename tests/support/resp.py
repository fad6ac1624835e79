# SPDX-License-Identifier: BSD-3-Clause
"""A RESP2/RESP3 client that keeps the raw bytes of every reply.

Conn reads whole messages and returns them as they came over the wire; decode() gives the Python value of one.
Nothing is interpreted on the way, so that two servers can be compared byte for byte.
"""
import socket
import time

AGGREGATES = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
BULKS = frozenset(b"$=!")
LINES = frozenset(b"+-:_#,(")


class Broken(Exception):
    """The server sent bytes that are no RESP."""


class Closed(ConnectionError):
    """The server closed the connection."""


class Error(str):
    """An error reply; `.code` is its first word."""

    @property
    def code(self):
        return self.split(" ", 1)[0]


class Simple(str):
    """A simple string, such as +OK."""


class Push(list):
    """An out-of-band message of RESP3."""


class Set(list):
    """A set of RESP3, in the order of the wire."""


def to_bytes(arg):
    if isinstance(arg, (bytes, bytearray)):
        return bytes(arg)
    return str(arg).encode()


def encode(*args):
    """One command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in map(to_bytes, args):
        parts += (b"$%d\r\n" % len(arg), arg, b"\r\n")
    return b"".join(parts)


def message_end(buf, pos=0):
    """Position behind the message that starts at pos, or -1 while it is incomplete."""
    todo = 1
    while todo:
        eol = buf.find(b"\r\n", pos)
        if eol < 0:
            return -1
        kind = buf[pos]
        todo -= 1
        if kind in BULKS:
            size = int(buf[pos + 1:eol])
            pos = eol + 2 + (size + 2 if size >= 0 else 0)
            if pos > len(buf):
                return -1
        elif kind in AGGREGATES:
            todo += max(int(buf[pos + 1:eol]), 0) * AGGREGATES[kind]
            if kind == ord("|"):
                todo += 1  # an attribute precedes the value that it belongs to
            pos = eol + 2
        elif kind in LINES:
            pos = eol + 2
        else:
            raise Broken("not RESP: %r" % bytes(buf[pos:pos + 80]))
    return pos


def decode(raw):
    """Python value of one whole message."""
    value, end = _decode(raw, 0)
    assert end == len(raw), "trailing bytes in one message"
    return value


def _decode_line(kind, text):
    if kind == ord("+"):
        return Simple(text.decode("utf-8", "backslashreplace"))
    if kind == ord("-"):
        return Error(text.decode("utf-8", "backslashreplace"))
    if kind == ord("_"):
        return None
    if kind == ord("#"):
        return text == b"t"
    if kind == ord(","):
        return float(text)
    return int(text)


def _decode(buf, pos):
    eol = buf.index(b"\r\n", pos)
    kind, text, pos = buf[pos], buf[pos + 1:eol], eol + 2
    if kind in LINES:
        return _decode_line(kind, text), pos
    count = int(text)
    if count < 0:
        return None, pos
    if kind in BULKS:
        body = bytes(buf[pos:pos + count])
        if kind == ord("!"):
            body = Error(body.decode("utf-8", "backslashreplace"))
        return (body[4:] if kind == ord("=") else body), pos + count + 2
    items = []
    for _ in range(count * AGGREGATES[kind]):
        item, pos = _decode(buf, pos)
        items.append(item)
    if kind == ord("%"):
        return dict(zip(map(_hashable, items[::2]), items[1::2])), pos
    return {ord("~"): Set, ord(">"): Push}.get(kind, list)(items), pos


def _hashable(key):
    return tuple(key) if isinstance(key, list) else key


class Conn:
    """One connection. address is (host, port) or the path of a unix socket."""

    def __init__(self, address, timeout=10.0, rcvbuf=0):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.buf = bytearray()
        self.pushes = []  # pushes that call() met on the way
        self.eof = False

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_raw(self, data):
        self.sock.sendall(data)

    def send(self, *args):
        self.sock.sendall(encode(*args))

    def _take(self):
        end = message_end(self.buf) if self.buf else -1
        if end < 0:
            return None
        raw = bytes(self.buf[:end])
        del self.buf[:end]
        return raw

    def _fill(self):
        """Reads what there is; False if that was the end of the stream."""
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self.buf += data
        self.eof = self.eof or not data
        return bool(data)

    def read_raw(self, timeout=None):
        """The next message as bytes. Raises Closed, or TimeoutError."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            raw = self._take()
            if raw is not None:
                return raw
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no reply; buffered so far: %r" % bytes(self.buf[:200]))
            self.sock.settimeout(left)
            if not self._fill():
                raise Closed("closed by the server; unfinished: %r" % bytes(self.buf[:200]))

    def drain(self):
        """Every whole message that is there already, without waiting for more."""
        found = []
        self.sock.setblocking(False)
        try:
            while self._fill():
                pass
        except BlockingIOError:
            pass
        self.sock.settimeout(self.timeout)
        while (raw := self._take()) is not None:
            found.append(raw)
        return found

    def read(self, timeout=None):
        return decode(self.read_raw(timeout))

    def read_until_closed(self, timeout=None):
        """All messages up to the end of the stream."""
        found = []
        try:
            while True:
                found.append(self.read_raw(timeout))
        except Closed:
            return found

    def call_raw(self, *args):
        """Sends a command and returns the bytes of its reply; pushes go to self.pushes."""
        self.send(*args)
        while (raw := self.read_raw()).startswith(b">"):
            self.pushes.append(decode(raw))
        return raw

    def call(self, *args):
        return decode(self.call_raw(*args))

    def ok(self, *args):
        """A call whose reply must not be an error."""
        reply = self.call(*args)
        if isinstance(reply, Error):
            raise AssertionError("%r gave %s" % (args[:4], reply))
        return reply

    def pipeline(self, commands):
        """Sends all commands in one write and returns the decoded replies."""
        commands = list(commands)
        self.send_raw(b"".join(encode(*c) for c in commands))
        return [self.read() for _ in commands]
