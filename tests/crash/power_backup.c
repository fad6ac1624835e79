/* SPDX-License-Identifier: BSD-3-Clause */
/* Backups of a world: made while commands run, and looked at behind every cut from then on. */
#include "persist/backup.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/crash/power.h"
#include "tests/support/store_check.h"

#include <errno.h>

enum { MANIFEST_MAX = 16384, NAME_LEN = 64 };

bool power_backup(struct world *w) {
    char target[NAME_LEN];
    const struct histories *chain = data_chain(&w->data);
    bool keeps = log_is_based(w->data.log);
    struct backup_opts opts = {.io = sim_disk_io(w->disk),
                               .dir = "data",
                               .target = target,
                               .log = keeps ? w->data.log : NULL,
                               .node_id = w->data.plan->node_id,
                               .chain = chain->list,
                               .chain_count = chain->count,
                               .stop = &w->over};
    struct backup_written written;
    if (!backup_has_snapshot(&opts)) {
        return false;
    }
    snprintf(target, sizeof(target), "backup-%u", w->backup_count);
    struct backup_made *b = &w->backups[w->backup_count++];
    *b = (struct backup_made){.from = keeps ? log_head(w->data.log).v : 0};
    enum dc_err err = backup_write(&opts, &written);
    must(err == DC_OK || is_stopped(w) || w->is_faulty, "backup: %s", dc_fail_take(err));
    b->to = log_head(w->data.log).v;
    b->done = err == DC_OK;
    b->lsn = b->done ? written.lsn : 0;
    return true;
}

/* --- what is there ----------------------------------------------------------------------------------- */

/* All of a file, with a NUL behind it; NULL: it isn't there. To be freed. */
static char *read_file(struct world *w, const char *path, uint64_t *len) {
    const struct io *io = sim_disk_io(w->disk);
    struct io_file f;
    int rc = io->open(io, path, IO_READ, &f);
    if (rc == -ENOENT) {
        return NULL;
    }
    must(rc == 0, "open %s: %d", path, rc);
    *len = (uint64_t)io->size(io, &f);
    char *all = mem_must_zalloc((size_t)*len + 1);
    ssize_t got = io->read_at(io, &f, all, (size_t)*len, 0);
    must(got == (ssize_t)*len, "read %s: %zd", path, got);
    io->close(io, &f);
    return all;
}

/* The files are those that the manifest tells of. */
static void check_files(struct world *w, const char *dir, const char *manifest) {
    char name[NAME_LEN], path[2 * NAME_LEN];
    uint64_t bytes, from, sum, len = 0;
    uint32_t files = 0;
    for (const char *at = manifest; (at = strstr(at, "{\"name\"")) != NULL; at++) {
        int fields = sscanf(at,
                            "{\"name\": \"%63[^\"]\", \"bytes\": %" SCNu64
                            ", \"sum_from\": %" SCNu64 ", \"sum\": \"%" SCNx64,
                            name, &bytes, &from, &sum);
        must(fields == 4, "a line of the manifest of %s: %.100s", dir, at);
        snprintf(path, sizeof(path), "%s/%s", dir, name);
        char *all = read_file(w, path, &len);
        must(all != NULL, "%s isn't there", path);
        must(len == bytes, "%s has %" PRIu64 " bytes, not %" PRIu64, path, len, bytes);
        must(sum64(all + from, (size_t)(len - from), 0) == sum, "%s is another one", path);
        mem_free(all);
        files++;
    }
    must(files > 0, "the manifest of %s has no files", dir);
}

/* A server that is started on it has everything up to the LSN, and nothing else. */
static void check_content(struct world *w, const char *dir, uint64_t lsn) {
    struct warm_opts opts = {.io = sim_disk_io(w->disk), .dir = dir};
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    uint64_t end;
    enum dc_err err = data_scan(&opts, plan, &warm);
    must(err == DC_OK, "%s: %s", dir, dc_fail_take(err));
    must(plan->end_lsn == lsn, "%s ends at %" PRIu64 ", not %" PRIu64, dir, plan->end_lsn, lsn);
    if (draw(w, 4) == 0) {
        struct store *s = power_load(w, plan, warm);
        must(store_digest(s) == power_digest_at(w, lsn, &end), "%s holds another state", dir);
        store_destroy(s);
    } else {
        warm_destroy(warm);
    }
    mem_free(plan);
}

static void note_entry(void *arg, const char *name) {
    (void)name;
    ++*(uint32_t *)arg;
}

static void check_backup(struct world *w, uint32_t number) {
    const struct io *io = sim_disk_io(w->disk);
    const struct backup_made *b = &w->backups[number];
    char dir[NAME_LEN], path[2 * NAME_LEN];
    uint32_t entries = 0;
    uint64_t len = 0, lsn = 0;
    snprintf(dir, sizeof(dir), "backup-%u", number);
    snprintf(path, sizeof(path), "%s/" BACKUP_MANIFEST, dir);
    int rc = io->list(io, dir, note_entry, &entries);
    must(rc == 0 || (rc == -ENOENT && !b->done), "%s isn't there: %d", dir, rc);
    if (rc == -ENOENT) {
        return;
    }
    char *manifest = read_file(w, path, &len);
    must(manifest != NULL && len < MANIFEST_MAX, "%s has a name, but no manifest", dir);
    const char *at = strstr(manifest, "\"lsn\": \"");
    must(at != NULL && sscanf(at, "\"lsn\": \"%" SCNu64, &lsn) == 1, "the manifest of %s", dir);
    must(b->from <= lsn && lsn <= b->to && (!b->done || lsn == b->lsn),
         "%s is up to %" PRIu64 ": %" PRIu64 " to %" PRIu64, dir, lsn, b->from, b->to);
    check_files(w, dir, manifest);
    check_content(w, dir, lsn);
    mem_free(manifest);
}

void power_check_backups(struct world *w) {
    for (uint32_t i = 0; i < w->backup_count; i++) {
        if (i + 1 == w->backup_count || draw(w, 4) == 0) { /* older ones were looked at before */
            check_backup(w, i);
        }
    }
}
