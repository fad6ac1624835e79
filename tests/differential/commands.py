# SPDX-License-Identifier: BSD-3-Clause
"""The shared commands as a table: weight, then a template whose lower-case words gen.py replaces.

WORD stays as it is; name = one value of that kind (the method of gen.Generator); name+ = one to three; name* = none to
two; a/b = either;
:name = up to four options of OPTIONS[name], in any order and combination, sensible or not.
Times are hours away or in the past, so that nothing expires during a run; SET with a time in the past stands in cases/.
"""

TABLE = {
    "string": """
        14 SET k v
         9 SET k v :set
        10 GET k
         2 GETDEL k
         4 GETEX k :getex
         2 GETSET k v
         2 SETNX k v
         2 SETEX k sec v
         1 PSETEX k msec v
         3 MGET k+
         3 MSET k v
         2 MSET k v k v
         2 MSETNX k v k v
         4 APPEND k v
         3 STRLEN k
         3 SETRANGE k off v
         3 GETRANGE k off off
         1 SUBSTR k off off
         3 INCR k
         3 DECR k
         4 INCRBY k i
         3 DECRBY k i
         5 INCRBYFLOAT k f
         4 SET lk lv
         3 LCS lk lk :lcs
         1 LCS k k :lcs""",
    "bit": """
         4 SETBIT k bitoff bit
         3 GETBIT k bitoff
         2 BITCOUNT k
         4 BITCOUNT k off off :unit
         2 BITPOS k bit
         4 BITPOS k bit off :bitpos
         4 BITOP AND/OR/XOR/NOT/word k k+
         1 BITOP NOT k k
         6 BITFIELD k :bitfield
         2 BITFIELD k :bitfield
         2 BITFIELD_RO k :bitfield_ro""",
    "key": """
         3 DEL k+
         2 UNLINK k+
         3 EXISTS k+
         2 TYPE k
         1 TOUCH k+
         4 EXPIRE k sec :expire
         2 PEXPIRE k msec :expire
         2 EXPIREAT k at :expire
         2 PEXPIREAT k atms :expire
         4 TTL k
         3 PTTL k
         2 EXPIRETIME k
         2 PEXPIRETIME k
         2 PERSIST k
         3 RENAME k k
         2 RENAMENX k k
         4 COPY k k :copy
         2 MOVE k db
         2 KEYS pat
         3 DBSIZE
         1 RANDOMKEY
         2 SCAN cursor :scan
         4 OBJECT ENCODING k
         2 OBJECT REFCOUNT k
         1 OBJECT word k
         1 OBJECT HELP
         1 MEMORY USAGE k :memory
         1 TTL k k""",
    "dump": """
         4 DUMP k
         6 RESTORE k restorems payload :restore
         1 RESTORE k atms payload ABSTTL :restore""",
    "flush": """
         2 FLUSHDB :flush
         1 FLUSHALL :flush""",
    "connection": """
         4 SELECT db
         3 PING
         2 PING v
         2 ECHO v
         1 HELLO
         1 HELLO hellover :hello
         1 AUTH word
         1 AUTH word word
         1 RESET
         1 QUIT
         2 CLIENT SETNAME name
         2 CLIENT GETNAME
         1 CLIENT REPLY ON/word
         1 CLIENT NO-EVICT on/off/word
         1 CLIENT KILL word
         1 CLIENT KILL ID bigid/badint
         1 CLIENT KILL word word
         1 CLIENT UNBLOCK bigid :unblock
         1 CLIENT PAUSE badint
         1 CLIENT PAUSE 0 word
         1 CLIENT UNPAUSE
         1 CLIENT LIST TYPE word
         1 CLIENT word
         1 COMMAND COUNT
         1 COMMAND LIST
         1 COMMAND LIST FILTERBY word word
         2 COMMAND INFO shared shared
         1 COMMAND INFO word
         2 COMMAND GETKEYS getkeys
         1 COMMAND word
         1 TIME
         2 word word
         1 word v v v""",
    "config": """
         2 CONFIG GET cfgname
         1 CONFIG GET cfgname cfgname
         4 CONFIG SET cfg
         1 CONFIG SET cfg cfg
         1 CONFIG SET word word
         1 CONFIG SET databases 4
         1 CONFIG RESETSTAT
         1 CONFIG word
         1 SLOWLOG word
         1 LATENCY RESET""",
    "pubsub": """
         8 PUBLISH chan v
         4 SPUBLISH chan v
         3 PUBSUB CHANNELS
         2 PUBSUB CHANNELS chanpat
         2 PUBSUB NUMSUB chan*
         2 PUBSUB NUMPAT
         1 PUBSUB SHARDCHANNELS
         2 PUBSUB SHARDNUMSUB chan*
         1 PUBSUB word""",
    "subscribe": """
         6 SUBSCRIBE chan+
         4 PSUBSCRIBE chanpat+
         3 SSUBSCRIBE chan+
         3 UNSUBSCRIBE chan+
         2 UNSUBSCRIBE
         2 PUNSUBSCRIBE chanpat+
         1 PUNSUBSCRIBE
         2 SUNSUBSCRIBE chan+
         1 SUNSUBSCRIBE
         2 PING
         1 PING v
         1 GET k
         2 RESET
         1 QUIT""",
    "notify": """
         3 CONFIG SET notify-keyspace-events notify
         2 PSUBSCRIBE eventpat+
         1 PUNSUBSCRIBE""",
    "watch": """
         6 WATCH wk+
         2 UNWATCH
         5 MULTI
         1 EXEC
         1 DISCARD""",
}

