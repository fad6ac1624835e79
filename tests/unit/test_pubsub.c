/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/handlers.h"
#include "server/base/thread.h"
#include "tests/support/fake_host.h"

static struct fake_node f;

static bool join(struct fake_client *c, enum topic_kind kind, const char *name) {
    bool changed;
    ck_assert_int_eq(pubsub_join(&c->client, kind, bytes_str(name), &changed), DC_OK);
    return changed;
}

static bool leave(struct fake_client *c, enum topic_kind kind, const char *name) {
    return pubsub_leave(&c->client, kind, bytes_str(name));
}

/* Returns how many heard it. */
static uint64_t publish(uint32_t worker, const char *channel, const char *text) {
    uint64_t heard;
    ck_assert_int_eq(pubsub_publish(&f.node, f.workers[worker], TOPIC_CHANNEL, bytes_str(channel),
                                    bytes_str(text), &heard),
                     DC_OK);
    return heard;
}

START_TEST(what_nobody_hears_goes_nowhere) {
    struct fake_client c;
    fake_node_init(&f);
    fake_client_init(&c, &f, 1, REPLY_RESP2);
    ck_assert(!pubsub_is_heard(&f.node, TOPIC_CHANNEL));
    ck_assert_uint_eq(publish(0, "news", "x"), 0);
    join(&c, TOPIC_CHANNEL, "other");
    join(&c, TOPIC_SHARD, "news");
    ck_assert_uint_eq(publish(0, "news", "x"), 0);
    ck_assert_uint_eq(f.mail[1].posted, 0);
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(messages_are_arrays_in_resp2_and_pushes_in_resp3) {
    struct fake_client two, three;
    fake_node_init(&f);
    fake_client_init(&two, &f, 0, REPLY_RESP2);
    fake_client_init(&three, &f, 0, REPLY_RESP3);
    join(&two, TOPIC_CHANNEL, "news");
    join(&three, TOPIC_CHANNEL, "news");
    ck_assert_uint_eq(publish(0, "news", "hello"), 2);
    ck_assert_str_eq(fake_got(&two), "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    ck_assert_str_eq(fake_got(&three), ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    two.client.proto = REPLY_RESP3; /* HELLO */
    ck_assert_uint_eq(publish(0, "news", ""), 2);
    ck_assert_str_eq(fake_got(&two), ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$0\r\n\r\n");
    fake_client_fini(&two);
    fake_client_fini(&three);
    fake_node_fini(&f);
}
END_TEST

START_TEST(patterns_hear_behind_channels_and_count_one_by_one) {
    struct fake_client c;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    join(&c, TOPIC_PATTERN, "n?ws");
    join(&c, TOPIC_PATTERN, "x*");
    join(&c, TOPIC_CHANNEL, "news");
    ck_assert_uint_eq(publish(0, "news", "1"), 2);
    ck_assert_str_eq(fake_got(&c),
                     "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\n1\r\n"
                     "*4\r\n$8\r\npmessage\r\n$4\r\nn?ws\r\n$4\r\nnews\r\n$1\r\n1\r\n");
    c.client.proto = REPLY_RESP3;
    ck_assert_uint_eq(publish(2, "x", ""), 1);
    ck_assert_str_eq(fake_got(&c), "");
    ck_assert_uint_eq(fake_run_mail(&f, 0), 1);
    ck_assert_str_eq(fake_got(&c), ">4\r\n$8\r\npmessage\r\n$2\r\nx*\r\n$1\r\nx\r\n$0\r\n\r\n");
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(shard_channels_are_a_world_of_their_own) {
    struct fake_client c;
    uint64_t heard;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    join(&c, TOPIC_SHARD, "s");
    join(&c, TOPIC_PATTERN, "*");
    ck_assert_int_eq(
        pubsub_publish(&f.node, f.workers[0], TOPIC_SHARD, BYTES("s"), BYTES("m"), &heard), DC_OK);
    ck_assert_uint_eq(heard, 1);
    ck_assert_str_eq(fake_got(&c), "*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nm\r\n");
    ck_assert_uint_eq(publish(0, "s", "m"), 1);
    ck_assert_str_eq(fake_got(&c), "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\ns\r\n$1\r\nm\r\n");
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(each_worker_that_has_listeners_gets_one_message) {
    struct fake_client c[6];
    fake_node_init(&f);
    for (uint32_t i = 0; i < 6; i++) { /* two on each of the workers 0, 1, 2 */
        fake_client_init(&c[i], &f, i % 3, REPLY_RESP2);
        join(&c[i], TOPIC_CHANNEL, "news");
        join(&c[i], TOPIC_PATTERN, "n*");
    }
    ck_assert_uint_eq(publish(1, "news", "m"), 12);
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        ck_assert_uint_eq(fake_run_mail(&f, i), i == 0 || i == 2);
    }
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert_str_eq(fake_got(&c[i]),
                         "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nm\r\n"
                         "*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$1\r\nm\r\n");
    }
    uint64_t heard;
    ck_assert_int_eq(pubsub_publish(&f.node, NULL, TOPIC_CHANNEL, BYTES("news"), BYTES(""), &heard),
                     DC_OK);
    ck_assert_uint_eq(heard, 12);
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) { /* who is no worker posts to all */
        ck_assert_uint_eq(fake_run_mail(&f, i), i < 3);
    }
    for (uint32_t i = 0; i < 6; i++) {
        fake_client_fini(&c[i]);
    }
    fake_node_fini(&f);
}
END_TEST

START_TEST(a_message_that_comes_after_the_listener_left_is_dropped) {
    struct fake_client c;
    fake_node_init(&f);
    fake_client_init(&c, &f, 1, REPLY_RESP2);
    join(&c, TOPIC_CHANNEL, "a");
    ck_assert_uint_eq(publish(0, "a", "1"), 1);
    leave(&c, TOPIC_CHANNEL, "a");
    ck_assert_uint_eq(fake_run_mail(&f, 1), 1);
    ck_assert_str_eq(fake_got(&c), "");
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(counts_of_a_client_and_its_flag_are_kept) {
    struct fake_client c;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    ck_assert(!leave(&c, TOPIC_CHANNEL, "a"));
    ck_assert(join(&c, TOPIC_CHANNEL, "a"));
    ck_assert(!join(&c, TOPIC_CHANNEL, "a"));
    ck_assert(join(&c, TOPIC_PATTERN, "a"));
    ck_assert(join(&c, TOPIC_SHARD, "a"));
    ck_assert(join(&c, TOPIC_SHARD, "b"));
    ck_assert(c.client.flags & CLIENT_SUBSCRIBED);
    ck_assert_uint_eq(atomic_load(&c.client.seen_subs), 1);
    ck_assert_uint_eq(atomic_load(&c.client.seen_psubs), 1);
    ck_assert_uint_eq(atomic_load(&c.client.seen_ssubs), 2);
    ck_assert_uint_eq(pubsub_listener_count(&f.node, TOPIC_SHARD, BYTES("b")), 1);
    ck_assert_uint_eq(pubsub_topic_count(&f.node, TOPIC_SHARD), 2);
    ck_assert(leave(&c, TOPIC_CHANNEL, "a"));
    ck_assert(!leave(&c, TOPIC_CHANNEL, "a"));
    ck_assert(leave(&c, TOPIC_PATTERN, "a"));
    ck_assert(leave(&c, TOPIC_SHARD, "a"));
    ck_assert(c.client.flags & CLIENT_SUBSCRIBED);
    ck_assert_uint_eq(pubsub_leave_all(&c.client, TOPIC_SHARD, NULL, NULL), 1);
    ck_assert(!(c.client.flags & CLIENT_SUBSCRIBED));
    ck_assert_uint_eq(atomic_load(&c.client.seen_ssubs), 0);
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(who_is_gone_has_left_everything) {
    struct fake_client c, other;
    char name[16];
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    fake_client_init(&other, &f, 0, REPLY_RESP2);
    join(&other, TOPIC_CHANNEL, "5");
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof(name), "%d", i);
        join(&c, (enum topic_kind)(i % 3), name);
    }
    join(&c, TOPIC_MONITOR, "");
    pubsub_client_gone(&c.client);
    ck_assert_uint_eq(pubsub_topic_count(&f.node, TOPIC_CHANNEL), 1);
    ck_assert_uint_eq(pubsub_topic_count(&f.node, TOPIC_PATTERN), 0);
    ck_assert_uint_eq(pubsub_topic_count(&f.node, TOPIC_SHARD), 0);
    ck_assert_uint_eq(pubsub_topic_count(&f.node, TOPIC_MONITOR), 0);
    ck_assert_ptr_null(c.client.subs);
    ck_assert_uint_eq(publish(0, "5", "m"), 1);
    fake_client_fini(&c);
    fake_client_fini(&other);
    fake_node_fini(&f);
}
END_TEST

enum { CLIENTS = 12, NAMES = 9, CHANNELS = 4, ROUNDS = 6000 };

/* The first CHANNELS of them are published to; as patterns, all are listened to. */
static const char *const names[NAMES] = {"a", "b", "ab", "aab", "a*", "*", "?b", "[ab]", ""};
static const bool matches[CHANNELS][NAMES] = {
    {1, 0, 0, 0, 1, 1, 0, 1, 0}, /* a */
    {0, 1, 0, 0, 0, 1, 0, 1, 0}, /* b */
    {0, 0, 1, 0, 1, 1, 1, 0, 0}, /* ab */
    {0, 0, 0, 1, 1, 1, 0, 0, 0}, /* aab */
};

/* Who listens to what. */
static bool model[CLIENTS][2][NAMES];

static void publish_and_compare(struct fake_client *c, uint32_t worker, uint64_t channel) {
    uint64_t expected = 0;
    uint64_t heard = publish(worker, names[channel], "m");
    for (uint32_t w = 0; w < FAKE_WORKERS; w++) {
        fake_run_mail(&f, w);
    }
    for (int i = 0; i < CLIENTS; i++) {
        uint64_t got = 0, mine = model[i][TOPIC_CHANNEL][channel];
        for (int p = 0; p < NAMES; p++) {
            mine += model[i][TOPIC_PATTERN][p] && matches[channel][p];
        }
        for (const char *at = fake_got(&c[i]); (at = strchr(at, '*')) != NULL; at++) {
            got += at[1] == '3' || at[1] == '4';
        }
        ck_assert_uint_eq(got, mine);
        expected += mine;
    }
    ck_assert_uint_eq(heard, expected);
}

START_TEST(counts_and_deliveries_agree_with_a_naive_model) {
    static struct fake_client c[CLIENTS];
    struct rng rng = test_rng();
    memset(model, 0, sizeof(model));
    fake_node_init(&f);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        fake_client_init(&c[i], &f, i % FAKE_WORKERS, REPLY_RESP2);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t i = rng_below(&rng, CLIENTS), name = rng_below(&rng, NAMES);
        enum topic_kind kind = (enum topic_kind)rng_below(&rng, 2); /* channel, pattern */
        bool *in = &model[i][kind][name];
        uint64_t dice = rng_below(&rng, 100);
        if (dice < 5) {
            pubsub_client_gone(&c[i].client);
            memset(model[i], 0, sizeof(model[i]));
        } else if (dice < 35) {
            ck_assert(join(&c[i], kind, names[name]) == !*in);
            *in = true;
        } else if (dice < 60) {
            ck_assert(leave(&c[i], kind, names[name]) == *in);
            *in = false;
        } else {
            publish_and_compare(c, (uint32_t)rng_below(&rng, FAKE_WORKERS),
                                rng_below(&rng, CHANNELS));
        }
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        fake_client_fini(&c[i]);
    }
    fake_node_fini(&f);
}
END_TEST

static void count_name(void *arg, struct bytes name) {
    uint64_t *sum = arg;
    *sum += strtoull(name.ptr, NULL, 10);
}

START_TEST(all_topics_can_be_listed) {
    struct fake_client c;
    char name[16];
    uint64_t sum = 0;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    for (int i = 1; i <= 1000; i++) {
        snprintf(name, sizeof(name), "%d.", i);
        join(&c, TOPIC_CHANNEL, name);
    }
    pubsub_each_topic(&f.node, TOPIC_CHANNEL, count_name, &sum);
    ck_assert_uint_eq(sum, 500500);
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

/* I5 */
START_TEST(much_under_way_is_a_backlog_until_it_is_delivered) {
    struct fake_client c;
    uint64_t heard;
    size_t len = PUBSUB_BACKLOG_MAX / 4;
    char *big = mem_must_zalloc(len);
    fake_node_init(&f);
    fake_client_init(&c, &f, 1, REPLY_RESP2);
    join(&c, TOPIC_CHANNEL, "a");
    for (int i = 0; i < 4; i++) {
        ck_assert(!pubsub_is_backlogged(&f.node));
        ck_assert_int_eq(pubsub_publish(&f.node, f.workers[0], TOPIC_CHANNEL, BYTES("a"),
                                        bytes_of(big, len), &heard),
                         DC_OK);
    }
    ck_assert(pubsub_is_backlogged(&f.node));
    fake_run_mail(&f, 1);
    ck_assert(!pubsub_is_backlogged(&f.node));
    ck_assert_uint_gt(c.got.len, 4 * len);
    fake_client_fini(&c);
    fake_node_fini(&f);
    mem_free(big);
}
END_TEST

START_TEST(without_memory_nothing_has_happened) {
    struct fake_client c;
    bool changed;
    uint64_t heard;
    fake_node_init(&f);
    fake_client_init(&c, &f, 1, REPLY_RESP2);
    join(&c, TOPIC_CHANNEL, "first");
    for (uint64_t n = 1; n <= 2; n++) { /* the worker's topic, the node's audience */
        mem_fault_after(n);
        ck_assert_int_eq(pubsub_join(&c.client, TOPIC_CHANNEL, BYTES("a"), &changed), DC_ENOMEM);
        ck_assert(!changed);
        ck_assert_uint_eq(pubsub_topic_count(&f.node, TOPIC_CHANNEL), 1);
        ck_assert_uint_eq(pubsub_client_count(&c.client, TOPIC_CHANNEL), 1);
    }
    mem_fault_after(0);
    mem_fault_after(1);
    ck_assert_int_eq(
        pubsub_publish(&f.node, f.workers[0], TOPIC_CHANNEL, BYTES("first"), BYTES("m"), &heard),
        DC_ENOMEM);
    mem_fault_after(0);
    ck_assert_uint_eq(f.mail[1].posted, 0);
    ck_assert_uint_eq(publish(0, "first", "m"), 1);
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

/* --- handlers ---------------------------------------------------------------------------------------- */

static const char *call(struct fake_client *c, enum cmd_id id, const char *const *words) {
    struct fake_call fc;
    struct cmd_ctx *ctx = fake_call_init(&fc, c, id, words);
    ck_assert_int_eq(cmd_table[id].run(ctx), DC_OK);
    return fake_got(c);
}

START_TEST(confirmations_count_channels_and_patterns_together) {
    struct fake_client c;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    ck_assert_str_eq(call(&c, CMD_SUBSCRIBE, FAKE_WORDS("subscribe", "a", "b", "a")),
                     "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
                     "*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"
                     "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n");
    ck_assert_str_eq(call(&c, CMD_PSUBSCRIBE, FAKE_WORDS("psubscribe", "p*")),
                     "*3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:3\r\n");
    ck_assert_str_eq(call(&c, CMD_SSUBSCRIBE, FAKE_WORDS("ssubscribe", "s")),
                     "*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n");
    ck_assert_str_eq(call(&c, CMD_UNSUBSCRIBE, FAKE_WORDS("unsubscribe", "x", "a")),
                     "*3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:3\r\n"
                     "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:2\r\n");
    ck_assert_str_eq(call(&c, CMD_UNSUBSCRIBE, FAKE_WORDS("unsubscribe")),
                     "*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n");
    ck_assert_str_eq(call(&c, CMD_UNSUBSCRIBE, FAKE_WORDS("unsubscribe")),
                     "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:1\r\n");
    c.client.proto = REPLY_RESP3;
    ck_assert_str_eq(call(&c, CMD_PUNSUBSCRIBE, FAKE_WORDS("punsubscribe")),
                     ">3\r\n$12\r\npunsubscribe\r\n$2\r\np*\r\n:0\r\n");
    ck_assert_str_eq(call(&c, CMD_PUNSUBSCRIBE, FAKE_WORDS("punsubscribe")),
                     ">3\r\n$12\r\npunsubscribe\r\n_\r\n:0\r\n");
    ck_assert_str_eq(call(&c, CMD_SUNSUBSCRIBE, FAKE_WORDS("sunsubscribe")),
                     ">3\r\n$12\r\nsunsubscribe\r\n$1\r\ns\r\n:0\r\n");
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(pubsub_tells_who_listens) {
    struct fake_client c, d;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP2);
    fake_client_init(&d, &f, 1, REPLY_RESP2);
    join(&c, TOPIC_CHANNEL, "a");
    join(&d, TOPIC_CHANNEL, "a");
    join(&d, TOPIC_CHANNEL, "b");
    join(&c, TOPIC_PATTERN, "*");
    join(&d, TOPIC_PATTERN, "*");
    join(&d, TOPIC_SHARD, "s");
    ck_assert_str_eq(call(&c, CMD_PUBSUB_NUMSUB, FAKE_WORDS("pubsub", "numsub", "a", "b", "x")),
                     "*6\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:1\r\n$1\r\nx\r\n:0\r\n");
    ck_assert_str_eq(call(&c, CMD_PUBSUB_NUMSUB, FAKE_WORDS("pubsub", "numsub")), "*0\r\n");
    ck_assert_str_eq(call(&c, CMD_PUBSUB_NUMPAT, FAKE_WORDS("pubsub", "numpat")), ":1\r\n");
    ck_assert_str_eq(call(&c, CMD_PUBSUB_CHANNELS, FAKE_WORDS("pubsub", "channels", "[b-z]")),
                     "*1\r\n$1\r\nb\r\n");
    ck_assert_str_eq(call(&c, CMD_PUBSUB_SHARDCHANNELS, FAKE_WORDS("pubsub", "shardchannels")),
                     "*1\r\n$1\r\ns\r\n");
    ck_assert_str_eq(
        call(&c, CMD_PUBSUB_SHARDNUMSUB, FAKE_WORDS("pubsub", "shardnumsub", "s", "a")),
        "*4\r\n$1\r\ns\r\n:1\r\n$1\r\na\r\n:0\r\n");
    fake_client_fini(&c);
    fake_client_fini(&d);
    fake_node_fini(&f);
}
END_TEST

START_TEST(publish_reaches_the_publisher_before_its_reply) {
    struct fake_client c;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP3);
    join(&c, TOPIC_CHANNEL, "a");
    ck_assert_str_eq(call(&c, CMD_PUBLISH, FAKE_WORDS("publish", "a", "m")),
                     ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n:1\r\n");
    ck_assert_str_eq(call(&c, CMD_SPUBLISH, FAKE_WORDS("spublish", "a", "m")), ":0\r\n");
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(inside_exec_publish_counts_at_once_and_tells_later) {
    struct fake_client c;
    struct fake_call fc;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP3);
    join(&c, TOPIC_CHANNEL, "a");
    struct cmd_ctx *ctx = fake_call_init(&fc, &c, CMD_PUBLISH, FAKE_WORDS("publish", "a", "m"));
    ctx->in_exec = true;
    ck_assert_int_eq(cmd_publish(ctx), DC_OK);
    ck_assert_str_eq(fake_got(&c), ":1\r\n");
    notify_flush(f.workers[0]);
    ck_assert_str_eq(fake_got(&c), ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n");
    ck_assert_ptr_null(f.workers[0]->notices);
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(silenced_clients_still_get_confirmations) {
    struct fake_client c;
    struct fake_call fc;
    struct buf dropped;
    fake_node_init(&f);
    fake_client_init(&c, &f, 0, REPLY_RESP3);
    c.client.flags |= CLIENT_REPLY_OFF;
    struct cmd_ctx *ctx = fake_call_init(&fc, &c, CMD_SUBSCRIBE, FAKE_WORDS("subscribe", "a"));
    buf_init(&dropped, 0);
    ctx->reply->out = &dropped;
    ck_assert_int_eq(cmd_subscribe(ctx), DC_OK);
    ck_assert_uint_eq(dropped.len, 0);
    ck_assert_str_eq(fake_got(&c), ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    buf_fini(&dropped);
    fake_client_fini(&c);
    fake_node_fini(&f);
}
END_TEST

START_TEST(only_a_few_commands_run_while_a_resp2_client_listens) {
    uint32_t allowed = 0;
    for (uint32_t i = 0; i < CMD_COUNT; i++) {
        allowed += pubsub_allows(&cmd_table[i]);
    }
    ck_assert_uint_eq(allowed, 9);
    ck_assert(pubsub_allows(&cmd_table[CMD_PING]));
    ck_assert(!pubsub_allows(&cmd_table[CMD_PUBLISH]));
}
END_TEST

/* --- threads ----------------------------------------------------------------------------------------- */

enum { TURNS = 4000, LISTENERS = 3 };

struct worker_run {
    uint32_t index;
    uint64_t heard;               /* as told to the publisher, of the messages of "all" */
    uint64_t received[LISTENERS]; /* messages of "all" */
    struct fake_client listeners[LISTENERS];
};

static _Atomic uint32_t publishing;
static pthread_barrier_t all_listen;

/* Checks that the numbers of each publisher rise by one and counts. Payload: "<publisher>:<number>". */
static void check_order(struct worker_run *run, uint32_t listener, uint64_t *next) {
    struct fake_client *c = &run->listeners[listener];
    if (c->got.len == 0) {
        return;
    }
    buf_append(&c->got, "", 1);
    for (const char *at = c->got.ptr; (at = strstr(at, "\r\nall\r\n$")) != NULL;) {
        at = strstr(at + 8, "\r\n") + 2;
        uint32_t publisher = (uint32_t)strtoul(at, NULL, 10);
        ck_assert_uint_lt(publisher, FAKE_WORKERS);
        ck_assert_uint_eq(strtoull(strchr(at, ':') + 1, NULL, 10), next[publisher]); /* I2 */
        next[publisher]++;
        run->received[listener]++;
    }
    buf_reset(&c->got, 0);
}

static void work(void *arg) {
    struct worker_run *run = arg;
    uint64_t next[LISTENERS][FAKE_WORKERS] = {{0}};
    struct rng rng;
    rng_seed(&rng, test_seed_value + run->index);
    for (uint32_t i = 0; i < LISTENERS; i++) {
        fake_client_init(&run->listeners[i], &f, run->index, REPLY_RESP2);
        join(&run->listeners[i], i == 0 ? TOPIC_PATTERN : TOPIC_CHANNEL, i == 0 ? "al?" : "all");
    }
    pthread_barrier_wait(&all_listen);
    for (uint64_t n = 0; n < TURNS; n++) {
        struct fake_client *c = &run->listeners[rng_below(&rng, LISTENERS)];
        char text[32], name[8];
        snprintf(text, sizeof(text), "%u:%" PRIu64, run->index, n);
        run->heard += publish(run->index, "all", text);
        snprintf(name, sizeof(name), "n%u", (unsigned)rng_below(&rng, 5));
        enum topic_kind kind = (enum topic_kind)rng_below(&rng, 3);
        if (rng_below(&rng, 2) == 0) {
            join(c, kind, name);
        } else {
            leave(c, kind, name);
        }
        publish(run->index, name, "noise");
        fake_run_mail(&f, run->index);
        for (uint32_t i = 0; i < LISTENERS; i++) {
            check_order(run, i, next[i]);
        }
    }
    atomic_fetch_sub(&publishing, 1);
    bool more = true;
    while (more) { /* what the others still send */
        more = atomic_load(&publishing) > 0;
        fake_run_mail(&f, run->index);
        for (uint32_t i = 0; i < LISTENERS; i++) {
            check_order(run, i, next[i]);
        }
    }
    for (uint32_t i = 0; i < LISTENERS; i++) {
        fake_client_fini(&run->listeners[i]);
    }
}

START_TEST(publishers_on_all_workers_reach_everybody_in_order) {
    static struct worker_run runs[FAKE_WORKERS];
    struct thread threads[FAKE_WORKERS];
    fake_node_init(&f);
    atomic_store(&publishing, FAKE_WORKERS);
    pthread_barrier_init(&all_listen, NULL, FAKE_WORKERS);
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        runs[i] = (struct worker_run){.index = i};
        thread_start(&threads[i], "worker", work, &runs[i]);
    }
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        thread_join(&threads[i]);
    }
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        ck_assert_uint_eq(runs[i].heard, (uint64_t)TURNS * FAKE_WORKERS * LISTENERS);
        for (uint32_t k = 0; k < LISTENERS; k++) {
            ck_assert_uint_eq(runs[i].received[k], (uint64_t)TURNS * FAKE_WORKERS);
        }
    }
    pthread_barrier_destroy(&all_listen);
    fake_node_fini(&f);
}
END_TEST

CHECK_MAIN("pubsub", what_nobody_hears_goes_nowhere,
           messages_are_arrays_in_resp2_and_pushes_in_resp3,
           patterns_hear_behind_channels_and_count_one_by_one,
           shard_channels_are_a_world_of_their_own, each_worker_that_has_listeners_gets_one_message,
           a_message_that_comes_after_the_listener_left_is_dropped,
           counts_of_a_client_and_its_flag_are_kept, who_is_gone_has_left_everything,
           counts_and_deliveries_agree_with_a_naive_model, all_topics_can_be_listed,
           much_under_way_is_a_backlog_until_it_is_delivered, without_memory_nothing_has_happened,
           confirmations_count_channels_and_patterns_together, pubsub_tells_who_listens,
           publish_reaches_the_publisher_before_its_reply,
           inside_exec_publish_counts_at_once_and_tells_later,
           silenced_clients_still_get_confirmations,
           only_a_few_commands_run_while_a_resp2_client_listens,
           publishers_on_all_workers_reach_everybody_in_order)
