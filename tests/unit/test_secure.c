/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/secure.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <string.h>

static const uint8_t shared[CRYPTO_KEY_LEN] = {1, 2, 3};
static const uint8_t another[CRYPTO_KEY_LEN] = {1, 2, 4};

/* Both sides and what went over the wire. */
struct meeting {
    struct secure c, s;
    uint8_t hello_c[SECURE_HELLO_LEN], hello_s[SECURE_HELLO_LEN];
    uint8_t proof_c[SECURE_PROOF_LEN], proof_s[SECURE_PROOF_LEN];
    bool c_trusts, s_trusts;
};

/* What somebody in between does to a part of the handshake. */
struct meddling {
    enum { HELLO_C, HELLO_S, PROOF_C, PROOF_S, NOTHING } part;
    size_t at;
    uint8_t flip;
};

static void meddle(const struct meddling *m, int part, uint8_t *bytes) {
    if ((int)m->part == part) {
        bytes[m->at] ^= m->flip;
    }
}

/* The steps as link_open.c takes them; ends where one side gives up. */
static void meet(struct meeting *m, const uint8_t *key_c, const uint8_t *key_s,
                 const struct meddling *by) {
    crypto_init();
    m->c_trusts = m->s_trusts = false;
    secure_begin(&m->c, SECURE_CONNECTING, key_c, m->hello_c);
    secure_begin(&m->s, SECURE_ACCEPTING, key_s, m->hello_s);
    meddle(by, HELLO_C, m->hello_c);
    if (secure_meet(&m->s, m->hello_c) != SECURE_OK) {
        return;
    }
    secure_prove(&m->s, m->proof_s);
    meddle(by, HELLO_S, m->hello_s);
    meddle(by, PROOF_S, m->proof_s);
    if (secure_meet(&m->c, m->hello_s) != SECURE_OK) {
        return;
    }
    m->c_trusts = secure_check(&m->c, m->proof_s);
    memset(m->proof_c, 0, sizeof(m->proof_c));
    if (m->c_trusts) {
        secure_prove(&m->c, m->proof_c);
    }
    meddle(by, PROOF_C, m->proof_c);
    m->s_trusts = secure_check(&m->s, m->proof_c);
}

static const struct meddling nobody = {.part = NOTHING};

static void meet_well(struct meeting *m) {
    meet(m, shared, shared, &nobody);
    ck_assert(m->c_trusts && m->s_trusts);
}

static bool opens(struct secure *s, const uint8_t *record, uint8_t *to) {
    return secure_open(s, to, record + SECURE_RECORD_HEAD_LEN, secure_record_len(record));
}

START_TEST(who_has_the_key_is_trusted_and_understood) {
    struct meeting m;
    uint8_t record[256], plain[256];
    meet_well(&m);
    for (int i = 0; i < 10; i++) {
        size_t len = secure_seal(&m.c, record, (const uint8_t *)"to the source", 13);
        ck_assert_uint_eq(len, SECURE_RECORD_HEAD_LEN + 13 + CRYPTO_SEAL_LEN);
        ck_assert_uint_eq(secure_record_len(record), 13 + CRYPTO_SEAL_LEN);
        ck_assert(memmem(record, len, "source", 6) == NULL);
        ck_assert(opens(&m.s, record, plain));
        ck_assert_mem_eq(plain, "to the source", 13);
        secure_seal(&m.s, record, (const uint8_t *)"and back", 8);
        ck_assert(opens(&m.c, record, plain));
        ck_assert_mem_eq(plain, "and back", 8);
    }
}
END_TEST

START_TEST(who_has_another_key_isnt_trusted_by_either) {
    struct meeting m;
    meet(&m, shared, another, &nobody);
    ck_assert(!m.c_trusts && !m.s_trusts);
    meet(&m, another, shared, &nobody);
    ck_assert(!m.c_trusts && !m.s_trusts);
}
END_TEST

static void flip(int part, size_t at, int bit) {
    struct meeting m;
    struct meddling by = {part, at, (uint8_t)(1 << bit)};
    meet(&m, shared, shared, &by);
    expect(!m.s_trusts);
    expect(part == PROOF_C || !m.c_trusts);
}

/* Both don't end up open: what is changed is seen by at least one, and the other gets no proof then, or a wrong one. */
START_TEST(each_bit_of_the_handshake_counts) {
    static const size_t lengths[] = {SECURE_HELLO_LEN, SECURE_HELLO_LEN, SECURE_PROOF_LEN,
                                     SECURE_PROOF_LEN};
    for (int part = HELLO_C; part < NOTHING; part++) {
        for (size_t at = 0; at < lengths[part]; at++) {
            for (int bit = 0; bit < 8; bit++) {
                flip(part, at, bit);
            }
        }
    }
}
END_TEST

START_TEST(what_was_recorded_opens_nothing) {
    struct meeting old, m;
    struct secure s;
    uint8_t hello[SECURE_HELLO_LEN], proof[SECURE_PROOF_LEN];
    meet_well(&old);
    secure_begin(&s, SECURE_ACCEPTING, shared, hello);
    ck_assert(secure_meet(&s, old.hello_c) == SECURE_OK);
    secure_prove(&s, proof);
    ck_assert(!secure_check(&s, old.proof_c));
    secure_begin(&s, SECURE_CONNECTING, shared, hello);
    ck_assert(secure_meet(&s, old.hello_s) == SECURE_OK);
    ck_assert(!secure_check(&s, old.proof_s));
    secure_begin(&s, SECURE_CONNECTING, shared, hello); /* one's own words sent back */
    ck_assert(secure_meet(&s, hello) == SECURE_NOT_OURS);
    uint8_t record[64], plain[64];
    meet_well(&m);
    secure_seal(&old.c, record, (const uint8_t *)"x", 1);
    ck_assert(!opens(&m.s, record, plain)); /* of another link */
    secure_seal(&m.c, record, (const uint8_t *)"x", 1);
    ck_assert(!opens(&m.c, record, plain)); /* sent back */
}
END_TEST

