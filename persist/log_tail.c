/* SPDX-License-Identifier: BSD-3-Clause */
/*
 *    chain     H1 ------- end        H2 start ------------------ written
 *    files     [a   ][b   ][c          [d     ][e     ][f  ...
 *    stop           ^next first LSN
 *
 * Which file holds a position: of those of its history that begin at or before it, the one that begins last; up to where the next one
 * begins. The directory is listed only when that may have changed: at a file's end, and when the log has another layout. The log changes that number
 * before 'written' reaches a new file; so what was below 'written' when the number was read is in the files that were listed.
 */
#include "persist/log_tail.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum {
    OPEN_TRIES = 5, /* a file may be renamed between the list and the open */
    HASH_WAIT_US = 1000 * 1000,
    HASH_LEN_BITS = 13
};

struct log_tail {
    struct data *d;
    uint32_t pin;
    bool is_pinned;
    uint64_t lsn; /* where it goes on */
    const struct histories *chain;
    uint32_t link;     /* in the chain */
    uint64_t link_end; /* up to where it is part of it */
    bool is_open;
    struct io_file file;
    uint64_t first;  /* LSN of the file */
    uint64_t stop;   /* where the next one begins */
    uint32_t layout; /* when they were listed */
};

/* --- files ------------------------------------------------------------------------------------------------------ */

struct search {
    uint64_t history;
    uint64_t lsn;
    bool found;
    uint64_t first; /* of the file that holds it, */
    uint64_t order; /* which of those that begin there */
    uint64_t next;  /* where the next one begins */
    char name[SEGMENT_NAME_MAX];
};

static void look(void *arg, const char *name) {
    struct search *s = arg;
    uint64_t first, history;
    uint32_t number;
    bool temporary = segment_tmp_name_parse(name, &first, &history, &number);
    if ((!temporary && !segment_name_parse(name, &first, &history)) || history != s->history) {
        return;
    }
    /* Of several that begin there all but the last are empty. */
    uint64_t order = temporary ? (uint64_t)number + 1 : 0;
    if (first > s->lsn) {
        s->next = first < s->next ? first : s->next;
    } else if (!s->found || first > s->first || (first == s->first && order > s->order)) {
        s->found = true;
        s->first = first;
        s->order = order;
        snprintf(s->name, sizeof(s->name), "%s", name);
    }
}

static int search(const struct data *d, struct search *s, uint64_t history, uint64_t lsn) {
    *s = (struct search){.history = history, .lsn = lsn, .next = UINT64_MAX};
    return d->io->list(d->io, d->dir, look, s);
}

static void close_file(struct log_tail *t) {
    if (t->is_open) {
        t->d->io->close(t->d->io, &t->file);
        t->is_open = false;
    }
}

static enum tail_verdict fail(const struct log_tail *t, const char *what, int64_t rc) {
    (void)dc_fail(DC_EIO, "the log in %s at LSN %" PRIu64 ": %s: %s", t->d->dir, t->lsn, what,
                  rc < 0 ? dc_errno_text((int)-rc) : "its file ends before");
    return TAIL_FAILED;
}

/* TAIL_BYTES: the file that holds the position is open. */
static enum tail_verdict find_file(struct log_tail *t, uint32_t layout) {
    const struct io *io = t->d->io;
    uint64_t history = t->chain->list[t->link].id;
    struct search s;
    char path[PATH_MAX];
    int rc = -ENOENT;
    close_file(t);
    for (int i = 0; i < OPEN_TRIES && rc == -ENOENT; i++) {
        rc = search(t->d, &s, history, t->lsn);
        if (rc < 0) {
            return fail(t, "the directory", rc);
        }
        if (!s.found) {
            return TAIL_GONE;
        }
        snprintf(path, sizeof(path), "%s/%s", t->d->dir, s.name);
        rc = io->open(io, path, IO_READ, &t->file);
    }
    if (rc < 0) {
        return rc == -ENOENT ? TAIL_GONE : fail(t, s.name, rc);
    }
    t->is_open = true;
    t->first = s.first;
    t->stop = s.next;
    t->layout = layout;
    return TAIL_BYTES;
}

/* --- histories -------------------------------------------------------------------------------------------------- */

/* The history of the chain that has this position. False: none has. */
static bool find_link(const struct histories *h, uint64_t lsn, uint32_t *link) {
    uint64_t end = UINT64_MAX;
    for (uint32_t i = h->count; i-- > 0;) {
        if (lsn >= h->list[i].start && lsn <= end && end > h->list[i].start) {
            *link = i;
            return true;
        }
        end = h->list[i].parent_end < end ? h->list[i].parent_end : end;
    }
    return false;
}

