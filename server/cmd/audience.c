/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/audience.h"

#include "server/base/assert.h"
#include "server/base/glob.h"
#include "server/base/mem.h"

static_assert(WORKER_MAX <= 64, "a bit for each worker");

struct audience {
    struct dict_node node; /* its name stands behind the struct */
    uint64_t listeners;
    uint64_t workers;
    char name[];
};

/* Immutable and counted. Its texts stand behind the rows. */
struct pattern_list {
    _Atomic uint32_t refs;
    uint32_t count;
    struct pattern_row {
        struct bytes text;
        struct reach reach;
    } rows[];
};

void audiences_init(struct audiences *a) {
    memset(a, 0, sizeof(*a));
    crypto_random(a->seed, sizeof(a->seed));
    for (size_t i = 0; i <= AUDIENCE_STRIPES; i++) {
        lock_init(&a->stripes[i].lock, LOCK_RANK_PUBSUB);
        for (size_t kind = 0; kind < TOPIC_KIND_COUNT; kind++) {
            dict_init(&a->stripes[i].topics[kind], a->seed);
        }
    }
}

static void list_release(struct pattern_list *list) {
    /* each release pairs with the acquire of the last */
    if (list != NULL && atomic_fetch_sub_explicit(&list->refs, 1, memory_order_acq_rel) == 1) {
        mem_free(list);
    }
}

void audiences_fini(struct audiences *a) {
    for (size_t i = 0; i <= AUDIENCE_STRIPES; i++) {
        for (size_t kind = 0; kind < TOPIC_KIND_COUNT; kind++) {
            dc_assert(a->stripes[i].topics[kind].count == 0); /* I1 */
            dict_fini(&a->stripes[i].topics[kind]);
        }
        lock_fini(&a->stripes[i].lock);
    }
    list_release(a->patterns);
}

static struct audience_stripe *stripe_of(struct audiences *a, enum topic_kind kind, uint64_t hash) {
    size_t at = kind == TOPIC_PATTERN ? AUDIENCE_STRIPES : (hash >> 32) % AUDIENCE_STRIPES;
    return &a->stripes[at];
}

/* The first member of an audience is its node. */
static struct audience *find(struct audience_stripe *s, enum topic_kind kind, struct bytes name,
                             uint64_t hash) {
    return (struct audience *)dict_find(&s->topics[kind], name, hash);
}

static struct audience *add(struct audience_stripe *s, enum topic_kind kind, struct bytes name,
                            uint64_t hash) {
    struct audience *audience = mem_alloc(sizeof(*audience) + name.len);
    if (audience != NULL) {
        if (name.len > 0) {
            memcpy(audience->name, name.ptr, name.len);
        }
        audience->node.name = bytes_of(audience->name, name.len);
        audience->node.hash = hash;
        audience->listeners = 0;
        audience->workers = 0;
        dict_add(&s->topics[kind], &audience->node);
    }
    return audience;
}

/* Somebody came or went. The stripe's lock is held. */
static void changed_locked(struct audiences *a, enum topic_kind kind) {
    if (kind == TOPIC_PATTERN) {
        list_release(a->patterns);
        a->patterns = NULL;
        atomic_fetch_add_explicit(&a->pattern_version, 1, memory_order_relaxed);
    }
}

bool audience_join(struct audiences *a, enum topic_kind kind, struct bytes name, uint64_t hash,
                   uint32_t worker, bool first) {
    struct audience_stripe *s = stripe_of(a, kind, hash);
    lock_acquire(&s->lock);
    struct audience *audience = find(s, kind, name, hash);
    if (audience == NULL) {
        audience = add(s, kind, name, hash);
        if (audience == NULL) {
            lock_release(&s->lock);
            return false;
        }
        atomic_fetch_add_explicit(&a->counts[kind], 1, memory_order_relaxed);
    }
    dc_assert(first == !(audience->workers >> worker & 1));
    audience->listeners++;
    audience->workers |= (uint64_t)1 << worker;
    changed_locked(a, kind);
    lock_release(&s->lock);
    return true;
}

