/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/tables.h"

#include "server/base/conf.h"
#include "server/base/lock.h"
#include "server/base/metric.h"
#include "server/cmd/cmd.h"

#include <string.h>

static void print_effects(struct buf *out, uint32_t effects) {
#define MUT_KIND(kind, number, fields, what) \
    if (effects & E_##kind) {                \
        buf_append_str(out, " " #kind);      \
    }
#include "server/store/mutation.def"
#undef MUT_KIND
}

static void print_commands(struct buf *out) {
    for (uint32_t i = 0; i < CMD_COUNT; i++) {
        const struct cmd *c = &cmd_table[i];
        buf_printf(out, "%-24s %-12s arity %3d  keys %d %d %d  %s", c->name,
                   cmd_group_name(c->group), c->arity, c->key_first, c->key_last, c->key_step,
                   c->summary);
        if (c->effects != 0) {
            buf_append_str(out, "  effects:");
            print_effects(out, c->effects);
        }
        buf_append_str(out, "\n");
    }
}

static void print_metrics(struct buf *out) {
    for (uint32_t i = 0; i < METRIC_COUNT; i++) {
        buf_printf(out, "%-42s %-44s %s\n", metric_name(i), metric_info_name(i), metric_help(i));
    }
}

static void print_locks(struct buf *out) {
#define LOCK_RANK(name, rank, guards) buf_printf(out, "%3d  %-10s %s\n", rank, #name, guards);
#include "server/base/lockrank.def"
#undef LOCK_RANK
}

static void print_errors(struct buf *out) {
#define DC_ERR(code, prefix, retryable, text) \
    buf_printf(out, "%-14s %-10s %-9s %s\n", #code, prefix, (retryable) ? "retryable" : "", text);
#include "server/base/err.def"
#undef DC_ERR
}

static void print_mutations(struct buf *out) {
#define MUT_KIND(kind, number, fields, what) \
    buf_printf(out, "%2d  %-8s %-26s %s\n", number, #kind, fields, what);
#include "server/store/mutation.def"
#undef MUT_KIND
}

bool tables_print(const char *name, struct buf *out) {
    static const struct {
        const char *name;
        void (*print)(struct buf *out);
    } tables[] = {{"config", conf_print},     {"commands", print_commands},
                  {"metrics", print_metrics}, {"locks", print_locks},
                  {"errors", print_errors},   {"mutations", print_mutations}};
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (strcmp(tables[i].name, name) == 0) {
            tables[i].print(out);
            return true;
        }
    }
    return false;
}