/* The chain may have grown at its end, and forgotten its beginning. */
static bool follow_chain(struct log_tail *t, const struct histories *chain) {
    uint64_t id = t->chain->list[t->link].id;
    uint32_t i = chain->count;
    while (i > 0 && chain->list[i - 1].id != id) {
        i--;
    }
    if (i == 0) {
        return false;
    }
    t->chain = chain;
    t->link = i - 1;
    t->link_end = histories_end(chain, t->link);
    return true;
}

/* At the end of a history: on to the next one that has any part in the chain. */
static void follow_fork(struct log_tail *t) {
    while (t->lsn == t->link_end) {
        do {
            t->link++;
            t->link_end = histories_end(t->chain, t->link);
        } while (t->link_end <= t->chain->list[t->link].start);
        t->lsn = t->chain->list[t->link].start;
        close_file(t);
    }
}

/* --- the tail --------------------------------------------------------------------------------------------------- */

/* Up to where bytes of this history are there to be read; looks for what has changed. */
static bool look_around(struct log_tail *t, uint64_t *limit) {
    const struct log *l = t->d->log;
    uint64_t written = log_written(l).v; /* before all else */
    const struct histories *chain = log_chain(l);
    if (dc_unlikely(chain != t->chain) && !follow_chain(t, chain)) {
        return false;
    }
    follow_fork(t);
    *limit = written < t->link_end ? written : t->link_end;
    return log_is_in_files(l, t->lsn) && t->lsn >= t->d->gap_lsn;
}

enum tail_verdict log_tail_read(struct log_tail *t, uint64_t *lsn, char *to, size_t size,
                                size_t *len) {
    const struct io *io = t->d->io;
    uint64_t limit;
    *len = 0;
    bool there = look_around(t, &limit);
    *lsn = t->lsn;
    if (!there) {
        return TAIL_GONE;
    }
    if (limit <= t->lsn) {
        return TAIL_NOTHING;
    }
    uint32_t layout = log_layout(t->d->log);
    if (dc_unlikely(!t->is_open || t->layout != layout || t->lsn >= t->stop)) {
        enum tail_verdict v = find_file(t, layout);
        if (v != TAIL_BYTES) {
            return v;
        }
    }
    limit = limit < t->stop ? limit : t->stop;
    size_t want = limit - t->lsn < size ? (size_t)(limit - t->lsn) : size;
    ssize_t n = io->read_at(io, &t->file, to, want, SEGMENT_HEADER_LEN + (t->lsn - t->first));
    if (n != (ssize_t)want) {
        return fail(t, "it can't be read", n < 0 ? n : 0);
    }
    t->lsn += want;
    *len = want;
    if (t->is_pinned) {
        data_move_pin(t->d, t->pin, t->lsn);
    }
    return TAIL_BYTES;
}

void log_tail_skip(struct log_tail *t, uint64_t lsn) {
    dc_assert(lsn >= t->lsn && lsn <= t->link_end);
    if (lsn > t->lsn) {
        t->lsn = lsn;
        data_move_pin(t->d, t->pin, lsn);
    }
}

uint64_t log_tail_lsn(const struct log_tail *t) {
    return t->lsn;
}

static enum dc_err gone(uint64_t lsn) {
    return dc_fail(DC_EGONE, "the log from LSN %" PRIu64 " on isn't here", lsn);
}

/* Without a pin: for one look. */
static bool begin(struct log_tail *t, struct data *d, uint64_t from) {
    *t = (struct log_tail){.d = d, .lsn = from, .chain = log_chain(d->log)};
    if (!find_link(t->chain, from, &t->link)) {
        return false;
    }
    t->link_end = histories_end(t->chain, t->link);
    return true;
}

/* Is what comes next there? Nothing comes next at the end of the log. */
static enum dc_err check_begin(struct log_tail *t) {
    uint64_t limit;
    if (!look_around(t, &limit)) {
        return gone(t->lsn);
    }
    if (t->lsn >= limit) {
        return DC_OK;
    }
    switch (find_file(t, log_layout(t->d->log))) {
    case TAIL_BYTES:
    case TAIL_NOTHING:
        return DC_OK;
    case TAIL_GONE:
        return gone(t->lsn);
    case TAIL_FAILED:
        break;
    }
    return DC_EIO;
}

enum dc_err log_tail_open(struct log_tail **out, struct data *d, uint64_t from) {
    struct log_tail *t = mem_must_zalloc(sizeof(*t));
    uint32_t pin;
    enum dc_err err = data_pin(d, from, &pin);
    if (err != DC_OK) {
        mem_free(t);
        return err;
    }
    err = from <= log_head(d->log).v && begin(t, d, from) ? DC_OK : gone(from);
    t->d = d;
    t->pin = pin;
    t->is_pinned = true;
    err = err == DC_OK ? check_begin(t) : err;
    if (err != DC_OK) {
        log_tail_close(t);
        return err;
    }
    *out = t;
    return DC_OK;
}

