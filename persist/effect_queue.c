/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A range's list is a chain of chunks, each twice as large as the one before up to 8 KB: short lists waste little, long ones
 * next to nothing. A place is source << 44 | offset in its file; which source that is, the table says that the chunk was filled from.
 *
 * A bounded queue counts the effects of all ranges in its first pass and keeps the places of the lowest ones; when there are too many, the upper
 * half goes. So it is known how many ranges a later pass can note. A later pass goes over the maps from frame to frame: it was checked once,
 * and a file that has been removed meanwhile is still mapped.
 */
#include "persist/effect_queue.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/store/load.h"

#include <inttypes.h>
#include <stdio.h>

enum { CHUNK_FIRST_LEN = 64, CHUNK_LEN_MAX = 8192, FETCH_COUNT = 16 };

/* A stretch of a file in which LSNs rise with offsets. */
struct effect_source {
    uint32_t file;
    uint64_t lsn_at_0;   /* of the file's first byte, if the stretch went back that far; wraps */
    uint64_t begin, end; /* of its frames, in the file */
};

struct effect_file {
    char name[SEGMENT_NAME_MAX];
    uint64_t end; /* of the last effect queued */
    struct io_file file;
    bool is_open;
    const char *map; /* NULL until queue_map() */
};

struct effect_table {
    struct effect_table *next;
    struct effect_source *sources;
    uint32_t source_count, source_cap;
    struct effect_file *files;
    uint32_t file_count, file_cap;
    const char *last_name; /* of the last frame's file, the string that was given */
    uint32_t last_file;    /* and its index */
};

struct effect_chunk {
    struct effect_chunk *next;
    const struct effect_table *table;
    uint32_t count; /* of the last one after queue_map() */
    uint32_t cap;
    uint64_t places[];
};

void queue_init(struct effect_queue *q, const struct io *io, uint32_t range_bits) {
    dc_assert(range_bits <= SLOT_BITS);
    memset(q, 0, sizeof(*q));
    q->io = io;
    q->range_bits = range_bits;
    q->range_count = (uint32_t)SLOT_COUNT >> range_bits;
    q->ranges = mem_must_zalloc((q->range_count + 1) * sizeof(*q->ranges));
    q->tables = mem_must_zalloc(sizeof(*q->tables));
    queue_bound(q, 0, q->range_count + 1, UINT64_MAX);
}

void queue_bound(struct effect_queue *q, uint32_t first, uint32_t below, uint64_t max) {
    dc_assert(first <= below && below <= q->range_count + 1);
    q->noted_from = first;
    q->noted_below = max > 0 ? below : first;
    q->places_max = max;
}

static void table_destroy(const struct effect_queue *q, struct effect_table *t) {
    for (uint32_t i = 0; i < t->file_count; i++) {
        struct effect_file *f = &t->files[i];
        if (f->map != NULL) {
            q->io->unmap(q->io, f->map, f->end);
        }
        if (f->is_open) {
            q->io->close(q->io, &f->file);
        }
    }
    mem_free(t->files);
    mem_free(t->sources);
    mem_free(t);
}

void queue_fini(struct effect_queue *q) {
    for (uint32_t r = 0; q->ranges != NULL && r <= q->range_count; r++) {
        queue_forget(q, r);
    }
    while (q->tables != NULL) {
        struct effect_table *next = q->tables->next;
        table_destroy(q, q->tables);
        q->tables = next;
    }
    mem_free(q->ranges);
    memset(q, 0, sizeof(*q));
}

void queue_forget(struct effect_queue *q, uint32_t range) {
    struct effect_list *l = &q->ranges[range];
    while (l->first != NULL) {
        struct effect_chunk *next = l->first->next;
        mem_free(l->first);
        l->first = next;
    }
    l->last = NULL;
    l->next = l->end = NULL;
}

/* --- filling ----------------------------------------------------------------------------------------- */

/* How many places are in a chunk is known by 'next' only while it is the last. */
static void list_close(struct effect_list *l) {
    if (l->last != NULL) {
        l->last->count = (uint32_t)(l->next - l->last->places);
    }
}

