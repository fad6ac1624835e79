# SPDX-License-Identifier: BSD-3-Clause
"""common: what all scenarios share. Starting and loading a server, windows in turn, rows of the table.

A row is one figure of ours next to the same of redis, and what it has to reach.
"""
import contextlib
import json
import statistics
import subprocess
from collections import namedtuple

from servers import BenchError, Server, spawn

# relation: how the two figures compare, as text; limit: the target, as text; ok: True, False or None (no target).
Row = namedtuple("Row", "name unit ours redis relation limit ok")

CONNS = 50
VALUE_LEN = 100


def file_system(path):
    """The type of the file system that holds `path`: ext4, tmpfs ..."""
    run = subprocess.run(["stat", "-f", "-c", "%T", path], stdout=subprocess.PIPE, text=True, check=False)
    return run.stdout.strip()


class Context:
    """What the scenarios share: the two programs, the generator, the cores, the sizes, and a place for raw results."""

    def __init__(self, args, cores, sizes):
        self.args = args
        self.cores = cores
        self.sizes = sizes
        self.sides = [side for side in ("redis", "ours") if args.side in ("both", side)]
        self.raw = {}

    def size(self, scenario):
        return dict(self.sizes[scenario], **({"rounds": self.args.rounds} if self.args.rounds else {}))

    def server(self, side, threads=1, cpus=None, options=()):
        path = self.args.ours if side == "ours" else self.args.redis
        extra = self.args.ours_args if side == "ours" else self.args.redis_args
        return Server(path, threads, cpus or set(self.cores), [*options, *extra], self.args.dir)

    @contextlib.contextmanager
    def servers(self, **kwargs):
        """{side: running server} of all sides at once."""
        with contextlib.ExitStack() as stack:
            yield {side: stack.enter_context(self.server(side, **kwargs)) for side in self.sides}

    def place_is_memory(self):
        return file_system(self.args.dir) in ("tmpfs", "ramfs")

    def load_argv(self, mode, server, **options):
        argv = [self.args.loadgen, mode, "--port", str(server.port), "--pid", str(server.pid)]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-"), str(value)]
        return argv

    def load(self, mode, server, cpus=None, **options):
        """Run the generator to its end and return what it printed."""
        argv = self.load_argv(mode, server, **options)
        process = spawn(argv, cpus or set(self.cores), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate()
        if process.returncode != 0:
            state = server.process.poll()
            note = "" if state is None else " (the server has ended, status %d)" % state
            raise BenchError("%s: %s%s" % (" ".join(argv), err.strip(), note))
        return json.loads(out)

    def fill(self, server, keys, **options):
        options = {"conns": 4, "pipeline": 64, "value_min": VALUE_LEN, "value_max": VALUE_LEN, **options}
        result = self.load("fill", server, keys=keys, **options)
        found = int(server.ask("DBSIZE"))
        if found != keys - options.get("keys_from", 0):
            raise BenchError("%d keys were set, DBSIZE says %d" % (keys, found))
        return result


def machine_row(ctx, name="  the machine: the longest that a busy core was taken away", seconds=5):
    """Nothing is served sooner than that, by whomever. No target."""
    out = subprocess.run([ctx.args.loadgen, "gaps", "--port", "1", "--conns", str(len(ctx.cores)),
                          "--threads", str(len(ctx.cores)), "--seconds", str(seconds)],
                         check=True, capture_output=True, text=True)
    worst_ms = json.loads(out.stdout)["worst_us"] / 1e3
    return Row(name, "ms", worst_ms, worst_ms, "", "", None)


def ratio_row(name, unit, values, limit=None, more_is_better=False):
    ours, redis = values.get("ours"), values.get("redis")
    ratio = ours / redis if ours is not None and redis else None
    ok = None
    if limit is not None and ratio is not None:
        ok = ratio > limit if more_is_better else ratio <= limit
    text = "" if limit is None else "%s %.2f x" % (">" if more_is_better else "<=", limit)
    return Row(name, unit, ours, redis, "" if ratio is None else "%.2f x" % ratio, text, ok)


def limit_row(name, unit, values, limit=None, digits=0):
    """A figure of ours with a limit of its own; that of redis stands beside it."""
    ours, redis = values.get("ours"), values.get("redis")
    relation = "%.2f x" % (ours / redis) if ours is not None and redis else ""
    ok = None if limit is None or ours is None else ours <= limit
    return Row(name, unit, ours, redis, relation, "" if limit is None else "<= %.*f" % (digits, limit), ok)


def speed_row(name, unit, values, limit):
    """Times, of which ours has to be so many times shorter."""
    ours, redis = values.get("ours"), values.get("redis")
    speed = redis / ours if ours and redis is not None else None
    return Row(name, unit, ours, redis, "" if speed is None else "1/%.1f" % speed, "<= 1/%g" % limit,
               None if speed is None else speed >= limit)


def medians(rounds, field):
    return {side: statistics.median(result[field] for result in results) for side, results in rounds.items()}


def alternate(ctx, servers, size, cpus, after_round=None, **load):
    """`rounds` windows per side, in turn, so that a busy neighbour meets both. {side: [result of a window]}"""
    rounds = {side: [] for side in servers}
    for _ in range(size["rounds"]):
        for side, server in servers.items():
            result = ctx.load("mix", server, cpus, conns=CONNS, keys=size["keys"], value_min=VALUE_LEN,
                              value_max=VALUE_LEN, warmup_s=size["warmup_s"], seconds=size["seconds"], **load)
            if result["misses"]:
                raise BenchError("%s: %d misses where every key is set" % (side, result["misses"]))
            rounds[side].append(result)
        if after_round is not None:
            after_round()
    return rounds
