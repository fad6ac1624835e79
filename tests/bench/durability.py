# SPDX-License-Identifier: BSD-3-Clause
"""durability: what it costs to keep the data on the disk, and how soon they are back.

Both servers get the same setting in each comparison: the log of ours stands beside the append-only file of redis, our
snapshot beside its RDB. Neither log is shortened while it is measured.
"""
import contextlib
import glob
import json
import os
import statistics
import subprocess
import time

from common import CONNS, VALUE_LEN, alternate, limit_row, machine_row, medians, ratio_row, speed_row
from servers import MIB, BenchError, spawn

SIZES = {
    "logcost": dict(keys=1000000, rounds=5, warmup_s=0.5, seconds=3.0),
    "always": dict(keys=100000, rounds=5, warmup_s=0.5, seconds=3.0),
    "fsyncreads": dict(keys=200000, rounds=3, seconds=6.0, rate=10000, writes=20000, write_len=1000),
    "restart": dict(first_keys=10000000, keys=3000000, tail=200000, rounds=3),
    "snapshot": dict(keys=3000000, value_len=200, rounds=3, seconds=8.0, rate=10000),
    "snapsize": dict(keys=1000000, value_len=200),
}
QUICK = {
    "logcost": dict(keys=50000, rounds=1, warmup_s=0.2, seconds=0.5),
    "always": dict(keys=20000, rounds=1, warmup_s=0.2, seconds=0.5),
    "fsyncreads": dict(keys=20000, rounds=1, seconds=1.2, rate=5000, writes=5000, write_len=1000),
    "restart": dict(first_keys=200000, keys=100000, tail=10000, rounds=1),
    "snapshot": dict(keys=100000, value_len=200, rounds=1, seconds=0.5, rate=5000),
    "snapsize": dict(keys=50000, value_len=200),
}

NO_LOG = ["--appendonly", "no"]
LOG = {  # neither shortens its log by itself
    "ours": ["--appendonly", "yes", "--snapshot-log-size", "0"],
    "redis": ["--appendonly", "yes", "--auto-aof-rewrite-percentage", "0", "--aof-use-rdb-preamble", "no"],
}
SNAPSHOTS = {"ours": "snap-*.dcs", "redis": "dump.rdb"}
RANDOM, TEXT = 1, 2  # kinds of values that aren't pieces of one pool, which repeat
MARK_REST_S = 0.01  # between the mark of a phase and what begins it, so that no request is in both


def log_options(side, appendfsync="everysec"):
    return LOG[side] + ["--appendfsync", appendfsync]


def shipped_threads(side):
    """Two workers here; redis as it is shipped, with one thread for commands."""
    return 2 if side == "ours" else 1


def disk_server(ctx, side, options, **kwargs):
    """A server that keeps something in its directory, on a real disk."""
    if ctx.place_is_memory():
        raise BenchError("%s is memory, no disk: name a directory with --dir" % ctx.args.dir)
    return ctx.server(side, options=options, **{"threads": shipped_threads(side), **kwargs})


# --- snapshots ------------------------------------------------------------------------------------------------------

def snapshot_files(server):
    """{name: inode} of the finished snapshots."""
    names = glob.glob(os.path.join(server.dir, SNAPSHOTS["redis" if server.kind == "redis" else "ours"]))
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = os.stat(name).st_ino
    return found


def save(server):
    """BGSAVE. Seconds until the finished file has its name, its path, and what INFO says afterwards."""
    before = snapshot_files(server)
    fresh = []

    def appeared():
        fresh[:] = set(snapshot_files(server).items()) - set(before.items())
        return bool(fresh)

    start_s = time.monotonic()
    server.ask("BGSAVE")
    seconds = server.wait_for(appeared, step_s=0.002) - start_s
    server.wait_for(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == "0", step_s=0.01)
    info = server.info("persistence")
    if info["rdb_last_bgsave_status"] != "ok":
        raise BenchError("BGSAVE of %s has failed" % server.path)
    return seconds, fresh[0][0], info


# --- the price of a log ---------------------------------------------------------------------------------------------

def added_pct(costs, side):
    without, with_log = costs.get((side, "no log")), costs.get((side, "log"))
    return None if without is None else 100 * (with_log / without - 1)


def shorten_log(server):
    """As a node in use does by itself. A log that only grows measures how fast the machine finds new pages for its cache."""
    if server.kind == "redis":
        server.ask("BGREWRITEAOF")
        server.wait_for(lambda: server.info("persistence")["aof_rewrite_in_progress"] == "0", step_s=0.01)
    else:
        save(server)


