#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""run: the benchmark. Measures our server next to redis-server in one run and prints one table.

    run.py                      everything but the system calls (about half an hour)
    run.py cpu memory           these scenarios; run.py --list names them
    run.py --quick              everything at reduced sizes, in two minutes: shows that it works, proves nothing
    run.py --json FILE          the table and all raw results too

See tests/bench/README.md for how each figure is taken.
"""
import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time

import durability
import replicas
import scenarios
from common import Context, file_system
from servers import BenchError, cpu_busy_s, own_cpu_s

SCENARIOS = {**scenarios.SCENARIOS, **durability.SCENARIOS, **replicas.SCENARIOS}
EXTRA = scenarios.EXTRA
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOREIGN_LOAD_NOTED = 0.05  # of all cores


def parse(argv):
    parser = argparse.ArgumentParser(prog="bench", description="Measure our server next to redis-server.")
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help="default: all but %s" % ", ".join(sorted(EXTRA)))
    parser.add_argument("--bin", default=os.path.join(ROOT, "build/release/bin"), help="where the release build is")
    parser.add_argument("--ours", help="our server; default: dcache-server in --bin")
    parser.add_argument("--dir", help="where the servers have their directories; default: --bin")
    parser.add_argument("--redis", default="redis-server", help="the other server")
    parser.add_argument("--loadgen", help="default: dcache-loadgen in --bin")
    parser.add_argument("--ours-args", type=shlex.split, default=[], help="more options for our server, one string")
    parser.add_argument("--redis-args", type=shlex.split, default=[], help="more options for the other one")
    parser.add_argument("--side", choices=("both", "ours", "redis"), default="both", help="measure only one")
    parser.add_argument("--policy", default="adaptive", help="our eviction policy in hits and shift")
    parser.add_argument("--rounds", type=int, help="windows per server in cpu and threads; the median counts")
    parser.add_argument("--quick", action="store_true", help="reduced sizes, for a smoke run")
    parser.add_argument("--syscalls", action="store_true", help="count system calls too (needs strace)")
    parser.add_argument("--json", metavar="FILE", help="write the table and the raw results there")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    args = parser.parse_args(argv)
    unknown = set(args.names) - set(SCENARIOS)
    if unknown:
        parser.error("no scenario %s; --list names them" % ", ".join(sorted(unknown)))
    args.ours = args.ours or os.path.join(args.bin, "dcache-server")
    args.dir = args.dir or args.bin
    args.loadgen = args.loadgen or os.path.join(args.bin, "dcache-loadgen")
    return args


def first_line(argv):
    try:
        run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT)
    except OSError as error:
        return "%s: %s" % (argv[0], error.strerror)
    return run.stdout.split("\n", 1)[0].strip()


def cpu_model():
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def environment(args, cores):
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": "%s, %d cores, %d used" % (cpu_model(), os.cpu_count(), len(cores)),
        "kernel": platform.release(),
        "disk": "%s at %s" % (file_system(args.dir), args.dir),
        "ours": first_line([args.ours, "--version"]) if args.side != "redis" else "not measured",
        "redis": first_line([args.redis, "--version"]) if args.side != "ours" else "not measured",
        "tree": first_line(["git", "describe", "--always", "--dirty"]),
        "sizes": "quick: a smoke run, not a measurement" if args.quick else "full",
    }


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return "{:,.0f}".format(value).replace(",", " ")
    return "%.*f" % (1 if abs(value) >= 100 else 2, value)


def verdict(row):
    return {True: "ok", False: "MISS", None: ""}[row.ok]


def table_line(cells):
    return "%-64s %-4s %12s %12s %9s  %-10s %s" % cells


def row_line(row):
    return table_line((row.name, row.unit, number(row.ours), number(row.redis), row.relation, row.limit,
                       verdict(row))).rstrip()


def run_scenario(ctx, name):
    """All rows of one scenario, printed as they come. A scenario that fails costs the others nothing."""
    busy_s, own_s, start = cpu_busy_s(), own_cpu_s(), time.monotonic()
    rows, error = [], None
    print("-- %s: %s" % (name, SCENARIOS[name][1]), flush=True)
    try:
        for row in SCENARIOS[name][0](ctx):
            rows.append(row)
            print(row_line(row), flush=True)
    except BenchError as failure:
        error = str(failure)
        print("   failed: " + error, flush=True)
    seconds = time.monotonic() - start
    foreign = max(0.0, (cpu_busy_s() - busy_s) - (own_cpu_s() - own_s)) / seconds / os.cpu_count()
    if foreign > FOREIGN_LOAD_NOTED:
        print("   others used %.0f%% of the cores meanwhile: not a quiet machine" % (100 * foreign), flush=True)
    return {"rows": [row._asdict() for row in rows], "error": error, "seconds": round(seconds, 1),
            "foreign_load": round(foreign, 3)}


def main(argv):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that servers are stopped
    args = parse(argv)
    if args.list:
        for name, (_, text) in SCENARIOS.items():
            print("%-10s %s%s" % (name, text, " (only when named)" if name in EXTRA else ""))
        return 0
    for program in [args.loadgen] + [getattr(args, side) for side in ("ours", "redis") if args.side in ("both", side)]:
        if not shutil.which(program):
            print("bench: no program %s; build the release, or name another (--help)" % program, file=sys.stderr)
            return 2
    names = args.names or [name for name in SCENARIOS if name not in EXTRA]
    if args.syscalls and "syscalls" not in names:
        names.append("syscalls")
    cores = sorted(os.sched_getaffinity(0))[:2]
    sizes = {}
    for module in (scenarios, durability, replicas):
        sizes.update(module.QUICK if args.quick else module.SIZES)
    ctx = Context(args, cores, sizes)
    report = {"environment": environment(args, cores), "scenarios": {}, "raw": ctx.raw}
    for key, value in report["environment"].items():
        print("%-8s %s" % (key, value))
    print("\n" + table_line(("", "unit", "ours", "redis", "relation", "target", "")).rstrip(), flush=True)
    for name in names:
        report["scenarios"][name] = run_scenario(ctx, name)
    rows = [row for scenario in report["scenarios"].values() for row in scenario["rows"]]
    missed = sum(row["ok"] is False for row in rows)
    failed = sum(scenario["error"] is not None for scenario in report["scenarios"].values())
    print("\n%d targets reached, %d missed, %d scenarios failed" %
          (sum(row["ok"] is True for row in rows), missed, failed))
    if args.json:
        with open(args.json, "w") as out:
            json.dump(report, out, indent=1)
    return 2 if failed else 1 if missed and args.strict else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
