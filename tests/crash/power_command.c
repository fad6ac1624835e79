/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands of a world, and how they reach its log. */
#include "server/base/mem.h"
#include "tests/crash/power.h"
#include "tests/support/store_check.h"

enum { KEYS = 40 };

void power_note_moment(struct world *w, uint64_t end) {
    if ((w->moment_count & (w->moment_count - 1)) == 0) {
        size_t cap = w->moment_count == 0 ? 1 : 2 * (size_t)w->moment_count;
        w->moments = mem_must_realloc(w->moments, cap * sizeof(*w->moments));
    }
    w->moments[w->moment_count++] = (struct moment){end, store_digest(w->engine.store)};
}

void power_commit(void *arg, struct mut *m) {
    struct world *w = arg;
    enum dc_err err = log_reserve(w->feed, m);
    must(err == DC_OK, "no memory");
    uint64_t end = log_commit(w->feed, m).v;
    for (uint32_t i = 0; i < m->count; i++) {
        must(m->effects[i].version > w->handed_out, "version %" PRIu64 " again", /* H3, H5 */
             m->effects[i].version);
    }
    w->handed_out = end;
    log_kick(w->data.log);
}

static struct bytes draw_key(struct world *w, char to[16]) {
    int len = snprintf(to, 16, "key:%" PRIu64, draw(w, KEYS));
    return bytes_of(to, (size_t)len);
}

static enum dc_err run_exec(struct world *w) {
    struct hand *h = &w->hand;
    char a[16], b[16];
    bool existed;
    hand_frame_begin(h);
    enum dc_err err = hand_set(h, 0, draw_key(w, a), bytes_of("exec", 4), EXPIRY_NONE);
    err = err != DC_OK ? err : hand_append(h, 0, bytes_of(a, strlen(a)), bytes_of("+", 1));
    err = err != DC_OK ? err : hand_del(h, 0, draw_key(w, b), &existed);
    hand_frame_end(h);
    return err;
}

static enum dc_err run_command(struct world *w) {
    static char bytes[70000];
    struct hand *h = &w->hand;
    char a[16], b[16];
    bool existed;
    int64_t sum;
    struct bytes key = draw_key(w, a);
    uint32_t db = (uint32_t)draw(w, 2);
    memset(bytes, 'a' + (int)draw(w, 26), sizeof(bytes));
    switch (draw(w, 16)) {
    case 0:
        return hand_del(h, db, key, &existed);
    case 1:
        return hand_expire(h, db, key, engine_now(&w->engine) + (int64_t)draw(w, 1000), &existed);
    case 2:
        return hand_expire(h, db, key, EXPIRY_NONE, &existed);
    case 3:
        return hand_write(h, db, key, draw(w, 50), bytes_of(bytes, draw(w, 30)));
    case 4:
        return hand_append(h, db, key, bytes_of(bytes, 1 + draw(w, 30)));
    case 5:
        return hand_rename(h, db, key, draw_key(w, b), &existed);
    case 6:
        return run_exec(w);
    case 7:
        return draw(w, 6) == 0 ? hand_flush(h, db) : DC_OK;
    case 8:
        return draw(w, 12) == 0
                   ? hand_set(h, db, key, bytes_of(bytes, 66000 + draw(w, 1000)), EXPIRY_NONE)
                   : DC_OK;
    case 9:
        key = bytes_of("counter", 7);
        return hand_incr(h, db, key, (int64_t)draw(w, 100), &sum);
    default:
        return hand_set(h, db, key, bytes_of(bytes, draw(w, 500)),
                        draw(w, 4) == 0 ? engine_now(&w->engine) + 500 : EXPIRY_NONE);
    }
}

void power_command(struct world *w) {
    uint64_t before = w->handed_out;
    enum dc_err err = run_command(w);
    must(err == DC_OK, "command: %s", dc_fail_take(err));
    if (w->handed_out > before) {
        power_note_moment(w, w->handed_out);
    }
}
