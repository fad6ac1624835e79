/* SPDX-License-Identifier: BSD-3-Clause */
/* power: a world of test_power.c, and what its parts share. */
#ifndef TESTS_CRASH_POWER_H
#define TESTS_CRASH_POWER_H

#include "persist/data.h"
#include "server/base/rng.h"
#include "tests/support/engine.h"
#include "tests/support/sim_disk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the store was behind each frame. */
struct moment {
    uint64_t end;
    uint64_t digest;
};

/* Of one that was begun. */
struct backup_made {
    bool done;         /* it was told to be there, */
    uint64_t lsn;      /* up to here */
    uint64_t from, to; /* what was handed out before, and behind it */
};
enum { BACKUPS_MAX = 6 };

struct world {
    uint64_t seed;
    uint64_t first_stop; /* of the first life */
    struct rng rng;
    struct sim_disk *disk;
    struct engine engine;
    struct hand hand;
    struct metric_slot metrics;
    struct data data;
    struct log_feed *feed;
    struct moment *moments; /* rising */
    uint32_t moment_count;
    uint64_t handed_out; /* the highest version that was ever seen */
    uint64_t durable;    /* promised */
    uint64_t written;    /* promised against a kill */
    uint64_t stop;       /* calls after which the disk ends, counted like sim_disk_changes() */
    _Atomic bool over;   /* the disk has stopped: a snapshot needn't go on */
    bool in_snapshot;
    bool is_faulty;   /* an fdatasync fails in this life */
    bool keeps;       /* the log: 'appendonly' */
    bool ended;       /* in order, and the log says all */
    bool is_unlogged; /* what the last life handed out last stands in the metadata only */
    bool is_blind;    /* the life began without knowing of runs without a log */
    struct backup_made backups[BACKUPS_MAX];
    uint32_t backup_count;
    uint8_t node_id[NODE_ID_LEN];
    char what[256];
    char name[80]; /* the same without what is done; padded with blanks */
};

#define must(condition, ...)                                                           \
    do {                                                                               \
        if (!(condition)) {                                                            \
            printf("--seed %" PRIu64 " --stop %" PRIu64 ", %s: not so: %s: ", w->seed, \
                   w->first_stop, w->what, #condition);                                \
            printf(__VA_ARGS__);                                                       \
            printf("\n");                                                              \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static inline uint64_t draw(struct world *w, uint64_t bound) {
    return rng_below(&w->rng, bound);
}

static inline bool is_stopped(const struct world *w) {
    return w->stop > 0 && sim_disk_changes(w->disk) >= w->stop;
}

/* A command, drawn; and what the store is behind it. */
void power_command(struct world *w);
void power_note_moment(struct world *w, uint64_t end);
/* Commits what the engine's commands do. */
void power_commit(void *arg, struct mut *m);

/* BACKUP; false: it needs a snapshot before. */
bool power_backup(struct world *w);
/* The newest one on the disk, and some of the others, are whole, and say what they are. */
void power_check_backups(struct world *w);
/* The state behind the last frame that ends at or before the LSN. */
uint64_t power_digest_at(const struct world *w, uint64_t lsn, uint64_t *end);
/* Loads what a scan has found. */
struct store *power_load(struct world *w, const struct data_plan *plan, struct warm *warm);

/* From the begin of the log until its end, or that of the disk. */
void power_live(struct world *w);

#endif