static enum dc_err list_grow(struct effect_list *l, const struct effect_table *table) {
    size_t len = CHUNK_FIRST_LEN;
    if (l->last != NULL) {
        len = (sizeof(*l->last) + l->last->cap * sizeof(uint64_t)) * 2;
        len = len < CHUNK_LEN_MAX ? len : CHUNK_LEN_MAX;
    }
    struct effect_chunk *c = mem_alloc(len);
    if (c == NULL) {
        return DC_ENOMEM;
    }
    c->next = NULL;
    c->table = table;
    c->count = 0;
    c->cap = (uint32_t)((len - sizeof(*c)) / sizeof(uint64_t));
    if (l->last != NULL) {
        list_close(l);
        l->last->next = c;
    } else {
        l->first = c;
    }
    l->last = c;
    l->next = c->places;
    l->end = c->places + c->cap;
    return DC_OK;
}

static enum dc_err list_put(const struct effect_queue *q, struct effect_list *l, uint64_t place) {
    if (dc_unlikely(l->next == l->end)) {
        enum dc_err err = list_grow(l, q->tables);
        if (err != DC_OK) {
            return err;
        }
    }
    *l->next++ = place;
    return DC_OK;
}

static enum dc_err list_add(const struct effect_queue *q, const struct effect_late *e) {
    e->list->count++;
    e->list->bytes += e->bytes;
    return list_put(q, e->list, e->place);
}

/* Effects come for any of thousands of lists, none of which is in a cache. So each waits until its list has been fetched, then the place behind its last
 * element, while the next ones are looked at. The order in a list stays (I1). */
static enum dc_err add_late(struct effect_queue *q, struct effect_list *l, uint64_t place,
                            uint64_t bytes) {
    struct effect_late *oldest = &q->late[q->added % QUEUE_LATE];
    enum dc_err err = DC_OK;
    if (dc_likely(oldest->list != NULL)) {
        err = list_add(q, oldest);
    }
    *oldest = (struct effect_late){l, place, bytes};
    __builtin_prefetch(l, 1);
    const struct effect_late *half = &q->late[(q->added + QUEUE_LATE / 2) % QUEUE_LATE];
    if (dc_likely(half->list != NULL)) {
        __builtin_prefetch(half->list->next, 1);
    }
    q->added++;
    return err;
}

static enum dc_err add_all_late(struct effect_queue *q) {
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i < QUEUE_LATE && err == DC_OK; i++) {
        struct effect_late *e = &q->late[(q->added + i) % QUEUE_LATE];
        if (e->list != NULL) {
            err = list_add(q, e);
            e->list = NULL;
        }
    }
    return err;
}

/* Room for one more element of a growing array. */
static void *grown(void *array, uint32_t count, uint32_t *cap, size_t size) {
    if (count < *cap) {
        return array;
    }
    *cap = *cap == 0 ? 8 : *cap * 2;
    return mem_must_realloc(array, *cap * size);
}

/* The file of this name; it is added if there is none. */
static uint32_t file_named(struct effect_table *t, const char *name) {
    for (uint32_t i = t->file_count; i-- > 0;) {
        if (strcmp(t->files[i].name, name) == 0) {
            return i;
        }
    }
    t->files = grown(t->files, t->file_count, &t->file_cap, sizeof(*t->files));
    struct effect_file *f = &t->files[t->file_count];
    memset(f, 0, sizeof(*f));
    snprintf(f->name, sizeof(f->name), "%s", name);
    return t->file_count++;
}

/* Nearly always the last one. */
static uint32_t file_of(struct effect_table *t, const char *name) {
    if (dc_unlikely(name != t->last_name)) {
        t->last_name = name;
        t->last_file = file_named(t, name);
    }
    return t->last_file;
}

