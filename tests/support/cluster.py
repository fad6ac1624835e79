# SPDX-License-Identifier: BSD-3-Clause
"""Several nodes that follow one another: started, killed, frozen, cut off, compared.

Works with dcache-server and with redis-server (DCACHE_SERVER names the program), so that a test of behaviour that both have can be tried
on Redis first. Options of dcache alone are dropped there.
"""
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from support import segments
from support.pace import slowness
from support.resp import Broken, Conn, Error
from support.server import BAD_OUTPUT, Server, ServerFailed, free_port, server_binary, temp_dir

GONE = (ConnectionError, TimeoutError, OSError, Broken)
LOCAL = "127.0.0.1"
DATABASES = 16
EXPIRY_MARGIN_MS = 2000  # what expires so near to now may be there on one node and not on another
# What every node gets. Silence is noticed soon, so that tests are short.
OPTIONS = {"save": "", "repl-timeout": 4, "repl-ping-replica-period": 1, "enable-debug-command": "yes"}
DCACHE_OPTIONS = {"threads": 2, "log-segment-size": "1mb"}
REDIS_OPTIONS = {"appendonly": "yes", "appendfsync": "everysec", "repl-diskless-sync-delay": 0, "daemonize": "no"}


def is_redis():
    return "redis" in os.path.basename(server_binary())


class Node(Server):
    """One server with a directory and an address for all of its lives."""

    def __init__(self, name, folder, host=LOCAL, wrapper=(), preload=None, **options):  # pylint: disable=super-init-not-called
        self.name, self.host = name, host
        self.binary, self.is_redis = server_binary(), is_redis()
        self.dir = Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.dir.parent / (self.dir.name + ".output")
        self.output_start = 0
        self.port = free_port()
        self.wrapper = list(wrapper)  # words before the command line
        self.preload = preload  # a support.disk.Preload
        self.conf = self.dir / "node.conf"
        self.conf.touch()
        self.log_path.touch()
        self.options = options
        self.process = None
        self.frozen = False
        self.starts = 0
        self.control = None

    def __repr__(self):
        return self.name

    @property
    def address(self):
        return (self.host, self.port)

    def command_line(self):
        own = {**OPTIONS, **(REDIS_OPTIONS if self.is_redis else DCACHE_OPTIONS)}
        own.update({"port": self.port, "bind": "0.0.0.0" if self.host != LOCAL else LOCAL, "dir": self.dir, "protected-mode": "no"})
        for name, value in self.options.items():
            name = name.replace("_", "-")
            if not name.startswith("ours-"):
                own[name] = value
            elif not self.is_redis:
                own[name.removeprefix("ours-")] = value
        words = self.wrapper + [self.binary, str(self.conf)]
        for name, value in own.items():
            words += ["--" + name, *map(str, value if isinstance(value, (list, tuple)) else [value])]
        return words

    # --- life and death ---

    def launch(self, **options):
        """Starts the process and doesn't wait. From the main thread: the process dies with the thread that started it."""
        assert not self.alive(), "%s runs already" % self.name
        self.options.update(options)
        self.frozen = False
        self.starts += 1
        kwargs = {"env": self.preload.environment()} if self.preload else {}
        with open(self.log_path, "ab") as log:
            log.write(b"--- start %d: %s\n" % (self.starts, " ".join(self.command_line()).encode()))
            log.flush()
            self.output_start = log.tell()
            self.process = self.popen(stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kwargs)

    def start(self, timeout=30, **options):
        self.launch(**options)
        self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout=30):
        deadline = time.monotonic() + timeout * slowness()
        while True:
            if self.process.poll() is not None:
                raise ServerFailed("%s: exit code %d at start\n%s" % (self.name, self.process.returncode, self.last_output()[-4000:]))
            try:
                with self.connect(timeout=2) as conn:
                    reply = conn.call("PING")
                    if not (isinstance(reply, Error) and reply.code == "LOADING"):
                        return
            except GONE:
                pass
            if time.monotonic() > deadline:
                raise ServerFailed("%s doesn't answer\n%s" % (self.name, self.last_output()[-4000:]))
            time.sleep(0.01)

    def kill(self):
        """kill -9, frozen or not."""
        self.hang_up()
        super().kill()
        self.frozen = False

    def terminate(self, timeout=30):
        """An orderly end."""
        self.thaw()
        self.hang_up()
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            code = self.wait(timeout)
            if code != 0:
                raise ServerFailed("%s: exit code %d\n%s" % (self.name, code, self.last_output()[-4000:]))

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        if self.frozen and self.alive():
            self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def last_output(self):
        """Of the last start."""
        with open(self.log_path, "rb") as log:
            log.seek(self.output_start)
            return log.read().decode("utf-8", "replace")

    def check(self):
        """Raises if the node has said or done what none should: also if it ended by itself."""
        bad = BAD_OUTPUT.search(self.output())
        if bad:
            raise ServerFailed("%s: %s" % (self.name, self.output()[bad.start():][:6000]))
        if self.process is not None and self.process.poll() not in (None, 0, -signal.SIGKILL):
            raise ServerFailed("%s: exit code %d\n%s" % (self.name, self.process.returncode, self.last_output()[-6000:]))

    # --- what it says ---

    def connect(self, proto=2, **kwargs):
        kwargs.setdefault("timeout", 10 * slowness())
        conn = Conn(self.address, **kwargs)
        if proto != 2:
            conn.ok("HELLO", proto)
        return conn

    def hang_up(self):
        if self.control is not None:
            self.control.close()
            self.control = None

    def call(self, *args, timeout=10):
        """A command that may be sent twice: a node that starts anew in place drops its connections."""
        timeout *= slowness()
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.control is None:
                    self.control = self.connect(timeout=timeout)
                self.control.timeout = max(deadline - time.monotonic(), 0.05)
                return self.control.call(*args)
            except GONE as error:
                self.hang_up()
                if not self.alive() or self.frozen or time.monotonic() > deadline:
                    raise ServerFailed("%s doesn't answer %s: %r\n%s" % (self.name, args[:3], error, self.last_output()[-3000:])) from error
                time.sleep(0.01)

    def ok(self, *args, timeout=10):
        reply = self.call(*args, timeout=timeout)
        if isinstance(reply, Error):
            raise AssertionError("%s: %r gave %s" % (self.name, args[:4], reply))
        return reply

    def info(self, section="everything"):
        text = self.ok("INFO", section).decode("utf-8", "replace")
        return dict(re.findall(r"(?m)^([a-zA-Z0-9_]+):(.*?)\r?$", text))

    def repl(self):
        return self.info("replication")

    def is_primary(self):
        return self.repl()["role"] == "master"

    def offset(self):
        """How far this node's data goes."""
        repl = self.repl()
        return int(repl["master_repl_offset"] if repl["role"] == "master" else repl["slave_repl_offset"])

    def counters(self):
        """Full and partial copies that this node gave."""
        stats = self.info("stats")
        return {name: int(stats[name]) for name in ("sync_full", "sync_partial_ok", "sync_partial_err")}

    # --- what it is told ---

    def follow(self, primary, *words):
        return self.ok("REPLICAOF", primary.host, primary.port, *words)

    def promote(self, timeout=10):
        """Returns when it takes writes."""
        self.ok("REPLICAOF", "NO", "ONE")
        deadline = time.monotonic() + timeout * slowness()
        while True:
            reply = self.call("SET", "promotion:" + self.name, self.starts)
            if reply == "OK":
                return
            if time.monotonic() > deadline:
                raise ServerFailed("%s is promoted and takes no writes: %s\n%s" % (self.name, reply, self.last_output()[-3000:]))
            time.sleep(0.005)

    def follows(self, primary):
        repl = self.repl()
        return (repl["role"] == "slave" and int(repl["master_port"]) == primary.port and repl["master_host"] == primary.host
                and repl["master_link_status"] == "up")


