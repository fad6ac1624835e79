/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A message on its way:
 *
 *   publisher's worker                          another worker that has listeners
 *   ------------------                          ---------------------------------
 *   audience.c: how many, on which workers
 *   parcel: the part that all listeners get
 *   own listeners: host->push                   message from the mailbox: host->push, drop the reference
 *   the others: host->post, one reference each
 *
 * What a listener gets is a head, which depends on his protocol and for a pattern on the pattern, and the parcel's tail
 * (channel and payload as bulks), which is written once for all.
 */
#include "server/cmd/pubsub.h"

#include "server/base/assert.h"
#include "server/base/dict.h"
#include "server/base/glob.h"
#include "server/base/mem.h"
#include "server/base/num.h"
#include "server/cmd/audience.h"
#include "server/cmd/client.h"
#include "server/cmd/node.h"

struct pubsub {
    struct audiences audiences;
    _Alignas(
        64) _Atomic int64_t backlog; /* bytes of parcels that were posted and not yet dropped */
};

/* A topic that clients of this worker listen to. Its name and the heads of its messages stand behind the struct. */
struct topic {
    struct dict_node node; /* in pubsub_local.topics */
    struct sub **subs;     /* in no particular order */
    uint32_t count;
    uint32_t cap;
    struct bytes heads[2]; /* of a message: RESP2, RESP3 */
    char text[];
};

/* One client listens to one topic. */
struct sub {
    struct dict_node node; /* in client_subs.topics; the name is the topic's */
    struct topic *topic;
    struct client *client;
    uint32_t index; /* in topic->subs */
};

struct client_subs {
    struct dict topics[TOPIC_KIND_COUNT];
};

/* Owned by the worker. */
struct pubsub_local {
    struct dict topics[TOPIC_KIND_COUNT];
    struct pattern_view patterns;
    bool delivering; /* topics must stay as they are */
};

struct pubsub *pubsub_create(void) {
    struct pubsub *ps = mem_must_aligned(_Alignof(struct pubsub), sizeof(*ps));
    audiences_init(&ps->audiences);
    atomic_init(&ps->backlog, 0);
    return ps;
}

void pubsub_destroy(struct pubsub *ps) {
    if (ps != NULL) {
        dc_assert(atomic_load(&ps->backlog) == 0);
        audiences_fini(&ps->audiences);
        mem_free_aligned(ps, _Alignof(struct pubsub), sizeof(*ps));
    }
}

struct pubsub_local *pubsub_local_create(const struct cmd_worker *w) {
    struct pubsub_local *l = mem_must_zalloc(sizeof(*l));
    for (size_t kind = 0; kind < TOPIC_KIND_COUNT; kind++) {
        dict_init(&l->topics[kind], w->node->pubsub->audiences.seed);
    }
    return l;
}

void pubsub_local_destroy(struct pubsub_local *l) {
    if (l != NULL) {
        for (size_t kind = 0; kind < TOPIC_KIND_COUNT; kind++) {
            dc_assert(l->topics[kind].count == 0);
            dict_fini(&l->topics[kind]);
        }
        pattern_view_fini(&l->patterns);
        mem_free(l);
    }
}

/* --- topics of a worker ------------------------------------------------------------------------------ */

static char *put_bytes(char *to, struct bytes s) {
    if (s.len > 0) {
        memcpy(to, s.ptr, s.len);
    }
    return to + s.len;
}

enum { BULK_FRAME_MAX = 1 + NUM_I64_TEXT_MAX + 4 };

static char *put_bulk(char *to, struct bytes s) {
    *to++ = '$';
    to += num_format_u64(to, s.len);
    to = put_bytes(to, BYTES("\r\n"));
    to = put_bytes(to, s);
    return put_bytes(to, BYTES("\r\n"));
}