void audience_leave(struct audiences *a, enum topic_kind kind, struct bytes name, uint64_t hash,
                    uint32_t worker, bool last) {
    struct audience_stripe *s = stripe_of(a, kind, hash);
    lock_acquire(&s->lock);
    struct audience *audience = find(s, kind, name, hash);
    dc_assert(audience != NULL && audience->listeners > 0 &&
              (audience->workers >> worker & 1)); /* I1 */
    audience->listeners--;
    if (last) {
        audience->workers &= ~((uint64_t)1 << worker);
    }
    dc_assert((audience->listeners == 0) == (audience->workers == 0));
    if (audience->listeners == 0) {
        dict_remove(&s->topics[kind], &audience->node);
        mem_free(audience);
        atomic_fetch_sub_explicit(&a->counts[kind], 1, memory_order_relaxed);
    }
    changed_locked(a, kind);
    lock_release(&s->lock);
}

struct reach audience_reach(struct audiences *a, enum topic_kind kind, struct bytes name,
                            uint64_t hash) {
    struct reach reach = {0, 0};
    struct audience_stripe *s = stripe_of(a, kind, hash);
    lock_acquire(&s->lock);
    const struct audience *audience = find(s, kind, name, hash);
    if (audience != NULL) {
        reach = (struct reach){audience->listeners, audience->workers};
    }
    lock_release(&s->lock);
    return reach;
}

/* --- patterns ---------------------------------------------------------------------------------------- */

/* NULL when there is no memory. */
static struct pattern_list *list_create(const struct dict *patterns) {
    size_t len = sizeof(struct pattern_list) + patterns->count * sizeof(struct pattern_row);
    size_t texts_at = len;
    struct dict_walk walk = {0};
    for (struct dict_node *node; (node = dict_walk_next(patterns, &walk)) != NULL;) {
        len += node->name.len;
    }
    struct pattern_list *list = mem_alloc(len);
    if (list == NULL) {
        return NULL;
    }
    atomic_init(&list->refs, 1);
    list->count = 0;
    char *text = (char *)list + texts_at;
    walk = (struct dict_walk){0};
    for (struct dict_node *node; (node = dict_walk_next(patterns, &walk)) != NULL;) {
        const struct audience *audience = (const struct audience *)node;
        memcpy(text, node->name.ptr, node->name.len);
        list->rows[list->count++] = (struct pattern_row){bytes_of(text, node->name.len),
                                                         {audience->listeners, audience->workers}};
        text += node->name.len;
    }
    return list;
}

void pattern_view_fini(struct pattern_view *view) {
    list_release(view->list);
    *view = (struct pattern_view){0};
}

/* Takes the list as it is now. */
static void view_refresh(struct audiences *a, struct pattern_view *view) {
    struct audience_stripe *s = &a->stripes[AUDIENCE_STRIPES];
    pattern_view_fini(view);
    lock_acquire(&s->lock);
    if (a->patterns == NULL) {
        a->patterns = list_create(&s->topics[TOPIC_PATTERN]);
    }
    if (a->patterns != NULL) {
        atomic_fetch_add_explicit(&a->patterns->refs, 1, memory_order_relaxed);
        view->list = a->patterns;
        view->version = atomic_load_explicit(&a->pattern_version, memory_order_relaxed);
    }
    lock_release(&s->lock);
}

struct reach audience_reach_patterns(struct audiences *a, struct pattern_view *view,
                                     struct bytes channel) {
    struct reach reach = {0, 0};
    if (audience_count(a, TOPIC_PATTERN) == 0) {
        return reach;
    }
    if (view->list == NULL ||
        view->version != atomic_load_explicit(&a->pattern_version, memory_order_relaxed)) {
        view_refresh(a, view);
    }
    for (uint32_t i = 0; view->list != NULL && i < view->list->count; i++) {
        const struct pattern_row *row = &view->list->rows[i];
        if (glob_match(row->text, channel, false)) {
            reach.listeners += row->reach.listeners;
            reach.workers |= row->reach.workers;
        }
    }
    return reach;
}

void audience_each(struct audiences *a, enum topic_kind kind,
                   void (*each)(void *arg, struct bytes name), void *arg) {
    for (size_t i = 0; i <= AUDIENCE_STRIPES; i++) {
        struct audience_stripe *s = &a->stripes[i];
        struct dict_walk walk = {0};
        lock_acquire(&s->lock);
        for (struct dict_node *node; (node = dict_walk_next(&s->topics[kind], &walk)) != NULL;) {
            each(arg, node->name);
        }
        lock_release(&s->lock);
    }
}
