/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/log_reader.h"
