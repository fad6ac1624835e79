/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/proto/dump.h"

#include "server/base/codec.h"
#include "server/base/crc.h"
#include "server/base/limits.h"

enum { TYPE_STRING = 0, VERSION_LEN = 2, CRC_LEN = 8 };

/* The two high bits of a length's first byte. */
enum { LEN_6 = 0x00, LEN_14 = 0x40, LEN_WIDE = 0x80, LEN_SPECIAL = 0xc0, LEN_KIND_MASK = 0xc0 };
enum { LEN_32 = 0x80, LEN_64 = 0x81 };
/* What the low bits say where the high ones say SPECIAL. */
enum { SPECIAL_INT8 = 0, SPECIAL_INT16 = 1, SPECIAL_INT32 = 2, SPECIAL_LZF = 3 };

/* A back reference of three bytes gives 264, nothing gives more per byte. */
enum { LZF_RATIO_MAX = 88, LZF_RUN_LONG = 7, LZF_RUN_BASE = 2 };

static_assert(DUMP_FOOTER_LEN == VERSION_LEN + CRC_LEN, "the footer is version and checksum");

/* --- reading ----------------------------------------------------------------------------------------- */

enum dc_err dump_verify(struct bytes payload) {
    if (payload.len < DUMP_FOOTER_LEN) {
        return DC_EBADPAYLOAD;
    }
    const char *footer = payload.ptr + payload.len - DUMP_FOOTER_LEN;
    uint64_t crc = crc64(0, payload.ptr, payload.len - CRC_LEN);
    if (get_u16(footer) > DUMP_VERSION || get_u64(footer + VERSION_LEN) != crc) {
        return DC_EBADPAYLOAD;
    }
    return DC_OK;
}

struct reader {
    const uint8_t *at;
    const uint8_t *end;
};

/* The next 'len' bytes, or NULL. */
static const uint8_t *read_bytes(struct reader *r, uint64_t len) {
    if ((uint64_t)(r->end - r->at) < len) {
        return NULL;
    }
    const uint8_t *from = r->at;
    r->at += len;
    return from;
}

static bool read_big_endian(struct reader *r, uint32_t width, uint64_t *out) {
    const uint8_t *from = read_bytes(r, width);
    if (from == NULL) {
        return false;
    }
    *out = 0;
    for (uint32_t i = 0; i < width; i++) {
        *out = *out << 8 | from[i];
    }
    return true;
}

/* A length. 'special' tells that it is one of SPECIAL_*; NULL: the caller can't have it, and Redis takes the six
 * low bits for the length then. */
static bool read_len(struct reader *r, uint64_t *len, bool *special) {
    uint64_t first, second;
    if (!read_big_endian(r, 1, &first)) {
        return false;
    }
    if (special != NULL) {
        *special = (first & LEN_KIND_MASK) == LEN_SPECIAL;
    }
    switch (first & LEN_KIND_MASK) {
    case LEN_6:
    case LEN_SPECIAL:
        *len = first & 0x3f;
        return true;
    case LEN_14:
        if (!read_big_endian(r, 1, &second)) {
            return false;
        }
        *len = (first & 0x3f) << 8 | second;
        return true;
    default:
        return (first == LEN_32 || first == LEN_64) &&
               read_big_endian(r, first == LEN_32 ? 4 : 8, len);
    }
}

static bool read_int(struct reader *r, uint64_t special, struct dump_string *out) {
    uint32_t width = 1U << special;
    const uint8_t *from = read_bytes(r, width);
    if (from == NULL) {
        return false;
    }
    out->form = DUMP_INT;
    switch (width) {
    case 1:
        out->num = (from[0] ^ 0x80) - 0x80; /* the sign bit */
        return true;
    case 2:
        out->num = (int16_t)get_u16(from);
        return true;
    default:
        out->num = (int32_t)get_u32(from);
        return true;
    }
}

static bool read_lzf(struct reader *r, struct dump_string *out) {
    uint64_t packed, len;
    if (!read_len(r, &packed, NULL) || !read_len(r, &len, NULL)) {
        return false;
    }
    const uint8_t *from = read_bytes(r, packed);
    if (from == NULL || len > VALUE_LEN_MAX || len / LZF_RATIO_MAX > packed) {
        return false;
    }
    out->form = DUMP_LZF;
    out->bytes = bytes_of((const char *)from, packed);
    out->len = len;
    return true;
}

