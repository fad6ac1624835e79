/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/meta.h"
#include "persist/meta_fmt.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { FLIPS = 60 };

static char dir[TEMP_DIR_MAX];

static void begin(void) {
    temp_dir_make(dir);
}

static void end(void) {
    temp_dir_remove(dir);
}

static void must(enum dc_err err) {
    ck_assert_msg(err == DC_OK, "%s: %s", dc_err_name(err), dc_fail_take(err));
}

static struct meta *open_meta(void) {
    struct meta *m;
    bool rebuilt;
    must(meta_open(dir, &m, &rebuilt));
    ck_assert(!rebuilt);
    return m;
}

static const char *path_of(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

/* Entries of the directory whose name begins like this. */
static uint32_t count_names(const char *prefix) {
    uint32_t count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        count += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    }
    closedir(d);
    return count;
}

static struct meta_file file_of(const char *name, enum file_kind kind, uint64_t first_lsn) {
    struct meta_file f = {.kind = kind,
                          .state = FILE_COMPLETE,
                          .first_lsn = first_lsn,
                          .end_lsn = first_lsn + 10,
                          .durable_lsn = first_lsn + 5,
                          .history = 77,
                          .count = 3,
                          .bytes = 4,
                          .sum = 5,
                          .created_ms = -6};
    snprintf(f.name, sizeof(f.name), "%s", name);
    return f;
}

struct listing {
    uint32_t count;
    char names[512];
    struct meta_file last;
};

static void list_file(void *arg, const struct meta_file *f) {
    struct listing *l = arg;
    size_t len = strlen(l->names);
    l->count++;
    l->last = *f;
    snprintf(l->names + len, sizeof(l->names) - len, "%s ", f->name);
}

static struct listing list_files(struct meta *m) {
    struct listing l = {.count = 0};
    must(meta_each_file(m, list_file, &l));
    return l;
}

/* --- what is stored ------------------------------------------------------------------------------------------------------ */

START_TEST(a_new_directory_knows_nothing) {
    struct meta_node node;
    struct history chain[2];
    uint32_t count = 9;
    char text[8] = "x";
    begin();
    struct meta *m = open_meta();
    must(meta_get_node(m, &node));
    ck_assert(!node.known);
    must(meta_get_chain(m, chain, 2, &count));
    ck_assert_uint_eq(count, 0);
    must(meta_get_text(m, "role", text, sizeof(text)));
    ck_assert_str_eq(text, "");
    ck_assert_uint_eq(list_files(m).count, 0);
    meta_close(m);
    end();
}
END_TEST

START_TEST(node_and_chain_are_there_after_a_restart) {
    struct meta_node node = {.node_id = "0123456789abcde", .seed = "seed", .known = true};
    struct meta_node found;
    struct history chain[3] = {{1, 2, 3, 0}, {UINT64_MAX, 5, 6, 7}, {8, LSN_MAX, 10, 11}};
    struct history got[3];
    uint32_t count;
    begin();
    struct meta *m = open_meta();
    must(meta_put_node(m, &node));
    must(meta_put_chain(m, chain, 3));
    meta_close(m);
    m = open_meta();
    must(meta_get_node(m, &found));
    ck_assert(found.known);
    ck_assert_mem_eq(found.node_id, node.node_id, NODE_ID_LEN);
    ck_assert_mem_eq(found.seed, node.seed, SEED_LEN);
    must(meta_get_chain(m, got, 3, &count));
    ck_assert_uint_eq(count, 3);
    ck_assert_mem_eq(got, chain, sizeof(chain));
    ck_assert_int_eq(meta_get_chain(m, got, 2, &count), DC_ELIMIT);
    ck_assert_uint_eq(count, 0);
    must(meta_put_chain(m, chain, 0));
    must(meta_get_chain(m, got, 3, &count));
    ck_assert_uint_eq(count, 0);
    meta_close(m);
    end();
}
END_TEST

START_TEST(a_chain_may_have_a_thousand_links) {
    enum { LINKS = 1024 };
    static struct history chain[LINKS];
    static struct history got[LINKS];
    uint32_t count;
    begin();
    for (uint64_t i = 0; i < LINKS; i++) {
        chain[i] = (struct history){i + 1, i * i, i, i * 7};
    }
    struct meta *m = open_meta();
    must(meta_put_chain(m, chain, LINKS));
    must(meta_get_chain(m, got, LINKS, &count));
    ck_assert_uint_eq(count, LINKS);
    ck_assert_mem_eq(got, chain, sizeof(chain));
    meta_close(m);
    end();
}
END_TEST