START_TEST(versions_and_strangers_are_told_apart) {
    struct secure s;
    uint8_t own[SECURE_HELLO_LEN], hello[SECURE_HELLO_LEN];
    crypto_init();
    secure_begin(&s, SECURE_CONNECTING, shared, hello);
    hello[8] = 2;
    secure_begin(&s, SECURE_ACCEPTING, shared, own);
    ck_assert(secure_meet(&s, hello) == SECURE_NEWER);
    hello[8] = 1;
    hello[12] = 1; /* reserved */
    ck_assert(secure_meet(&s, hello) == SECURE_NOT_OURS);
    hello[12] = 0;
    memset(hello + 16, 0, 32); /* a public key that forces the outcome */
    ck_assert(secure_meet(&s, hello) == SECURE_NOT_OURS);
    memcpy(hello, "HTTP/1.1", 8);
    secure_begin(&s, SECURE_ACCEPTING, shared, own);
    ck_assert(secure_meet(&s, hello) == SECURE_NOT_OURS);
}
END_TEST

START_TEST(a_record_opens_unchanged_in_its_turn_and_once) {
    struct meeting m;
    uint8_t first[64], second[64], plain[64];
    meet_well(&m);
    size_t len = secure_seal(&m.c, first, (const uint8_t *)"first", 5);
    secure_seal(&m.c, second, (const uint8_t *)"other", 5);
    struct secure before = m.s;
    ck_assert(!opens(&m.s, second, plain)); /* one is missing */
    m.s = before;
    ck_assert(opens(&m.s, first, plain));
    before = m.s;
    ck_assert(!opens(&m.s, first, plain)); /* again */
    m.s = before;
    ck_assert(opens(&m.s, second, plain));
    for (size_t at = SECURE_RECORD_HEAD_LEN; at < len; at++) {
        meet_well(&m);
        secure_seal(&m.c, first, (const uint8_t *)"first", 5);
        first[at] ^= 0x10;
        ck_assert(!opens(&m.s, first, plain));
    }
    meet_well(&m);
    secure_seal(&m.c, first, (const uint8_t *)"first", 5);
    put_u32(first, 4 + CRYPTO_SEAL_LEN); /* cut */
    ck_assert(!opens(&m.s, first, plain));
}
END_TEST

START_TEST(a_record_has_bounds) {
    uint8_t head[SECURE_RECORD_HEAD_LEN];
    static const struct {
        uint32_t said;
        size_t len;
    } cases[] = {{0, 0},
                 {CRYPTO_SEAL_LEN, 0},
                 {CRYPTO_SEAL_LEN + 1, CRYPTO_SEAL_LEN + 1},
                 {SECURE_PLAIN_MAX + CRYPTO_SEAL_LEN, SECURE_PLAIN_MAX + CRYPTO_SEAL_LEN},
                 {SECURE_PLAIN_MAX + CRYPTO_SEAL_LEN + 1, 0},
                 {UINT32_MAX, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put_u32(head, cases[i].said);
        ck_assert_uint_eq(secure_record_len(head), cases[i].len);
    }
}
END_TEST

START_TEST(the_key_changes_on_the_way) {
    struct meeting m;
    uint8_t *plain = mem_must_zalloc(SECURE_PLAIN_MAX);
    uint8_t *record = mem_must_zalloc(SECURE_RECORD_MAX);
    uint8_t *got = mem_must_zalloc(SECURE_PLAIN_MAX);
    uint32_t changes = 0;
    meet_well(&m);
    for (uint64_t sent = 0; sent < (uint64_t)2 * SECURE_REKEY_LEN + SECURE_PLAIN_MAX;
         sent += SECURE_PLAIN_MAX) {
        memset(plain, (int)(sent >> 16), SECURE_PLAIN_MAX);
        size_t len = secure_seal(&m.c, record, plain, SECURE_PLAIN_MAX);
        expect(len == SECURE_RECORD_MAX);
        changes += m.c.sealed == 0;
        expect(opens(&m.s, record, got));
        expect(memcmp(plain, got, SECURE_PLAIN_MAX) == 0);
    }
    ck_assert_uint_eq(changes, 2);
    mem_free(plain);
    mem_free(record);
    mem_free(got);
}
END_TEST

START_TEST(nothing_stays_of_a_wiped_one) {
    struct meeting m;
    static const struct secure zeros;
    meet_well(&m);
    ck_assert_mem_eq(m.c.key, zeros.key, CRYPTO_KEY_LEN); /* not needed any more */
    ck_assert_mem_eq(&m.c.pair, &zeros.pair, sizeof(zeros.pair));
    ck_assert_mem_eq(m.c.send_key, zeros.send_key, CRYPTO_KEY_LEN);
    ck_assert_mem_eq(m.s.receive_key, zeros.receive_key, CRYPTO_KEY_LEN);
    secure_wipe(&m.c);
    ck_assert_mem_eq(&m.c.sealing, &zeros.sealing, sizeof(zeros.sealing));
}
END_TEST

CHECK_MAIN("secure", who_has_the_key_is_trusted_and_understood,
           who_has_another_key_isnt_trusted_by_either, each_bit_of_the_handshake_counts,
           what_was_recorded_opens_nothing, versions_and_strangers_are_told_apart,
           a_record_opens_unchanged_in_its_turn_and_once, a_record_has_bounds,
           the_key_changes_on_the_way, nothing_stays_of_a_wiped_one)
