#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What test_replication.py asks, for longer."""
import unittest

import test_replication


class Restarts(test_replication.ReplicaCase):
    def test_h56_forty_five_restarts_under_load_need_no_copy(self):
        test_replication.restart_under_load(self, 45)


if __name__ == "__main__":
    unittest.main()