static void note_text(void *arg, const char *name, const char *value) {
    char *to = arg;
    size_t len = strlen(to);
    snprintf(to + len, 128 - len, "%s=%s;", name, value);
}

START_TEST(texts_are_kept_by_name) {
    char text[32];
    char all[128] = "";
    char huge[META_TEXT_MAX + 1];
    begin();
    struct meta *m = open_meta();
    must(meta_put_text(m, "role", "primary"));
    must(meta_put_text(m, "role", "replica"));
    must(meta_put_text(m, "primary", "10.0.0.1:6379"));
    must(meta_put_text(m, "empty", ""));
    must(meta_get_text(m, "role", text, sizeof(text)));
    ck_assert_str_eq(text, "replica");
    must(meta_get_text(m, "role", text, strlen("replica") + 1));
    ck_assert_int_eq(meta_get_text(m, "role", text, strlen("replica")), DC_ELIMIT);
    ck_assert_str_eq(text, "");
    must(meta_each_text(m, note_text, all));
    ck_assert_str_eq(all, "empty=;primary=10.0.0.1:6379;role=replica;");
    memset(huge, 'x', sizeof(huge));
    huge[META_TEXT_MAX] = '\0';
    ck_assert_int_eq(meta_put_text(m, "huge", huge), DC_ELIMIT);
    huge[META_TEXT_MAX - 1] = '\0';
    must(meta_put_text(m, "huge", huge));
    meta_close(m);
    meta_close(open_meta());
    end();
}
END_TEST

START_TEST(the_catalogue_is_sorted_by_kind_position_and_name) {
    struct meta_file files[] = {file_of("snap-2", FILE_SNAPSHOT, 5),
                                file_of("log-3", FILE_SEGMENT, 300),
                                file_of("log-2b", FILE_SEGMENT, 200),
                                file_of("log-2a", FILE_SEGMENT, 200), file_of("cut", FILE_SIDE, 1)};
    begin();
    struct meta *m = open_meta();
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        must(meta_put_file(m, &files[i]));
    }
    struct listing l = list_files(m);
    ck_assert_str_eq(l.names, "log-2a log-2b log-3 snap-2 cut ");
    ck_assert_mem_eq(&l.last, &files[4], sizeof(l.last));
    files[1].state = FILE_BAD;
    must(meta_put_file(m, &files[1])); /* replaces */
    must(meta_drop_file(m, "log-2a"));
    must(meta_drop_file(m, "log-2a"));
    must(meta_drop_file(m, "never"));
    ck_assert_str_eq(list_files(m).names, "log-2b log-3 snap-2 cut ");
    must(meta_set_files(m, files, 2));
    meta_close(m);
    m = open_meta();
    l = list_files(m);
    ck_assert_str_eq(l.names, "log-3 snap-2 ");
    must(meta_drop_files(m, files, 2));
    must(meta_set_files(m, NULL, 0));
    ck_assert_uint_eq(list_files(m).count, 0);
    meta_close(m);
    end();
}
END_TEST

START_TEST(a_catalogue_larger_than_the_map_makes_it_grow) {
    enum { FILES = 40000 };
    struct meta_file *files = mem_must_zalloc(FILES * sizeof(*files));
    begin();
    for (uint64_t i = 0; i < FILES; i++) {
        char name[48];
        snprintf(name, sizeof(name), "log-%016" PRIx64 "-0000000000000001.dcl", i);
        files[i] = file_of(name, FILE_SEGMENT, i);
    }
    struct meta *m = open_meta();
    must(meta_set_files(m, files, FILES));
    meta_close(m);
    m = open_meta(); /* with the small map again */
    ck_assert_uint_eq(list_files(m).count, FILES);
    must(meta_set_files(m, files, FILES));
    must(meta_drop_files(m, files, FILES - 1));
    ck_assert_uint_eq(list_files(m).count, 1);
    meta_close(m);
    mem_free(files);
    end();
}
END_TEST

