/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * data: a data directory in use: its lock, its metadata, what recovery found, and the log that goes on behind it.
 *
 *     data_open()    lock, metadata, scan      -> plan, warm
 *     (the caller makes the store with the plan's seed, and warm_attach()es it)
 *     data_begin()   history, log              -> log
 *     data_close()
 *
 * Threads: opened and closed by the main thread; the rest may be read by any.
 * Failure: DC_EDIRBUSY, DC_ECORRUPT, DC_ENEWER, DC_EFOREIGN, DC_EIO with words for the operator; nothing was changed then.
 */
#ifndef DC_PERSIST_DATA_H
#define DC_PERSIST_DATA_H

#include <pthread.h>

#include "persist/log.h"
#include "persist/meta.h"
#include "persist/warm.h"
#include "server/base/limits.h"

struct pins {
    pthread_mutex_t lock; /* setting, ending and dropping */
    struct {
        _Atomic uint64_t lsn;
        _Atomic uint32_t state; /* data_pins.c */
    } list[PINS_MAX];
    _Atomic uint64_t limit;
};

struct data {
    const struct io *io;
    const char *dir;
    int lock_fd;
    bool meta_rebuilt;
    bool meta_is_new; /* it knew nothing of the directory */
    struct meta *meta;
    struct data_plan *plan;
    struct warm *warm; /* NULL = nothing to load */
    struct log *log;
    uint64_t begin_lsn;       /* the head when the log was begun */
    _Atomic uint64_t gap_lsn; /* below it the log may have holes */
    struct pins pins;
    uint64_t
        seen_lsn; /* runs without a log have handed out what is behind it, up to LSN_JUMP; 0 = none has */
    bool lost_unlogged;            /* the last run wrote what no log has */
    bool followed;                 /* the log isn't this node's alone (data.c) */
    uint64_t own_history;          /* the last one that this node has begun; 0 = none is known */
    pthread_mutex_t unlogged_lock; /* for who notes it */
    _Atomic uint64_t unlogged_lsn; /* from here on the log wasn't, or isn't, kept; 0 = it is */
};

DC_MUST enum dc_err data_open(struct data *d, const struct io *io, const char *dir);

/* Behind data_begin(): the data set counts. What a copy has replaced is removed by data_clean(), which may take long. */
DC_MUST enum dc_err data_settle(struct data *d);
void data_clean(struct data *d);

/* 'opts' has follows, keeps, sync, lengths and callbacks; the rest is filled in. A log that follows another one goes on in the history that was
 * found; it begins one only if there is none. */
DC_MUST enum dc_err data_begin(struct data *d, const struct log_opts *opts);

/* The chain of the log; lives as long as that (log_chain()). */
const struct histories *data_chain(const struct data *d);
/* The log ends with a history that this node has begun itself, as far as the metadata know. */
bool data_owns_history(const struct data *d);
/* A promotion: begins a history of this node's own, durably; then the log follows no other one. 'next' goes on from the head, all of which is
 * applied; nobody appends or puts meanwhile. Errors: DC_EIO; it is as it was, unless the metadata couldn't be written. */
DC_MUST enum dc_err data_begin_history(struct data *d, const struct history *next);
/* The log that is followed begins a history: its FORK frame, checked, at 'lsn'. Instead of log_put(). Errors: DC_ECORRUPT: it doesn't
 * continue this log; DC_EIO. */
DC_MUST enum dc_err data_take_fork(struct data *d, uint64_t lsn, const char *frame, size_t len);

/* Remembers, for the report of the next start, that the log isn't kept from 'lsn' on; 0 = it is kept. */
DC_MUST enum dc_err data_note_unlogged(struct data *d, uint64_t lsn);
/* The same from the head on, if the log isn't kept, or to be kept, and nobody has noted it. */
DC_MUST enum dc_err data_note_unkept(struct data *d);

/* Loaders may append: before the log begins to follow another one. Nobody uses 'warm' any more. */
void data_stop_loading(struct data *d);

/* The log first (its users are gone); NULL parts are legal. */
void data_close(struct data *d, bool clean, int64_t timeout_ms);

/* Brings the catalogue up to date and removes what retention gives up; 'opts' without needed_lsn and now_ms. Not while ranges are cold. 'over' (may be NULL):
 * only a new snapshot can bring the files below their limit. */
struct retain_opts;
DC_MUST enum dc_err data_tidy(struct data *d, const struct retain_opts *opts, bool *over);

/* --- readers that retention waits for (data_pins.c). Any thread; a pin belongs to one. --- */

/* Whatever isn't removed yet stays from 'from' on, also where no log is kept: what is written is in files until the end of the pin. 0 = from what
 * is written now on. Errors: DC_ELIMIT. */
DC_MUST enum dc_err data_pin(struct data *d, uint64_t from, uint32_t *pin);
void data_move_pin(struct data *d, uint32_t pin, uint64_t lsn);
/* False: it held more than the limit, and doesn't hold anything any more. */
bool data_pin_holds(const struct data *d, uint32_t pin);
void data_unpin(struct data *d, uint32_t pin);
/* Bytes of log that a pin may hold; 0 = any. */
void data_set_pin_limit(struct data *d, uint64_t bytes);

/* For data_tidy(): the first LSN that is needed, UINT64_MAX = none; and no pin is set until pins_let_go(). */
uint64_t pins_hold(struct data *d);
void pins_let_go(struct data *d);
void pins_init(struct pins *p);
void pins_fini(struct pins *p);

#endif