/* What stands before the tail, without the first byte. */
static struct bytes head_of(enum topic_kind kind) {
    switch (kind) {
    case TOPIC_CHANNEL:
        return BYTES("3\r\n$7\r\nmessage\r\n");
    case TOPIC_SHARD:
        return BYTES("3\r\n$8\r\nsmessage\r\n");
    case TOPIC_PATTERN:
        return BYTES("4\r\n$8\r\npmessage\r\n");
    case TOPIC_MONITOR:
    case TOPIC_KIND_COUNT:
        return (struct bytes){NULL, 0};
    }
    dc_unreachable();
}

/* Writes the head behind 'mark'; returns its end. */
static char *put_head(char *to, enum topic_kind kind, char mark, struct bytes name) {
    if (kind == TOPIC_MONITOR) {
        return to;
    }
    *to++ = mark;
    to = put_bytes(to, head_of(kind));
    return kind == TOPIC_PATTERN ? put_bulk(to, name) : to;
}

/* NULL when there is no memory. */
static struct topic *topic_create(enum topic_kind kind, struct bytes name, uint64_t hash) {
    size_t head_len = 1 + head_of(kind).len;
    head_len += kind == TOPIC_PATTERN ? BULK_FRAME_MAX + name.len : 0;
    struct topic *t = mem_alloc(sizeof(*t) + name.len + 2 * head_len);
    if (t == NULL) {
        return NULL;
    }
    char *resp2 = put_bytes(t->text, name);
    char *resp3 = put_head(resp2, kind, '*', name);
    char *end = put_head(resp3, kind, '>', name);
    t->node = (struct dict_node){.name = bytes_of(t->text, name.len), .hash = hash};
    t->heads[0] = bytes_of(resp2, (size_t)(resp3 - resp2));
    t->heads[1] = bytes_of(resp3, (size_t)(end - resp3));
    t->subs = NULL;
    t->count = t->cap = 0;
    return t;
}

static void topic_destroy(struct topic *t) {
    dc_debug_assert(t->count == 0);
    mem_free(t->subs);
    mem_free(t);
}

static void topic_resize(struct topic *t, uint32_t cap) {
    t->cap = cap;
    t->subs = mem_must_realloc(t->subs, cap * sizeof(struct sub *));
}

static void topic_add(struct topic *t, struct sub *sub) {
    if (t->count == t->cap) {
        topic_resize(t, t->cap == 0 ? 1 : 2 * t->cap);
    }
    sub->index = t->count;
    t->subs[t->count++] = sub;
}

static void topic_remove(struct topic *t, const struct sub *sub) {
    dc_assert(sub->index < t->count && t->subs[sub->index] == sub);
    struct sub *last = t->subs[--t->count];
    t->subs[sub->index] = last;
    last->index = sub->index;
    if (t->count > 0 && t->count < t->cap / 4) {
        topic_resize(t, t->cap / 2);
    }
}

/* --- joining and leaving ----------------------------------------------------------------------------- */

static struct client_subs *subs_of(struct client *c) {
    if (c->subs == NULL) {
        c->subs = mem_must_alloc(sizeof(*c->subs));
        for (size_t kind = 0; kind < TOPIC_KIND_COUNT; kind++) {
            dict_init(&c->subs->topics[kind], c->worker->node->pubsub->audiences.seed);
        }
    }
    return c->subs;
}

uint32_t pubsub_client_count(const struct client *c, enum topic_kind kind) {
    return c->subs == NULL ? 0 : (uint32_t)c->subs->topics[kind].count;
}

/* What others see of it. */
static void show(struct client *c) {
    uint32_t channels = pubsub_client_count(c, TOPIC_CHANNEL);
    uint32_t patterns = pubsub_client_count(c, TOPIC_PATTERN);
    uint32_t shards = pubsub_client_count(c, TOPIC_SHARD);
    atomic_store_explicit(&c->seen_subs, channels, memory_order_relaxed);
    atomic_store_explicit(&c->seen_psubs, patterns, memory_order_relaxed);
    atomic_store_explicit(&c->seen_ssubs, shards, memory_order_relaxed);
    if (channels + patterns + shards > 0) {
        c->flags |= CLIENT_SUBSCRIBED;
    } else {
        c->flags &= ~(uint32_t)CLIENT_SUBSCRIBED;
    }
}

