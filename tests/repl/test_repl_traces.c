/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One story for each hazard: what happens to a cluster, and line by line what it does. A file traces/NAME.trace has a head, a schedule, a line "---" and the
 * expected trace. Head: "nodes 3", "sentinel", "keep 20" (frames of log), "pin 30", "copy 400" (ms), "quiet" (only what 'say' says), "restarts B 45"
 * (under load, from 1000 ms on), "until 5000". DC_TRACE_WRITE=1 writes the expected traces anew.
 */
#include "tests/repl/schedule.h"
#include "tests/support/check_main.h"

#include <string.h>

enum { STORY_MAX = 64 * 1024, FIRST_RESTART_MS = 1000, RESTART_EVERY_MS = 300, DOWN_MS = 50 };

struct story {
    char path[256];
    char head[STORY_MAX]; /* up to the line "---", with it */
    char expected[STORY_MAX];
    struct sim_opts opts;
    struct schedule schedule;
    int64_t until_ms;
    bool quiet;
    uint32_t restarts, restarted;
};

static struct story story;

static void read_head_line(struct story *t, const char *line) {
    char word[32] = "", first[32] = "", second[32] = "";
    sscanf(line, "%31s %31s %31s", word, first, second);
    uint32_t value = (uint32_t)strtoul(first, NULL, 10);
    if (strcmp(word, "nodes") == 0) {
        t->opts.nodes = value;
    } else if (strcmp(word, "sentinel") == 0) {
        t->opts.sentinel = true;
    } else if (strcmp(word, "keep") == 0) {
        t->opts.keep_frames = value;
    } else if (strcmp(word, "pin") == 0) {
        t->opts.pin_frames = value;
    } else if (strcmp(word, "copy") == 0) {
        t->opts.copy_ms = value;
    } else if (strcmp(word, "until") == 0) {
        t->until_ms = value;
    } else if (strcmp(word, "quiet") == 0) {
        t->quiet = true;
    } else if (strcmp(word, "restarts") == 0) {
        t->restarted = (uint32_t)(first[0] - 'A');
        t->restarts = (uint32_t)strtoul(second, NULL, 10);
    } else {
        ck_assert_msg(word[0] == '#' || word[0] == '\0', "%s: what is '%s'?", t->path, line);
    }
}

static void read_story(struct story *t, const char *name) {
    char line[512];
    bool behind = false;
    memset(t, 0, sizeof(*t));
    t->opts = (struct sim_opts){.seed = 1, .nodes = 3, .steady = true};
    snprintf(t->path, sizeof(t->path), "tests/repl/traces/%s.trace", name);
    FILE *f = fopen(t->path, "r");
    ck_assert_msg(f != NULL, "%s isn't there", t->path);
    while (fgets(line, sizeof(line), f) != NULL) {
        char *to = behind ? t->expected : t->head;
        ck_assert(strlen(to) + strlen(line) < STORY_MAX);
        strncat(to, line, STORY_MAX - 1 - strlen(to));
        if (strcmp(line, "---\n") == 0) {
            behind = true;
        } else if (!behind && line[0] >= '0' && line[0] <= '9') {
            ck_assert_msg(t->schedule.count < OPS_MAX &&
                              op_parse(line, &t->schedule.ops[t->schedule.count++]),
                          "%s: what is '%s'?", t->path, line);
        } else if (!behind) {
            read_head_line(t, line);
        }
    }
    fclose(f);
}

static void run_restarts(struct sim *s, const struct story *t) {
    for (uint32_t i = 0; i < t->restarts; i++) {
        sim_run(s, FIRST_RESTART_MS + (int64_t)i * RESTART_EVERY_MS);
        sim_kill(s, t->restarted);
        sim_run(s, s->now_ms + DOWN_MS);
        sim_start(s, t->restarted);
    }
}

static void run_story(const struct story *t, FILE *trace) {
    struct sim_opts opts = t->opts;
    opts.trace = t->quiet ? NULL : trace;
    struct sim *s = sim_create(&opts);
    for (uint32_t i = 0; i < t->schedule.count; i++) {
        const struct op *op = &t->schedule.ops[i];
        if (op->at_ms >= FIRST_RESTART_MS && s->now_ms < FIRST_RESTART_MS) {
            run_restarts(s, t);
        }
        sim_run(s, op->at_ms);
        if (op->kind == OP_SAY) {
            s->opts.trace = trace;
        } else if (!t->quiet) {
            fprintf(trace, "       > ");
            op_print(op, trace);
        }
        op_apply(s, op);
        s->opts.trace = opts.trace;
    }
    sim_run(s, t->until_ms);
    if (s->failed[0] != '\0') {
        fprintf(trace, "FAILED: %s\n", s->failed);
    }
    sim_destroy(s);
}