/* The stretch that a frame belongs to. Errors: DC_ECORRUPT when there are too many. */
static enum dc_err source_of(struct effect_table *t, const char *name,
                             const struct frame_ref *frame, uint32_t *out) {
    uint32_t file = file_of(t, name);
    uint64_t lsn_at_0 = frame->lsn - frame->file_offset;
    if (t->source_count > 0) {
        const struct effect_source *last = &t->sources[t->source_count - 1];
        if (last->file == file && last->lsn_at_0 == lsn_at_0 && last->end == frame->file_offset) {
            *out = t->source_count - 1;
            return DC_OK;
        }
    }
    if (t->source_count == QUEUE_SOURCES_MAX) {
        return dc_fail(DC_ECORRUPT, "the log has more than %u stretches", QUEUE_SOURCES_MAX);
    }
    t->sources = grown(t->sources, t->source_count, &t->source_cap, sizeof(*t->sources));
    t->sources[t->source_count] =
        (struct effect_source){file, lsn_at_0, frame->file_offset, frame->file_offset};
    *out = t->source_count++;
    return DC_OK;
}

static bool is_known(const struct effect_view *e) {
    return e->keyspace < KEYSPACE_MAX ||
           (e->keyspace == KEYSPACE_SYSTEM && e->kind != MUT_FLUSH); /* nothing flushes it */
}

/* Of a known keyspace; the key's slot too, if there are slots in that range. */
static uint32_t range_of(const struct effect_queue *q, const struct effect_view *e,
                         uint32_t *slot) {
    if (e->keyspace == KEYSPACE_SYSTEM) {
        return q->range_count; /* I3 */
    }
    *slot = store_slot(e->key);
    return *slot >> q->range_bits;
}

/* There are as many places as there may be: keeps the lower half of them, in whole ranges. */
static enum dc_err shed(struct effect_queue *q) {
    enum dc_err err = add_all_late(q);
    uint64_t left = 0;
    uint32_t range = q->noted_from;
    while (range < q->noted_below && left + q->ranges[range].count <= q->places_max / 2) {
        left += q->ranges[range++].count;
    }
    for (uint32_t r = range; r < q->noted_below; r++) {
        queue_forget(q, r);
    }
    q->noted_below = range;
    q->places = left;
    return err;
}

/* Of a range that isn't noted. */
static void only_count(struct effect_list *l, uint64_t bytes) {
    l->count++;
    l->bytes += bytes;
}

static bool is_noted(const struct effect_queue *q, uint32_t range) {
    return range >= q->noted_from && range < q->noted_below;
}

static enum dc_err add_effect(struct effect_queue *q, uint32_t source, uint64_t offset,
                              const struct effect_view *e) {
    if (!is_known(e)) {
        return dc_fail(DC_ECORRUPT, "the effect at LSN %" PRIu64 " is of database %u",
                       e->version - e->len, e->keyspace);
    }
    if (dc_unlikely(e->kind == MUT_FLUSH)) {
        q->flushed[e->keyspace] = e->version; /* I2 */
        return DC_OK;
    }
    q->effects++;
    q->bytes += e->len;
    uint32_t slot, range = range_of(q, e, &slot);
    if (dc_unlikely(q->places == q->places_max)) {
        enum dc_err err = shed(q);
        if (err != DC_OK) {
            return err;
        }
    }
    if (dc_unlikely(!is_noted(q, range))) {
        only_count(&q->ranges[range], e->len);
        return DC_OK;
    }
    q->places++;
    return add_late(q, &q->ranges[range], (uint64_t)source << QUEUE_OFFSET_BITS | offset, e->len);
}

enum dc_err queue_frame(struct effect_queue *q, const char *name, const struct frame_ref *frame) {
    struct effect_table *t = q->tables;
    uint32_t source = 0;
    uint64_t end = frame->file_offset + frame->len;
    enum dc_err err = source_of(t, name, frame, &source);
    if (err != DC_OK) {
        return err;
    }
    if (end >= (uint64_t)1 << QUEUE_OFFSET_BITS) {
        return dc_fail(DC_ECORRUPT, "%s is too large", name);
    }
    size_t at = FRAME_HEADER_LEN;
    for (uint32_t i = 0; i < frame->head.effect_count; i++) {
        struct effect_view e;
        if (!effect_decode(frame->bytes, frame->len, at, frame->lsn, &e)) {
            return dc_fail(DC_ECORRUPT, "effect %u of the frame at LSN %" PRIu64 " is malformed", i,
                           frame->lsn);
        }
        err = add_effect(q, source, frame->file_offset + at, &e);
        if (err != DC_OK) {
            return err;
        }
        at += e.len;
    }
    t->sources[source].end = end;
    t->files[t->sources[source].file].end = end;
    return DC_OK;
}