class Load(threading.Thread):
    """Writes all the time, to one node, and doesn't ask who has it. What is written last is known."""

    def __init__(self, node, value_len=100, keys=1000, batch=20, pause=0.0):
        super().__init__(daemon=True)
        self.node, self.value_len, self.keys, self.batch, self.pause = node, value_len, keys, batch, pause
        self.ended = threading.Event()
        self.written = 0
        self.slowest = 0.0  # of a batch, seconds
        self.failure = None
        self.start()

    def run(self):
        try:
            with self.node.connect(timeout=30 * slowness()) as conn:
                while not self.ended.is_set():
                    began = time.monotonic()
                    commands = [("SET", "load:%d" % ((self.written + i) % self.keys), (b"%d." % (self.written + i)).ljust(self.value_len, b"x"))
                                for i in range(self.batch)]
                    for reply in conn.pipeline(commands):
                        if reply != "OK":
                            raise AssertionError("a write to %s gave %s" % (self.node, reply))
                    self.written += self.batch
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    time.sleep(self.pause)
        except (AssertionError, *GONE) as error:
            self.failure = error

    def end(self):
        """All was written, without an error."""
        self.ended.set()
        self.join(30 * slowness())
        if self.is_alive() or self.failure is not None:
            raise AssertionError("writing to %s: %r" % (self.node, self.failure or "hangs"))
        return self.written

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.ended.set()
        if kind is None:
            self.end()


