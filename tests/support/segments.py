# SPDX-License-Identifier: BSD-3-Clause
"""The bytes of the log, read from the segments of data directories: are those of several nodes the same?

Only lengths of frames are understood here (persist/README.md has the format); what they say is dcache-inspect's to check.
"""
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

HEADER_LEN = 4096
FRAME_HEAD = 24
MARK_AT = 512
NAME = re.compile(r"log-([0-9a-f]{16})-([0-9a-f]{16})\.dcl")


class LogsDiffer(AssertionError):
    """Two nodes have different bytes at one position of one history."""


@dataclass(frozen=True)
class Segment:
    """One file. Its frames stand for the LSNs from first on, before end."""
    path: Path
    history: int
    first: int
    end: int

    def offset(self, lsn):
        return HEADER_LEN + lsn - self.first

    def durable(self):
        """The mark: everything below is on the disk. 0 = it has none."""
        with open(self.path, "rb") as file:
            file.seek(MARK_AT)
            return struct.unpack("<Q", file.read(8))[0]

    def read(self, start, end):
        with open(self.path, "rb") as file:
            file.seek(self.offset(start))
            return file.read(end - start)


def frames_end(path, first):
    """LSN behind the last frame of a file."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if size <= HEADER_LEN:
            return first
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            at = HEADER_LEN
            while at + FRAME_HEAD <= size:
                head = data[at:at + 16]
                length = FRAME_HEAD + int.from_bytes(head[8:15], "little")
                if head == bytes(16) or at + length > size:
                    break
                at += length
            return first + at - HEADER_LEN


def segments(folder):
    """Of a data directory, by (history, first LSN). One that was begun anew ends those before it where it begins."""
    named = sorted((int(m[2], 16), int(m[1], 16), path) for path in Path(folder).glob("log-*.dcl") if (m := NAME.fullmatch(path.name)))
    found = []
    for i, (history, first, path) in enumerate(named):
        end = frames_end(path, first)
        if i + 1 < len(named) and named[i + 1][0] == history:
            end = min(end, named[i + 1][1])
        found.append(Segment(path, history, first, end))
    return found


def newest(folder):
    """The segment that is written last: of the history that begins last."""
    return max(segments(folder), key=lambda s: s.first)


def compare(one, other):
    """How many bytes two directories have in common, at the same positions of the same histories. Raises LogsDiffer."""
    while True:
        try:
            return compare_once(one, other)
        except FileNotFoundError:
            pass  # retention was quicker


def compare_once(one, other):
    common = 0
    theirs = segments(other)
    for a in segments(one):
        for b in theirs:
            start, end = max(a.first, b.first), min(a.end, b.end)
            if a.history != b.history or start >= end:
                continue
            left, right = a.read(start, end), b.read(start, end)
            if left != right:
                at = next(i for i, (x, y) in enumerate(zip(left, right)) if x != y)
                raise LogsDiffer("history %016x differs at LSN %d: %s at %d has %s, %s at %d has %s" % (
                    a.history, start + at, a.path, a.offset(start + at), left[at:at + 32].hex(),
                    b.path, b.offset(start + at), right[at:at + 32].hex()))
            common += end - start
    return common
