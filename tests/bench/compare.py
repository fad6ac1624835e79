#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""compare: two reports of run.py --json, row by row: our figure then and now, and its distance from redis in each.

    compare.py BEFORE.json AFTER.json

Only what was measured in the same run can be compared closely, so the last column sets ours against redis in each
run and prints how that ratio has changed.
"""
import json
import sys


def rows_of(path):
    with open(path) as report:
        scenarios = json.load(report)["scenarios"]
    return {(scenario, row["name"]): row for scenario, result in scenarios.items() for row in result["rows"]}


def relative(row):
    return row["ours"] / row["redis"] if row["ours"] is not None and row["redis"] else None


def main(before_path, after_path):
    before, after = rows_of(before_path), rows_of(after_path)
    print("%-66s %12s %12s %8s %14s" % ("", "before", "after", "change", "against redis"))
    for key, row in after.items():
        old = before.get(key)
        if old is None or None in (old["ours"], row["ours"]) or not old["ours"]:
            continue
        then, now = relative(old), relative(row)
        beside = "" if not then or now is None else "%+.1f %%" % (100 * (now / then - 1))
        print("%-66s %12.4g %12.4g %+7.1f%% %14s" % ("%s: %s" % (key[0], row["name"].strip()), old["ours"], row["ours"],
                                                     100 * (row["ours"] / old["ours"] - 1), beside))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
