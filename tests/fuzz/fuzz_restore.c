/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first byte chooses: even, the rest is a payload as a client sends it; odd, the rest gets a footer that fits, so that
 * what lies behind the checksum is reached. What is decoded is encoded again and must come back the same.
 */
#include "server/base/assert.h"
#include "server/base/limits.h"
#include "server/proto/dump.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

static void check_again(struct bytes head, struct bytes content, const struct dump_string *want) {
    size_t len = head.len + content.len;
    char *ptr = malloc(len + DUMP_FOOTER_LEN);
    struct dump_string s;
    memcpy(ptr, head.ptr, head.len);
    if (content.len > 0) {
        memcpy(ptr + head.len, content.ptr, content.len);
    }
    dump_encode_footer(ptr + len, head, content);
    struct bytes payload = bytes_of(ptr, len + DUMP_FOOTER_LEN);
    dc_assert(dump_verify(payload) == DC_OK);
    dc_assert(dump_decode(payload, &s) == DC_OK);
    dc_assert(s.form == want->form && s.num == want->num && bytes_equal(s.bytes, want->bytes));
    free(ptr);
}

static void check_content(struct bytes content) {
    char head[DUMP_HEAD_MAX];
    struct dump_string want = {.form = DUMP_PLAIN, .bytes = content, .len = content.len};
    check_again(bytes_of(head, dump_encode_head(head, content.len)), content, &want);
}

static void check_decoded(const struct dump_string *s) {
    char head[DUMP_HEAD_MAX];
    dc_assert(s->len <= VALUE_LEN_MAX);
    switch (s->form) {
    case DUMP_INT:
        check_again(bytes_of(head, dump_encode_int(head, s->num)), BYTES(""), s);
        return;
    case DUMP_PLAIN:
        check_content(s->bytes);
        return;
    case DUMP_LZF: {
        char *content = malloc(s->len > 0 ? s->len : 1);
        if (dump_unpack(s, content) == DC_OK) {
            check_content(bytes_of(content, s->len));
        }
        free(content);
        return;
    }
    }
    dc_unreachable();
}

static void check_payload(struct bytes payload) {
    struct dump_string s;
    if (dump_verify(payload) == DC_OK && dump_decode(payload, &s) == DC_OK) {
        check_decoded(&s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len == 0) {
        return 0;
    }
    struct bytes body = bytes_of((const char *)data + 1, len - 1);
    if (data[0] % 2 == 0) {
        check_payload(body);
        return 0;
    }
    char *ptr = malloc(body.len + DUMP_FOOTER_LEN);
    memcpy(ptr, body.ptr, body.len);
    dump_encode_footer(ptr + body.len, body, BYTES(""));
    dc_assert(dump_verify(bytes_of(ptr, body.len + DUMP_FOOTER_LEN)) == DC_OK);
    check_payload(bytes_of(ptr, body.len + DUMP_FOOTER_LEN));
    free(ptr);
    return 0;
}
