/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/source.h"

#include "persist/backup.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { MANIFEST_HEAD = 4096, TRIES = 5, TRY_AGAIN_US = 100000, LOADERS_MAX = 16 };

/* --- what it is -------------------------------------------------------------------------------------- */

/* A node holds the lock of the directory. (Taking it to find out could make a node fail that starts right now.) */
static bool is_locked(const char *dir) {
    char path[PATH_MAX], line[256], wanted[64];
    struct stat st;
    bool found = false;
    snprintf(path, sizeof(path), "%s/LOCK", dir);
    if (stat(path, &st) != 0) {
        return false;
    }
    snprintf(wanted, sizeof(wanted), " %02x:%02x:%lu ", major(st.st_dev), minor(st.st_dev),
             (unsigned long)st.st_ino);
    FILE *locks = fopen("/proc/locks", "r");
    while (locks != NULL && !found && fgets(line, sizeof(line), locks) != NULL) {
        found = strstr(line, "FLOCK") != NULL && strstr(line, wanted) != NULL;
    }
    if (locks != NULL) {
        fclose(locks);
    }
    return found;
}

/* A number of the manifest; 0 = it isn't there. */
static uint64_t manifest_number(const char *text, const char *name) {
    const char *at = strstr(text, name);
    at = at != NULL ? at + strlen(name) : "";
    return strtoull(at + strspn(at, "\": "), NULL, 10);
}

static void read_manifest(struct source *s) {
    char path[PATH_MAX], text[MANIFEST_HEAD];
    snprintf(path, sizeof(path), "%s/" BACKUP_MANIFEST, s->dir);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return;
    }
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0'; /* the numbers stand before the files */
    fclose(file);
    s->is_backup = true;
    s->backup_lsn = manifest_number(text, "\"lsn\"");
    s->backup_ms = (int64_t)manifest_number(text, "\"time_ms\"");
}

enum dc_err source_look(struct source *s, const char *dir) {
    struct stat st;
    memset(s, 0, sizeof(*s));
    s->dir = dir;
    s->now_ms = time_wall_us() / 1000;
    s->plan = mem_must_zalloc(sizeof(*s->plan));
    s->all = mem_must_zalloc(sizeof(*s->all));
    if (stat(dir, &st) != 0) {
        return dc_fail(DC_EIO, "%s: %s", dir, dc_errno_text(errno));
    }
    if (!S_ISDIR(st.st_mode)) {
        return dc_fail(DC_EIO, "%s isn't a directory", dir);
    }
    s->in_use = is_locked(dir);
    read_manifest(s);
    return DC_OK;
}

/* --- loading ----------------------------------------------------------------------------------------- */

void source_store(struct source *s, const uint8_t *seed) {
    struct store_opts opts = {.seed = seed};
    s->store = store_create(&opts);
    store_tick(s->store,
               s->now_ms); /* from here on its time stands still: ages are those of the image */
    store_thread_init(&s->thread, s->store, &s->metrics, 1);
}

static enum dc_err scan(const struct source *s, const struct options *o, struct data_plan *plan,
                        struct warm **warm) {
    struct warm_opts opts = {.io = &io_posix,
                             .dir = s->dir,
                             .to_lsn = o->to_lsn,
                             .to_time_ms = o->to_time_ms,
                             .read_only = true,
                             .threads = thread_cores()};
    enum dc_err err = data_scan(&opts, plan, warm);
    /* Files of a node that is running may go while they are looked at. */
    for (int i = 0; i < TRIES && s->in_use && (err == DC_EIO || err == DC_ECORRUPT); i++) {
        usleep(TRY_AGAIN_US);
        err = data_scan(&opts, plan, warm);
    }
    return err;
}

struct oldest {
    const char *dir;
    uint64_t lsn;
    int64_t ms;
};

static void look_for_oldest(void *arg, const char *name) {
    struct oldest *o = arg;
    char path[PATH_MAX];
    struct snap *snap;
    uint64_t lsn, history;
    snprintf(path, sizeof(path), "%s/%s", o->dir, name);
    if (!snap_name_parse(name, &lsn, &history) || (o->lsn != 0 && lsn >= o->lsn)) {
        return;
    }
    if (snap_open(&io_posix, path, &snap) != DC_OK) {
        (void)dc_fail_take(DC_OK);
        return;
    }
    o->lsn = snap_facts(snap)->end_lsn;
    o->ms = snap_facts(snap)->finished_ms;
    snap_close(snap);
}

