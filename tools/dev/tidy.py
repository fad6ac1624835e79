#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""tidy: the rules of the house that a compiler can't check. (The checks follow; this is the frame that ctest runs.)"""
