/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/sum.h"
