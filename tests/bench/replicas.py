# SPDX-License-Identifier: BSD-3-Clause
"""replicas: what a second copy costs, how soon it is there, and how soon it is there again.

Two nodes on the same two cores, both with a log at everysec. The primary of redis-server keeps enough backlog for what
is measured; its replicas load what they are sent as it is shipped.
"""
import contextlib
import statistics
import time

from common import CONNS, VALUE_LEN, Row, limit_row, machine_row, medians, ratio_row, speed_row
from durability import Pace, disk_server, log_options, phase_median, phase_worst, RANDOM
from servers import BenchError

SIZES = {
    "replica": dict(keys=100000, rounds=5, warmup_s=0.3, seconds=2.0),
    "streaming": dict(keys=1000000, rounds=5, warmup_s=0.5, seconds=3.0),
    "catchup": dict(keys=1000000, writes=2000000, rounds=1),
    "fullcopy": dict(keys=3000000, rounds=1, seconds=6.0, rate=10000),
}
QUICK = {
    "replica": dict(keys=20000, rounds=1, warmup_s=0.1, seconds=0.5),
    "streaming": dict(keys=50000, rounds=1, warmup_s=0.2, seconds=0.5),
    "catchup": dict(keys=20000, writes=50000, rounds=1),
    "fullcopy": dict(keys=50000, rounds=1, seconds=0.5, rate=5000),
}


def options(side):
    own = []
    if side == "redis":
        own = ["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "1gb",
               "--client-output-buffer-limit", "replica 0 0 0"]
    return log_options(side) + own


def node(ctx, side, **kwargs):
    return disk_server(ctx, side, options(side), **kwargs)


def is_attached(replica):
    return replica.info("replication").get("master_link_status") == "up"


def has_all(primary, replica):
    """The same place in the log, or in the stream."""
    ours, theirs = primary.info("replication"), replica.info("replication")
    return theirs.get("master_link_status") == "up" and \
        int(theirs["slave_repl_offset"]) >= int(ours["master_repl_offset"])


def attach(primary, replica):
    replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
    replica.wait_for(lambda: has_all(primary, replica), step_s=0.01)


@contextlib.contextmanager
def pair(ctx, side, keys, **kwargs):
    """A filled primary and its replica."""
    with node(ctx, side, **kwargs) as primary, node(ctx, side, **kwargs) as replica:
        ctx.fill(primary, keys)
        attach(primary, replica)
        yield primary, replica


# --- one synchronous replica ----------------------------------------------------------------------------------------

def in_turn(ctx, size, kinds):
    """Each of `kinds` = {name: (mode, server, options)} once per round."""
    rounds = {name: [] for name in kinds}
    for _ in range(size["rounds"]):
        for name, (mode, server, load) in kinds.items():
            rounds[name].append(ctx.load(mode, server, keys=size["keys"], value_min=VALUE_LEN, value_max=VALUE_LEN,
                                         warmup_s=size["warmup_s"], seconds=size["seconds"], **load))
    return rounds


def run_replica(ctx):
    size = ctx.size("replica")
    with contextlib.ExitStack() as stack:
        kinds = {}
        for side in ctx.sides:
            alone = stack.enter_context(node(ctx, side))
            ctx.fill(alone, size["keys"])
            kinds[side, "no replica"] = ("rtt", alone, {})
            primary, _ = stack.enter_context(pair(ctx, side, size["keys"]))
            sync = dict(ack_replicas=1) if side == "ours" else dict(wait_replicas=1)
            kinds[side, "alone"] = ("rtt", primary, {})
            kinds[side, "sync"] = ("rtt", primary, sync)
            if side == "ours":
                kinds[side, "many"] = ("mix", primary, dict(conns=CONNS))
                kinds[side, "many sync"] = ("mix", primary, dict(conns=CONNS, ack_replicas=1))
        rounds = in_turn(ctx, size, kinds)
    ctx.raw["replica"] = {" ".join(key): results for key, results in rounds.items()}
    p50 = medians({key: value for key, value in rounds.items() if "many" not in key[1]}, "p50_us")
    yield limit_row("p50 of a SET, one connection, no replica", "us",
                    {side: p50[side, "no replica"] for side in ctx.sides}, digits=1)
    yield limit_row("  asynchronous replica", "us",
                    {side: p50[side, "alone"] for side in ctx.sides})
    sync = {side: p50[side, "sync"] for side in ctx.sides}
    yield limit_row("  one synchronous replica (redis: SET and WAIT)", "us", sync, 150)
    yield ratio_row("  the same, against redis", "us", sync, 0.85)
    if "ours" in ctx.sides:
        rates = medians({key: value for key, value in rounds.items() if "many" in key[1]}, "ops_per_s")
        kept = 100 * rates["ours", "many sync"] / rates["ours", "many"]
        yield Row("SETs per second, %d connections, replicas:1" % CONNS, "/s", rates["ours", "many sync"], None, "", "", None)
        yield Row("  of those with an asynchronous replica", "%", kept, None, "", ">= 60", kept >= 60)


# --- what the stream costs ------------------------------------------------------------------------------------------

