# SPDX-License-Identifier: BSD-3-Clause
"""How much longer things may take than with an everyday build on a quiet machine."""
import os

BUILD = float(os.environ.get("DCACHE_TEST_END_SECONDS", 1.0))  # sanitizers need time


def slowness(at_most=float("inf")):
    """By the build, and by how many want each core at present. With a limit: for delays on purpose, which no time-out may cut short."""
    return min(at_most, BUILD * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