enum dc_err pubsub_join(struct client *c, enum topic_kind kind, struct bytes name, bool *changed) {
    struct cmd_worker *w = c->worker;
    struct dict *mine = &subs_of(c)->topics[kind];
    struct dict *topics = &w->pubsub->topics[kind];
    uint64_t hash = dict_hash(mine, name);
    *changed = false;
    if (dict_find(mine, name, hash) != NULL) {
        return DC_OK;
    }
    struct topic *t = (struct topic *)dict_find(topics, name, hash);
    bool first = t == NULL;
    if (first && (t = topic_create(kind, name, hash)) == NULL) {
        return DC_ENOMEM;
    }
    if (!audience_join(&w->node->pubsub->audiences, kind, name, hash, w->index, first)) {
        if (first) {
            topic_destroy(t);
        }
        return DC_ENOMEM;
    }
    if (first) {
        dict_add(topics, &t->node);
    }
    struct sub *sub = mem_must_alloc(sizeof(*sub));
    *sub = (struct sub){.node = {.name = t->node.name, .hash = hash}, .topic = t, .client = c};
    topic_add(t, sub);
    dict_add(mine, &sub->node);
    show(c);
    *changed = true;
    return DC_OK;
}

/* Ends one sub. Returns its topic, which is out of the dict when it has no listener left. */
static struct topic *leave(struct client *c, enum topic_kind kind, struct sub *sub) {
    struct cmd_worker *w = c->worker;
    struct topic *t = sub->topic;
    dc_assert(!w->pubsub->delivering); /* host->push() doesn't end clients */
    dict_remove(&c->subs->topics[kind], &sub->node);
    topic_remove(t, sub);
    mem_free(sub);
    audience_leave(&w->node->pubsub->audiences, kind, t->node.name, t->node.hash, w->index,
                   t->count == 0);
    if (t->count == 0) {
        dict_remove(&w->pubsub->topics[kind], &t->node);
    }
    show(c);
    return t;
}

bool pubsub_leave(struct client *c, enum topic_kind kind, struct bytes name) {
    if (c->subs == NULL) {
        return false;
    }
    struct dict *mine = &c->subs->topics[kind];
    struct dict_node *node = dict_find(mine, name, dict_hash(mine, name));
    if (node == NULL) {
        return false;
    }
    struct topic *t = leave(c, kind, (struct sub *)node);
    if (t->count == 0) {
        topic_destroy(t);
    }
    return true;
}

uint32_t pubsub_leave_all(struct client *c, enum topic_kind kind,
                          void (*left)(void *arg, struct bytes name), void *arg) {
    uint32_t count = 0;
    struct dict_walk walk = {0};
    struct dict_node *node;
    while (c->subs != NULL && (node = dict_walk_next(&c->subs->topics[kind], &walk)) != NULL) {
        struct topic *t = leave(c, kind, (struct sub *)node);
        if (left != NULL) {
            left(arg, t->node.name);
        }
        if (t->count == 0) {
            topic_destroy(t);
        }
        count++;
    }
    return count;
}

void pubsub_client_gone(struct client *c) {
    for (enum topic_kind kind = 0; kind < TOPIC_KIND_COUNT; kind++) {
        (void)pubsub_leave_all(c, kind, NULL, NULL);
    }
    mem_free(c->subs);
    c->subs = NULL;
}

bool pubsub_allows(const struct cmd *cmd) {
    switch (cmd->id) {
    case CMD_SUBSCRIBE:
    case CMD_UNSUBSCRIBE:
    case CMD_PSUBSCRIBE:
    case CMD_PUNSUBSCRIBE:
    case CMD_SSUBSCRIBE:
    case CMD_SUNSUBSCRIBE:
    case CMD_PING:
    case CMD_QUIT:
    case CMD_RESET:
        return true;
    default:
        return false;
    }
}