def run_logcost(ctx):
    """As in `cpu`: one worker on one core with all the threads of the server, the generator on the other."""
    size = ctx.size("logcost")
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in ("no log", "log"):
            for side in ctx.sides:
                options = log_options(side) if name == "log" else NO_LOG
                server = disk_server(ctx, side, options, threads=1, cpus={ctx.cores[0]})
                servers[side, name] = stack.enter_context(server)
                ctx.fill(servers[side, name], size["keys"])
        rounds = alternate(ctx, servers, size, {ctx.cores[-1]}, get_pct=0, pipeline=16,
                           after_round=lambda: [shorten_log(servers[side, "log"]) for side in ctx.sides])
    ctx.raw["logcost"] = {" ".join(key): results for key, results in rounds.items()}
    costs = medians(rounds, "server_cpu_us_per_op")
    for name, limit in (("no log", None), ("log", 0.57)):
        values = {side: costs[side, name] for side in ctx.sides}
        text = "CPU per SET, pipeline 16, " + ("log everysec" if name == "log" else name)
        yield ratio_row(text, "us", values, limit)
    yield limit_row("  what the log adds", "%", {side: added_pct(costs, side) for side in ctx.sides}, 15)
    rates = medians(rounds, "ops_per_s")
    yield ratio_row("  SETs per second, log everysec", "/s", {side: rates[side, "log"] for side in ctx.sides})


def run_always(ctx):
    """Nobody pinned: the threads that write and sync have cores to run on."""
    size = ctx.size("always")
    with contextlib.ExitStack() as stack:
        servers = {}
        for side in ctx.sides:
            for name, threads in (("", shipped_threads(side)), (" one worker", 1)):
                if side == "ours" or name == "":
                    server = disk_server(ctx, side, log_options(side, "always"), threads=threads)
                    servers[side + name] = stack.enter_context(server)
                    ctx.fill(server, size["keys"], conns=50)
        rounds = alternate(ctx, servers, size, None, get_pct=0, pipeline=1)
    ctx.raw["always"] = rounds
    rates = medians(rounds, "ops_per_s")
    yield ratio_row("SETs per second, appendfsync always, %d connections" % CONNS, "/s",
                    {side: rates[side] for side in ctx.sides}, 1.3, more_is_better=True)
    if "ours" in ctx.sides:
        yield ratio_row("  with one worker (--threads 1)", "/s", {"ours": rates["ours one worker"], "redis": rates.get("redis")},
                        1.3, more_is_better=True)


# --- latency at a steady rate ---------------------------------------------------------------------------------------

