/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/view.h"

#include "server/base/sum.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

enum { KEYS = 2 * VIEW_KEYS_MIN, ALIKE_BITS = 12 };

static struct data_case c;
static struct view v;
static char troubles[1024];

static void note_trouble(void *arg, const char *text) {
    (void)arg;
    snprintf(troubles, sizeof(troubles), "%s", text);
}

static void open_view(void) {
    struct view_opts opts = {.trouble = note_trouble};
    troubles[0] = '\0';
    must(view_open(&v, c.dir, &opts));
}

static bool count_item(void *arg, struct view *view, const struct item *item) {
    (void)view, (void)item;
    ++*(uint32_t *)arg;
    return true;
}

static uint32_t count_range(uint32_t range) {
    uint32_t count = 0;
    struct item_filter filter = {.has_keyspace = false};
    expect(view_range(&v, range, &filter, count_item, &count));
    return count;
}

/* Each effect of it is one of a whole value: nothing but its begin says that there was more. */
START_TEST(a_log_that_begins_in_the_middle_is_told) {
    char key[32];
    case_open(&c);
    must(hand_set(&c.hand, 0, key_of(key, "key", 1), BYTES("value"), EXPIRY_NONE));
    uint64_t middle = log_file_end(&c.log);
    must(hand_set(&c.hand, 0, key_of(key, "key", 2), BYTES("value"), EXPIRY_NONE));
    case_write_log(&c, middle, 0);
    open_view();
    expect(v.troubles == 1 && strstr(troubles, "no snapshot holds what was before") != NULL);
    view_close(&v);
    log_file_write(&c.log, c.dir, 0, middle, 0);
    open_view();
    expect_eq(v.troubles, 0);
    view_close(&v);
    case_close(&c);
}
END_TEST

/* In one slot, and of the hash that parts are made by some bits are the same. */
static struct bytes alike(char to[32], uint32_t *from) {
    struct bytes key;
    do {
        key = key_of(to, "{a}", (*from)++);
    } while ((sum64(key.ptr, key.len, 0) >> 32 & ((1u << ALIKE_BITS) - 1)) != 0);
    return key;
}

START_TEST(keys_that_no_parts_part_are_visited_together) {
    char key[32];
    uint32_t from = 0;
    case_open(&c);
    for (uint32_t i = 0; i < KEYS; i++) {
        must(hand_set(&c.hand, 0, alike(key, &from), BYTES("value"), EXPIRY_NONE));
    }
    case_write_log(&c, 0, 0);
    open_view();
    expect_eq(count_range(view_range_of(&v, 0, BYTES("{a}"))), KEYS);
    expect(v.parts > 1 && v.parts < 100);
    expect_eq(v.troubles, 0);
    view_close(&v);
    case_close(&c);
}
END_TEST

CHECK_MAIN("view", a_log_that_begins_in_the_middle_is_told,
           keys_that_no_parts_part_are_visited_together)
