# SPDX-License-Identifier: BSD-3-Clause
"""How much longer things may take than with an everyday build on a quiet machine."""
import os

BUILD = float(os.environ.get("DCACHE_TEST_END_SECONDS", 1.0))  # sanitizers need time


def slowness():
    """By the build, and by how many want each core at present."""
    return BUILD * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
