/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/standing.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/temp_dir.h"

#include <string.h>

static char dir[TEMP_DIR_MAX];
static struct meta *meta;

static void must(enum dc_err err) {
    ck_assert_msg(err == DC_OK, "%s: %s", dc_err_name(err), dc_fail_take(err));
}

static void open_meta(void) {
    bool rebuilt;
    must(meta_open(dir, &meta, &rebuilt));
    ck_assert(!rebuilt);
}

static void begin(void) {
    temp_dir_make(dir);
    open_meta();
}

static void again(void) {
    meta_close(meta);
    open_meta();
}

static void end(void) {
    meta_close(meta);
    temp_dir_remove(dir);
}

static struct standing_peer peer_of(uint32_t n) {
    struct standing_peer p = {.port = (uint16_t)(6379 + n),
                              .received = LSN_MAX - n,
                              .durable = 1000 + n,
                              .seen_ms = 1800000000000 + n};
    memset(p.id, (int)n + 1, sizeof(p.id));
    snprintf(p.host, sizeof(p.host), "replica-%u.example", n);
    return p;
}

static void expect_peers(uint32_t count) {
    struct standing_peer got[PEERS_MAX];
    uint32_t got_count;
    must(standing_get_peers(meta, got, &got_count));
    ck_assert_uint_eq(got_count, count);
    for (uint32_t i = 0; i < count; i++) {
        struct standing_peer want = peer_of(i);
        ck_assert_mem_eq(got[i].id, want.id, sizeof(want.id));
        ck_assert_str_eq(got[i].host, want.host);
        ck_assert_uint_eq(got[i].port, want.port);
        ck_assert_uint_eq(got[i].received, want.received);
        ck_assert_uint_eq(got[i].durable, want.durable);
        ck_assert_int_eq(got[i].seen_ms, want.seen_ms);
    }
}

START_TEST(a_new_node_knows_nothing_of_its_place) {
    struct standing s;
    begin();
    must(standing_get(meta, &s));
    ck_assert_int_eq(s.role, STANDING_UNKNOWN);
    ck_assert_uint_eq(s.epoch, 0);
    ck_assert_uint_eq(s.fence_epoch, 0);
    expect_peers(0);
    end();
}
END_TEST

START_TEST(role_primary_epoch_and_fence_are_there_after_a_restart) {
    struct standing s = {.role = STANDING_REPLICA,
                         .port = 65535,
                         .epoch = UINT64_MAX,
                         .fence_epoch = 7,
                         .fence_history = UINT64_MAX};
    struct standing got;
    begin();
    memset(s.host, 'h', HOST_NAME_MAX_LEN - 1);
    must(standing_put(meta, &s));
    again();
    must(standing_get(meta, &got));
    ck_assert_int_eq(got.role, STANDING_REPLICA);
    ck_assert_str_eq(got.host, s.host);
    ck_assert_uint_eq(got.port, 65535);
    ck_assert_uint_eq(got.epoch, UINT64_MAX);
    ck_assert_uint_eq(got.fence_epoch, 7);
    ck_assert_uint_eq(got.fence_history, UINT64_MAX);
    must(standing_put(meta, &(struct standing){.role = STANDING_PRIMARY, .epoch = 8}));
    again();
    must(standing_get(meta, &got));
    ck_assert_int_eq(got.role, STANDING_PRIMARY);
    ck_assert_str_eq(got.host, "");
    ck_assert_uint_eq(got.epoch, 8);
    ck_assert_uint_eq(got.fence_epoch, 0);
    end();
}
END_TEST

START_TEST(the_id_of_a_node_is_made_once) {
    uint8_t first[NODE_ID_LEN], second[NODE_ID_LEN];
    struct meta_node node = {.known = true, .node_id = {9}};
    begin();
    must(standing_own_id(meta, first));
    must(meta_put_node(meta, &node)); /* another data set */
    again();
    must(standing_own_id(meta, second));
    ck_assert_mem_eq(first, second, NODE_ID_LEN);
    end();
    begin();
    must(standing_own_id(meta, second));
    ck_assert_mem_ne(first, second, NODE_ID_LEN);
    end();
}
END_TEST

START_TEST(peers_are_exactly_those_that_were_put_last) {
    struct standing_peer peers[PEERS_MAX];
    static const uint32_t counts[] = {1, PEERS_MAX, 3, 0, 2};
    begin();
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        peers[i] = peer_of(i);
    }
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        must(standing_put_peers(meta, peers, counts[i]));
        again();
        expect_peers(counts[i]);
    }
    end();
}
END_TEST

START_TEST(a_text_that_is_something_else_is_an_error) {
    static const struct {
        const char *name, *text;
    } bad[] = {{"role", "observer"},          {"role", "replica"}, {"role", "replica 6379 "},
               {"role", "replica host 6379"}, {"seen", "x"},       {"fence", "7"}};
    struct standing s;
    struct standing_peer peers[PEERS_MAX];
    uint8_t id[NODE_ID_LEN];
    uint32_t count;
    begin();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        must(meta_put_text(meta, bad[i].name, bad[i].text));
        ck_assert_int_eq(standing_get(meta, &s), DC_ECORRUPT);
        must(meta_put_text(meta, bad[i].name, ""));
        must(standing_get(meta, &s));
    }
    must(meta_put_text(meta, "peer", "0102"));
    ck_assert_int_eq(standing_own_id(meta, id), DC_ECORRUPT);
    must(meta_put_text(meta, "peer-0", "00112233445566778899aabbccddeeff 1 2"));
    ck_assert_int_eq(standing_get_peers(meta, peers, &count), DC_ECORRUPT);
    end();
}
END_TEST

CHECK_MAIN("standing", a_new_node_knows_nothing_of_its_place,
           role_primary_epoch_and_fence_are_there_after_a_restart, the_id_of_a_node_is_made_once,
           peers_are_exactly_those_that_were_put_last, a_text_that_is_something_else_is_an_error)
