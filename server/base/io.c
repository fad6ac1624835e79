/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/io.h"
