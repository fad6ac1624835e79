/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/warm.h"