static void list_append(struct effect_list *l, struct effect_list *behind) {
    if (behind->first == NULL) {
        return;
    }
    list_close(l);
    if (l->last != NULL) {
        l->last->next = behind->first;
    } else {
        l->first = behind->first;
    }
    l->last = behind->last;
    l->next = behind->next;
    l->end = behind->next; /* the room that is left is of the other's table */
    l->count += behind->count;
    l->bytes += behind->bytes;
    memset(behind, 0, sizeof(*behind));
}

enum dc_err queue_append(struct effect_queue *q, struct effect_queue *behind) {
    dc_assert(q->range_count == behind->range_count);
    enum dc_err err = add_all_late(q);
    err = err == DC_OK ? add_all_late(behind) : err;
    if (err != DC_OK) {
        return err;
    }
    for (uint32_t r = 0; r <= q->range_count; r++) {
        list_append(&q->ranges[r], &behind->ranges[r]);
    }
    for (uint32_t i = 0; i < KEYSPACE_MAX; i++) {
        q->flushed[i] = behind->flushed[i] > 0 ? behind->flushed[i] : q->flushed[i];
    }
    q->effects += behind->effects;
    q->bytes += behind->bytes;
    struct effect_table *last = behind->tables;
    while (last->next != NULL) {
        last = last->next;
    }
    last->next = q->tables->next;
    q->tables->next = behind->tables;
    behind->tables = NULL;
    queue_fini(behind);
    return DC_OK;
}

/* --- reading ----------------------------------------------------------------------------------------- */

static enum dc_err table_map(const struct effect_queue *q, struct effect_table *t,
                             const char *dir) {
    for (uint32_t i = 0; i < t->file_count; i++) {
        struct effect_file *f = &t->files[i];
        char path[4096];
        if (f->is_open || f->end == 0) {
            continue;
        }
        int len = snprintf(path, sizeof(path), "%s/%s", dir, f->name);
        if (len < 0 || (size_t)len >= sizeof(path)) {
            return dc_fail(DC_EIO, "the path of %s is too long", f->name);
        }
        int err = q->io->open(q->io, path, IO_READ, &f->file);
        if (err < 0) {
            return dc_fail(DC_EIO, "open %s: %s", path, dc_errno_text(-err));
        }
        f->is_open = true;
        f->map = q->io->map(q->io, &f->file, f->end);
        if (f->map == NULL) {
            return dc_fail(DC_EIO, "%s can't be mapped", path);
        }
    }
    return DC_OK;
}

enum dc_err queue_map(struct effect_queue *q, const char *dir) {
    enum dc_err late = add_all_late(q);
    if (late != DC_OK) {
        return late;
    }
    for (uint32_t r = 0; r <= q->range_count; r++) {
        list_close(&q->ranges[r]);
    }
    enum dc_err err = DC_OK;
    for (struct effect_table *t = q->tables; t != NULL && err == DC_OK; t = t->next) {
        err = table_map(q, t, dir);
    }
    return err;
}

/* The next frame that has effects. */
static enum queue_step walk_frame(struct effect_walk *w) {
    const struct effect_table *t = w->table;
    for (;;) {
        while (w->frame_end == w->end) {
            if (w->source == t->source_count) {
                return QUEUE_END;
            }
            w->frame_end = t->sources[w->source].begin;
            w->end = t->sources[w->source++].end;
        }
        const char *frame = t->files[t->sources[w->source - 1].file].map + w->frame_end;
        uint64_t left = w->end - w->frame_end;
        if (!frame_may_begin(frame, left)) {
            return QUEUE_BAD;
        }
        w->at = w->frame_end + FRAME_HEADER_LEN;
        w->frame_end += frame_len_at(frame);
        if (frame[FRAME_KIND_AT] == FRAME_MUTATION) {
            return QUEUE_EFFECT;
        }
        w->at = w->frame_end;
    }
}

