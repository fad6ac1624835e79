/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/notify.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/cmd/ctx.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"

#include <inttypes.h>
#include <stdio.h>

enum { CHANNEL_PREFIX_MAX = 32, EVENT_MAX = 64 };

/* Something to publish when the command is over; lives in the worker's arena. An event has two channels, either may be
 * missing (ptr == NULL). */
struct notice {
    struct notice *next;
    enum topic_kind kind;
    bool stays;                 /* whatever becomes of the command: a look-up has happened */
    struct bytes channel;       /* "__keyspace@0__:key", or that of a PUBLISH */
    struct bytes payload;       /* the event's name, or what was published */
    struct bytes event_channel; /* "__keyevent@0__:event" */
    struct bytes event_payload; /* the key */
};

uint32_t notify_parse(struct bytes letters) {
    static const struct {
        char letter;
        uint32_t flags;
    } table[] = {
        {'A', NOTIFY_ALL},      {'g', NOTIFY_GENERIC},  {'$', NOTIFY_STRING},
        {'l', NOTIFY_LIST},     {'s', NOTIFY_SET},      {'h', NOTIFY_HASH},
        {'z', NOTIFY_ZSET},     {'x', NOTIFY_EXPIRED},  {'e', NOTIFY_EVICTED},
        {'K', NOTIFY_KEYSPACE}, {'E', NOTIFY_KEYEVENT}, {'t', NOTIFY_STREAM},
        {'m', NOTIFY_KEY_MISS}, {'d', NOTIFY_MODULE},   {'n', NOTIFY_NEW},
    };
    uint32_t flags = 0;
    for (size_t i = 0; i < letters.len; i++) {
        for (size_t j = 0; j < sizeof(table) / sizeof(table[0]); j++) {
            flags |= letters.ptr[i] == table[j].letter ? table[j].flags : 0;
        }
    }
    return flags;
}

/* Whether anybody wants events of the class. */
static bool is_wanted(const struct node *n, enum notify_class class) {
    uint32_t flags = atomic_load_explicit(&n->notify_flags, memory_order_relaxed);
    return dc_unlikely(flags & (uint32_t) class) && (flags & (NOTIFY_KEYSPACE | NOTIFY_KEYEVENT)) &&
           pubsub_is_heard(n, TOPIC_CHANNEL);
}

static size_t event_room(const char *event, struct bytes key) {
    return 2 * (size_t)CHANNEL_PREFIX_MAX + strlen(event) + key.len;
}

/* Describes an event; the texts are put into 'to', which has event_room() bytes. */
static struct notice describe(const struct node *n, char *to, const char *event,
                              const struct keyspace *ks, struct bytes key) {
    uint32_t flags = atomic_load_explicit(&n->notify_flags, memory_order_relaxed);
    struct notice notice = {.kind = TOPIC_CHANNEL};
    size_t prefix =
        (size_t)snprintf(to, CHANNEL_PREFIX_MAX, "__keyspace@%" PRIu32 "__:", keyspace_id(ks));
    if (key.len > 0) {
        memcpy(to + prefix, key.ptr, key.len);
    }
    notice.payload = bytes_str(event);
    notice.event_payload = bytes_of(to + prefix, key.len);
    if (flags & NOTIFY_KEYSPACE) {
        notice.channel = bytes_of(to, prefix + key.len);
    }
    to += prefix + key.len;
    if (flags & NOTIFY_KEYEVENT) {
        size_t len =
            (size_t)snprintf(to, CHANNEL_PREFIX_MAX, "__keyevent@%" PRIu32 "__:", keyspace_id(ks));
        memcpy(to + len, event, strlen(event));
        notice.event_channel = bytes_of(to, len + strlen(event));
    }
    return notice;
}

/* Nobody can be told when there is no memory for the message: it is lost, as with a slow listener. */
static void publish(struct node *n, struct cmd_worker *w, const struct notice *notice) {
    uint64_t heard;
    if (notice->channel.ptr != NULL) {
        (void)!pubsub_publish(n, w, notice->kind, notice->channel, notice->payload, &heard);
    }
    if (notice->event_channel.ptr != NULL) {
        (void)!pubsub_publish(n, w, notice->kind, notice->event_channel, notice->event_payload,
                              &heard);
    }
}

static void queue(struct cmd_ctx *ctx, struct notice notice) {
    struct cmd_worker *w = ctx->worker;
    struct notice *kept = ctx_alloc(ctx, sizeof(*kept));
    *kept = notice;
    kept->next = NULL;
    if (w->notices == NULL) {
        w->notices_tail = &w->notices;
    }
    *w->notices_tail = kept;
    w->notices_tail = &kept->next;
}

void ctx_notify(struct cmd_ctx *ctx, enum notify_class class, const char *event, struct bytes key) {
    ctx_notify_in(ctx, class, event, ctx->ks, key);
}

void ctx_notify_in(struct cmd_ctx *ctx, enum notify_class class, const char *event,
                   const struct keyspace *ks, struct bytes key) {
    if (is_wanted(ctx->node, class)) {
        char *room = ctx_alloc(ctx, event_room(event, key));
        struct notice notice = describe(ctx->node, room, event, ks, key);
        notice.stays = class == NOTIFY_KEY_MISS;
        queue(ctx, notice);
    }
}

void notify_publish_later(struct cmd_ctx *ctx, enum topic_kind kind, struct bytes channel,
                          struct bytes payload) {
    char *room = ctx_alloc(ctx, channel.len + payload.len + 1);
    memcpy(room, channel.ptr, channel.len);
    memcpy(room + channel.len, payload.ptr, payload.len);
    queue(ctx, (struct notice){.kind = kind,
                               .channel = bytes_of(room, channel.len),
                               .payload = bytes_of(room + channel.len, payload.len)});
}

void notify_rollback(struct cmd_worker *w, struct notice **mark) {
    while (*mark != NULL) {
        if ((*mark)->stays) {
            mark = &(*mark)->next;
        } else {
            *mark = (*mark)->next;
        }
    }
    w->notices_tail = mark;
}

void notify_flush(struct cmd_worker *w) {
    struct notice *notice = w->notices;
    w->notices = NULL;
    for (; notice != NULL; notice = notice->next) {
        publish(w->node, w, notice);
    }
}

void notify_now(struct node *n, struct cmd_worker *w, enum notify_class class, const char *event,
                const struct keyspace *ks, struct bytes key) {
    if (!is_wanted(n, class)) {
        return;
    }
    char *room = mem_alloc(event_room(event, key));
    if (room != NULL) {
        struct notice notice = describe(n, room, event, ks, key);
        publish(n, w, &notice);
        mem_free(room);
    }
}
