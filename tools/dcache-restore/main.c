/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dcache-restore: a new data directory out of a node's files or a backup.
 *
 *     options -> source_load() or repair_load() -> shape_apply() -> target_write() or push_all() -> report
 *
 * Everything is put into a store as a restart does it (persist/warm.h), filtered there, and written as a node writes a snapshot.
 */
#include "persist/new_dir.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"
#include "server/base/time.h"
#include "tools/dcache-restore/options.h"
#include "tools/dcache-restore/push.h"
#include "tools/dcache-restore/repair.h"
#include "tools/dcache-restore/report.h"
#include "tools/dcache-restore/shape.h"
#include "tools/dcache-restore/target.h"

#include <inttypes.h>
#include <stdio.h>

struct run {
    struct options o;
    struct source s;
    struct shape shape;
    struct repair_report repair;
    struct push_result push;
    struct snap_written written;
};

static struct run run; /* zero */

static void report_source(struct report *r, const struct source *s) {
    char node[2 * NODE_ID_LEN + 1];
    const struct data_plan *p = s->plan;
    crypto_hex(node, p->node_id, NODE_ID_LEN);
    if (r->json) {
        report_text(r, "source", "%s", s->dir);
        report_text(r, "kind", "%s", s->is_backup ? "backup" : "directory");
        report_flag(r, "in_use", s->in_use);
    } else {
        report_text(r, "source", "%s (%s%s)", s->dir, s->is_backup ? "backup" : "data directory",
                    s->in_use ? ", in use by a node" : "");
    }
    report_text(r, "node", "%s", node);
    report_text(r, "snapshot", "%s", p->snapshot[0] != '\0' ? p->snapshot : "none");
    report_number(r, "frames", p->frames);
}

static void report_behind(struct report *r, const struct source *s) {
    char text[TIME_TEXT_LEN];
    const struct data_plan *all = s->all;
    uint64_t behind = source_has_more(s) ? all->end_lsn - s->plan->end_lsn : 0;
    if (s->all_bad[0] != '\0') {
        report_text(r, "behind", "not readable: %s", s->all_bad);
    } else if (r->json) {
        report_lsn(r, "behind_bytes", behind);
        report_time(r, "behind_until", behind > 0 ? all->last_time_ms : 0);
    } else if (behind > 0) {
        report_text(r, "behind", "%" PRIu64 " bytes of log, up to LSN %" PRIu64 ", %s", behind,
                    all->end_lsn, time_text(text, all->last_time_ms));
    } else {
        report_text(r, "behind", "nothing");
    }
}

static void report_reached(struct report *r, const struct source *s) {
    char text[TIME_TEXT_LEN];
    const struct data_plan *p = s->plan;
    if (r->json) {
        report_lsn(r, "reached_lsn", p->end_lsn);
        report_time(r, "reached_time", p->last_time_ms);
    } else {
        report_text(r, "reached", "LSN %" PRIu64 ", %s", p->end_lsn,
                    time_text(text, p->last_time_ms));
    }
    report_behind(r, s);
    report_size(r, r->json ? "cut_bytes" : "cut", s->all->cut_bytes);
    if (p->notes[0] != '\0') {
        report_text(r, "notes", "%s", p->notes);
    }
}

static void report_shape(struct report *r, const struct shape *sh) {
    char span[SPAN_TEXT_LEN];
    report_number(r, "entries", sh->entries);
    report_size(r, "bytes", sh->bytes);
    report_number(r, "expired", sh->expired);
    report_number(r, "left_out", sh->left_out);
    report_number(r, "system", sh->system);
    if (r->json) {
        report_number(r, "ttl_shift_ms", (uint64_t)sh->shift_ms);
        report_number(r, "ttl_shifted", sh->moved);
    } else if (sh->shifts) {
        report_text(r, "ttl_shift", "%s later, %" PRIu64 " entries", span_text(span, sh->shift_ms),
                    sh->moved);
    } else {
        report_text(r, "ttl_shift", "none");
    }
    report_number(r, "would_expire", sh->would_expire);
}

static void report_repair(struct report *r, const struct repair_report *p) {
    report_number(r, "damages", p->damages);
    report_number(r, "entries_lost", p->entries_lost);
    report_number(r, "entries_older", p->entries_older);
    report_number(r, "effects_lost", p->effects_skipped);
    report_list(r, "damage", p->lines, p->count);
}

static void report_done(struct report *r) {
    const struct options *o = &run.o;
    if (o->dry_run) {
        report_flag(r, "dry_run", true);
    } else if (o->push != NULL) {
        report_text(r, "target", "%s", o->push);
        report_number(r, "taken", run.push.taken);
        report_number(r, "existing", run.push.existing);
        report_number(r, "refused", run.push.refused);
        if (run.push.refused > 0) {
            report_text(r, "first_error", "%s", run.push.first_error);
        }
    } else {
        report_text(r, "target", "%s", o->target);
        report_text(r, "written", "%s", run.written.name);
        report_size(r, "written_bytes", run.written.file_len);
    }
}

static void report_all(void) {
    struct report r;
    report_begin(&r, run.o.json);
    report_source(&r, &run.s);
    report_reached(&r, &run.s);
    report_shape(&r, &run.shape);
    if (run.o.repair) {
        report_repair(&r, &run.repair);
    }
    report_done(&r);
    report_end(&r);
}

static enum dc_err work(void) {
    const struct options *o = &run.o;
    enum dc_err err = o->target != NULL ? new_dir_check(&io_posix, o->target) : DC_OK;
    err = err != DC_OK ? err : source_look(&run.s, o->source);
    err = err != DC_OK || o->repair ? err : new_dir_check_finished(o->source);
    if (err == DC_OK) {
        err = o->repair ? repair_load(&run.s, o, &run.repair) : source_load(&run.s, o);
    }
    if (err == DC_OK) {
        shape_plan(&run.shape, &run.s, o);
        err = shape_apply(&run.shape, &run.s, o);
    }
    if (err != DC_OK || o->dry_run) {
        return err;
    }
    return o->push != NULL ? push_all(&run.s, o, run.shape.entries, &run.push)
                           : target_write(&io_posix, o->target, &run.s,
                                          o->keep_identity || o->repair, &run.written);
}

int main(int argc, char **argv) {
    switch (options_parse(&run.o, argc, argv)) {
    case OPTIONS_DONE:
        return EXIT_ALL;
    case OPTIONS_BAD:
        return EXIT_USAGE;
    case OPTIONS_RUN:
        break;
    }
    crypto_init();
    time_calibrate();
    io_catch_faults();
    diag_set_role("restore");
    if (diag_open("/dev/stderr") != DC_OK) {
        diag_set_level(DIAG_WARNING);
    }
    enum dc_err err = work();
    if (err == DC_OK) {
        report_all();
    } else {
        fprintf(stderr, "dcache-restore: %s\n", dc_fail_take(err));
        if (run.push.sent > 0) {
            fprintf(stderr, "dcache-restore: %" PRIu64 " entries were taken before\n",
                    run.push.taken);
        }
    }
    bool partly = run.repair.damages > 0 || run.s.all_bad[0] != '\0' || run.push.refused > 0 ||
                  run.push.existing > 0;
    repair_report_fini(&run.repair);
    source_close(&run.s);
    return err != DC_OK ? EXIT_FAILED : partly ? EXIT_PARTLY : EXIT_ALL;
}
