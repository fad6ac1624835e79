/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A C client as applications write them with hiredis: a session store, a rate limiter, pipelines,
 * a subscriber. Usage: client_hiredis PORT. Exit code 0 = everything as expected; otherwise the
 * first surprise is printed.
 */
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPECT(cond)                                                            \
    do {                                                                        \
        if (!(cond)) {                                                          \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #cond); \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static redisContext *dial(int port) {
    struct timeval limit = {5, 0};
    redisContext *ctx = redisConnectWithTimeout("127.0.0.1", port, limit);
    EXPECT(ctx != NULL && ctx->err == 0);
    EXPECT(redisSetTimeout(ctx, limit) == REDIS_OK);
    return ctx;
}

/* One command; the caller frees the reply. */
static redisReply *ask(redisContext *ctx, const char *format, ...) {
    va_list args;
    va_start(args, format);
    redisReply *reply = redisvCommand(ctx, format, args);
    va_end(args);
    if (reply == NULL) {
        fprintf(stderr, "%s: %s\n", format, ctx->errstr);
        exit(1);
    }
    return reply;
}

static long long as_int(redisReply *reply) {
    EXPECT(reply->type == REDIS_REPLY_INTEGER);
    long long value = reply->integer;
    freeReplyObject(reply);
    return value;
}

static int is_status(redisReply *reply, const char *text) {
    int same = reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, text) == 0;
    freeReplyObject(reply);
    return same;
}

static int is_string(redisReply *reply, const char *data, size_t len) {
    int same = reply->type == REDIS_REPLY_STRING && reply->len == len &&
               memcmp(reply->str, data, len) == 0;
    freeReplyObject(reply);
    return same;
}

static int is_nil(redisReply *reply) {
    int nil = reply->type == REDIS_REPLY_NIL;
    freeReplyObject(reply);
    return nil;
}

static void session_store(redisContext *ctx) {
    static const char blob[] = "user=7\0\r\n\xff binary";
    EXPECT(is_status(ask(ctx, "SET session:%s %b EX %d NX", "abc", blob, sizeof(blob), 100), "OK"));
    EXPECT(is_nil(ask(ctx, "SET session:%s other EX 100 NX", "abc")));
    EXPECT(is_string(ask(ctx, "GETEX session:abc EX 1000"), blob, sizeof(blob)));
    long long ttl = as_int(ask(ctx, "TTL session:abc"));
    EXPECT(ttl > 990 && ttl <= 1000);
    EXPECT(as_int(ask(ctx, "EXPIRE session:abc 50 GT")) == 0);
    EXPECT(as_int(ask(ctx, "EXPIRE session:abc 2000 GT")) == 1);
    EXPECT(as_int(ask(ctx, "DEL session:abc")) == 1);
    EXPECT(is_nil(ask(ctx, "GETEX session:abc EX 1000")));

    EXPECT(is_status(ask(ctx, "SET session:short x PX 80"), "OK"));
    nanosleep(&(struct timespec){0, 150000000}, NULL);
    EXPECT(is_nil(ask(ctx, "GET session:short")));
}

/* A fixed window of ten: INCR and EXPIRE NX in one transaction. */
static void rate_limiter(redisContext *ctx) {
    for (int hit = 1; hit <= 15; hit++) {
        EXPECT(is_status(ask(ctx, "MULTI"), "OK"));
        EXPECT(is_status(ask(ctx, "INCR rate:7"), "QUEUED"));
        EXPECT(is_status(ask(ctx, "EXPIRE rate:7 60 NX"), "QUEUED"));
        redisReply *both = ask(ctx, "EXEC");
        EXPECT(both->type == REDIS_REPLY_ARRAY && both->elements == 2);
        EXPECT(both->element[0]->integer == hit && both->element[1]->integer == (hit == 1));
        freeReplyObject(both);
    }
    EXPECT(as_int(ask(ctx, "TTL rate:7")) > 55);
}

static void optimistic_lock(redisContext *ctx, redisContext *other) {
    EXPECT(is_status(ask(ctx, "WATCH bucket"), "OK"));
    EXPECT(is_status(ask(other, "SET bucket 9"), "OK"));
    EXPECT(is_status(ask(ctx, "MULTI"), "OK"));
    EXPECT(is_status(ask(ctx, "SET bucket 5"), "QUEUED"));
    EXPECT(is_nil(ask(ctx, "EXEC")));
    EXPECT(is_string(ask(ctx, "GET bucket"), "9", 1));
}

static void pipeline(redisContext *ctx) {
    enum { COUNT = 5000 };
    for (int n = 0; n < COUNT; n++) {
        EXPECT(redisAppendCommand(ctx, "SET pipe:%d value-%d", n, n) == REDIS_OK);
        EXPECT(redisAppendCommand(ctx, "GET pipe:%d", n) == REDIS_OK);
    }
    for (int n = 0; n < COUNT; n++) {
        void *reply;
        char text[32];
        EXPECT(redisGetReply(ctx, &reply) == REDIS_OK && is_status(reply, "OK"));
        int len = snprintf(text, sizeof(text), "value-%d", n);
        EXPECT(redisGetReply(ctx, &reply) == REDIS_OK && is_string(reply, text, (size_t)len));
    }
}

static void subscriber(redisContext *ctx, redisContext *publisher) {
    freeReplyObject(ask(ctx, "SUBSCRIBE news"));
    for (int n = 0; n < 100; n++) {
        EXPECT(as_int(ask(publisher, "PUBLISH news %d", n)) == 1);
    }
    for (int n = 0; n < 100; n++) {
        void *got;
        EXPECT(redisGetReply(ctx, &got) == REDIS_OK);
        redisReply *reply = got;
        EXPECT(reply->type == REDIS_REPLY_ARRAY && reply->elements == 3);
        EXPECT(strcmp(reply->element[0]->str, "message") == 0 &&
               strtol(reply->element[2]->str, NULL, 10) == n);
        freeReplyObject(reply);
    }
}

static void errors(redisContext *ctx) {
    redisReply *reply = ask(ctx, "INCR session:text");
    EXPECT(reply->type == REDIS_REPLY_INTEGER);
    freeReplyObject(reply);
    EXPECT(is_status(ask(ctx, "SET session:text abc"), "OK"));
    reply = ask(ctx, "INCR session:text");
    EXPECT(reply->type == REDIS_REPLY_ERROR &&
           strcmp(reply->str, "ERR value is not an integer or out of range") == 0);
    freeReplyObject(reply);
    reply = ask(ctx, "GET");
    EXPECT(reply->type == REDIS_REPLY_ERROR &&
           strcmp(reply->str, "ERR wrong number of arguments for 'get' command") == 0);
    freeReplyObject(reply);
}

int main(int argc, char **argv) {
    EXPECT(argc == 2);
    redisContext *ctx = dial((int)strtol(argv[1], NULL, 10));
    redisContext *other = dial((int)strtol(argv[1], NULL, 10));
    session_store(ctx);
    rate_limiter(ctx);
    optimistic_lock(ctx, other);
    pipeline(ctx);
    errors(ctx);
    subscriber(ctx, other);
    redisFree(ctx);
    redisFree(other);
    return 0;
}
