/* SPDX-License-Identifier: BSD-3-Clause */
/* Directories with several histories: which of them belong together, and what a reader makes of them. */
#include "persist/log_reader.h"
#include "tests/support/check_main.h"
#include "tests/support/log_found.h"
#include "tests/support/segment_build.h"
#include "tests/support/sim_disk.h"

static const struct history h1 = {.id = 11, .start = 1000, .epoch = 1, .parent_end = 0};

/* As an unclean start makes it. */
static struct history after(const struct history *parent, uint64_t id, uint64_t fork) {
    return (struct history){
        .id = id, .start = fork + 100000, .epoch = parent->epoch, .parent_end = fork};
}

struct family {
    struct sim_disk *disk;
    struct segment_build one;
    struct segment_build two;
    struct segment_build three;
    struct history chain[3];
    uint64_t ends[3];
};

/* H1: a b | lost; H2 forks behind b: c d | lost; H3 forks behind c. With the forks' frames. */
static void family_init(struct family *f) {
    f->disk = sim_disk_create();
    f->chain[0] = h1;
    segment_build_init(&f->one, &h1, 1000);
    segment_build_put(&f->one, "a", "1");
    f->ends[0] = segment_build_put(&f->one, "b", "1");
    segment_build_put(&f->one, "lost1", "1");
    f->chain[1] = after(&h1, 22, f->ends[0]);
    segment_build_init(&f->two, &f->chain[1], f->chain[1].start);
    segment_build_fork(&f->two, f->chain, 2);
    f->ends[1] = segment_build_put(&f->two, "c", "1");
    segment_build_put(&f->two, "lost2", "1");
    f->chain[2] = after(&f->chain[1], 33, f->ends[1]);
    segment_build_init(&f->three, &f->chain[2], f->chain[2].start);
    segment_build_fork(&f->three, f->chain, 3);
    f->ends[2] = segment_build_put(&f->three, "e", "1");
}

static void family_write(struct family *f) {
    const struct io *io = sim_disk_io(f->disk);
    segment_build_write(&f->one, io, ".");
    segment_build_write(&f->two, io, ".");
    segment_build_write(&f->three, io, ".");
}

static void family_fini(struct family *f) {
    segment_build_fini(&f->one);
    segment_build_fini(&f->two);
    segment_build_fini(&f->three);
    sim_disk_destroy(f->disk);
}

START_TEST(the_reader_jumps_at_a_fork) {
    struct family f;
    struct found found;
    family_init(&f);
    family_write(&f);
    expect_found(f.disk, 0, "a b FORK c FORK e", LOG_END);
    read_all(&found, sim_disk_io(f.disk), f.ends[0]); /* at a fork */
    ck_assert_str_eq(found.keys.ptr, "FORK c FORK e");
    ck_assert(found.joins);
    ck_assert_uint_eq(found.first_lsn, f.chain[1].start);
    buf_fini(&found.keys);
    read_all(&found, sim_disk_io(f.disk), f.ends[0] + 7); /* on what was left behind */
    ck_assert_str_eq(found.keys.ptr, "FORK c FORK e");
    ck_assert(!found.joins);
    buf_fini(&found.keys);
    read_all(&found, sim_disk_io(f.disk), f.ends[2]);
    ck_assert_str_eq(found.keys.ptr, "");
    ck_assert(found.joins);
    ck_assert_int_eq(found.how, LOG_END);
    buf_fini(&found.keys);
    read_all(&found, sim_disk_io(f.disk), f.ends[2] + 1000000);
    ck_assert(!found.joins);
    ck_assert_int_eq(found.how, LOG_END);
    buf_fini(&found.keys);
    family_fini(&f);
}
END_TEST

START_TEST(a_parent_that_ends_before_the_fork_is_damage) {
    struct family f;
    family_init(&f);
    f.two.file.ptr[f.two.file.len - 10] ^= 1; /* behind the fork: nobody looks */
    f.one.file.len = SEGMENT_HEADER_LEN + (size_t)(f.ends[0] - 1000); /* exactly up to it */
    family_write(&f);
    struct found found;
    read_all(&found, sim_disk_io(f.disk), 0);
    ck_assert_uint_ge(found.frames, 3);
    buf_fini(&found.keys);
    f.one.file.len -= 1;
    family_write(&f);
    expect_found(f.disk, 0, "a", LOG_DAMAGED);
    expect_found(f.disk, f.chain[2].start, "FORK e", LOG_END);
    family_fini(&f);
}
END_TEST

