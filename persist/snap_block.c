/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why columns: keys resemble each other, and so do lengths; values resemble values. Compressed apart, each gets the tables of frequencies
 * that fit it, so the stream is flushed behind the keys and behind the numbers: where values are random bytes, the keys still shrink, and
 * the values pass at the speed of memory. Versions and expiries look random to a compressor, byte by byte, but they are small: their
 * differences to the smallest of the block, in units of their common divisor, take as many bits as they need.
 */
#include "persist/snap_block.h"

#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/mem.h"

#include <stdlib.h>
#include <zstd.h>

enum {
    FLAG_KIND_MASK = 0x07,
    FLAG_EXPIRY = 0x08,
    BLOB_DATA_LEN = 24,
    VARINT_MAX = 10,
    KEEP_CAP = 4 * 1024 * 1024, /* of a buffer, from block to block */
    SMALL_RESERVE = 16 * 1024,  /* of the columns of small things */
};

#define PLAIN_LEN_MAX ((uint64_t)UINT32_MAX - 1024 * 1024)

/* --- writing: columns -------------------------------------------------------------------------------- */

struct snap_pack {
    uint32_t entries;
    int level;
    ZSTD_CCtx *zstd;
    struct buf columns[SNAP_COLUMNS];
    /* as u64, before they are packed */
    struct buf versions;
    struct buf expiries;
    struct buf stored;
};

struct snap_pack *snap_pack_create(int level) {
    struct snap_pack *p = mem_alloc(sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    memset(p, 0, sizeof(*p));
    p->level = level;
    p->zstd = ZSTD_createCCtx();
    for (uint32_t i = 0; i < SNAP_COLUMNS; i++) {
        buf_init(&p->columns[i], 0);
    }
    buf_init(&p->versions, 0);
    buf_init(&p->expiries, 0);
    buf_init(&p->stored, 0);
    if (p->zstd == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_compressionLevel, level))) {
        snap_pack_destroy(p);
        return NULL;
    }
    return p;
}

void snap_pack_destroy(struct snap_pack *p) {
    if (p == NULL) {
        return;
    }
    ZSTD_freeCCtx(p->zstd);
    for (uint32_t i = 0; i < SNAP_COLUMNS; i++) {
        buf_fini(&p->columns[i]);
    }
    buf_fini(&p->versions);
    buf_fini(&p->expiries);
    buf_fini(&p->stored);
    mem_free(p);
}

static void reserve(struct buf *b, size_t len) {
    if (buf_room(b, len) == NULL) { /* buf_room() has noted it */
        dc_assert(b->failed);
    }
}

void snap_pack_reserve(struct snap_pack *p, size_t len) {
    for (uint32_t i = 0; i < SNAP_COLUMNS; i++) {
        bool is_large = i == SNAP_KEYS || i == SNAP_DATA;
        reserve(&p->columns[i], is_large ? len : SMALL_RESERVE);
    }
    reserve(&p->versions, SMALL_RESERVE);
    reserve(&p->expiries, SMALL_RESERVE);
}

static void add_u8(struct buf *b, uint8_t v) {
    buf_append(b, &v, 1);
}

static void add_u64(struct buf *b, uint64_t v) {
    buf_append(b, &v, sizeof(v));
}

static void add_varint(struct buf *b, uint64_t v) {
    uint8_t bytes[VARINT_MAX];
    uint32_t len = 0;
    for (; v >= 0x80; v >>= 7) {
        bytes[len++] = (uint8_t)(v | 0x80);
    }
    bytes[len++] = (uint8_t)v;
    buf_append(b, bytes, len);
}

/* Bytes that an integer needs with its sign. */
static uint32_t int_len(int64_t num) {
    uint64_t magnitude = (uint64_t)(num < 0 ? ~num : num);
    uint32_t bits = magnitude == 0 ? 1 : 65 - (uint32_t)__builtin_clzll(magnitude);
    return (bits + 7) / 8;
}

static size_t add_data(struct snap_pack *p, const struct value *v, size_t *blob_at) {
    struct buf *data = &p->columns[SNAP_DATA];
    uint8_t bytes[BLOB_DATA_LEN] = {0};
    switch (v->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        buf_append_bytes(data, v->str);
        return v->str.len;
    case VALUE_INT:
        put_u64(bytes, (uint64_t)v->num);
        buf_append(data, bytes, int_len(v->num));
        return int_len(v->num);
    case VALUE_BLOB:
        *blob_at = data->len;
        put_u64(bytes, v->blob->len);
        buf_append(data, bytes, sizeof(bytes));
        return sizeof(bytes);
    }
    dc_unreachable();
}

