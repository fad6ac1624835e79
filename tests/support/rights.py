# SPDX-License-Identifier: BSD-3-Clause
"""Tests that need rights: to mount, to make networks, to say that a machine was booted again.

Without them they are skipped, so that anybody can run the rest. DCACHE_TEST_RIGHTS=required makes that a failure: where everything is to be
checked a test that didn't run must not look like one that passed.
"""
import os


def lacking(case, what):
    """Ends the test case."""
    if os.environ.get("DCACHE_TEST_RIGHTS") == "required":
        case.fail(what)
    case.skipTest(what)