/* The start after a crash writes its FORK frame; a power cut takes it. The next start forks at the same place. */
START_TEST(a_history_whose_fork_was_not_written_ends_at_its_start) {
    struct family f;
    struct found found;
    family_init(&f);
    f.three.file.len = SEGMENT_HEADER_LEN;
    segment_build_room(&f.three, 8192);
    family_write(&f);
    read_all(&found, sim_disk_io(f.disk), 0);
    ck_assert_str_eq(found.keys.ptr, "a b FORK c");
    ck_assert_int_eq(found.how, LOG_END);
    ck_assert_uint_eq(found.end.lsn, f.ends[1]);
    ck_assert_uint_eq(found.end.at_lsn, f.chain[2].start);
    buf_fini(&found.keys);
    /* the next start */
    struct segment_build again;
    struct history h = f.chain[2];
    h.id = 32;
    f.chain[2] = h;
    segment_build_init(&again, &h, h.start);
    segment_build_fork(&again, f.chain, 3);
    segment_build_put(&again, "again", "1");
    segment_build_write(&again, sim_disk_io(f.disk), ".");
    expect_found(f.disk, 0, "a b FORK c FORK again", LOG_END);
    segment_build_fini(&again);
    family_fini(&f);
}
END_TEST

/* H10, H50: a node that followed one branch is given another one that left the trunk before it. */
START_TEST(an_older_branch_is_abandoned) {
    struct family f;
    struct log_dir d;
    family_init(&f);
    /* H3 forks from H1, behind a: b and all of H2 are left behind */
    uint64_t fork = 1000 + (f.ends[0] - 1000) / 2;
    struct history chain[2] = {h1, {.id = 44, .start = 300000, .epoch = 2, .parent_end = fork}};
    segment_build_fini(&f.three);
    segment_build_init(&f.three, &chain[1], chain[1].start);
    segment_build_fork(&f.three, chain, 2);
    segment_build_put(&f.three, "new", "1");
    struct segment_build late; /* a segment of H1 that begins behind the fork */
    segment_build_init(&late, &h1, f.one.lsn);
    segment_build_put(&late, "late", "1");
    segment_build_write(&late, sim_disk_io(f.disk), ".");
    family_write(&f);
    expect_found(f.disk, 0, "a FORK new", LOG_END);
    ck_assert_int_eq(log_dir_open(&d, sim_disk_io(f.disk), "."), DC_OK);
    ck_assert_uint_eq(d.count, 4);
    ck_assert_uint_eq(d.chain_count, 2);
    ck_assert_uint_eq(log_dir_link_end(&d, 0), fork);
    static const bool abandoned[4] = {false, true, true, false};
    for (uint32_t i = 0; i < d.count; i++) {
        ck_assert_int_eq(d.segments[i].abandoned, abandoned[i]);
    }
    log_dir_close(&d);
    segment_build_fini(&late);
    family_fini(&f);
}
END_TEST

/* Where retention took the segment with the FORK frame, headers tell the chain. */
START_TEST(the_chain_is_found_without_fork_frames) {
    struct family f;
    struct segment_build next;
    family_init(&f);
    segment_build_init(&next, &f.chain[2], f.three.lsn);
    segment_build_put(&next, "n", "1");
    segment_build_write(&next, sim_disk_io(f.disk), ".");
    segment_build_write(&f.two, sim_disk_io(f.disk), ".");
    struct log_dir d;
    ck_assert_int_eq(log_dir_open(&d, sim_disk_io(f.disk), "."), DC_OK);
    ck_assert_uint_eq(d.chain_count, 2);
    ck_assert_uint_eq(d.chain[0].id, 22);
    ck_assert_uint_eq(d.chain[1].id, 33);
    log_dir_close(&d);
    expect_found(f.disk, next.head.first_lsn, "n", LOG_END);
    expect_found(f.disk, 0, "FORK c", LOG_DAMAGED); /* a segment is missing */
    segment_build_fini(&next);
    family_fini(&f);
}
END_TEST

/* Nobody knows the history of a damaged header: it may be the newest. */
START_TEST(a_damaged_first_segment_of_the_newest_history_is_noticed) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build a;
    struct segment_build b;
    segment_build_init(&a, &h1, 1000);
    uint64_t end = segment_build_put(&a, "a", "1");
    struct history chain[2] = {h1, after(&h1, 22, end)};
    segment_build_init(&b, &chain[1], chain[1].start);
    segment_build_fork(&b, chain, 2);
    segment_build_put(&b, "b", "1");
    b.file.ptr[60] ^= 1;
    segment_build_write(&a, sim_disk_io(d), ".");
    segment_build_write(&b, sim_disk_io(d), ".");
    expect_found(d, 0, "a", LOG_DAMAGED);
    b.file.ptr[60] ^= 1;
    segment_build_write(&b, sim_disk_io(d), ".");
    expect_found(d, 0, "a FORK b", LOG_END);
    segment_build_fini(&a);
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

CHECK_MAIN("log_dir", the_reader_jumps_at_a_fork, a_parent_that_ends_before_the_fork_is_damage,
           a_history_whose_fork_was_not_written_ends_at_its_start, an_older_branch_is_abandoned,
           the_chain_is_found_without_fork_frames,
           a_damaged_first_segment_of_the_newest_history_is_noticed)