struct blob *snap_pack_entry(struct snap_pack *p, const struct entry *e, int64_t idle_ms,
                             size_t *blob_at) {
    struct bytes key = entry_key(e);
    struct value v;
    uint8_t flags = (uint8_t)entry_kind(e);
    dc_assert(entry_version(e) > 0 && entry_version(e) <= LSN_MAX);
    entry_value(e, &v);
    if (entry_has_expiry(e)) {
        flags |= FLAG_EXPIRY;
        add_u64(&p->expiries, (uint64_t)entry_expiry(e));
    }
    p->entries++;
    add_u8(&p->columns[SNAP_FLAGS], flags);
    add_u8(&p->columns[SNAP_FREQS], e->freq);
    add_u8(&p->columns[SNAP_AGES], snap_age_encode(idle_ms));
    add_u64(&p->versions, entry_version(e));
    add_varint(&p->columns[SNAP_KEY_LENS], key.len);
    buf_append_bytes(&p->columns[SNAP_KEYS], key);
    add_varint(&p->columns[SNAP_DATA_LENS], add_data(p, &v, blob_at));
    return v.kind == VALUE_BLOB ? v.blob : NULL;
}

void snap_pack_blob(struct snap_pack *p, size_t blob_at, uint64_t sum, uint64_t pos) {
    struct buf *data = &p->columns[SNAP_DATA];
    if (!data->failed) {
        dc_assert(blob_at + BLOB_DATA_LEN <= data->len);
        put_u64(data->ptr + blob_at + 8, sum);
        put_u64(data->ptr + blob_at + 16, pos);
    }
}

uint32_t snap_pack_count(const struct snap_pack *p) {
    return p->entries;
}

uint64_t snap_pack_len(const struct snap_pack *p) {
    return p->columns[SNAP_KEYS].len + p->columns[SNAP_DATA].len + p->versions.len +
           p->expiries.len + p->entries;
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* At most 32 bits of each at a time, so that the accumulator never overflows. */
struct bit_sink {
    uint8_t *to;
    uint64_t bits;
    uint32_t count; /* below 8 between two calls */
};

static void sink(struct bit_sink *s, uint64_t v, uint32_t bits) {
    s->bits |= v << s->count;
    s->count += bits;
    for (; s->count >= 8; s->count -= 8, s->bits >>= 8) {
        *s->to++ = (uint8_t)s->bits;
    }
}

static void pack_numbers(const struct buf *from, struct buf *to) {
    const char *values = from->ptr;
    size_t count = from->len / 8;
    uint64_t smallest = UINT64_MAX, largest = 0, unit = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t v = get_u64(values + i * 8);
        smallest = v < smallest ? v : smallest;
        largest = v > largest ? v : largest;
    }
    if (count == 0) {
        return;
    }
    for (size_t i = 0; i < count && unit != 1; i++) {
        unit = common_divisor(get_u64(values + i * 8) - smallest, unit);
    }
    unit = unit == 0 ? 1 : unit;
    uint64_t most = (largest - smallest) / unit;
    uint32_t bits = most == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(most);
    add_varint(to, smallest);
    add_varint(to, unit);
    add_u8(to, (uint8_t)bits);
    size_t len = (count * bits + 7) / 8;
    struct bit_sink s = {.to = (uint8_t *)buf_room(to, len + 8)};
    if (s.to == NULL) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t v = get_u64(values + i * 8) - smallest;
        v = unit == 1 ? v : v / unit;
        if (bits <= 32) {
            sink(&s, v, bits);
        } else {
            sink(&s, (uint32_t)v, 32);
            sink(&s, v >> 32, bits - 32);
        }
    }
    sink(&s, 0, (8 - s.count) % 8);
    to->len += len;
}

/* --- writing: compression ---------------------------------------------------------------------------- */

