/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/frame_fmt.h"