class Pace:
    """A generator at a steady rate in the background. mark() begins a phase; results: {phase: [figures]}."""

    def __init__(self, ctx, server, **options):
        argv = ctx.load_argv("pace", server, **options)
        self.process = spawn(argv, set(ctx.cores), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.results = {}

    def __enter__(self):
        return self

    def mark(self, phase):
        with contextlib.suppress(BrokenPipeError):  # end() says why
            self.process.stdin.write("mark %s\n" % phase)
            self.process.stdin.flush()
        time.sleep(MARK_REST_S)

    def end(self):
        self.mark("rest")
        out, err = self.process.communicate()
        if self.process.returncode != 0:
            raise BenchError("pace: " + err.strip())
        for figures in json.loads(out)["phases"]:
            if figures["misses"]:
                raise BenchError("%d misses where every key is set" % figures["misses"])
            if not figures["ops"] and figures["name"] != "rest":
                raise BenchError("no reply in phase " + figures["name"])
            self.results.setdefault(figures["name"], []).append(figures)
        return self.results

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def phase_median(results, phase, field):
    return statistics.median(figures[field] for figures in results[phase])


def phase_worst(results, phase, field):
    return max(figures[field] for figures in results[phase])


def reads_beside_writes(ctx, side, size):
    """GETs alone, beside writes that nobody syncs, and beside the same writes with everysec; in turn."""
    writes = dict(conns=1, pipeline=size["writes"] // 1000, rate=size["writes"], get_pct=0, keys=2 * size["keys"],
                  keys_from=size["keys"], value_min=size["write_len"], value_max=size["write_len"], seed=2)
    with disk_server(ctx, side, log_options(side)) as server:
        ctx.fill(server, size["keys"])
        time.sleep(2)  # what the fill has written is synced before the first quiet phase
        with Pace(ctx, server, conns=10, rate=size["rate"], get_pct=100, keys=size["keys"]) as reads:
            for _ in range(size["rounds"]):
                reads.mark("quiet")
                time.sleep(size["seconds"])
                for appendfsync in ("no", "everysec"):
                    reads.mark("rest")
                    server.ask("CONFIG", "SET", "appendfsync", appendfsync)
                    with Pace(ctx, server, **writes) as writer:
                        reads.mark(appendfsync)
                        time.sleep(size["seconds"])
                        reads.mark("rest")
                        writer.end()
                time.sleep(1.2)  # what was written last has been synced before the next quiet phase
            results = reads.end()
        synced = server.info("persistence")
    return dict(results, persistence={k: v for k, v in synced.items() if k.startswith(("log_", "aof_"))})


def run_fsyncreads(ctx):
    size = ctx.size("fsyncreads")
    results = {side: reads_beside_writes(ctx, side, size) for side in ctx.sides}
    ctx.raw["fsyncreads"] = results
    p999 = {phase: {side: phase_median(results[side], phase, "p999_us") for side in ctx.sides}
            for phase in ("quiet", "no", "everysec")}
    yield limit_row("p99.9 of GETs, %d k/s, no writes" % (size["rate"] // 1000), "us", p999["quiet"])
    yield limit_row("  beside %d k SETs/s of %d B, appendfsync no" % (size["writes"] // 1000, size["write_len"]), "us",
                    p999["no"])
    yield limit_row("  beside the same with everysec", "us", p999["everysec"])
    yield limit_row("p99.9 of GETs while the log is synced, over that without writes", "x",
                    {side: p999["everysec"][side] / p999["quiet"][side] for side in ctx.sides}, 2.0, digits=2)


def save_under_load(ctx, side, size):
    """p99 and so on of both phases, and of each BGSAVE its seconds and what memory it took above the peak before."""
    saves = []
    load = dict(keys=size["keys"], value_min=size["value_len"], value_max=size["value_len"], values=RANDOM)
    with disk_server(ctx, side, log_options(side)) as server:
        ctx.fill(server, **load)
        with Pace(ctx, server, conns=CONNS, rate=size["rate"], get_pct=90, **load) as pace:
            pace.mark("settle")
            time.sleep(size["seconds"] / 2)
            for _ in range(size["rounds"]):
                pace.mark("quiet")
                time.sleep(size["seconds"])
                pace.mark("rest")
                server.forget_peak()
                before = server.peak_rss_bytes()
                pace.mark("save")
                seconds, _, info = save(server)
                pace.mark("rest")
                # A fork shares its memory: what it costs is what had to be copied, which redis counts itself.
                copied = int(info.get("rdb_last_cow_size", 0))
                grown = server.peak_rss_bytes() + copied - before
                saves.append(dict(seconds=seconds, grown_pct=100 * grown / before, before_bytes=before))
            results = pace.end()
    return dict(results, saves=saves)


def run_snapshot(ctx):
    size = ctx.size("snapshot")
    results = {side: save_under_load(ctx, side, size) for side in ctx.sides}
    ctx.raw["snapshot"] = results
    p99 = {phase: {side: phase_median(results[side], phase, "p99_us") for side in ctx.sides}
           for phase in ("quiet", "save")}
    yield limit_row("p99, %d k requests/s, 90%% GET, quiet" % (size["rate"] // 1000), "us", p99["quiet"])
    yield limit_row("  during BGSAVE of %g M x %d B" % (size["keys"] / 1e6, size["value_len"]), "us", p99["save"])
    yield limit_row("p99 during BGSAVE over quiet", "x",
                    {side: p99["save"][side] / p99["quiet"][side] for side in ctx.sides}, 1.5, digits=2)
    for phase, limit in (("quiet", None), ("save", 10)):
        yield limit_row("  worst request, " + phase, "ms",
                        {side: phase_worst(results[side], phase, "worst_us") / 1e3 for side in ctx.sides}, limit)
    yield machine_row(ctx)
    yield limit_row("  peak of memory during BGSAVE, above before", "%",
                    {side: max(s["grown_pct"] for s in results[side]["saves"]) for side in ctx.sides}, 3)
    yield speed_row("seconds of a BGSAVE under this load", "s",
                    {side: statistics.median(s["seconds"] for s in results[side]["saves"]) for side in ctx.sides}, 3)


# --- restart --------------------------------------------------------------------------------------------------------

def is_loaded(server):
    if server.kind == "redis":
        return server.ask("PING") == "PONG"
    return server.info("persistence")["warm_percent"] == "100"


def write_last(server):
    """The key that is written last, and what it holds. redis may answer before it has written: while its log is being
    synced it keeps what comes in memory, and a kill would lose it."""
    text = "last %d" % time.monotonic_ns()
    server.ask("SET", "bench:last", text)
    if server.kind == "redis":
        server.wait_for(lambda: server.info("persistence").get("aof_buffer_length", "0") == "0", step_s=0.01)
    return text


def start_again(server, text):
    """kill -9 and start. Seconds until the first right answer, and until everything is loaded; INFO."""
    server.kill()
    start_s = server.launch()
    first_s = server.wait_for(lambda: server.ask("GET", "bench:last") == text) - start_s
    loaded_s = server.wait_for(lambda: is_loaded(server), step_s=0.002) - start_s
    return dict(first_s=first_s, loaded_s=loaded_s, keys=int(server.ask("DBSIZE")),
                persistence=server.info("persistence"))


def start_several(server, text, keys, rounds):
    """Medians of some starts from the same files; each must bring all keys back, the one that was written last too."""
    results = [start_again(server, text) for _ in range(rounds)]
    for result in results:
        if result["keys"] != keys + 1:
            raise BenchError("%s: %d keys after the restart, %d were set" % (server.path, result["keys"], keys + 1))
        if int(result["persistence"].get("warm_ranges_failed", 0)):
            raise BenchError("%s: ranges could not be loaded" % server.path)
    return {"first_s": statistics.median(r["first_s"] for r in results),
            "loaded_s": statistics.median(r["loaded_s"] for r in results),
            "log_bytes": int(results[0]["persistence"].get("restart_log_bytes", 0)), "starts": results}


def from_snapshot(ctx, side, size, keys, tail):
    """Fill, snapshot, `tail` SETs more where there is a log to keep them, kill -9, start."""
    options = log_options(side) if side == "ours" else NO_LOG
    with disk_server(ctx, side, options) as server:
        ctx.fill(server, keys, values=RANDOM)
        if side == "redis":
            text = write_last(server)
            save(server)
        else:
            save(server)
            if tail:
                ctx.load("fill", server, keys=tail, conns=4, pipeline=64, values=RANDOM)
            text = write_last(server)
        return start_several(server, text, keys, size["rounds"])


def from_log(ctx, side, size, keys):
    with disk_server(ctx, side, log_options(side)) as server:
        ctx.fill(server, keys, values=RANDOM)
        text = write_last(server)
        return start_several(server, text, keys, size["rounds"])


def run_restart(ctx):
    size = ctx.size("restart")
    first = {side: from_snapshot(ctx, side, size, size["first_keys"], size["tail"]) for side in ctx.sides}
    tail_bytes = first["ours"]["log_bytes"] if "ours" in first else 0
    limit_ms = 100 + tail_bytes / 1e6  # 1 GB/s is 1 MB per ms
    yield limit_row("first right answer after kill -9, %g M x %d B, %.1f MiB of log" %
                    (size["first_keys"] / 1e6, VALUE_LEN, tail_bytes / MIB), "ms",
                    {side: 1e3 * result["first_s"] for side, result in first.items()}, limit_ms)
    yield ratio_row("  everything loaded", "s", {side: result["loaded_s"] for side, result in first.items()})
    snapshot = {side: from_snapshot(ctx, side, size, size["keys"], 0) for side in ctx.sides}
    yield speed_row("everything loaded from the snapshot, %g M x %d B" % (size["keys"] / 1e6, VALUE_LEN), "s",
                    {side: result["loaded_s"] for side, result in snapshot.items()}, 5)
    log = {side: from_log(ctx, side, size, size["keys"]) for side in ctx.sides}
    yield speed_row("everything loaded from the log of %g M SETs" % (size["keys"] / 1e6), "s",
                    {side: result["loaded_s"] for side, result in log.items()}, 8)
    ctx.raw["restart"] = dict(first=first, snapshot=snapshot, log=log)


# --- size -----------------------------------------------------------------------------------------------------------

def run_snapsize(ctx):
    size = ctx.size("snapsize")
    for name, values in (("random values", RANDOM), ("values like text", TEXT)):
        sizes = {}
        for side in ctx.sides:
            with disk_server(ctx, side, NO_LOG) as server:
                filled = ctx.fill(server, size["keys"], value_min=size["value_len"], value_max=size["value_len"],
                                  values=values)
                sizes[side] = os.path.getsize(save(server)[1]) / MIB
        payload = (filled["key_bytes"] + filled["value_bytes"]) / MIB
        ctx.raw["snapsize: " + name] = dict(sizes, payload_mib=payload)
        yield ratio_row("snapshot of %.0f MiB, %s" % (payload, name), "MiB", sizes, 1.0)


SCENARIOS = {
    "logcost": (run_logcost, "what the log adds to the CPU time of a SET"),
    "always": (run_always, "throughput when every reply waits for the disk"),
    "fsyncreads": (run_fsyncreads, "reads while the log is being synced"),
    "restart": (run_restart, "kill -9: how soon the data are back"),
    "snapshot": (run_snapshot, "what a snapshot under load costs"),
    "snapsize": (run_snapsize, "size of a snapshot"),
}