/* Room for a block of 'plain_len', its head, and what flushing costs. */
static enum dc_err stored_begin(struct snap_pack *p, uint64_t plain_len, ZSTD_outBuffer *out) {
    size_t size = SNAP_BLOCK_HEAD_LEN + ZSTD_compressBound(plain_len) + 256;
    buf_reset(&p->stored, KEEP_CAP);
    enum dc_err err = buf_reserve(&p->stored, size);
    if (err != DC_OK) {
        return err;
    }
    (void)ZSTD_CCtx_reset(p->zstd, ZSTD_reset_session_only);
    (void)ZSTD_CCtx_setPledgedSrcSize(p->zstd, plain_len);
    *out = (ZSTD_outBuffer){p->stored.ptr, p->stored.cap, SNAP_BLOCK_HEAD_LEN};
    return DC_OK;
}

/* True when all of it went in (and with 'how' beyond ZSTD_e_continue, out). */
static bool compress(struct snap_pack *p, ZSTD_outBuffer *out, struct bytes from,
                     ZSTD_EndDirective how) {
    ZSTD_inBuffer in = {from.ptr, from.len, 0};
    size_t left;
    do {
        left = ZSTD_compressStream2(p->zstd, out, &in, how);
        if (ZSTD_isError(left)) {
            return false;
        }
    } while ((in.pos < in.size || (how != ZSTD_e_continue && left > 0)) && out->pos < out->size);
    return in.pos == in.size && (how == ZSTD_e_continue || left == 0);
}

static enum dc_err stored_end(struct snap_pack *p, const ZSTD_outBuffer *out, bool done,
                              struct snap_block_info *info, struct bytes *block) {
    if (!done) {
        return dc_fail(DC_ENOMEM, "no memory to compress %u bytes", info->plain_len);
    }
    p->stored.len = out->pos;
    info->stored_len = (uint32_t)(out->pos - SNAP_BLOCK_HEAD_LEN);
    *block = buf_bytes(&p->stored);
    return DC_OK;
}

static void pack_clear(struct snap_pack *p) {
    for (uint32_t i = 0; i < SNAP_COLUMNS; i++) {
        buf_reset(&p->columns[i], KEEP_CAP);
    }
    buf_reset(&p->versions, KEEP_CAP);
    buf_reset(&p->expiries, KEEP_CAP);
    p->entries = 0;
}

/* The lengths, as they stand before the columns; the sum of all in 'plain_len'. */
static enum dc_err columns_close(struct snap_pack *p, uint8_t *lens, uint64_t *plain_len) {
    bool failed = p->versions.failed || p->expiries.failed;
    pack_numbers(&p->versions, &p->columns[SNAP_VERSIONS]);
    pack_numbers(&p->expiries, &p->columns[SNAP_EXPIRIES]);
    *plain_len = SNAP_COLUMNS * 4;
    for (uint32_t i = 0; i < SNAP_COLUMNS; i++) {
        failed |= p->columns[i].failed;
        *plain_len += p->columns[i].len;
        put_u32(lens + (size_t)i * 4, (uint32_t)p->columns[i].len);
    }
    if (failed) {
        return dc_fail(DC_ENOMEM, "no memory for the columns of a block");
    }
    if (*plain_len > PLAIN_LEN_MAX) {
        return dc_fail(DC_ELIMIT, "entries beside each other have too many bytes for a block");
    }
    return DC_OK;
}

enum dc_err snap_pack_seal(struct snap_pack *p, struct snap_block_info *info, struct bytes *out) {
    uint8_t lens[SNAP_COLUMNS * 4];
    uint64_t plain_len;
    ZSTD_outBuffer to;
    enum dc_err err = columns_close(p, lens, &plain_len);
    dc_assert(p->entries > 0);
    info->kind = SNAP_ENTRIES;
    info->entries = p->entries;
    info->plain_len = (uint32_t)plain_len;
    err = err != DC_OK ? err : stored_begin(p, plain_len, &to);
    if (err == DC_OK) {
        bool done = compress(p, &to, bytes_of((const char *)lens, sizeof(lens)), ZSTD_e_continue);
        for (uint32_t i = 0; i < SNAP_COLUMNS && done; i++) {
            ZSTD_EndDirective how = i == SNAP_DATA                         ? ZSTD_e_end
                                    : i == SNAP_KEYS || i == SNAP_EXPIRIES ? ZSTD_e_flush
                                                                           : ZSTD_e_continue;
            done = compress(p, &to, buf_bytes(&p->columns[i]), how);
        }
        err = stored_end(p, &to, done, info, out);
    }
    pack_clear(p);
    return err;
}