/* The point lies before everything that is there. */
static enum dc_err explain_point(const struct source *s, enum dc_err err) {
    char text[ERR_TEXT_MAX], when[32];
    struct oldest oldest = {.dir = s->dir};
    snprintf(text, sizeof(text), "%s", dc_fail_take(err));
    (void)io_posix.list(&io_posix, s->dir, look_for_oldest, &oldest);
    if (oldest.lsn == 0 || err != DC_ECORRUPT) {
        return dc_fail(err, "%s", text);
    }
    snprintf(when, sizeof(when), "%" PRId64 ".%03d", oldest.ms / 1000, (int)(oldest.ms % 1000));
    return dc_fail(err,
                   "that point can't be restored. The oldest snapshot allows LSN %" PRIu64
                   " (Unix time %s) and later. (%.300s)",
                   oldest.lsn, when, text);
}

static enum dc_err fill(struct source *s, struct warm *warm) {
    uint32_t cores = thread_cores();
    source_store(s, s->plan->seed);
    if (warm == NULL) {
        return DC_OK;
    }
    enum dc_err err = warm_attach(warm, s->store);
    if (err == DC_OK && cores > 1) {
        warm_start(warm, (cores > LOADERS_MAX ? LOADERS_MAX : cores) - 1, NULL, NULL);
    }
    err = err != DC_OK ? err : warm_all(warm, &s->thread);
    warm_destroy(warm);
    return err;
}

/* A backup that lost its last file looks whole. */
static enum dc_err check_promise(const struct source *s) {
    if (s->backup_lsn <= s->all->end_lsn) {
        return DC_OK;
    }
    return dc_fail(DC_ECORRUPT,
                   "%s/" BACKUP_MANIFEST " promises everything up to LSN %" PRIu64
                   ", but the files end at %" PRIu64
                   ": one is missing or cut. What is there is saved by: dcache-restore --repair %s "
                   "<new dir>",
                   s->dir, s->backup_lsn, s->all->end_lsn, s->dir);
}

bool source_has_more(const struct source *s) {
    return s->all_bad[0] != '\0' || s->all->end_lsn > s->plan->end_lsn;
}

/* The latest moment at which the data was what it is at the point. */
static int64_t image_time(const struct source *s, const struct options *o) {
    int64_t ms = s->plan->last_time_ms;
    bool more = source_has_more(s);
    if (o->to_time_ms > ms && more) {
        ms = o->to_time_ms;
    }
    if (!more && s->backup_ms > ms) {
        ms = s->backup_ms;
    }
    if (!more && s->in_use && s->now_ms > ms) {
        ms = s->now_ms;
    }
    return ms;
}

enum dc_err source_load(struct source *s, const struct options *o) {
    struct warm *warm = NULL;
    struct options to_the_end = {.to_lsn = 0};
    bool has_point = o->to_lsn != 0 || o->to_time_ms != 0;
    enum dc_err err = scan(s, &to_the_end, s->all, &warm);
    if (err == DC_OK && s->all->empty) {
        err = dc_fail(DC_EIO, "%s holds no snapshot and no log", s->dir);
    }
    err = err != DC_OK ? err : check_promise(s);
    if (has_point && err == DC_ECORRUPT) { /* it may be what is behind the point */
        snprintf(s->all_bad, sizeof(s->all_bad), "%s", dc_fail_take(err));
        err = DC_OK;
    }
    if (has_point && err == DC_OK) {
        warm_destroy(warm);
        warm = NULL;
        err = scan(s, o, s->plan, &warm);
        err = err != DC_OK ? explain_point(s, err) : DC_OK;
    } else if (err == DC_OK) {
        *s->plan = *s->all;
    }
    if (err != DC_OK) {
        warm_destroy(warm);
        return err;
    }
    s->image_ms = image_time(s, o);
    s->end_lsn = s->plan->end_lsn;
    return fill(s, warm);
}

void source_close(struct source *s) {
    store_destroy(s->store);
    mem_free(s->plan);
    mem_free(s->all);
}