/* --- publishing -------------------------------------------------------------------------------------- */

struct delivery {
    struct message message;
    struct parcel *parcel;
};

/* One message, for all workers that it goes to; in one block with its deliveries and bytes. */
struct parcel {
    _Atomic uint32_t refs;
    enum topic_kind kind;
    uint64_t hash; /* of the channel */
    size_t size;
    struct bytes channel; /* inside of tail */
    struct bytes tail;
    struct delivery deliveries[];
};

/* NULL when there is no memory. The caller holds the only reference. */
static struct parcel *parcel_create(enum topic_kind kind, struct bytes channel, uint64_t hash,
                                    struct bytes payload, uint32_t delivery_count) {
    size_t tail_at = sizeof(struct parcel) + delivery_count * sizeof(struct delivery);
    size_t size = tail_at + 2 * (size_t)BULK_FRAME_MAX + channel.len + payload.len;
    struct parcel *p = mem_alloc(size);
    if (p == NULL) {
        return NULL;
    }
    *p = (struct parcel){.kind = kind, .hash = hash, .size = size};
    atomic_init(&p->refs, 1);
    char *tail = (char *)p + tail_at;
    char *end;
    if (kind == TOPIC_MONITOR) {
        end = put_bytes(tail, payload);
        p->channel = bytes_of(tail, 0);
    } else {
        char *payload_at = put_bulk(tail, channel);
        end = put_bulk(payload_at, payload);
        p->channel = bytes_of(payload_at - 2 - channel.len, channel.len);
    }
    p->tail = bytes_of(tail, (size_t)(end - tail));
    return p;
}

static void parcel_release(struct pubsub *ps, struct parcel *p, bool posted) {
    /* each release pairs with the acquire of the last */
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (posted) {
        atomic_fetch_sub_explicit(&ps->backlog, (int64_t)p->size, memory_order_relaxed);
    }
    mem_free(p);
}

/* Who said QUIT hears no more, and a monitor without replies no lines. */
static bool hears(const struct client *c, enum topic_kind kind) {
    uint32_t deaf = kind == TOPIC_MONITOR ? CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP : 0;
    return !(c->flags & (CLIENT_CLOSE_SOON | deaf));
}

static void push_to(const struct host *host, const struct topic *t, const struct parcel *p) {
    for (uint32_t i = 0; i < t->count; i++) {
        struct client *c = t->subs[i]->client;
        struct bytes head = t->heads[c->proto == REPLY_RESP3];
        if (!hears(c, p->kind)) {
            continue;
        }
        if (head.len > 0) {
            host->push(c, head);
        }
        host->push(c, p->tail);
    }
}

static void push_matching(const struct host *host, const struct dict *patterns,
                          const struct parcel *p) {
    struct dict_walk walk = {0};
    for (struct dict_node *node; (node = dict_walk_next(patterns, &walk)) != NULL;) {
        if (glob_match(node->name, p->channel, false)) {
            push_to(host, (const struct topic *)node, p);
        }
    }
}

/* To the listeners of this worker. */
static void deliver(struct cmd_worker *w, const struct parcel *p) {
    struct pubsub_local *l = w->pubsub;
    l->delivering = true;
    const struct dict_node *node = dict_find(&l->topics[p->kind], p->channel, p->hash);
    if (node != NULL) {
        push_to(w->node->host, (const struct topic *)node, p);
    }
    if (p->kind == TOPIC_CHANNEL) {
        push_matching(w->node->host, &l->topics[TOPIC_PATTERN], p);
    }
    l->delivering = false;
}

static void run_delivery(struct cmd_worker *w, struct message *m) {
    struct parcel *p = ((struct delivery *)m)->parcel;
    deliver(w, p);
    parcel_release(w->node->pubsub, p, true);
}