enum dc_err snap_pack_piece(struct snap_pack *p, uint64_t version, uint64_t offset,
                            struct bytes piece, struct snap_block_info *info, struct bytes *out) {
    uint8_t head[SNAP_PIECE_HEAD_LEN];
    ZSTD_outBuffer to;
    dc_assert(piece.len > 0 && piece.len <= SNAP_PIECE_LEN);
    put_u64(head, version);
    put_u64(head + 8, offset);
    info->kind = SNAP_PIECE;
    info->entries = 0;
    info->plain_len = (uint32_t)(sizeof(head) + piece.len);
    enum dc_err err = stored_begin(p, info->plain_len, &to);
    if (err != DC_OK) {
        return err;
    }
    bool done = compress(p, &to, bytes_of((const char *)head, sizeof(head)), ZSTD_e_continue) &&
                compress(p, &to, piece, ZSTD_e_end);
    return stored_end(p, &to, done, info, out);
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* Of a column that ends at 'end'; false = it isn't a number there. */
static bool take_varint(const uint8_t **at, const uint8_t *end, uint64_t *out) {
    uint64_t v = 0;
    for (uint32_t shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return shift < 63 || byte <= 1;
        }
    }
    return false;
}

/* Of a column that was checked. */
static uint64_t next_varint(const uint8_t **at) {
    uint64_t v = *(*at)++;
    if (dc_unlikely(v >= 0x80)) {
        v &= 0x7f;
        uint8_t byte;
        uint32_t shift = 7;
        do {
            byte = *(*at)++;
            v |= (uint64_t)(byte & 0x7f) << shift;
            shift += 7;
        } while (byte >= 0x80);
    }
    return v;
}

static bool numbers_open(struct snap_numbers *n, const uint8_t *at, size_t len, uint64_t count) {
    const uint8_t *end = at + len;
    *n = (struct snap_numbers){.packed = at};
    if (count == 0) {
        return len == 0;
    }
    if (!take_varint(&at, end, &n->smallest) || !take_varint(&at, end, &n->unit) || at == end) {
        return false;
    }
    n->bits = *at++;
    n->packed = at;
    return n->bits <= 64 && (uint64_t)(end - at) == (count * n->bits + 7) / 8;
}

/* Reads up to nine bytes at the number, hence SNAP_SLACK. */
static uint64_t number_at(const struct snap_numbers *n, uint32_t index) {
    uint64_t bit = (uint64_t)index * n->bits;
    const uint8_t *at = n->packed + bit / 8;
    uint32_t shift = bit % 8;
    if (n->bits == 0) {
        return n->smallest;
    }
    uint64_t v = get_u64(at) >> shift;
    if (n->bits + shift > 64) {
        v |= (uint64_t)at[8] << (64 - shift);
    }
    v &= UINT64_MAX >> (64 - n->bits);
    return n->smallest + v * n->unit;
}

static bool data_len_fits(uint8_t flags, uint64_t len) {
    switch ((enum value_kind)(flags & FLAG_KIND_MASK)) {
    case VALUE_STR:
    case VALUE_RAW:
        return len < BLOB_MIN_LEN;
    case VALUE_INT:
        return len >= 1 && len <= 8;
    case VALUE_BLOB:
        return len == BLOB_DATA_LEN;
    }
    return false;
}

/* Whether lengths and flags add up to what is there. */
static bool columns_fit(const struct snap_columns *c, const uint32_t *lens) {
    const uint8_t *key_at = c->key_lens, *data_at = c->data_lens;
    const uint8_t *key_end = key_at + lens[SNAP_KEY_LENS];
    const uint8_t *data_end = data_at + lens[SNAP_DATA_LENS];
    uint64_t keys = 0, data = 0;
    for (uint32_t i = 0; i < c->entries; i++) {
        uint64_t key_len, data_len;
        if ((c->flags[i] & ~(FLAG_KIND_MASK | FLAG_EXPIRY)) != 0 ||
            !take_varint(&key_at, key_end, &key_len) ||
            !take_varint(&data_at, data_end, &data_len) || key_len > UINT32_MAX ||
            !data_len_fits(c->flags[i], data_len)) {
            return false;
        }
        keys += key_len;
        data += data_len;
    }
    if (key_at != key_end || data_at != data_end || keys != lens[SNAP_KEYS] ||
        data != lens[SNAP_DATA]) {
        return false;
    }
    for (uint32_t i = 0; i < c->entries; i++) {
        uint64_t version = number_at(&c->versions, i);
        if (version == 0 || version > LSN_MAX) {
            return false;
        }
    }
    return true;
}

