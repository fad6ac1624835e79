# SPDX-License-Identifier: BSD-3-Clause
"""Payloads of DUMP for strings, written in every encoding that Redis accepts."""
import struct

RDB_VERSION = 10


def _crc_table():
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
        table.append(crc)
    return table


CRC_TABLE = _crc_table()


def crc64(data):
    crc = 0
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc


def length(n):
    if n < 64:
        return bytes([n])
    if n < 16384:
        return struct.pack(">H", n | 0x4000)
    return b"\x80" + struct.pack(">I", n)


def plain(data):
    return length(len(data)) + data


def integer(n):
    """The shortest of the three integer encodings."""
    for code, fmt in ((0xC0, "<b"), (0xC1, "<h"), (0xC2, "<i")):
        try:
            return bytes([code]) + struct.pack(fmt, n)
        except struct.error:
            pass
    raise ValueError(n)


def lzf(pattern, times):
    """pattern * times, compressed with LZF: the pattern as a literal, the rest as references to it."""
    assert 0 < len(pattern) <= 32
    total = len(pattern) * times
    out = bytes([len(pattern) - 1]) + pattern
    left = total - len(pattern)
    while left >= 3:
        run = min(left, 264)
        run -= 3 if 0 < left - run < 3 else 0  # never leave a rest too short for a reference
        offset = len(pattern) - 1
        out += bytes([(run - 2) << 5, offset]) if run < 9 else bytes([7 << 5, run - 9, offset])
        left -= run
    if left:
        done = total - left
        out += bytes([left - 1]) + (pattern * times)[done:]
    return b"\xc3" + length(len(out)) + length(total) + out


def payload(encoded, version=RDB_VERSION, kind=0):
    body = bytes([kind]) + encoded + struct.pack("<H", version)
    return body + struct.pack("<Q", crc64(body))