void log_tail_close(struct log_tail *t) {
    if (t == NULL) {
        return;
    }
    close_file(t);
    if (t->is_pinned) {
        data_unpin(t->d, t->pin);
    }
    mem_free(t);
}

/* --- what there is ---------------------------------------------------------------------------------------------- */

/* From the newest history back, as long as each is there from its begin on. */
uint64_t log_tail_oldest(const struct data *d) {
    const struct histories *h = log_chain(d->log);
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = h->count; i-- > 0;) {
        struct search s;
        if (histories_end(h, i) <= h->list[i].start) {
            continue;
        }
        if (search(d, &s, h->list[i].id, h->list[i].start) < 0) {
            oldest = UINT64_MAX;
            break;
        }
        if (!s.found) {
            oldest = s.next < oldest ? s.next : oldest;
            break;
        }
        oldest = i > 0 ? h->list[i].parent_end : h->list[i].start;
    }
    uint64_t kept = log_kept_from(d->log);
    if (kept ==
        UINT64_MAX) { /* files are left, or gone, or go while they are looked at: none counts */
        oldest = 0;
        kept = log_head(d->log).v;
    }
    kept = kept > d->gap_lsn ? kept : d->gap_lsn;
    return oldest > kept ? oldest : kept;
}

/* From where on what is hashed before 't->lsn' can be there. */
static uint64_t begin_before(const struct log_tail *t) {
    const struct data *d = t->d;
    uint64_t low = t->chain->list[t->link].start;
    uint64_t kept = log_kept_from(d->log);
    low = kept > low ? kept : low;
    low = d->gap_lsn > low ? d->gap_lsn : low;
    return t->lsn > low + TAIL_HASH_LEN ? t->lsn - TAIL_HASH_LEN : low;
}

uint64_t log_tail_before(struct data *d, uint64_t lsn) {
    struct log_tail t;
    return begin(&t, d, lsn) ? begin_before(&t) : lsn;
}

/* The bytes of [lsn - *len, lsn) of the history that ends there or goes on; fewer if fewer are there. */
static enum dc_err read_before(struct data *d, uint64_t lsn, char to[TAIL_HASH_LEN], size_t *len) {
    struct log_tail t;
    size_t n = 0;
    *len = 0;
    if (!begin(&t, d, lsn)) {
        return gone(lsn);
    }
    uint64_t low = begin_before(&t);
    struct search s;
    int rc = search(d, &s, t.chain->list[t.link].id, low);
    low = s.found ? low : s.next;
    if (rc < 0 || low >= lsn) {
        return rc < 0 ? dc_fail(DC_EIO, "list %s: %s", d->dir, dc_errno_text(-rc)) : DC_OK;
    }
    t.lsn = low;
    enum tail_verdict v = TAIL_BYTES;
    while (v == TAIL_BYTES && t.lsn < lsn) {
        uint64_t at;
        size_t got;
        v = log_tail_read(&t, &at, to + n, (size_t)(lsn - t.lsn), &got);
        n += got;
    }
    close_file(&t);
    if (v == TAIL_FAILED) {
        return DC_EIO;
    }
    *len = v == TAIL_BYTES ? n : 0;
    return DC_OK;
}

static uint64_t digest(const char *bytes, size_t len) {
    uint64_t mask = ((uint64_t)1 << HASH_LEN_BITS) - 1;
    return (sum64(bytes, len, 0) & ~mask) | len;
}

/* Also of what has just been appended. */
static bool is_written(struct data *d, uint64_t lsn) {
    return log_wait(d->log, LOG_LEVEL_OS, (struct lsn){lsn}, HASH_WAIT_US);
}

enum dc_err log_tail_hash(struct data *d, uint64_t lsn, uint64_t *hash) {
    char bytes[TAIL_HASH_LEN];
    size_t len;
    if (!is_written(d, lsn)) {
        return gone(lsn);
    }
    enum dc_err err = read_before(d, lsn, bytes, &len);
    *hash = err == DC_OK ? digest(bytes, len) : 0;
    return err;
}

enum dc_err log_tail_same(struct data *d, uint64_t lsn, uint64_t hash, bool *same) {
    char bytes[TAIL_HASH_LEN];
    size_t len;
    size_t theirs = (size_t)(hash & (((uint64_t)1 << HASH_LEN_BITS) - 1));
    if (!is_written(d, lsn)) {
        return gone(lsn);
    }
    enum dc_err err = read_before(d, lsn, bytes, &len);
    *same = err == DC_OK && (theirs > len || digest(bytes + (len - theirs), theirs) == hash);
    return err;
}
