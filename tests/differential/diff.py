#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Differential test: the same commands to a redis-server and to the server under test, and every reply the same.

    diff.py                                     all cases, then a random run of every mode in both protocols
    diff.py --seed 7 --ops 20000 --proto 3 --mode multi --connections 2
    diff.py --replay cases/expire.ops ...       scripts only

A difference is printed with its seed, both raw replies and a shrunk script that still shows it, for cases/NAME.ops.
"""
import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from differential.commands import FAMILIES  # noqa: E402
from differential.gen import Generator  # noqa: E402
from differential.ops import Op, format_script, parse_script, quote  # noqa: E402
from differential.runner import Runner  # noqa: E402
from support.server import REDIS, Server, server_binary  # noqa: E402

SKIPPED = 77  # the exit code that ctest reads as "skipped"
CONNECTIONS = {"all": 1, "multi": 2, "pubsub": 3}


def shrink(runner, ops, found, seconds):
    """Removes steps as long as the same command, or what is pushed to the same connection, still differs."""
    def still(outcome):
        return outcome and outcome[0].note == found.note and (found.note or outcome[0].op.args[:1] == found.op.args[:1])

    deadline = time.monotonic() + seconds
    apart = [op._replace(joined=False) for op in ops]
    outcome = runner.run(apart)
    if still(outcome):  # it doesn't take a pipeline
        found, ops = outcome[0], apart[:outcome[1]]
    chunk = max(len(ops) // 2, 1)
    while True:
        pos, removed = 0, False
        while pos < len(ops) - 1:
            if time.monotonic() > deadline:
                return ops, found
            shorter = ops[:pos] + ops[min(pos + chunk, len(ops) - 1):]  # the last one is the one that fails
            outcome = runner.run(shorter)
            if still(outcome):
                found, ops, removed = outcome[0], shorter[:outcome[1]], True
            else:
                pos += chunk
        if chunk == 1 and not removed:
            return ops, found
        chunk = max(chunk // 2, 1)


def report(runner, ops, outcome, title, options):
    found, done = outcome
    print("DIFFERENT: %s, after %d of %d commands\n%s" % (title, done, len(ops), found))
    if options.shrink:
        ops, found = shrink(runner, ops[:done], found, options.shrink)
        print("\nshrunk to %d, with this difference:\n%s" % (len(ops), found))
        print("\n# --- script: %s\n%s# ---" % (title, format_script(ops)))
    sys.stdout.flush()


def random_script(seed, mode, proto, connections, ops, limit):
    limit = int(limit[:-2]) << 20 if limit in ("1mb", "2mb", "4mb") else 0
    prologue = [Op(n, "proto", (b"%d" % proto,)) for n in range(connections)] if proto != 2 else []
    return prologue + Generator(seed, mode, connections, proto, limit).stream(ops)


def plan(options):
    """Yields (title, script)."""
    if options.replay is not None or not options.mode:
        for path in options.replay or sorted(HERE.glob("cases/*.ops")):
            script = parse_script(Path(path).read_text())
            for proto in options.proto:
                yield "%s proto %d" % (Path(path).name, proto), [
                    Op(n, "proto", (b"%d" % proto,)) for n in sorted({op.conn for op in script}) if proto != 2] + script
    for mode in options.mode or sorted(FAMILIES) if options.replay is None else ():
        for proto in options.proto:
            connections = options.connections or CONNECTIONS[mode]
            title = "--seed %d --ops %d --mode %s --proto %d --connections %d" % (
                options.seed, options.ops, mode, proto, connections)
            yield title, random_script(options.seed, mode, proto, connections, options.ops, options.limit)


def run(options):
    failures = 0
    settings = [("proto-max-bulk-len", options.limit)]
    with Server(REDIS) as redis, Server(server_binary(), threads=options.threads) as dcache:
        runner = Runner(redis, dcache, settings)
        for title, script in plan(options):
            started = time.monotonic()
            outcome = runner.run(script)
            if outcome:
                failures += 1
                report(runner, script, outcome, title, options)
            else:
                print("same: %s (%d commands, %.1f s)" % (title, len(script), time.monotonic() - started), flush=True)
        if options.stats:
            for (name, kind), count in sorted(runner.seen.items()):
                print("%7d  %-12s %s" % (count, quote(name)[1:-1][:12], quote(kind.strip())[1:-1]))
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to run, one after the other")
    parser.add_argument("--ops", type=int, default=3000, help="commands per random run")
    parser.add_argument("--mode", choices=sorted(FAMILIES), action="append",
                        help="only random streams, and of this mode; default: the cases, then each mode")
    parser.add_argument("--proto", type=int, choices=(2, 3), action="append", help="default: both")
    parser.add_argument("--connections", type=int, choices=(1, 2, 3), help="default: as fits the mode")
    parser.add_argument("--threads", type=int, default=2, help="workers of the server under test")
    parser.add_argument("--limit", default="512mb", help="proto-max-bulk-len; 1mb is cheap to reach")
    parser.add_argument("--shrink", type=float, default=30, metavar="SECONDS", help="time for shrinking, 0 = don't")
    parser.add_argument("--stats", action="store_true", help="print which replies of which commands were compared")
    parser.add_argument("--replay", nargs="*", metavar="FILE", help="scripts only; without names all cases")
    options = parser.parse_args()
    if not REDIS:
        print("skipped: no redis-server")
        return SKIPPED
    options.proto = options.proto or [2, 3]
    failures = 0
    for seed in range(options.seed, options.seed + options.seeds):  # the later ones repeat the cases too
        options.seed = seed
        failures += run(options)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