static bool read_plain(struct reader *r, uint64_t len, struct dump_string *out) {
    const uint8_t *from = read_bytes(r, len);
    if (from == NULL || len > VALUE_LEN_MAX) {
        return false;
    }
    out->form = DUMP_PLAIN;
    out->bytes = bytes_of((const char *)from, len);
    out->len = len;
    return true;
}

static bool read_string(struct reader *r, struct dump_string *out) {
    uint64_t len;
    bool special;
    if (!read_len(r, &len, &special)) {
        return false;
    }
    if (!special) {
        return read_plain(r, len, out);
    }
    return len == SPECIAL_LZF ? read_lzf(r, out) : len < SPECIAL_LZF && read_int(r, len, out);
}

enum dc_err dump_decode(struct bytes payload, struct dump_string *out) {
    const uint8_t *from = (const uint8_t *)payload.ptr;
    struct reader r = {from, from + payload.len};
    const uint8_t *type = read_bytes(&r, 1);
    memset(out, 0, sizeof(*out));
    if (type == NULL || *type != TYPE_STRING || !read_string(&r, out)) {
        return DC_EBADDATA;
    }
    return DC_OK;
}

/* --- LZF --------------------------------------------------------------------------------------------- */

/* A back reference's bytes may overlap those that it makes. */
static void copy_run(uint8_t *to, size_t distance, size_t run) {
    const uint8_t *from = to - distance;
    while (run-- > 0) {
        *to++ = *from++;
    }
}

/* Packed bytes are a row of
 *
 *     000lllll                       l + 1 bytes follow as they are
 *     lllddddd dddddddd              l + 2 bytes from d + 1 bytes before, 1 <= l <= 6
 *     111ddddd llllllll dddddddd     the same, l + 9 bytes
 *
 * Returns the length that came out, 0 for what isn't LZF or doesn't fit. */
static size_t lzf_unpack(struct bytes packed, uint8_t *to, size_t size) {
    const uint8_t *at = (const uint8_t *)packed.ptr;
    const uint8_t *end = at + packed.len;
    size_t done = 0;
    while (at < end) {
        size_t control = *at++;
        size_t run = control >> 5;
        if (run == 0) {
            run = control + 1;
            if (run > (size_t)(end - at) || run > size - done) {
                return 0;
            }
            memcpy(to + done, at, run);
            at += run;
            done += run;
            continue;
        }
        if (run == LZF_RUN_LONG && at < end) {
            run += *at++;
        }
        run += LZF_RUN_BASE;
        if (at == end) {
            return 0;
        }
        size_t distance = ((control & 0x1f) << 8) + *at++ + 1;
        if (distance > done || run > size - done) {
            return 0;
        }
        copy_run(to + done, distance, run);
        done += run;
    }
    return done;
}

enum dc_err dump_unpack(const struct dump_string *s, char *to) {
    return lzf_unpack(s->bytes, (uint8_t *)to, s->len) == s->len ? DC_OK : DC_EBADDATA;
}

/* --- writing ----------------------------------------------------------------------------------------- */

size_t dump_encode_head(char *to, size_t len) {
    uint8_t *at = (uint8_t *)to;
    *at++ = TYPE_STRING;
    uint32_t width = 4;
    if (len < 1 << 6) {
        *at++ = (uint8_t)(LEN_6 | len);
        width = 0;
    } else if (len < 1 << 14) {
        *at++ = (uint8_t)(LEN_14 | len >> 8);
        width = 1;
    } else if (len <= UINT32_MAX) {
        *at++ = LEN_32;
    } else {
        *at++ = LEN_64;
        width = 8;
    }
    while (width-- > 0) {
        *at++ = (uint8_t)(len >> (8 * width));
    }
    return (size_t)(at - (uint8_t *)to);
}

size_t dump_encode_int(char *to, int64_t num) {
    uint32_t special = num == (int8_t)num    ? SPECIAL_INT8
                       : num == (int16_t)num ? SPECIAL_INT16
                                             : SPECIAL_INT32;
    if (num != (int32_t)num) {
        return 0;
    }
    char digits[4];
    size_t width = (size_t)1 << special;
    put_u32(digits, (uint32_t)num);
    to[0] = TYPE_STRING;
    to[1] = (char)(LEN_SPECIAL | special);
    memcpy(to + 2, digits, width);
    return 2 + width;
}

void dump_encode_footer(char *to, struct bytes head, struct bytes content) {
    put_u16(to, DUMP_VERSION);
    uint64_t crc = crc64(crc64(0, head.ptr, head.len), content.ptr, content.len);
    put_u64(to + VERSION_LEN, crc64(crc, to, VERSION_LEN));
}
