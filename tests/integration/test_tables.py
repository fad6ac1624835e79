#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Do the READMEs tell the truth: their tables, sessions, files, tests and identifiers? Does every metric move?"""
import re
import sys
import unittest
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools/dev"))

import tables  # noqa: E402
from support.resp import Closed, Error, encode  # noqa: E402
from support.server import ROOT, ServerCase, server_binary  # noqa: E402

MIB = 1 << 20
FENCE = re.compile(r"^(```).*?^\1", re.S | re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
# What a span of code may be, and what it names then.
TEST = re.compile(r"([\w.]+)::(\w+)")
PATH = re.compile(r"(?:\./)?[a-zA-Z_*.][\w.*-]*(?:/[\w.*-]*)+|[\w*-]+\.(?:c|h|def|py|md|conf|ops|json|service)")
FUNCTION = re.compile(r"([a-z]\w*_\w+)\(\)")
CONSTANT = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
SESSION = re.compile(r"^```redis\n(.*?)^```", re.S | re.M)
VERSION = re.compile(r"\b104\d{4}\b")
# Made by a build or a run, so they aren't in a fresh tree.
MADE = ("build/", "./build/", "data/", "./data")


def sources():
    folders = ("server", "persist", "replication", "tools", "tests")
    return [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in (".c", ".h", ".def", ".py")]


def is_there(path, base):
    """Whether a path names something below the README's folder or the root, or a bare name any file. NAME and * may be anything."""
    path = path.removeprefix("./").rstrip("/").replace("NAME", "*")
    if "/" not in path and any(fnmatch(p.name, path) for p in sources()):
        return True
    return any(any(folder.glob(path)) for folder in (base, ROOT))


def has_test(file, name):
    """'test_x.c::sentence': a START_TEST or a test method of that name, in one file below tests/."""
    texts = [p.read_text() for p in (ROOT / "tests").rglob(file)]
    return len(texts) == 1 and re.search(r"(?:START_TEST\(|def )%s\b" % name, texts[0]) is not None


def hazards_of(name):
    """The numbers in the name of a test that is named after hazards: test_h08_..., h12_..., test_h25_h26_..."""
    match = re.match(r"(?:test_)?((?:h\d+_)+)", name)
    return {int(n) for n in re.findall(r"\d+", match[1])} if match else set()


def tests_after_hazards():
    """{(hazard, 'file::test')} of all below tests/."""
    found = set()
    for path in (ROOT / "tests").rglob("*"):
        if path.suffix in (".c", ".py"):
            for name in re.findall(r"^(?:START_TEST\(|    def )(\w+)", path.read_text(), re.M):
                found |= {(n, "%s::%s" % (path.name, name)) for n in hazards_of(name)}
    return found


def slug(heading):
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


class Readmes(unittest.TestCase):
    def test_tables_and_the_configuration_are_what_the_program_prints(self):
        for path, text in tables.expected(server_binary()).items():
            with self.subTest(path):
                self.assertEqual(tables.current(path), text, "tools/dev/tables.py --write brings it up to date")

    def test_links_lead_somewhere(self):
        for readme in tables.readmes():
            text = readme.read_text()
            anchors = {slug(h) for h in re.findall(r"^#+ (.*)$", text, re.M)}
            for link in LINK.findall(FENCE.sub("", text)):
                path, _, anchor = link.partition("#")
                with self.subTest(readme=readme, link=link):
                    if not path:
                        self.assertIn(anchor, anchors)
                    elif "://" not in link:
                        self.assertTrue((readme.parent / path).exists())

    def test_what_is_named_is_there(self):
        code = "\n".join(p.read_text(errors="replace") for p in sources())
        words = set(re.findall(r"\w+", code))
        for readme in tables.readmes():
            for span in SPAN.findall(FENCE.sub("", readme.read_text())):
                with self.subTest(readme=readme, span=span):
                    if match := TEST.fullmatch(span):
                        self.assertTrue(has_test(*match.groups()), "no such test")
                    elif PATH.fullmatch(span) and not span.startswith(MADE):
                        self.assertTrue(is_there(span, readme.parent), "no such file")
                    elif match := FUNCTION.fullmatch(span):
                        self.assertTrue(match[1] in words, "no such function")
                    elif CONSTANT.fullmatch(span):
                        self.assertTrue(span in words, "no such constant")


class Hazards(unittest.TestCase):
    def test_the_table_names_every_test_that_bears_the_number_of_a_hazard(self):
        rows = re.findall(r"^\| H(\d+) \|.*\| (.*) \|$", (ROOT / "tests/README.md").read_text(), re.M)
        named = {(int(number), test) for number, tests in rows for test in SPAN.findall(tests)}
        missing = {test for number, test in tests_after_hazards() - named}
        self.assertEqual(missing, set(), "not in the table of tests/README.md")
        for number in (int(number) for number, _ in rows):
            with self.subTest("H%d" % number):
                tests = [test.split("::") for n, test in named if n == number]
                self.assertEqual([test for test in tests if not has_test(*test)], [], "no such tests")
                self.assertTrue(any(number in hazards_of(name) for _, name in tests), "none bears its number")


def as_redis_cli_prints(reply, indent=""):
    if isinstance(reply, list):
        return ("\n" + indent).join("%d) %s" % (n, as_redis_cli_prints(item, indent + "   "))
                                    for n, item in enumerate(reply, 1))
    if isinstance(reply, Error):
        return "(error) " + reply
    if isinstance(reply, bytes):
        return '"%s"' % reply.decode()
    return "(nil)" if reply is None else "(integer) %d" % reply if isinstance(reply, int) else str(reply)


class Sessions(ServerCase):
    """What stands in blocks of ```redis is typed and compared. Versions differ from run to run: the first time that one is
    shown it becomes the name of the one that the server gave."""

    def test_sessions_go_as_they_are_written(self):
        for readme in tables.readmes():
            conn, versions = self.connect(), {}
            for step in re.findall(r"^> (.*)\n((?:[^>].*\n)*)", "".join(SESSION.findall(readme.read_text())), re.M):
                command = VERSION.sub(lambda m: versions[m[0]], step[0])
                reply = as_redis_cli_prints(conn.call(*command.split())) + "\n"
                for shown, given in zip(VERSION.findall(step[1]), VERSION.findall(reply)):
                    versions.setdefault(shown, given)
                with self.subTest(readme=readme, command=step[0]):
                    self.assertEqual(reply, VERSION.sub(lambda m: versions.get(m[0], m[0]), step[1]))


ELSEWHERE = {"loops_taken"}  # test_durability.py: it takes a disk that hangs


class Metrics(ServerCase):
    """One cause for each counter, and no counter without one."""
    options = {"threads": 2, "maxclients": 40, "client_query_buffer_limit": MIB, "proto_max_bulk_len": 4 * MIB,
               "client_output_buffer_limit": "pubsub 1mb 0 0"}

    def setUp(self):
        super().setUp()
        self.watcher = self.connect()

    def info(self):
        text = self.watcher.call("INFO", "everything").decode()
        return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)

    def cause_traffic(self):
        conn = self.connect()
        conn.ok("SET", "a", "x")
        conn.ok("SET", "short", "x", "PX", 1)
        conn.call("GET", "a")
        conn.call("GET", "nothing")
        conn.call("NOSUCH")
        conn.ok("CLIENT", "ACK", "replicas:1")
        conn.ok("CONFIG", "SET", "ack-timeout", 1)
        conn.call("SET", "a", "y")

    def cause_refusals(self):
        crowd = [self.connect() for _ in range(60)]
        self.eventually(lambda: int(self.info()["rejected_connections"]) > 0)
        for conn in crowd:
            conn.close()
        self.eventually(lambda: int(self.info()["connected_clients"]) < 10)

    def cause_messages_and_a_full_output(self):
        listeners = [self.connect() for _ in range(4)]  # on both workers
        for conn in listeners:
            conn.ok("SUBSCRIBE", "c")
        publisher = self.connect()
        for _ in range(640):
            publisher.call("PUBLISH", "c", b"x" * 100000)

    def cause_too_long_an_input(self):
        conn = self.connect()
        try:
            conn.send_raw(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % (3 * MIB) + b"x" * (3 * MIB))
            conn.read()
        except (Closed, ConnectionError):
            pass

    def cause_evictions(self):
        conn = self.connect()
        value = b"x" * 100000
        conn.send_raw(b"".join(encode("SET", "big:%d" % n, value) for n in range(100)))
        for _ in range(100):
            conn.read()
        conn.ok("CONFIG", "SET", "maxmemory", MIB, "maxmemory-policy", "allkeys-random")
        conn.call("SET", "more", value)

    def test_every_metric_moves(self):
        rows = re.findall(r"^(dcache_\w+) +(?:([a-z_]+) )?", tables.run(server_binary(), "--print-metrics"), re.M)
        fields = {info or re.sub("dcache_(.*)_total", r"\1", name) for name, info in rows}
        for cause in (self.cause_traffic, self.cause_refusals, self.cause_messages_and_a_full_output,
                      self.cause_too_long_an_input, self.cause_evictions):
            cause()
        self.assertLessEqual(fields, self.info().keys(), "INFO doesn't show it")
        for field in sorted(fields - ELSEWHERE):
            with self.subTest(field):
                self.eventually(lambda: int(self.info()[field]) > 0, message="never moved")


if __name__ == "__main__":
    unittest.main()
