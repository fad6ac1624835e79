/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/segment_fmt.h"
