#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The tables in the READMEs, and conf/dcache.conf, as the program prints them.

    tools/dev/tables.py            says which of them differ; exit code 1 if any does
    tools/dev/tables.py --write    brings them up to date

A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`. The program is the one that the environment
names in DCACHE_SERVER, otherwise the newest one below build/.
"""
import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONF = Path("conf/dcache.conf")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def find_server():
    if os.environ.get("DCACHE_SERVER"):
        return os.environ["DCACHE_SERVER"]
    found = sorted(ROOT.glob("build/*/bin/dcache-server"), key=lambda p: p.stat().st_mtime)
    if not found:
        sys.exit("tables: no dcache-server below build/; ./dev build makes one")
    return str(found[-1])


def readmes():
    skip = {"build", "data", ".git"}
    return sorted(p for p in ROOT.rglob("README.md") if p.relative_to(ROOT).parts[0] not in skip)


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def markdown(head, rows):
    lines = ["| %s |" % " | ".join(head), "|%s" % ("---|" * len(head))]
    return "\n".join(lines + ["| %s |" % " | ".join(row) for row in rows]) + "\n"


def parse(text, pattern):
    """The groups of each line; a line that the pattern doesn't know is an error, not a gap in the table."""
    rows = []
    for line in text.splitlines():
        match = re.fullmatch(pattern, line)
        if not match:
            sys.exit("tables: can't read this line: " + line)
        rows.append([group or "" for group in match.groups()])
    return rows


# --- the tables: each takes what the program prints ---

def commands(text):
    """One row for a group; the subcommands of a container in brackets."""
    groups, subs = {}, {}
    for name, group in parse(text, r"(\S+) +(\S+) +arity .*"):
        word, _, sub = name.upper().partition("|")
        if sub:
            subs.setdefault(word, []).append(sub)
        else:
            groups.setdefault(group, []).append(word)

    def show(word):
        return "%s (%s)" % (word, " ".join(sorted(subs[word]))) if word in subs else word
    return markdown(["group", "commands"], [[g, ", ".join(map(show, sorted(words)))] for g, words in groups.items()])


def locks(text):
    return markdown(["rank", "lock", "guards"], parse(text, r" *(\d+)  (\S+) +(.*)"))


def mutations(text):
    rows = parse(text, r" *(\d+)  (\S+) +(\S+(?: \S+)*) {2,}(.*)")
    return markdown(["number", "kind", "fields", "what it does to one key"], rows)


def metrics(text):
    rows = parse(text, r"(\S+) +(?:([a-z_]+) +)?([A-Z].*)")
    return markdown(["metric", "field of INFO", "what it counts"],
                    [["`%s`" % name, "`%s`" % info if info else "-", what] for name, info, what in rows])


def verbs(text):
    return "```\n%s\n```\n" % text.strip("\n")


TABLES = {"commands": commands, "locks": locks, "mutations": mutations, "metrics": metrics}


def table(name, server):
    if name == "verbs":
        return verbs(run("./dev", "help"))
    if name not in TABLES:
        sys.exit("tables: no table '%s'; there are: %s verbs" % (name, " ".join(TABLES)))
    return TABLES[name](run(server, "--print-" + name))


# --- files ---

def expected(server):
    """What every file with a table should hold: {path below the root: text}."""
    files = {CONF: run(server, "--print-config")}
    for path in readmes():
        text = path.read_text()
        if BLOCK.search(text):
            files[path.relative_to(ROOT)] = BLOCK.sub(lambda m: m[1] + table(m[2], server) + m[4], text)
    return files


def current(path):
    return (ROOT / path).read_text() if (ROOT / path).exists() else ""


def main(argv):
    if argv not in ([], ["--write"]):
        print(__doc__)
        return 2
    stale = [(path, want) for path, want in expected(find_server()).items() if current(path) != want]
    for path, want in stale:
        if argv:
            (ROOT / path).write_text(want)
            print("written: %s" % path)
        else:
            sys.stdout.writelines(difflib.unified_diff(
                current(path).splitlines(True), want.splitlines(True), str(path), str(path) + " as the program prints it"))
    return 1 if stale and not argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
