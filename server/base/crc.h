/* SPDX-License-Identifier: BSD-3-Clause */
/* crc: CRC16 (cluster slots) and CRC64 (DUMP payloads), as Redis computes them. */
#ifndef DC_BASE_CRC_H
#define DC_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

uint16_t crc16(const void *ptr, size_t len);               /* XMODEM */
uint64_t crc64(uint64_t crc, const void *ptr, size_t len); /* Jones, reflected */

#endif