/* The next effect of all, and its place. */
static enum queue_step walk_next(struct effect_walk *w, struct effect_view *out, uint64_t *place) {
    if (w->at == w->frame_end) {
        enum queue_step step = walk_frame(w);
        if (step != QUEUE_EFFECT) {
            return step;
        }
    }
    uint32_t source = w->source - 1;
    const struct effect_source *s = &w->table->sources[source];
    const char *map = w->table->files[s->file].map;
    if (!effect_decode(map, w->frame_end, w->at, s->lsn_at_0, out) || !is_known(out)) {
        return QUEUE_BAD;
    }
    *place = (uint64_t)source << QUEUE_OFFSET_BITS | w->at;
    w->at += out->len;
    return QUEUE_EFFECT;
}

static void walk_begin(const struct effect_queue *q, struct effect_walk *out) {
    dc_assert(q->tables->next == NULL); /* of several, nobody asks for it */
    *out = (struct effect_walk){.table = q->tables};
}

/* Notes the ranges from noted_from on and below noted_below. */
static enum dc_err note_all(struct effect_queue *q) {
    struct effect_walk walk;
    struct effect_view e;
    uint64_t place = 0;
    enum queue_step step = QUEUE_END;
    enum dc_err err = DC_OK;
    walk_begin(q, &walk);
    while (err == DC_OK && (step = walk_next(&walk, &e, &place)) == QUEUE_EFFECT) {
        uint32_t slot, range = e.kind == MUT_FLUSH ? UINT32_MAX : range_of(q, &e, &slot);
        if (is_noted(q, range)) {
            err = list_put(q, &q->ranges[range], place);
        }
    }
    for (uint32_t r = q->noted_from; r < q->noted_below; r++) {
        list_close(&q->ranges[r]);
    }
    if (err == DC_OK && step == QUEUE_BAD) {
        err = dc_fail(DC_ECORRUPT, "the log isn't what it was when it was read first");
    }
    return err;
}

enum dc_err queue_note(struct effect_queue *q, uint32_t range) {
    if (is_noted(q, range)) {
        return DC_OK;
    }
    for (uint32_t r = q->noted_from; r < q->noted_below; r++) {
        queue_forget(q, r);
    }
    q->places = 0;
    q->noted_from = q->noted_below = range;
    while (q->noted_below <= q->range_count &&
           q->ranges[q->noted_below].count <= q->places_max - q->places) {
        q->places += q->ranges[q->noted_below++].count;
    }
    return q->places > 0 ? note_all(q) : DC_OK;
}

void queue_begin(const struct effect_queue *q, uint32_t range, struct effect_cursor *out) {
    *out = (struct effect_cursor){.queue = q, .chunk = q->ranges[range].first, .range = range};
    if (!is_noted(q, range)) {
        walk_begin(q, &out->walk);
    }
}

static const struct effect_file *file_at(const struct effect_table *t, uint64_t place) {
    return &t->files[t->sources[place >> QUEUE_OFFSET_BITS].file];
}

/* An effect, as far as its length can be told. */
static bool is_lost(const struct effect_queue *q, const struct effect_table *t, uint64_t place) {
    const struct effect_file *f = file_at(t, place);
    uint64_t offset = place & (((uint64_t)1 << QUEUE_OFFSET_BITS) - 1);
    uint64_t left = f->end - offset;
    struct effect_view e;
    if (q->io->lost(q->io, f->map + offset, left < EFFECT_HEADER_LEN ? left : EFFECT_HEADER_LEN)) {
        return true;
    }
    return effect_decode(f->map, f->end, offset, 0, &e) &&
           q->io->lost(q->io, f->map + offset, e.len);
}