/* The first line that differs is shown with its neighbours. */
static void compare(const char *path, const char *got, const char *expected) {
    const char *g = got, *e = expected;
    for (int line = 1; *g != '\0' || *e != '\0'; line++) {
        size_t glen = strcspn(g, "\n"), elen = strcspn(e, "\n");
        ck_assert_msg(glen == elen && memcmp(g, e, glen) == 0,
                      "%s, line %d of the trace:\n  expected %.*s\n  but got  %.*s\nthe whole:\n%s",
                      path, line, (int)elen, e, (int)glen, g, got);
        g += glen + (g[glen] == '\n');
        e += elen + (e[elen] == '\n');
    }
}

static void tell(const char *name) {
    static char got[STORY_MAX];
    read_story(&story, name);
    memset(got, 0, sizeof(got));
    FILE *trace = fmemopen(got, sizeof(got) - 1, "w");
    ck_assert_ptr_nonnull(trace);
    run_story(&story, trace);
    fclose(trace);
    if (getenv("DC_TRACE_WRITE") != NULL) {
        FILE *f = fopen(story.path, "w");
        ck_assert_ptr_nonnull(f);
        fputs(story.head, f);
        fputs(got, f);
        fclose(f);
        return;
    }
    compare(story.path, got, story.expected);
}

START_TEST(test_h1_who_went_past_an_unclean_open_is_cut_back) {
    tell("h01");
}
END_TEST

START_TEST(test_h2_a_power_cut_before_the_failover_loses_nothing) {
    tell("h02");
}
END_TEST

START_TEST(test_h2_nobody_answers_and_writes_are_held_for_a_bounded_time) {
    tell("h02_alone");
}
END_TEST

START_TEST(test_h2_the_log_of_what_was_lost_is_gone_and_a_copy_is_pulled) {
    tell("h02_log_gone");
}
END_TEST

START_TEST(test_h9_half_a_frame_does_not_count) {
    tell("h09");
}
END_TEST

START_TEST(test_h10_two_failovers_from_one_end) {
    tell("h10");
}
END_TEST

START_TEST(test_h50_past_the_fork_without_a_copy) {
    tell("h50");
}
END_TEST

START_TEST(test_h51_a_drill_comes_back_to_production) {
    tell("h51");
}
END_TEST

START_TEST(test_h52_an_emptied_primary_wipes_nobody) {
    tell("h52");
}
END_TEST

START_TEST(test_h53_two_promotions_at_once) {
    tell("h53");
}
END_TEST

START_TEST(test_h53_one_has_not_heard_of_the_other) {
    tell("h53_stranger");
}
END_TEST

START_TEST(test_h54_an_isolated_primary_under_sentinel) {
    tell("h54");
}
END_TEST

START_TEST(test_h55_a_copy_that_is_slower_than_retention) {
    tell("h55");
}
END_TEST

START_TEST(test_h56_forty_five_restarts_without_a_copy) {
    tell("h56");
}
END_TEST

START_TEST(a_fence_that_came_first_ends_with_asking) {
    tell("fence_first");
}
END_TEST

START_TEST(a_clean_start_rises_above_what_its_peers_have_seen) {
    tell("clean_seen");
}
END_TEST

CHECK_MAIN("repl_traces", test_h1_who_went_past_an_unclean_open_is_cut_back,
           test_h2_a_power_cut_before_the_failover_loses_nothing,
           test_h2_nobody_answers_and_writes_are_held_for_a_bounded_time,
           test_h2_the_log_of_what_was_lost_is_gone_and_a_copy_is_pulled,
           test_h9_half_a_frame_does_not_count, test_h10_two_failovers_from_one_end,
           test_h50_past_the_fork_without_a_copy, test_h51_a_drill_comes_back_to_production,
           test_h52_an_emptied_primary_wipes_nobody, test_h53_two_promotions_at_once,
           test_h53_one_has_not_heard_of_the_other, test_h54_an_isolated_primary_under_sentinel,
           test_h55_a_copy_that_is_slower_than_retention,
           test_h56_forty_five_restarts_without_a_copy, a_fence_that_came_first_ends_with_asking,
           a_clean_start_rises_above_what_its_peers_have_seen)
