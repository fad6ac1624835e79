/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * resp: a stream of bytes means the same in one piece and dribbled in many (I4 of resp.h), whatever memory the pieces
 * lie in (I2). The first byte of the input seeds the sizes of the pieces; its lowest bit is "authenticated".
 */
#include "tests/fuzz/fuzz.h"

#include "server/base/arena.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/rng.h"
#include "server/proto/reply.h"
#include "server/proto/resp.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_LEN = 4096, BULK_LEN_MAX = 1024 * 1024 };

static void note(struct buf *out, uint64_t number) {
    buf_append(out, &number, sizeof(number));
}

static void note_request(struct buf *out, const struct request *req, const char *start) {
    note(out, req->argc);
    for (uint32_t i = 0; i < req->argc; i++) {
        const struct bytes arg = req->argv[i];
        dc_assert(arg.ptr >= start && arg.ptr + arg.len <= start + req->len);
        note(out, arg.len);
        buf_append_bytes(out, arg);
    }
}

static bool is_between_requests(const struct resp_parser *p) {
    return p->spans == NULL && p->span_cap == 0 && p->argc == 0 && p->argc_want == 0 &&
           !p->in_bulk && p->got == 0 && p->bulk_len == 0 && p->pos == 0 && p->scanned == 0 &&
           p->error == NULL;
}

/* Parses the request at 'data', of which 'len' bytes have arrived, in memory of exactly that size. Returns how much
 * of it was consumed, 0 at the end of what can be said now. */
static size_t step(struct resp_parser *p, const struct resp_context *ctx, const uint8_t *data,
                   size_t len, struct buf *out) {
    char *input = malloc(len);
    dc_assert(input != NULL);
    memcpy(input, data, len);
    struct request req;
    size_t consumed = 0;
    switch (resp_parse(p, input, len, ctx, &req)) {
    case RESP_DONE:
        note_request(out, &req, input);
        __attribute__((fallthrough));
    case RESP_EMPTY:
        consumed = req.len;
        dc_assert(consumed > 0 && consumed <= len);
        dc_assert(is_between_requests(p)); /* I1 */
        note(out, consumed);
        break;
    case RESP_MORE:
        dc_assert(memcmp(input, data, len) == 0); /* only a complete line is unescaped */
        dc_assert(resp_parse_wants(p) == 0 || resp_parse_wants(p) > len);
        break;
    case RESP_BAD:
        resp_reply_error(p, &(struct reply){.out = out, .proto = REPLY_RESP2});
        break;
    }
    arena_reset(ctx->arena);
    free(input);
    return consumed;
}

/* What the stream says when it comes in pieces of up to 'piece_max' bytes. */
static void parse(const uint8_t *data, size_t len, size_t piece_max, struct resp_context *ctx,
                  struct rng *rng, struct buf *out) {
    struct resp_parser p;
    resp_parser_init(&p);
    size_t start = 0;
    for (size_t have = 0; have < len && p.error == NULL;) {
        size_t piece = 1 + rng_next(rng) % piece_max;
        have = piece < len - have ? have + piece : len;
        size_t consumed = 1;
        while (start < have && consumed > 0) {
            consumed = step(&p, ctx, data + start, have - start, out);
            start += consumed;
        }
    }
    note(out, start);
    resp_parser_fini(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len < 2) {
        return 0;
    }
    struct rng rng;
    rng_seed(&rng, data[0]);
    struct arena arena;
    arena_init(&arena, ARENA_LEN);
    struct resp_context ctx = {&arena, BULK_LEN_MAX, (data[0] & 1) != 0};
    struct buf whole, dribbled;
    buf_init(&whole, 0);
    buf_init(&dribbled, 0);
    data++;
    len--;
    parse(data, len, SIZE_MAX, &ctx, &rng, &whole);
    parse(data, len, len / 64 + 4, &ctx, &rng, &dribbled);
    dc_assert(bytes_equal(buf_bytes(&whole), buf_bytes(&dribbled)));
    buf_fini(&whole);
    buf_fini(&dribbled);
    arena_fini(&arena);
    return 0;
}