bool snap_columns_open(struct snap_columns *c, const void *plain, size_t len, uint32_t entries) {
    const uint8_t *columns[SNAP_COLUMNS];
    uint32_t lens[SNAP_COLUMNS];
    uint64_t sum = sizeof(lens);
    memset(c, 0, sizeof(*c));
    if (len < sizeof(lens)) {
        return false;
    }
    memcpy(lens, plain, sizeof(lens));
    for (uint32_t i = 0; i < SNAP_COLUMNS; i++) {
        if (lens[i] > len - sum) {
            return false;
        }
        columns[i] = (const uint8_t *)plain + sum;
        sum += lens[i];
    }
    if (sum != len || lens[SNAP_FLAGS] != entries || lens[SNAP_FREQS] != entries ||
        lens[SNAP_AGES] != entries) {
        return false;
    }
    c->entries = entries;
    c->flags = columns[SNAP_FLAGS];
    c->key_lens = columns[SNAP_KEY_LENS];
    c->data_lens = columns[SNAP_DATA_LENS];
    c->freqs = columns[SNAP_FREQS];
    c->ages = columns[SNAP_AGES];
    c->keys = columns[SNAP_KEYS];
    c->data = columns[SNAP_DATA];
    uint64_t expiries = 0;
    for (uint32_t i = 0; i < entries; i++) {
        expiries += (c->flags[i] & FLAG_EXPIRY) != 0;
    }
    return numbers_open(&c->versions, columns[SNAP_VERSIONS], lens[SNAP_VERSIONS], entries) &&
           numbers_open(&c->expiries, columns[SNAP_EXPIRIES], lens[SNAP_EXPIRIES], expiries) &&
           columns_fit(c, lens);
}

static int64_t get_int(const uint8_t *from, size_t len) {
    uint64_t v = 0;
    memcpy(&v, from, len);
    uint32_t unused = 64 - 8 * (uint32_t)len;
    return (int64_t)(v << unused) >> unused;
}

bool snap_columns_next(struct snap_columns *c, struct snap_entry *out) {
    if (c->next == c->entries) {
        return false;
    }
    uint32_t i = c->next++;
    size_t key_len = next_varint(&c->key_lens), data_len = next_varint(&c->data_lens);
    memset(out, 0, sizeof(*out));
    out->key = bytes_of((const char *)c->keys, key_len);
    out->version = number_at(&c->versions, i);
    out->freq = c->freqs[i];
    out->age_code = c->ages[i];
    out->expiry_ms = EXPIRY_NONE;
    if (c->flags[i] & FLAG_EXPIRY) {
        out->expiry_ms = (int64_t)number_at(&c->expiries, c->next_expiry++);
    }
    out->value.kind = (enum value_kind)(c->flags[i] & FLAG_KIND_MASK);
    switch (out->value.kind) {
    case VALUE_STR:
    case VALUE_RAW:
        out->value.str = bytes_of((const char *)c->data, data_len);
        break;
    case VALUE_INT:
        out->value.num = get_int(c->data, data_len);
        break;
    case VALUE_BLOB:
        out->blob_len = get_u64(c->data);
        out->blob_sum = get_u64(c->data + 8);
        out->blob_pos = get_u64(c->data + 16);
        break;
    }
    c->keys += key_len;
    c->data += data_len;
    return true;
}

/* --- decompression ----------------------------------------------------------------------------------- */

struct snap_unpacker {
    ZSTD_DCtx *zstd;
};

struct snap_unpacker *snap_unpacker_create(void) {
    struct snap_unpacker *u = mem_alloc(sizeof(*u));
    if (u != NULL) {
        u->zstd = ZSTD_createDCtx();
        if (u->zstd == NULL) {
            mem_free(u);
            return NULL;
        }
    }
    return u;
}

void snap_unpacker_destroy(struct snap_unpacker *u) {
    if (u != NULL) {
        ZSTD_freeDCtx(u->zstd);
        mem_free(u);
    }
}

bool snap_unpack(struct snap_unpacker *u, struct bytes stored, void *to, size_t len) {
    size_t got = ZSTD_decompressDCtx(u->zstd, to, len, stored.ptr, stored.len);
    return !ZSTD_isError(got) && got == len;
}