# How often each family is drawn in the modes of diff.py.
FAMILIES = {
    "all": {"string": 40, "bit": 12, "key": 25, "dump": 4, "flush": 1, "connection": 5, "config": 2, "pubsub": 1,
            "watch": 7},
    "pubsub": {"string": 12, "key": 8, "connection": 3, "pubsub": 25, "subscribe": 20, "notify": 3, "watch": 4,
               "flush": 1},
    "multi": {"string": 40, "key": 15, "bit": 3, "flush": 2, "connection": 2, "watch": 30, "dump": 1},
}

OPTIONS = {
    "set": ["EX sec", "PX msec", "EXAT farat", "PXAT faratms", "KEEPTTL", "NX", "XX", "GET", "NX", "GET", "word", "EX",
            "EX badint"],
    "getex": ["EX sec", "PX msec", "EXAT at", "PXAT atms", "PERSIST", "word", "EX", "PX badint", "KEEPTTL"],
    "lcs": ["LEN", "IDX", "MINMATCHLEN i", "WITHMATCHLEN", "IDX", "MINMATCHLEN 2", "word", "MINMATCHLEN"],
    "unit": ["BYTE", "BIT", "BIT", "word"],
    "bitpos": ["off", "off BYTE", "off BIT", "off word", "BIT"],
    "bitfield": ["GET bftype bfoff", "SET bftype bfoff i", "INCRBY bftype bfoff i", "INCRBY bftype bfoff i",
                 "OVERFLOW WRAP/SAT/FAIL/word", "OVERFLOW SAT", "OVERFLOW FAIL", "word", "GET bftype",
                 "SET bftype bfoff"],
    "bitfield_ro": ["GET bftype bfoff", "GET bftype bfoff", "GET bftype bfoff", "SET bftype bfoff i", "OVERFLOW SAT",
                    "word"],
    "expire": ["NX", "XX", "GT", "LT", "GT", "LT", "word"],
    "copy": ["DB db", "REPLACE", "REPLACE", "DB", "word"],
    "scan": ["MATCH pat", "COUNT count", "TYPE string/hash/word", "word", "COUNT"],
    "memory": ["SAMPLES i", "word"],
    "restore": ["REPLACE", "REPLACE", "ABSTTL", "IDLETIME i", "FREQ freq", "word", "IDLETIME", "FREQ"],
    "flush": ["ASYNC", "SYNC", "word"],
    "hello": ["AUTH word word", "SETNAME name", "AUTH default word", "AUTH word", "SETNAME", "word"],
    "unblock": ["TIMEOUT", "ERROR", "word"],
}

# What COMMAND INFO and COMMAND LIST are asked about: the commands that both servers have.
SHARED = """
    append auth bitcount bitfield bitfield_ro bitop bitpos client command config copy dbsize debug decr decrby
    del discard dump echo exec exists expire expireat expiretime flushall flushdb get getbit getdel getex
    getrange getset hello incr incrby incrbyfloat info keys latency lcs memory mget monitor move mset msetnx
    multi object persist pexpire pexpireat pexpiretime ping psetex psubscribe pttl publish pubsub punsubscribe
    quit randomkey rename renamenx reset restore scan select set setbit setex setnx setrange shutdown slowlog
    spublish ssubscribe strlen subscribe substr sunsubscribe time touch ttl type unlink unsubscribe unwatch
    watch""".split()

# Settings of both servers with values to try; the first value is the one that a run starts with.
CONFIG = {
    "notify-keyspace-events": ["", "KEA", "K$", "Egx", "bogus"],
    "maxmemory-samples": ["5", "10", "0", "-1", "x", "64"],
    "slowlog-log-slower-than": ["-1", "1000000", "x", "99999999999999999999"],
    "slowlog-max-len": ["128", "10", "-1", "x"],
    "timeout": ["0", "3000", "-1", "x", "1.5"],
    "tcp-keepalive": ["300", "60", "-1", "x"],
    "latency-monitor-threshold": ["0", "100000", "-1", "x"],
    "maxmemory": ["0", "2gb", "3000MB", "-1", "x", "1gx"],
    "loglevel": ["notice", "warning", "loud"],
}