class Cluster:
    """Nodes of one test. As a context manager: kills them, checks what they said and removes everything, or keeps it after a failure."""

    def __init__(self, count=3, folder=None, names=None, **options):
        self.folder = Path(folder) if folder else temp_dir()
        self.names = names or ["node%d" % i for i in range(count)]
        self.nodes = [Node(name, self.folder / name, **options) for name in self.names]
        self.keep = False

    def __iter__(self):
        return iter(self.nodes)

    def __getitem__(self, i):
        return self.nodes[i]

    def __enter__(self):
        return self

    def __exit__(self, kind, value, _):
        if kind is not None:
            self.keep = True
            print("nodes kept in %s" % self.folder, flush=True)
        self.close(check=kind is None)

    def close(self, check=True):
        for node in self.nodes:
            node.kill()
        try:
            if check:
                self.check()
        except ServerFailed:
            self.keep = True
            raise
        finally:
            if not self.keep and not os.environ.get("DCACHE_TEST_KEEP"):
                shutil.rmtree(self.folder, ignore_errors=True)

    def check(self):
        for node in self.nodes:
            node.check()

    def start(self, primary=0):
        """All of them; all but one follow that one and are in sync."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        for node in self.nodes:
            if node is not self.nodes[primary]:
                node.follow(self.nodes[primary])
        self.wait_synced(self.nodes[primary])
        return self.nodes[primary]

    def others(self, node):
        return [n for n in self.nodes if n is not node]

    def wait_synced(self, primary, nodes=None, timeout=30):
        """Until the nodes have what the primary has. Nobody should be writing."""
        deadline = time.monotonic() + timeout * slowness()
        for node in self.others(primary) if nodes is None else nodes:
            while True:
                state = node.repl()
                head = primary.offset()
                if (state["role"] == "slave" and state["master_link_status"] == "up" and int(state["master_port"]) == primary.port
                        and int(state["slave_repl_offset"]) == head):
                    break
                if time.monotonic() > deadline:
                    raise ServerFailed("%s isn't in sync with %s at %d: %s\n%s\n--- %s says:\n%s" % (
                        node.name, primary.name, head, state, node.last_output()[-3000:], primary.name, primary.last_output()[-3000:]))
                time.sleep(0.02)

    def check_equal(self, nodes=None, timeout=10):
        """Every key, value, expiry and version is the same. Returns how many keys there are."""
        nodes = self.nodes if nodes is None else nodes
        deadline = time.monotonic() + timeout * slowness()
        while True:
            all_contents = [contents(node) for node in nodes]
            difference = next((d for other, c in zip(nodes[1:], all_contents[1:])
                               if (d := difference_of(nodes[0], all_contents[0], other, c))), None)
            if difference is None:
                return len(all_contents[0])
            if time.monotonic() > deadline or "isn't on" not in difference:  # an expiry may be seen a moment later
                raise AssertionError(difference)
            time.sleep(0.2)

    def check_logs(self, nodes=None):
        """The log is the same bytes wherever it is there twice. Returns how many were compared with those of the first node."""
        nodes = self.nodes if nodes is None else nodes
        if nodes[0].is_redis:
            return 0
        return sum(segments.compare(nodes[i].dir, other.dir) for i in range(len(nodes)) for other in nodes[i + 1:])


def contents(node):
    """{(database, key): (value, expiry, version)} of all that lasts; a version is 0 where there are none."""
    found = {}
    with node.connect(timeout=30) as conn:
        soon = int(time.time() * 1000) + EXPIRY_MARGIN_MS
        databases = sorted(map(int, re.findall(rb"(?m)^db(\d+):", conn.ok("INFO", "keyspace"))))
        for database in databases:
            conn.ok("SELECT", database)
            cursor = b"0"
            while True:
                cursor, keys = conn.ok("SCAN", cursor, "COUNT", 1000)
                words = "GET" if node.is_redis else "GETVER"
                replies = conn.pipeline(c for key in keys for c in ((words, key), ("PEXPIRETIME", key)))
                for i, key in enumerate(keys):
                    value, expiry = replies[2 * i], replies[2 * i + 1]
                    value, version = (value, 0) if node.is_redis else value
                    if value is not None and (expiry == -1 or expiry > soon):
                        found[database, key] = (value, expiry, version)
                if cursor == b"0":
                    break
    return found


def difference_of(one, its, other, others):
    for key in its.keys() | others.keys():
        a, b = its.get(key), others.get(key)
        if a is None or b is None:
            return "%s isn't on %s: %s" % (key, one if a is None else other, (a or b)[:3])
        if a != b:
            return "%s is %s on %s and %s on %s" % (key, shown(a), one, shown(b), other)
    return None


def shown(entry):
    return "%r (%d bytes) until %d, version %d" % (entry[0][:60], len(entry[0]), entry[1], entry[2])


def eventually(condition, timeout=10.0, message="", pause=0.02):
    """What the condition gives, as soon as that is true."""
    deadline = time.monotonic() + timeout * slowness()
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("not within %g s: %s" % (timeout, message() if callable(message) else message))
        time.sleep(pause)
    return found
