#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""tidy: the rules of the house that no compiler checks. See tools/dev/README.md.

    tidy.py              check the tree; exit 1 if a rule is broken
    tidy.py --numbers    also print sizes, asserts and comments per floor
    tidy.py --self-test  show that each rule fires on what it is there for
"""
import os
import re
import statistics
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ("server", "persist", "replication", "tools", "tests")
DATA = ("tests/fuzz/corpus", "tests/golden")  # inputs of tests, not sources
SPDX = "SPDX-License-Identifier: BSD-3-Clause"

# Who may include whom: downwards only, siblings never each other.
FLOORS = {
    "server/base": 0,
    "server/store": 1,
    "server/proto": 1,
    "persist": 2,
    "replication": 3,
    "server/cmd": 4,
    "server/net": 5,
    "server": 6,  # main.c, the one file that sees everything
}
TOOLS_MAY_USE = {"server/base", "server/store", "server/proto", "persist"}

# Header of somebody else -> the only files that include it (tests are free).
THIRD_PARTY = [
    (r"event2?/|event\.h|evutil\.h", r"server/net/"),
    (r"openssl/", r"server/net/"),
    (r"sodium", r"server/base/crypto\.c"),
    (r"jemalloc/", r"server/base/mem\.c"),
    (r"zstd", r"persist/(snap_\w+|\w*segment\w*)\.c"),
    (r"lmdb\.h", r"persist/meta\.c"),
    (r"(check|hiredis/.*)\.?h?$", r"tests/"),
]

# Call -> files where it stays legal -> what to do instead.
ANYWHERE = r"$^"
LOOSE = r"tests/|tools/"
BANNED = [
    ("strcpy strcat sprintf vsprintf gets stpcpy", ANYWHERE, "use snprintf, memcpy or a buf"),
    ("atoi atol atoll atof", ANYWHERE, "they don't report what isn't a number"),
    ("rand srand rand_r random srandom drand48", ANYWHERE, "use a seeded struct rng"),
    ("strtok strerror localtime gmtime ctime asctime inet_ntoa", LOOSE, "not safe with threads"),
    ("malloc calloc realloc reallocarray free strdup strndup asprintf vasprintf posix_memalign aligned_alloc",
     LOOSE + r"|server/base/mem\.c", "memory is accounted: use mem.h or an arena"),
    ("time gettimeofday clock_gettime", LOOSE + r"|server/base/time\.c", "the clock is injected: use time.h"),
    ("printf vprintf puts putchar perror", LOOSE + r"|server/main\.c", "use diag.h"),
]
PATTERNS = [
    (re.compile(r"(?<![\w.>])f(?:printf|puts)\s*\([^;]*\b(?:stdout|stderr)\b"),
     LOOSE + r"|server/main\.c|server/base/(diag|assert)\.[ch]", "writing to stdout or stderr: use diag.h"),
    (re.compile(r"(?<!asm )(?<!asm__ )\bvolatile\b(?! sig_atomic_t)"), LOOSE, "volatile: use C11 atomics"),
    (re.compile(r"__attribute__\s*\(\(\s*(?:__)?cleanup"), ANYWHERE, "cleanup attribute: use one label 'out:'"),
]
for names, allowed, hint in BANNED:
    for name in names.split():
        PATTERNS.append((re.compile(r"(?<![\w.>])%s\s*\(" % name), allowed, "%s(): %s" % (name, hint)))

# Split, so that this file may be checked too.
UNFINISHED = re.compile(r"\b(FIX" r"ME|TO" r"DO|XX" r"X)\b")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
LONGEST = {"function": 70, ".c": 600, ".h": 200}


def code_only(text, keep_strings=False):
    """The text with comments (and the insides of strings) blanked; every line stays where it is."""
    def blank(match):
        token = match.group(0)
        if token[0] != "/":
            return token if keep_strings else token[0] + re.sub(r"[^\n]", " ", token[1:-1]) + token[0]
        return re.sub(r"[^\n]", " ", token)
    return TOKEN.sub(blank, text)


def floor_of(path):
    """The module that a file belongs to: a key of FLOORS, 'tools', 'tests' or None."""
    folder = os.path.dirname(path)
    top = path.split("/")[0]
    if folder in FLOORS:
        return folder
    if top in ("persist", "replication", "tools", "tests"):
        return top
    return None


def include_allowed(path, target):
    """Whether the file at `path` may include the file `target`, both relative to the root."""
    here, there = floor_of(path), floor_of(target)
    if target.endswith("_priv.h") and here != "tests" and os.path.dirname(path) != os.path.dirname(target):
        return False
    if here == "tests":
        return there is not None
    if here == "tools":
        return there in TOOLS_MAY_USE or os.path.dirname(path) == os.path.dirname(target)
    if here == there:
        return True
    return there in FLOORS and FLOORS[there] < FLOORS[here]


def check_includes(path, text, exists):
    own = path[:-2] + ".h"
    seen_system = False
    includes = list(INCLUDE.finditer(code_only(text, keep_strings=True)))
    if path.endswith(".c") and exists(own) and (not includes or includes[0].group(2) != own):
        yield 1, "own header first: #include \"%s\"" % own
    for match in includes:
        line = text.count("\n", 0, match.start()) + 1
        kind, target = match.groups()
        if kind == "<":
            seen_system = True
            for header, allowed in THIRD_PARTY:
                if re.match(header, target) and not re.match(allowed + "|tests/", path):
                    yield line, "<%s> belongs to %s only" % (target, allowed)
        elif not exists(target):
            yield line, "\"%s\" isn't a path from the root of the tree" % target
        elif not include_allowed(path, target):
            yield line, "floor: %s may not include %s" % (floor_of(path), target)
        elif seen_system and target.endswith(".h") and path.endswith(".c"):
            yield line, "\"%s\" after a system header: own header, floors, then <system>" % target


def check_calls(path, text):
    code = code_only(text)
    for pattern, allowed, message in PATTERNS:
        if not re.match(allowed, path):
            for match in pattern.finditer(code):
                yield code.count("\n", 0, match.start()) + 1, message


def check_text(path, text):
    head = text.split("\n", 3)[:3]
    if path.endswith((".c", ".h", ".def")):
        if head[0] != "/* %s */" % SPDX:
            yield 1, "the first line is /* %s */" % SPDX
    elif path.endswith((".py", ".sh", "CMakeLists.txt")) or path == "dev":
        if not any(SPDX in line for line in head):
            yield 1, "a line # %s is missing at the top" % SPDX
    for number, line in enumerate(text.split("\n"), 1):
        if UNFINISHED.search(line):
            yield number, "unfinished work: do it or write down why not"


def check_file(path, text, exists, built):
    found = list(check_text(path, text))
    if path.endswith((".c", ".h", ".def")):
        found += check_includes(path, text, exists)
        found += check_calls(path, text)
    if path.endswith((".c", ".h")) and floor_of(path) is None:
        found.append((1, "this folder isn't part of the tree"))
    if path.endswith(".c") and path not in built:
        found.append((1, "not in CMake: nothing builds it"))
    return sorted(found)


def functions_of(text):
    """Yields (line, name, lines) for each function definition; relies on the tree being formatted."""
    code = code_only(text)
    for match in re.finditer(r"^[A-Za-z_][^;{}=#]*?(\w+)\([^;{}]*\)[^;{}=]*\{$.*?^\}", code, re.M | re.S):
        yield code.count("\n", 0, match.start()) + 1, match.group(1), match.group(0).count("\n") + 1


def long_things(path, text):
    limit = LONGEST.get(os.path.splitext(path)[1])
    lines = text.count("\n")
    if limit is not None and lines > limit:
        yield 1, "the file has %d lines (%d)" % (lines, limit)
    if path.endswith((".c", ".h")):
        for line, name, length in functions_of(text):
            if length > LONGEST["function"]:
                yield line, "%s has %d lines (%d)" % (name, length, LONGEST["function"])


def sources_in_cmake(folder, text):
    """The .c files that one CMakeLists.txt builds, relative to the root."""
    text = re.sub(r"#.*", "", text)
    names = re.findall(r"[\w./-]+\.c\b", text)
    names += ["unit/test_%s.c" % n for n in re.findall(r"dc_unit_test\(\s*(\w+)", text)]
    names += ["fuzz/fuzz_%s.c" % n for n in re.findall(r"dc_fuzzer\(\s*(\w+)", text)]
    return {os.path.normpath(os.path.join(folder, name)) for name in names}


def tree():
    """Yields (path, text) of every source, sorted by path."""
    paths = ["dev", "CMakeLists.txt"]
    for top in FOLDERS:
        for folder, subfolders, names in os.walk(os.path.join(ROOT, top)):
            relative = os.path.relpath(folder, ROOT)
            subfolders[:] = [d for d in subfolders if os.path.join(relative, d) not in DATA and d != "__pycache__"]
            paths += [os.path.join(relative, name) for name in names]
    for path in sorted(paths):
        full = os.path.join(ROOT, path)
        if os.path.isfile(full) and path.endswith((".c", ".h", ".def", ".py", ".sh", "dev", "CMakeLists.txt")):
            with open(full, encoding="utf-8") as file:
                yield path, file.read()


def print_numbers(files):
    print("%-14s %6s %5s %22s %13s %9s" % ("floor", "lines", "files", "function median/p90", "asserts/kloc", "comment"))
    for floor in list(FLOORS) + ["tools", "tests"]:
        texts = [text for path, text in files if floor_of(path) == floor and path.endswith((".c", ".h", ".def"))]
        lines = sum(text.count("\n") for text in texts)
        if not lines:
            continue
        lengths = sorted(length for text in texts for _, _, length in functions_of(text)) or [0]
        asserts = sum(len(re.findall(r"\b(?:dc_\w*|static_|_Static_|ck_)assert\w*\s*\(", code_only(t))) for t in texts)
        comment = sum(m.group(0).count("\n") + 1 for t in texts for m in TOKEN.finditer(t) if m.group(0)[0] == "/")
        print("%-14s %6d %5d %15d / %4d %13.0f %8.0f%%" % (
            floor, lines, len(texts), statistics.median(lengths), lengths[len(lengths) * 9 // 10],
            1000 * asserts / lines, 100 * comment / lines))


def main():
    files = list(tree())
    paths = {path for path, _ in files}
    built = set()
    for path, text in files:
        if path.endswith("CMakeLists.txt"):
            built |= sources_in_cmake(os.path.dirname(path), text)
    broken = 0
    for path, text in files:
        for line, message in long_things(path, text):
            print("%s:%d: look twice: %s" % (path, line, message))
    for path, text in files:
        for line, message in check_file(path, text, paths.__contains__, built):
            print("%s:%d: %s" % (path, line, message))
            broken += 1
    if "--numbers" in sys.argv:
        print_numbers(files)
    print("tidy: %d files, %d broken rules" % (len(files), broken))
    return 1 if broken else 0


TOP = "/* %s */\n" % SPDX
SAMPLES = [  # path, text after the SPDX line, part of the complaint or None
    ("server/store/a.c", '#include "server/base/b.h"\n', None),
    ("server/store/a.c", '#include "server/net/b.h"\n', "floor:"),
    ("server/store/a.c", '#include "server/proto/b.h"\n', "floor:"),
    ("server/base/a.c", '#include "server/store/b.h"\n', "floor:"),
    ("server/net/a.c", '#include "replication/b.h"\n', None),
    ("server/net/a.c", '#include "server/store/b_priv.h"\n', "floor:"),
    ("server/net/a.c", '#include "tests/support/b.h"\n', "floor:"),
    ("server/main.c", '#include "server/net/b.h"\n', None),
    ("tools/x/a.c", '#include "persist/b.h"\n', None),
    ("tools/x/a.c", '#include "server/cmd/b.h"\n', "floor:"),
    ("tests/unit/a.c", '#include "server/store/b_priv.h"\n#include <check.h>\n', None),
    ("server/net/a.c", "#include <event2/event.h>\n", None),
    ("server/cmd/a.c", "#include <event2/event.h>\n", "server/net/ only"),
    ("server/base/a.c", "#include <sodium.h>\n", "crypto"),
    ("server/base/crypto.c", "#include <sodium.h>\n", None),
    ("server/store/a.c", "#include <check.h>\n", "tests/ only"),
    ("server/store/a.c", '#include "b.h"\n', "path from the root"),
    ("server/store/own.c", '#include <stdio.h>\n#include "server/store/own.h"\n', "own header first"),
    ("server/store/a.c", '#include <stdio.h>\n#include "server/base/b.h"\n', "after a system header"),
    ("server/store/a.c", '#include <stdio.h>\n#include "server/base/b.def"\n', None),
    ("server/store/a.c", "p = malloc(1);\n", "malloc()"),
    ("server/base/mem.c", "p = malloc(1);\n", None),
    ("server/store/a.c", "mem_free(p); ops->free(p); /* free(p) */ s = \"free(p)\";\n", None),
    ("server/store/a.c", "sprintf(p, x);\n", "sprintf()"),
    ("server/store/a.c", "snprintf(p, 1, x);\n", None),
    ("server/store/a.c", "printf(x);\n", "printf()"),
    ("server/store/a.c", "fprintf(stderr, x);\n", "stderr"),
    ("tools/x/a.c", "printf(x); free(p);\n", None),
    ("tests/unit/a.c", "n = rand();\n", "rand()"),
    ("server/store/a.c", "n = time(NULL);\n", "time()"),
    ("server/base/time.c", "n = time(NULL);\n", None),
    ("server/store/a.c", "volatile int n;\n", "volatile"),
    ("server/store/a.c", "__asm__ volatile(\"pause\"); static volatile sig_atomic_t stop;\n", None),
    ("server/store/a.c", "/* TO" "DO: later */\n", "unfinished"),
    ("server/store/a.c", "mkstemp(\"XX" "XXXX\");\n", None),
    ("server/store/lost.c", "", "not in CMake"),
    ("server/new/a.c", "", "isn't part of the tree"),
]


def self_test():
    failures = 0
    for path, text, wanted in SAMPLES:
        built = set() if path.endswith("lost.c") else {path}
        def exists(name):
            return "/" in name and (name != path[:-2] + ".h" or path.endswith("/own.c"))
        got = [message for _, message in check_file(path, TOP + text, exists, built)]
        if (wanted is None and got) or (wanted is not None and not any(wanted in message for message in got)):
            print("self-test: %s %r: wanted %s, got %s" % (path, text, wanted, got))
            failures += 1
    sample = "int one(void) {\n    return 1;\n}\n\nstatic struct x *two(int a,\n                int b) {\n}\n"
    if [(name, lines) for _, name, lines in functions_of(sample)] != [("one", 3), ("two", 3)]:
        print("self-test: functions_of: %s" % list(functions_of(sample)))
        failures += 1
    if not any("first line" in message for _, message in check_file("server/base/a.h", "int x;\n", bool, set())):
        print("self-test: a missing SPDX line isn't seen")
        failures += 1
    print("tidy: self-test, %d samples, %d failures" % (len(SAMPLES) + 2, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(self_test() if "--self-test" in sys.argv else main())