static void *hammer(void *arg) {
    struct meta *m = arg;
    char text[32];
    for (int i = 0; i < 20; i++) {
        struct meta_file f = file_of("one", FILE_SEGMENT, (uint64_t)i);
        expect_eq(meta_put_file(m, &f), DC_OK);
        expect_eq(meta_get_text(m, "role", text, sizeof(text)), DC_OK);
        expect_eq(list_files(m).count, 1);
    }
    return NULL;
}

START_TEST(several_threads_take_turns) {
    pthread_t threads[3];
    begin();
    struct meta *m = open_meta();
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, m), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    meta_close(m);
    end();
}
END_TEST

/* --- processes ----------------------------------------------------------------------------------------------------------- */

START_TEST(what_a_call_has_stored_survives_kill) {
    begin();
    _Atomic uint64_t *stored =
        mmap(NULL, sizeof(*stored), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 5; round++) {
        uint64_t before = atomic_load(stored);
        pid_t pid = fork();
        if (pid == 0) {
            struct meta *m = open_meta();
            for (uint64_t i = before + 1;; i++) {
                struct meta_file f = file_of("counter", FILE_SEGMENT, i);
                must(meta_put_file(m, &f));
                atomic_store(stored, i);
            }
        }
        while (atomic_load(stored) < before + 5) {
            usleep(1000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        struct meta *m = open_meta();
        struct listing l = list_files(m);
        ck_assert_uint_ge(l.last.first_lsn, atomic_load(stored));
        ck_assert_uint_le(l.last.first_lsn, atomic_load(stored) + 1);
        meta_close(m);
    }
    munmap((void *)(uintptr_t)stored, sizeof(*stored));
    end();
}
END_TEST

START_TEST(a_tool_reads_while_the_node_writes) {
    int ready[2];
    begin();
    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct meta *m = open_meta();
        for (uint64_t i = 0;; i++) {
            struct meta_file f = file_of("counter", FILE_SEGMENT, i);
            must(meta_put_file(m, &f));
            if (i == 0 && write(ready[1], "x", 1) != 1) {
                _exit(1);
            }
        }
    }
    char c;
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    for (int i = 0; i < 20; i++) {
        struct meta *m;
        must(meta_open_read_only(dir, &m));
        ck_assert_uint_eq(list_files(m).count, 1);
        meta_close(m);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    end();
}
END_TEST

static void write_read_only(void *arg) {
    (void)arg;
    struct meta *m;
    must(meta_open_read_only(dir, &m));
    must(meta_put_text(m, "role", "x"));
}

START_TEST(a_tool_creates_and_changes_nothing) {
    struct meta *m;
    begin();
    ck_assert_int_eq(meta_open_read_only(dir, &m), DC_EIO);
    ck_assert_ptr_null(m);
    ck_assert_uint_eq(count_names("meta"), 0);
    meta_close(open_meta());
    ck_assert(test_aborts(write_read_only, NULL));
    ck_assert_int_eq(truncate(path_of("meta/data.mdb"), 4096), 0);
    ck_assert_int_eq(meta_open_read_only(dir, &m), DC_ECORRUPT);
    ck_assert_uint_eq(count_names("meta"), 1);
    end();
}
END_TEST

/* H36 */
START_TEST(h36_a_second_process_is_refused_by_name) {
    char pid_text[32];
    int fd;
    int again;
    begin();
    must(data_lock(dir, &fd));
    pid_t pid = fork();
    if (pid == 0) {
        enum dc_err err = data_lock(dir, &again);
        const char *text = dc_fail_take(err);
        snprintf(pid_text, sizeof(pid_text), "pid %d)", (int)getppid());
        _exit(err == DC_EDIRBUSY && strstr(text, dir) != NULL && strstr(text, pid_text) != NULL
                  ? 0
                  : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
    close(fd);
    must(data_lock(dir, &fd)); /* free again */
    close(fd);
    end();
    ck_assert_int_eq(data_lock(dir, &fd), DC_EIO);
}
END_TEST

/* --- damage -------------------------------------------------------------------------------------------------------------- */

static const char role[] = "a text that is easily found";

static void fill(void) {
    struct meta_node node = {.node_id = "node", .seed = "seed", .known = true};
    struct history chain[2] = {{1, 2, 3, 0}, {4, 5, 6, 7}};
    struct meta *m = open_meta();
    must(meta_put_node(m, &node));
    must(meta_put_chain(m, chain, 2));
    must(meta_put_text(m, "role", role));
    for (uint64_t i = 0; i < 30; i++) {
        char name[16];
        snprintf(name, sizeof(name), "log-%02" PRIu64, i);
        struct meta_file f = file_of(name, FILE_SEGMENT, i);
        must(meta_put_file(m, &f));
    }
    meta_close(m);
}

static char *slurp(const char *path, size_t *len) {
    struct stat st;
    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    fstat(fd, &st);
    char *all = mem_must_alloc((size_t)st.st_size);
    ck_assert_int_eq(read(fd, all, (size_t)st.st_size), st.st_size);
    close(fd);
    *len = (size_t)st.st_size;
    return all;
}

static void spit(const char *path, const char *all, size_t len) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, all, len), (ssize_t)len);
    close(fd);
}

/* Changes the file wherever the bytes of 'text' stand. */
static void edit(const char *text, void (*change)(char *at)) {
    size_t len, count = 0;
    char *all = slurp(path_of("meta/data.mdb"), &len), *at = all;
    while ((at = memmem(at, (size_t)(all + len - at), text, strlen(text))) != NULL) {
        change(at);
        at += strlen(text);
        count++;
    }
    ck_assert_uint_gt(count, 0);
    spit(path_of("meta/data.mdb"), all, len);
    mem_free(all);
}

static void flip_a_bit(char *at) {
    *at ^= 0x20;
}

START_TEST(a_damaged_value_moves_the_environment_aside) {
    struct meta_node node;
    struct meta *m;
    bool rebuilt;
    begin();
    fill();
    edit("easily", flip_a_bit);
    must(meta_open(dir, &m, &rebuilt));
    ck_assert(rebuilt);
    ck_assert_uint_eq(count_names("meta.damaged-"), 1);
    must(meta_get_node(m, &node));
    ck_assert(!node.known);
    meta_close(m);
    fill(); /* it can be used, and opens again */
    end();
}
END_TEST

START_TEST(no_flipped_byte_is_fatal_or_believed) {
    struct rng r = test_rng();
    size_t len;
    uint32_t moved = 0;
    begin();
    fill();
    char *all = slurp(path_of("meta/data.mdb"), &len);
    for (int i = 0; i < FLIPS; i++) {
        struct meta_node node;
        struct meta *m;
        bool rebuilt;
        size_t at = rng_below(&r, len);
        char old = all[at];
        all[at] = (char)(old ^ (1 << rng_below(&r, 8)));
        spit(path_of("meta/data.mdb"), all, len);
        all[at] = old;
        must(meta_open(dir, &m, &rebuilt));
        must(meta_get_node(m, &node));
        if (node.known) {
            ck_assert_str_eq((const char *)node.node_id, "node");
        }
        struct listing l = list_files(m);
        ck_assert(l.count == 0 || l.last.history == 77);
        must(meta_put_text(m, "role", "y"));
        meta_close(m);
        moved += rebuilt;
    }
    mem_free(all);
    printf("%u of %d flips moved the environment aside\n", moved, FLIPS);
    end();
}
END_TEST

START_TEST(a_cut_or_foreign_environment_is_moved_aside) {
    static char junk[10000];
    struct meta *m;
    bool rebuilt;
    begin();
    fill();
    for (off_t len = 1; len < 32768; len += 4095) {
        ck_assert_int_eq(truncate(path_of("meta/data.mdb"), len), 0);
        must(meta_open(dir, &m, &rebuilt));
        ck_assert_msg(rebuilt, "cut to %d bytes", (int)len);
        meta_close(m);
        fill();
    }
    memset(junk, 'j', sizeof(junk));
    spit(path_of("meta/data.mdb"), junk, sizeof(junk));
    must(meta_open(dir, &m, &rebuilt));
    ck_assert(rebuilt);
    meta_close(m);
    end();
}
END_TEST

static bool child_is_killed; /* as soon as it closes what it has of its parent */

int close_range(unsigned first, unsigned last, int flags) {
    if (child_is_killed) {
        raise(SIGKILL);
    }
    return (int)syscall(SYS_close_range, first, last, flags);
}

/* It says nothing of the environment: nothing is changed, and the next start reads it. */
START_TEST(a_child_that_is_killed_moves_nothing_aside) {
    char text[META_TEXT_MAX];
    struct meta *m;
    bool rebuilt;
    begin();
    fill();
    child_is_killed = true;
    ck_assert_int_eq(meta_open(dir, &m, &rebuilt), DC_EIO);
    ck_assert_ptr_nonnull(
        strstr(dc_fail_take(DC_EIO), path_of("meta: open: a child that read it was killed")));
    ck_assert(!rebuilt);
    ck_assert_int_eq(meta_open_read_only(dir, &m), DC_EIO);
    child_is_killed = false;
    ck_assert_uint_eq(count_names("meta"), 1);
    m = open_meta();
    must(meta_get_text(m, "role", text, sizeof(text)));
    ck_assert_str_eq(text, role);
    meta_close(m);
    end();
}
END_TEST

/* The value of a newer program: it begins with its version and ends with its sum. */
static void make_newer(char *text) {
    char *value = text - 1;
    size_t len = strlen(role) + 1;
    value[0] = META_VALUE_VERSION + 1;
    put_u64(value + len, sum64(value, len, sum64("role", 4, META_TEXT + 1)));
}

/* Not damage: it isn't moved aside, and nothing is changed. */
START_TEST(metadata_of_a_newer_format_is_refused_by_name) {
    struct meta *m;
    bool rebuilt;
    size_t len, len_after;
    begin();
    fill();
    edit(role, make_newer);
    char *all = slurp(path_of("meta/data.mdb"), &len);
    ck_assert_int_eq(meta_open(dir, &m, &rebuilt), DC_ENEWER);
    ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_ENEWER), path_of("meta has a newer format")));
    ck_assert_int_eq(meta_open_read_only(dir, &m), DC_ENEWER);
    ck_assert_uint_eq(count_names("meta"), 1);
    char *after = slurp(path_of("meta/data.mdb"), &len_after);
    ck_assert_uint_eq(len_after, len);
    ck_assert_mem_eq(after, all, len);
    mem_free(after);
    mem_free(all);
    end();
}
END_TEST