/* One reference to each worker of the set. */
static void post(struct node *n, struct parcel *p, uint64_t workers) {
    uint32_t count = (uint32_t)__builtin_popcountll(workers);
    atomic_fetch_add_explicit(&p->refs, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->pubsub->backlog, (int64_t)p->size, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++, workers &= workers - 1) {
        p->deliveries[i] = (struct delivery){.message = {.run = run_delivery}, .parcel = p};
        n->host->post(n, (uint32_t)__builtin_ctzll(workers), &p->deliveries[i].message);
    }
}

bool pubsub_is_heard(const struct node *n, enum topic_kind kind) {
    const struct audiences *a = &n->pubsub->audiences;
    return audience_count(a, kind) > 0 ||
           (kind == TOPIC_CHANNEL && audience_count(a, TOPIC_PATTERN) > 0);
}

static struct reach reach_of(struct node *n, struct cmd_worker *w, enum topic_kind kind,
                             struct bytes channel, uint64_t hash) {
    struct audiences *a = &n->pubsub->audiences;
    struct reach reach = {0, 0};
    if (audience_count(a, kind) > 0) {
        reach = audience_reach(a, kind, channel, hash);
    }
    if (kind == TOPIC_CHANNEL && audience_count(a, TOPIC_PATTERN) > 0) {
        struct pattern_view own = {0};
        struct pattern_view *view = w != NULL ? &w->pubsub->patterns : &own;
        struct reach by_pattern = audience_reach_patterns(a, view, channel);
        reach.listeners += by_pattern.listeners;
        reach.workers |= by_pattern.workers;
        pattern_view_fini(&own);
    }
    return reach;
}

uint64_t pubsub_audience(struct node *n, struct cmd_worker *w, enum topic_kind kind,
                         struct bytes channel) {
    uint64_t hash = crypto_hash(channel, n->pubsub->audiences.seed);
    return pubsub_is_heard(n, kind) ? reach_of(n, w, kind, channel, hash).listeners : 0;
}

enum dc_err pubsub_publish(struct node *n, struct cmd_worker *w, enum topic_kind kind,
                           struct bytes channel, struct bytes payload, uint64_t *heard) {
    *heard = 0;
    if (!pubsub_is_heard(n, kind)) {
        return DC_OK; /* I4 */
    }
    uint64_t hash = crypto_hash(channel, n->pubsub->audiences.seed);
    struct reach reach = reach_of(n, w, kind, channel, hash);
    if (reach.listeners == 0) {
        return DC_OK;
    }
    uint64_t own = w == NULL ? 0 : reach.workers & (uint64_t)1 << w->index;
    uint64_t others = reach.workers & ~own;
    struct parcel *p =
        parcel_create(kind, channel, hash, payload, (uint32_t)__builtin_popcountll(others));
    if (p == NULL) {
        return DC_ENOMEM;
    }
    *heard = reach.listeners;
    if (own != 0) {
        deliver(w, p);
    }
    if (others != 0) {
        post(n, p, others);
    }
    parcel_release(n->pubsub, p, others != 0);
    return DC_OK;
}

bool pubsub_is_backlogged(const struct node *n) {
    return atomic_load_explicit(&n->pubsub->backlog, memory_order_relaxed) > PUBSUB_BACKLOG_MAX;
}

/* --- looking ----------------------------------------------------------------------------------------- */

uint32_t pubsub_topic_count(const struct node *n, enum topic_kind kind) {
    return audience_count(&n->pubsub->audiences, kind);
}

uint64_t pubsub_listener_count(struct node *n, enum topic_kind kind, struct bytes name) {
    struct audiences *a = &n->pubsub->audiences;
    return audience_reach(a, kind, name, crypto_hash(name, a->seed)).listeners;
}

void pubsub_each_topic(struct node *n, enum topic_kind kind,
                       void (*each)(void *arg, struct bytes name), void *arg) {
    audience_each(&n->pubsub->audiences, kind, each, arg);
}
