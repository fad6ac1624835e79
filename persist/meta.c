/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/meta.h"
