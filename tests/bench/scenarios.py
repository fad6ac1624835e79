# SPDX-License-Identifier: BSD-3-Clause
"""scenarios: speed and memory. Each function runs one scenario on both servers and yields rows of the table.

SIZES holds every number that makes up a scenario, for a full run and for a smoke run (--quick), which shows that all
works but proves nothing. Neither server keeps anything on the disk here; what does is in durability.py.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time

from common import CONNS, VALUE_LEN, Row, alternate, limit_row, medians, ratio_row
from servers import MIB, BenchError, spawn

SIZES = {
    "cpu": dict(keys=1000000, rounds=5, warmup_s=0.5, seconds=3.0),
    "threads": dict(keys=1000000, rounds=3, warmup_s=0.5, seconds=4.0),
    "memory": dict(keys=3000000, settle_s=20),
    "growth": dict(keys_from=1000000, keys_to=10000000),
    "idle": dict(conns=10000, settle_s=20),
    "hits": dict(limit_mb=100, universe=1000000, requests=3000000, warmup=1000000, drift_every=200000, rate=100000),
    "shift": dict(limit_mb=100, universe=3000000, requests=6000000, shift_at=3000000),
    "expiry": dict(rate=100000, ttl_ms=10000, seconds=32.0),
    "syscalls": dict(keys=1000000, seconds=3.0),
}
QUICK = {
    "cpu": dict(keys=100000, rounds=1, warmup_s=0.2, seconds=0.5),
    "threads": dict(keys=100000, rounds=1, warmup_s=0.2, seconds=0.5),
    "memory": dict(keys=200000, settle_s=0.5),
    "growth": dict(keys_from=100000, keys_to=500000),
    "idle": dict(conns=1000, settle_s=0.5),
    "hits": dict(limit_mb=20, universe=200000, requests=300000, warmup=100000, drift_every=40000, rate=0),
    "shift": dict(limit_mb=20, universe=600000, requests=400000, shift_at=200000),
    "expiry": dict(rate=50000, ttl_ms=1500, seconds=4.0),
    "syscalls": dict(keys=100000, seconds=1.0),
}

HIT_STREAM = dict(pipeline=64, zipf=0.9, one_hit_pct=20, value_min=40, value_max=999)
DRIFTS = [  # name, share of the keys that trades places at a time, points that we have to be above allkeys-lru
    ("steady", 0, 3.0),
    ("drifting", 5, 2.5),
    ("drifting fast", 11, 2.5),
]


# --- CPU time and throughput ----------------------------------------------------------------------------------------

MIXES = [  # name, share of GET, pipeline, target of the ratio of CPU time
    ("90% GET, pipeline 1", 90, 1, 0.90),
    ("90% GET, pipeline 16", 90, 16, 0.50),
    ("SET, pipeline 16", 0, 16, 0.50),
]


def run_cpu(ctx):
    """Server on one core with one worker, generator on the other."""
    size = ctx.size("cpu")
    server_core, load_core = {ctx.cores[0]}, {ctx.cores[-1]}
    with ctx.servers(threads=1, cpus=server_core) as servers:
        for server in servers.values():
            ctx.fill(server, size["keys"])
        for name, get_pct, pipeline, limit in MIXES:
            rounds = alternate(ctx, servers, size, load_core, get_pct=get_pct, pipeline=pipeline)
            ctx.raw["cpu: " + name] = rounds
            yield ratio_row("CPU per op: " + name, "us", medians(rounds, "server_cpu_us_per_op"), limit)
            yield ratio_row("  ops per second: " + name, "/s", medians(rounds, "ops_per_s"))
            yield ratio_row("  CPU per op of the generator: " + name, "us", medians(rounds, "loadgen_cpu_us_per_op"))


def run_threads(ctx):
    """Two workers here, two io-threads there, and the generator, all on two cores and pinned to none."""
    size = ctx.size("threads")
    variants = [("io-threads 2", [])]
    if not ctx.args.quick:
        variants.append(("io-threads 2 + reads", ["--io-threads-do-reads", "yes"]))
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(ctx.server("ours", threads=2)) if "ours" in ctx.sides else None
        if ours:
            ctx.fill(ours, size["keys"])
        for variant, options in variants:
            with contextlib.ExitStack() as inner:
                servers = {"ours": ours} if ours else {}
                if "redis" in ctx.sides:
                    redis = inner.enter_context(ctx.server("redis", threads=2, options=options))
                    ctx.fill(redis, size["keys"])
                    servers = {"redis": redis, **servers}
                for name, get_pct, pipeline, _ in MIXES:
                    rounds = alternate(ctx, servers, size, None, threads=2, get_pct=get_pct, pipeline=pipeline)
                    ctx.raw["threads: %s, %s" % (variant, name)] = rounds
                    yield ratio_row("2 workers: %s (redis %s)" % (name, variant), "/s",
                                    medians(rounds, "ops_per_s"), 1.0, more_is_better=True)


# --- memory ---------------------------------------------------------------------------------------------------------

def overhead_bytes(ctx, side, size, **load):
    """Resident bytes per key above key and value, once everything has settled."""
    with ctx.server(side, threads=2) as server:
        empty = server.settled_rss_bytes(size["settle_s"])
        filled = ctx.fill(server, size["keys"], **load)
        rss = server.settled_rss_bytes(size["settle_s"])
        payload = filled["key_bytes"] + filled["value_bytes"]
        ctx.raw.setdefault("memory", []).append(
            dict(side=side, empty_bytes=empty, rss_bytes=rss, payload_bytes=payload, keys=size["keys"], **load))
        return (rss - empty - payload) / size["keys"]


def run_memory(ctx):
    size = ctx.size("memory")
    plain = dict(value_min=64, value_max=64)
    mixed = dict(value_min=40, value_max=120, ttl_ms=86400000)
    yield limit_row("bytes per key above key+value: 15 B keys, 64 B values", "B",
                    {side: overhead_bytes(ctx, side, size, **plain) for side in ctx.sides}, 32)
    yield limit_row("bytes per key above key+value: 40-120 B values with TTL", "B",
                    {side: overhead_bytes(ctx, side, size, **mixed) for side in ctx.sides}, 40)


def run_growth(ctx):
    """The engine times its own operations; what a client sees of the same growth stands below, for scale."""
    size = ctx.size("growth")
    yield engine_growth_row(ctx, size)
    worst = {}
    for side in ctx.sides:
        with ctx.server(side, threads=1, cpus={ctx.cores[0]}) as server:
            load = dict(conns=1, value_min=16, value_max=16, cpus={ctx.cores[-1]})
            ctx.fill(server, size["keys_from"], **load)
            result = ctx.load("fill", server, pipeline=16, keys=size["keys_to"], keys_from=size["keys_from"], **load)
            worst[side] = result["worst_batch_us"]
            ctx.raw.setdefault("growth: client", {})[side] = result
    yield limit_row("  worst batch of 16 SETs as a client sees it", "us", worst)


def engine_growth_row(ctx, size):
    name = "worst operation caused by a resize, %g to %g M keys" % (size["keys_from"] / 1e6, size["keys_to"] / 1e6)
    program = os.path.join(ctx.args.bin, "dcache-bench-engine")
    if "ours" not in ctx.sides or not os.path.exists(program):
        return Row(name, "us", None, None, "", "<= 1000", None)
    argv = [program, "growth", "--from", str(size["keys_from"]), "--to", str(size["keys_to"])]
    run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise BenchError("%s: %s" % (" ".join(argv), run.stderr.strip()))
    result = json.loads(run.stdout)
    ctx.raw["growth: engine"] = result
    return limit_row(name, "us", {"ours": result["worst_resize_us"]}, 1000)


def run_idle(ctx):
    size = ctx.size("idle")
    grown = {}
    for side in ctx.sides:
        with ctx.server(side, threads=2, options=["--maxclients", str(size["conns"] + 100)]) as server:
            empty = server.settled_rss_bytes(size["settle_s"])
            argv = [ctx.args.loadgen, "idle", "--port", str(server.port), "--conns", str(size["conns"])]
            with spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
                if not holder.stdout.readline():
                    raise BenchError("the connections could not all be opened")
                grown[side] = (server.settled_rss_bytes(size["settle_s"]) - empty) / 1e6
                holder.stdin.close()
    yield limit_row("%d idle connections" % size["conns"], "MB", grown, 100)


# --- eviction and expiry --------------------------------------------------------------------------------------------

def memory_limit_options(limit_mb, policy):
    return ["--maxmemory", "%dmb" % limit_mb, "--maxmemory-policy", policy]


def stream_result(ctx, side, policy, limit_mb, **stream):
    options = memory_limit_options(limit_mb, policy)
    with ctx.server(side, threads=2, options=options) as server:
        result = ctx.load("cache", server, **stream)
        result["peak_rss_bytes"] = server.peak_rss_bytes()
        result["keys"] = int(server.ask("DBSIZE"))
        return result


def lead_row(name, ours, redis, limit=None):
    lead = ours - redis if ours is not None and redis is not None else None
    return Row(name, "%", ours, redis, "" if lead is None else "%+.2f" % lead,
               "" if limit is None else ">= +%.1f" % limit, None if None in (limit, lead) else lead >= limit)


def resident_row(name, limit_mb, results):
    peaks = {side: result["peak_rss_bytes"] / MIB for side, result in results.items()}
    return limit_row(name, "MiB", peaks, limit_mb * 1.05 + 16)


def run_hits(ctx):
    """The same read-through stream to one policy of ours and to two of redis."""
    size = ctx.size("hits")
    stream = dict(HIT_STREAM, keys=size["universe"], requests=size["requests"], warmup_requests=size["warmup"],
                  rate=size["rate"])
    runs = [(side, policy) for side, policy in (("ours", ctx.args.policy), ("redis", "allkeys-lru"),
                                                ("redis", "allkeys-lfu")) if side in ctx.sides]
    for name, drift_pct, lead in DRIFTS:
        drift = dict(drift_every=size["drift_every"], drift_pct=drift_pct) if drift_pct else {}
        results = {run: stream_result(ctx, *run, size["limit_mb"], **stream, **drift) for run in runs}
        ctx.raw["hits: " + name] = {" ".join(run): result for run, result in results.items()}
        hit_pct = {run: result["hit_pct"] for run, result in results.items()}
        ours = hit_pct.get(("ours", ctx.args.policy))
        yield lead_row("hit ratio, %s: %s - allkeys-lru" % (name, ctx.args.policy), ours,
                       hit_pct.get(("redis", "allkeys-lru")), lead)
        yield lead_row("  %s: %s - allkeys-lfu" % (name, ctx.args.policy), ours, hit_pct.get(("redis", "allkeys-lfu")))
        peaks = {side: result for (side, policy), result in results.items() if policy != "allkeys-lfu" or side == "ours"}
        yield resident_row("  %s: resident memory while evicting" % name, size["limit_mb"], peaks)


def run_shift(ctx):
    """Values of 40-100 B, then of 500-900 B: what was freed has the wrong size for what comes."""
    size = ctx.size("shift")
    stream = dict(pipeline=64, zipf=0.9, one_hit_pct=20, set_pct=10, keys=size["universe"], value_min=40,
                  value_max=100, requests=size["requests"], warmup_requests=size["shift_at"] // 3,
                  shift_at=size["shift_at"], shift_min=500, shift_max=900)
    policies = {"ours": ctx.args.policy, "redis": "allkeys-lru"}
    results = {side: stream_result(ctx, side, policies[side], size["limit_mb"], **stream) for side in ctx.sides}
    ctx.raw["shift"] = results
    yield resident_row("resident memory, values 40-100 B then 500-900 B", size["limit_mb"], results)


def expiry_figures(result, ttl_s):
    """Worst share of resident keys past their end, and resident memory over what the keys alive took at first."""
    samples = result["samples"]
    steady = [s for s in samples if s["at_s"] > ttl_s * 1.2]
    before = [s for s in samples if s["at_s"] < ttl_s]
    if not steady or not before:
        raise BenchError("too few samples")
    worst = max(1 - s["alive"] / s["resident"] if s["resident"] else 0 for s in steady)
    scale = before[-1]["alive"] and statistics.median(s["alive"] for s in steady) / before[-1]["alive"]
    growth = max(s["rss_bytes"] for s in steady) / (before[-1]["rss_bytes"] * scale)
    return 100 * max(worst, 0), 100 * (growth - 1)


def run_expiry(ctx):
    size = ctx.size("expiry")
    expired, growth = {}, {}
    for side in ctx.sides:
        with ctx.server(side, threads=2) as server:
            result = ctx.load("expiry", server, rate=size["rate"], ttl_ms=size["ttl_ms"], seconds=size["seconds"],
                              value_min=VALUE_LEN, value_max=VALUE_LEN)
            ctx.raw.setdefault("expiry", {})[side] = result
            expired[side], growth[side] = expiry_figures(result, size["ttl_ms"] / 1000)
    yield limit_row("expired but resident, %g s TTL, %d k SETs/s" % (size["ttl_ms"] / 1000, size["rate"] // 1000), "%",
                    expired, 5)
    yield limit_row("  resident memory above that of the first %g s" % (size["ttl_ms"] / 1000), "%", growth)


# --- system calls ---------------------------------------------------------------------------------------------------

STRACE_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.M)


def traced_calls(ctx, server, seconds, **load):
    """{name: calls per operation}. Tracing slows the server down, so its batches are larger than without."""
    argv = ["strace", "-c", "-f", "-p", str(server.pid)]
    with spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        time.sleep(0.5)
        result = ctx.load("mix", server, {ctx.cores[-1]}, conns=CONNS, warmup_s=0, seconds=seconds, **load)
        tracer.send_signal(signal.SIGINT)
        report = tracer.stderr.read()
    calls = {name: int(count) for count, name in STRACE_LINE.findall(report) if name != "total"}
    if not calls:
        raise BenchError("strace: " + report.strip())
    return {name: count / result["ops"] for name, count in sorted(calls.items(), key=lambda call: -call[1])}


def run_syscalls(ctx):
    if not shutil.which("strace"):
        raise BenchError("strace is not installed")
    size = ctx.size("syscalls")
    with ctx.servers(threads=1, cpus={ctx.cores[0]}) as servers:
        for server in servers.values():
            ctx.fill(server, size["keys"])
        for name, get_pct, pipeline, _ in MIXES:
            calls = {side: traced_calls(ctx, server, size["seconds"], keys=size["keys"], get_pct=get_pct,
                                        pipeline=pipeline) for side, server in servers.items()}
            ctx.raw["syscalls: " + name] = calls
            yield ratio_row("system calls per op: " + name, "", {side: sum(c.values()) for side, c in calls.items()})


# name -> (function, what it answers); the order of the table. Scenarios in EXTRA run only when named.
SCENARIOS = {
    "cpu": (run_cpu, "CPU time of the server per operation"),
    "threads": (run_threads, "throughput with two workers on two cores"),
    "memory": (run_memory, "bytes per key above key and value"),
    "growth": (run_growth, "stalls while the table grows"),
    "idle": (run_idle, "memory of idle connections"),
    "hits": (run_hits, "hit ratio under a memory limit"),
    "shift": (run_shift, "resident memory when the sizes of values change"),
    "expiry": (run_expiry, "what stays behind of keys that expire"),
    "syscalls": (run_syscalls, "system calls per operation (strace)"),
}
EXTRA = {"syscalls"}