static bool any_is_lost(const struct effect_queue *q) {
    for (const struct effect_table *t = q->tables; t != NULL; t = t->next) {
        for (uint32_t i = 0; i < t->file_count; i++) {
            const struct effect_file *f = &t->files[i];
            if (f->map != NULL && q->io->lost(q->io, f->map, f->end)) {
                return true;
            }
        }
    }
    return false;
}

enum dc_err queue_check(const struct effect_queue *q, uint32_t range) {
    if (dc_likely(!any_is_lost(q))) {
        return DC_OK;
    }
    if (!is_noted(q, range)) {
        return dc_fail(DC_EIO, "a part of the log can't be read any more");
    }
    for (const struct effect_chunk *c = q->ranges[range].first; c != NULL; c = c->next) {
        for (uint32_t i = 0; i < c->count; i++) {
            if (is_lost(q, c->table, c->places[i])) {
                return dc_fail(DC_EIO, "a part of %s can't be read any more",
                               file_at(c->table, c->places[i])->name);
            }
        }
    }
    return DC_OK;
}

static const char *at_place(const struct effect_table *t, uint64_t place) {
    return file_at(t, place)->map + (place & (((uint64_t)1 << QUEUE_OFFSET_BITS) - 1));
}

/* The places are far apart, each on a page of its own. Some are read at once, so that their misses overlap; a prefetch alone isn't enough,
 * for the processor drops it where it would have to walk the page table. */
static void fetch_some(const struct effect_cursor *c) {
    uint32_t left = c->chunk->count - c->index;
    uint32_t count = left < FETCH_COUNT ? left : FETCH_COUNT;
    const uint64_t *places = c->chunk->places + c->index;
    unsigned char sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum = (unsigned char)(sum + (unsigned char)*at_place(c->chunk->table, places[i]));
    }
    __asm__ volatile("" : : "r"(sum)); /* read, though nobody wants to know */
    for (uint32_t i = 0; i < count; i++) {
        const char *at = at_place(c->chunk->table, places[i]);
        __builtin_prefetch(at + 64);
        __builtin_prefetch(at + 128);
    }
}

/* Nothing flushes the system keyspace. */
static bool is_flushed(const struct effect_queue *q, const struct effect_view *e) {
    return e->keyspace < KEYSPACE_MAX && e->version <= q->flushed[e->keyspace];
}

/* The next one of a range that isn't noted. */
static enum queue_step walk_range(struct effect_cursor *c, struct effect_view *out) {
    uint64_t place = 0;
    enum queue_step step;
    do {
        step = walk_next(&c->walk, out, &place);
    } while (step == QUEUE_EFFECT && (out->kind == MUT_FLUSH || is_flushed(c->queue, out) ||
                                      range_of(c->queue, out, &c->slot) != c->range));
    return step;
}

enum queue_step queue_next(struct effect_cursor *c, struct effect_view *out) {
    const struct effect_queue *q = c->queue;
    if (dc_unlikely(c->walk.table != NULL)) {
        return walk_range(c, out);
    }
    for (;;) {
        while (c->chunk != NULL && c->index == c->chunk->count) {
            c->chunk = c->chunk->next;
            c->index = 0;
        }
        if (c->chunk == NULL) {
            return QUEUE_END;
        }
        if (c->index % FETCH_COUNT == 0) {
            fetch_some(c);
        }
        uint64_t place = c->chunk->places[c->index++];
        const struct effect_table *t = c->chunk->table;
        const struct effect_source *s = &t->sources[place >> QUEUE_OFFSET_BITS];
        const struct effect_file *f = &t->files[s->file];
        uint64_t offset = place & (((uint64_t)1 << QUEUE_OFFSET_BITS) - 1);
        if (!effect_decode(f->map, f->end, offset, s->lsn_at_0, out) || !is_known(out) ||
            range_of(q, out, &c->slot) != c->range) {
            return QUEUE_BAD;
        }
        if (!is_flushed(q, out)) {
            return QUEUE_EFFECT;
        }
    }
}
