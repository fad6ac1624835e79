/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/snap_writer.h"
