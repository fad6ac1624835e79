/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/ack.h"
#include "server/base/limits.h"
#include "tests/support/check_main.h"

static const char *again(const char *text) {
    static char to[ACK_TEXT_MAX];
    struct ack_level level;
    if (!ack_parse(bytes_str(text), &level)) {
        return NULL;
    }
    ck_assert_uint_eq(ack_text(level, to), strlen(to));
    return to;
}

START_TEST(a_level_survives_its_text) {
    static const char *const texts[] = {"default",
                                        "memory",
                                        "os",
                                        "disk",
                                        "replicas:1",
                                        "replicas:32:disk",
                                        "os+replicas:2",
                                        "disk+replicas:2:disk",
                                        "quorum",
                                        "quorum:disk",
                                        "disk+quorum",
                                        "disk+quorum:disk"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert_str_eq(again(texts[i]), texts[i]);
    }
}
END_TEST

START_TEST(order_case_and_a_needless_memory_make_no_difference) {
    ck_assert_str_eq(again("replicas:1+disk"), "disk+replicas:1");
    ck_assert_str_eq(again("Replicas:2:DISK+Os"), "os+replicas:2:disk");
    ck_assert_str_eq(again("memory+replicas:1"), "replicas:1");
    ck_assert_str_eq(again("DEFAULT"), "default");
}
END_TEST

START_TEST(zeros_are_the_default) {
    struct ack_level level;
    ck_assert(ack_parse(BYTES("default"), &level));
    ck_assert(ack_is_default(level));
    ck_assert(ack_parse(BYTES("memory"), &level));
    ck_assert(!ack_is_default(level));
    ck_assert(ack_word(ack_of_word(ack_word(level))) == ack_word(level));
}
END_TEST

START_TEST(what_is_no_level_is_refused) {
    static const char *const texts[] = {"",
                                        "+",
                                        "disk+",
                                        "+disk",
                                        "disc",
                                        "os+disk",
                                        "disk+disk",
                                        "default+disk",
                                        "disk+default",
                                        "replicas",
                                        "replicas:",
                                        "replicas:0",
                                        "replicas:-1",
                                        "replicas:33",
                                        "replicas:x",
                                        "replicas:1:",
                                        "replicas:1:os",
                                        "replicas:1:disk:",
                                        "replicas:1+replicas:2",
                                        "replicas:1+quorum",
                                        "quorum:",
                                        "quorum:2",
                                        "quorum+quorum",
                                        "replicas:18446744073709551617",
                                        "disk replicas:1"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert_msg(again(texts[i]) == NULL, "'%s' is taken", texts[i]);
    }
    ck_assert_int_eq(REPLICAS_MAX, 32);
}
END_TEST

CHECK_MAIN("ack", a_level_survives_its_text, order_case_and_a_needless_memory_make_no_difference,
           zeros_are_the_default, what_is_no_level_is_refused)
