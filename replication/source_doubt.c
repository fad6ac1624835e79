/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log that can't be sent: a byte of it has rotted, or its file can't be read any more. The peer doesn't tell, it comes to the same place again and
 * again. So where a session has brought its peer nothing, the next one at that place looks at the frames first. If they aren't right, the peer
 * gets a full copy that ends behind them: memory has what they said.
 *
 * What has rotted right before the peer's place is nothing that it needs. But the hash of those bytes isn't what it was; so where it differs, the
 * frames tell first whether ours are right.
 */
#include "persist/log_reader.h"
#include "replication/source_priv.h"
#include "server/base/diag.h"

#include <inttypes.h>

void session_note_end(struct session *s, uint64_t from) {
    bool got_nothing = atomic_load_explicit(&s->received, memory_order_relaxed) <= from;
    if (got_nothing && log_written(s->self->log).v > from) {
        lock_acquire(&s->source->lock);
        s->source->doubted = from;
        lock_release(&s->source->lock);
    }
}

/* The first frame that isn't right, of those that begin in [from, to); 0: they are. 'seek': 'from' is the start of no frame, and what can't be read says
 * nothing. */
static uint64_t find_bad(const struct data *d, uint64_t from, uint64_t to, bool seek) {
    struct log_dir dir = {.io = NULL};
    struct log_reader *r = NULL;
    struct frame_ref f = {.lsn = from};
    struct log_end_info end = {.at_lsn = from};
    enum log_end last = LOG_FAILED;
    enum dc_err err = log_dir_open_running(&dir, d->io, d->dir);
    err = err == DC_OK ? log_reader_open(&r, &dir, from) : err;
    if (err == DC_OK && (!seek || log_reader_seek(r, to))) {
        do {
            last = log_reader_next(r, &f);
        } while (last == LOG_MORE && f.lsn + f.len < to);
        if (last != LOG_MORE) {
            log_reader_end(r, &end);
        }
    }
    bool bad = last == LOG_FAILED ? !seek
                                  : last == LOG_DAMAGED ||
                                        (last != LOG_MORE && end.at_lsn < log_durable(d->log).v);
    if (bad) {
        diag(DIAG_WARNING, "source.log_damaged lsn=%" PRIu64 " error=\"%s\"", end.at_lsn,
             last == LOG_FAILED ? dc_fail_take(DC_EIO) : end.text);
    }
    log_reader_close(r);
    log_dir_close(&dir);
    return bad ? end.at_lsn : 0;
}

bool source_log_is_bad(struct source *src, uint64_t lsn) {
    lock_acquire(&src->lock);
    bool known = lsn <= src->bad;
    bool doubted = lsn == src->doubted;
    lock_release(&src->lock);
    if (known || !doubted) {
        return known;
    }
    uint64_t bad = find_bad(src->self->data, lsn, lsn + SEND_LEN, false);
    lock_acquire(&src->lock);
    src->bad = bad > src->bad ? bad : src->bad;
    src->doubted = 0;
    lock_release(&src->lock);
    return bad > 0;
}

bool source_tail_is_bad(const struct source *src, uint64_t lsn) {
    struct data *d = src->self->data;
    uint64_t from = log_tail_before(d, lsn);
    uint64_t bad = from < lsn ? find_bad(d, from, lsn, true) : 0;
    return bad > 0 && bad < lsn;
}

uint64_t source_bad_lsn(struct source *src) {
    lock_acquire(&src->lock);
    uint64_t bad = src->bad;
    lock_release(&src->lock);
    return bad;
}