START_TEST(values_of_another_name_or_kind_do_not_decode) {
    char raw[64];
    struct bytes payload;
    struct bytes name = BYTES("role");
    struct bytes text = BYTES("primary");
    size_t len = text.len + META_VALUE_FRAME_LEN;
    meta_value_write(META_TEXT, name, text, raw);
    ck_assert(meta_value_read(META_TEXT, name, bytes_of(raw, len), &payload));
    ck_assert(bytes_equal(payload, text));
    ck_assert(!meta_value_read(META_TEXT, BYTES("rule"), bytes_of(raw, len), &payload));
    ck_assert(!meta_value_read(META_NODE, name, bytes_of(raw, len), &payload));
    struct bytes two = bytes_of("a\0b", 3); /* read as strings: what follows would be another one */
    meta_value_write(META_TEXT, name, two, raw);
    ck_assert(!meta_value_read(META_TEXT, name, bytes_of(raw, 3 + META_VALUE_FRAME_LEN), &payload));
    meta_value_write(META_TEXT, two, text, raw);
    ck_assert(!meta_value_read(META_TEXT, two, bytes_of(raw, len), &payload));
    meta_value_write(META_TEXT, name, text, raw);
    for (size_t i = 0; i < len; i++) {
        ck_assert(!meta_value_read(META_TEXT, name, bytes_of(raw, i), &payload));
        for (int bit = 0; bit < 8; bit++) {
            raw[i] = (char)(raw[i] ^ (1 << bit));
            ck_assert(!meta_value_read(META_TEXT, name, bytes_of(raw, len), &payload));
            raw[i] = (char)(raw[i] ^ (1 << bit));
        }
    }
}
END_TEST

CHECK_MAIN("meta", a_new_directory_knows_nothing, node_and_chain_are_there_after_a_restart,
           a_chain_may_have_a_thousand_links, texts_are_kept_by_name,
           the_catalogue_is_sorted_by_kind_position_and_name,
           a_catalogue_larger_than_the_map_makes_it_grow, several_threads_take_turns,
           what_a_call_has_stored_survives_kill, a_tool_reads_while_the_node_writes,
           a_tool_creates_and_changes_nothing, h36_a_second_process_is_refused_by_name,
           a_damaged_value_moves_the_environment_aside, no_flipped_byte_is_fatal_or_believed,
           a_cut_or_foreign_environment_is_moved_aside, a_child_that_is_killed_moves_nothing_aside,
           metadata_of_a_newer_format_is_refused_by_name,
           values_of_another_name_or_kind_do_not_decode)