def run_streaming(ctx):
    """Primaries on one core with one worker, as in `cpu`; generator and replicas on the other."""
    size = ctx.size("streaming")
    server_core, load_core = {ctx.cores[0]}, {ctx.cores[-1]}
    with contextlib.ExitStack() as stack:
        kinds = {}
        for side in ctx.sides:
            for name in ("alone", "replica"):
                primary = stack.enter_context(node(ctx, side, threads=1, cpus=server_core))
                ctx.fill(primary, size["keys"])
                kinds[side, name] = primary
            attach(kinds[side, "replica"], stack.enter_context(node(ctx, side, threads=1, cpus=load_core)))
        rounds = {key: [] for key in kinds}
        for _ in range(size["rounds"]):
            for key, primary in kinds.items():
                rounds[key].append(ctx.load("mix", primary, load_core, conns=CONNS, keys=size["keys"], pipeline=16,
                                            value_min=VALUE_LEN, value_max=VALUE_LEN, warmup_s=size["warmup_s"],
                                            seconds=size["seconds"]))
    ctx.raw["streaming"] = {" ".join(key): results for key, results in rounds.items()}
    cost = medians(rounds, "server_cpu_us_per_op")
    for name in ("alone", "replica"):
        yield ratio_row("CPU per SET of the primary, pipeline 16, " + name, "us",
                        {side: cost[side, name] for side in ctx.sides})
    yield limit_row("  what the stream adds", "%",
                    {side: 100 * (cost[side, "replica"] / cost[side, "alone"] - 1) for side in ctx.sides}, 20)


# --- copies ---------------------------------------------------------------------------------------------------------

def catch_up(ctx, side, size):
    """Seconds from the start of a replica that has missed `writes` SETs until it has them; full copies that took."""
    with pair(ctx, side, size["keys"]) as (primary, replica):
        full_before = int(primary.info("stats")["sync_full"])
        replica.kill()
        ctx.load("fill", primary, keys=size["writes"], conns=4, pipeline=64, value_min=VALUE_LEN, value_max=VALUE_LEN)
        replica.options += ["--replicaof", "127.0.0.1 %d" % primary.port]
        start_s = replica.launch()
        replica.wait_for(lambda: has_all(primary, replica), step_s=0.005)
        return dict(seconds=time.monotonic() - start_s,
                    full=int(primary.info("stats")["sync_full"]) - full_before)


def run_catchup(ctx):
    size = ctx.size("catchup")
    results = {side: [catch_up(ctx, side, size) for _ in range(size["rounds"])] for side in ctx.sides}
    ctx.raw["catchup"] = results
    seconds = {side: statistics.median(r["seconds"] for r in runs) for side, runs in results.items()}
    yield limit_row("a replica that was off for %g M SETs has them" % (size["writes"] / 1e6), "s", seconds)
    rates = {side: size["writes"] / s / 1e6 for side, s in seconds.items()}
    yield Row("  records per second, its start included", "M/s", rates.get("ours"), rates.get("redis"), "", ">= 1",
              rates.get("ours") and rates["ours"] >= 1)
    yield limit_row("  full copies that this took", "", {side: max(r["full"] for r in runs)
                                                        for side, runs in results.items()}, 0)


def full_copy(ctx, side, size):
    """Seconds from REPLICAOF until the replica answers from all data; what clients of the primary see meanwhile."""
    seconds = []
    load = dict(keys=size["keys"], value_min=VALUE_LEN, value_max=VALUE_LEN, values=RANDOM)
    with node(ctx, side) as primary:
        ctx.fill(primary, **load)
        for _ in range(size["rounds"]):
            with node(ctx, side) as replica:
                start_s = time.monotonic()
                replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
                replica.wait_for(lambda: is_attached(replica) and int(replica.ask("DBSIZE")) == size["keys"],
                                 step_s=0.005)
                seconds.append(time.monotonic() - start_s)
        with Pace(ctx, primary, conns=CONNS, rate=size["rate"], get_pct=90, **load) as pace:
            pace.mark("settle")
            time.sleep(size["seconds"] / 2)
            for _ in range(size["rounds"]):
                pace.mark("quiet")
                time.sleep(size["seconds"])
                pace.mark("rest")
                with node(ctx, side) as replica:
                    pace.mark("copy")
                    attach(primary, replica)
                    pace.mark("rest")
            results = pace.end()
    return dict(results, seconds=seconds)


def run_fullcopy(ctx):
    size = ctx.size("fullcopy")
    results = {side: full_copy(ctx, side, size) for side in ctx.sides}
    ctx.raw["fullcopy"] = results
    yield speed_row("full copy of %g M x %d B, until the replica serves all" % (size["keys"] / 1e6, VALUE_LEN), "s",
                    {side: statistics.median(r["seconds"]) for side, r in results.items()}, 3)
    p99 = {phase: {side: phase_median(results[side], phase, "p99_us") for side in ctx.sides}
           for phase in ("quiet", "copy")}
    yield limit_row("p99 of the primary, %d k requests/s, quiet" % (size["rate"] // 1000), "us", p99["quiet"])
    yield limit_row("  while a full copy is made", "us", p99["copy"])
    yield limit_row("p99 during a full copy over quiet", "x",
                    {side: p99["copy"][side] / p99["quiet"][side] for side in ctx.sides}, 1.5, digits=2)
    yield limit_row("  worst request meanwhile", "ms",
                    {side: phase_worst(results[side], "copy", "worst_us") / 1e3 for side in ctx.sides})
    yield machine_row(ctx)


SCENARIOS = {
    "replica": (run_replica, "a write that one replica has before it is answered"),
    "streaming": (run_streaming, "what a replica adds to the CPU time of a SET"),
    "catchup": (run_catchup, "a replica that was away"),
    "fullcopy": (run_fullcopy, "a replica that has nothing"),
}
