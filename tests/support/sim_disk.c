/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/sim_disk.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/rng.h"
#include "tests/support/sim_disk_priv.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

/* --- contents ---------------------------------------------------------------------------------------- */

/* Makes the first 'len' bytes real. */
static void content_fill(struct sim_content *c, uint64_t len) {
    if (c->bytes.len < len) {
        size_t more = (size_t)len - c->bytes.len;
        char *room = buf_room(&c->bytes, more);
        dc_assert(room != NULL);
        memset(room, 0, more);
        c->bytes.len += more;
    }
}

static void content_write(struct sim_content *c, uint64_t at, const void *ptr, size_t len) {
    if (len == 0) {
        return;
    }
    content_fill(c, at + len);
    memcpy(c->bytes.ptr + at, ptr, len);
    c->len = c->len > at + len ? c->len : at + len;
}

static void content_set_len(struct sim_content *c, uint64_t len) {
    c->bytes.len = c->bytes.len < len ? c->bytes.len : (size_t)len;
    c->len = len;
}

size_t sim_content_read(const struct sim_content *c, uint64_t at, void *to, size_t len) {
    if (at >= c->len) {
        return 0;
    }
    len = len < c->len - at ? len : (size_t)(c->len - at);
    size_t real = at >= c->bytes.len ? 0 : (size_t)(c->bytes.len - at);
    real = real < len ? real : len;
    if (real > 0) {
        memcpy(to, c->bytes.ptr + at, real);
    }
    memset((char *)to + real, 0, len - real);
    return len;
}

static void content_copy(struct sim_content *to, const struct sim_content *from) {
    to->bytes.len = 0;
    buf_append(&to->bytes, from->bytes.ptr, from->bytes.len);
    dc_assert(!to->bytes.failed);
    to->len = from->len;
}

/* --- files ------------------------------------------------------------------------------------------- */

struct sim_file *sim_file_create(struct sim_disk *d) {
    struct sim_file *f = mem_must_zalloc(sizeof(*f));
    buf_init(&f->now.bytes, 0);
    buf_init(&f->safe.bytes, 0);
    f->next = d->files;
    d->files = f;
    return f;
}

static void file_destroy(struct sim_file *f) {
    buf_fini(&f->now.bytes);
    buf_fini(&f->safe.bytes);
    mem_free(f->changes);
    mem_free(f);
}

static struct sim_change *file_add_change(struct sim_disk *d, struct sim_file *f) {
    if (f->count == f->cap) {
        f->cap = f->cap == 0 ? 16 : 2 * f->cap;
        f->changes = mem_must_realloc(f->changes, f->cap * sizeof(*f->changes));
    }
    struct sim_change *c = &f->changes[f->count++];
    memset(c, 0, sizeof(*c));
    c->seq = ++d->seq;
    return c;
}

void sim_file_set_len(struct sim_disk *d, struct sim_file *f, uint64_t len) {
    if (len != f->now.len) {
        struct sim_change *c = file_add_change(d, f);
        c->sector = SIM_LENGTH;
        c->len = len;
        content_set_len(&f->now, len);
    }
}

void sim_file_write(struct sim_disk *d, struct sim_file *f, uint64_t at, const void *ptr,
                    size_t len) {
    if (len == 0) {
        return;
    }
    if (at + len > f->now.len) {
        sim_file_set_len(d, f, at + len);
    }
    content_write(&f->now, at, ptr, len);
    for (uint64_t s = at / SIM_SECTOR_LEN; s * SIM_SECTOR_LEN < at + len; s++) {
        struct sim_change *c = file_add_change(d, f);
        c->sector = s;
        sim_content_read(&f->now, s * SIM_SECTOR_LEN, c->bytes, SIM_SECTOR_LEN);
    }
}

/* A change reaches 'c'. A sector may lie behind the end that the file has there. */
static void change_apply(struct sim_content *c, const struct sim_change *change) {
    if (change->sector == SIM_LENGTH) {
        uint64_t len = change->len;
        c->bytes.len = c->bytes.len < len ? c->bytes.len : (size_t)len;
        c->len = len;
        return;
    }
    uint64_t at = change->sector * SIM_SECTOR_LEN;
    if (at < c->len) {
        uint64_t room = c->len - at;
        content_write(c, at, change->bytes, room < SIM_SECTOR_LEN ? (size_t)room : SIM_SECTOR_LEN);
    }
}

/* Changes up to 'seq' reach the disk, or are forgotten. */
void sim_file_settle(struct sim_file *f, uint64_t seq, bool forget) {
    size_t i = 0;
    for (; i < f->count && f->changes[i].seq <= seq; i++) {
        if (!forget) {
            change_apply(&f->safe, &f->changes[i]);
        }
    }
    if (i > 0) {
        memmove(f->changes, f->changes + i, (f->count - i) * sizeof(*f->changes));
        f->count -= i;
    }
}

/* --- names ------------------------------------------------------------------------------------------- */

struct sim_name *sim_names_find(const struct sim_names *n, const char *path) {
    for (size_t i = 0; i < n->count; i++) {
        if (strcmp(n->list[i].path, path) == 0) {
            return &n->list[i];
        }
    }
    return NULL;
}

static void names_remove(struct sim_names *n, const char *path) {
    struct sim_name *found = sim_names_find(n, path);
    if (found != NULL) {
        mem_free(found->path);
        *found = n->list[--n->count];
    }
}

static void names_add(struct sim_names *n, const char *path, struct sim_file *f) {
    struct sim_name *found = sim_names_find(n, path);
    if (found != NULL) {
        found->file = f;
        return;
    }
    n->list = mem_must_realloc(n->list, (n->count + 1) * sizeof(*n->list));
    n->list[n->count++] = (struct sim_name){mem_must_strdup(path), f};
}

static void names_fini(struct sim_names *n) {
    for (size_t i = 0; i < n->count; i++) {
        mem_free(n->list[i].path);
    }
    for (size_t i = 0; i < n->dir_count; i++) {
        mem_free(n->dirs[i]);
    }
    mem_free(n->list);
    mem_free(n->dirs);
}

static bool is_or_is_below(const char *path, const char *dir) {
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* The path behind the rename of a directory that it is, or is below. */
static void move_path(char **path, const char *gone, const char *came) {
    const char *rest = *path + strlen(gone);
    size_t len = strlen(came);
    char *to = mem_must_alloc(len + strlen(rest) + 1);
    memcpy(to, came, len);
    memcpy(to + len, rest, strlen(rest) + 1);
    mem_free(*path);
    *path = to;
}

static void names_remove_dir(struct sim_names *n, const char *path) {
    for (size_t i = n->count; i-- > 0;) {
        if (is_or_is_below(n->list[i].path, path)) {
            mem_free(n->list[i].path);
            n->list[i] = n->list[--n->count];
        }
    }
    for (size_t i = n->dir_count; i-- > 0;) {
        if (is_or_is_below(n->dirs[i], path)) {
            mem_free(n->dirs[i]);
            n->dirs[i] = n->dirs[--n->dir_count];
        }
    }
}

/* Takes the place of an empty one, if there is one. */
static void names_rename_dir(struct sim_names *n, const char *gone, const char *came) {
    names_remove_dir(n, came);
    for (size_t i = 0; i < n->count; i++) {
        if (is_or_is_below(n->list[i].path, gone)) {
            move_path(&n->list[i].path, gone, came);
        }
    }
    for (size_t i = 0; i < n->dir_count; i++) {
        if (is_or_is_below(n->dirs[i], gone)) {
            move_path(&n->dirs[i], gone, came);
        }
    }
}

static void names_apply(struct sim_names *n, const struct sim_name_change *c) {
    if (c->file == NULL && c->came == NULL) {
        names_remove_dir(n, c->gone);
        return;
    }
    if (c->file == NULL) {
        names_rename_dir(n, c->gone, c->came);
        return;
    }
    if (c->gone != NULL) {
        const struct sim_name *old = sim_names_find(n, c->gone);
        if (old != NULL && old->file == c->file) {
            names_remove(n, c->gone);
        }
    }
    if (c->came != NULL) {
        names_add(n, c->came, c->file);
    }
}

void sim_names_change(struct sim_disk *d, struct sim_file *f, const char *gone, const char *came) {
    d->changes = mem_must_realloc(d->changes, (d->change_count + 1) * sizeof(*d->changes));
    struct sim_name_change *c = &d->changes[d->change_count++];
    *c = (struct sim_name_change){.seq = ++d->seq,
                                  .file = f,
                                  .gone = gone != NULL ? mem_must_strdup(gone) : NULL,
                                  .came = came != NULL ? mem_must_strdup(came) : NULL};
    names_apply(&d->now, c);
}

static size_t dir_len(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
}

/* Whether 'path' is an entry of the directory. */
bool sim_is_in_dir(const char *path, const char *dir) {
    size_t len = dir_len(path);
    if (len == 0) {
        return strcmp(dir, ".") == 0;
    }
    size_t want = strlen(dir);
    want -= want > 1 && dir[want - 1] == '/' ? 1 : 0;
    return len == want && memcmp(path, dir, len) == 0;
}

/* Without a slash at its end. */
static size_t path_len(const char *path) {
    size_t len = strlen(path);
    return len - (len > 1 && path[len - 1] == '/' ? 1 : 0);
}

static char **find_dir(const struct sim_names *n, const char *path) {
    size_t len = path_len(path);
    for (size_t i = 0; i < n->dir_count; i++) {
        if (strlen(n->dirs[i]) == len && memcmp(n->dirs[i], path, len) == 0) {
            return &n->dirs[i];
        }
    }
    return NULL;
}

bool sim_dir_exists(const struct sim_disk *d, const char *path) {
    return find_dir(&d->now, path) != NULL;
}

static bool parent_exists(const struct sim_names *n, const char *path) {
    for (size_t i = 0; i < n->dir_count; i++) {
        if (sim_is_in_dir(path, n->dirs[i])) {
            return true;
        }
    }
    return false;
}

bool sim_parent_exists(const struct sim_disk *d, const char *path) {
    return parent_exists(&d->now, path);
}

static void names_add_dir(struct sim_names *n, const char *path) {
    if (find_dir(n, path) == NULL) {
        n->dirs = mem_must_realloc(n->dirs, (n->dir_count + 1) * sizeof(*n->dirs));
        char *copy = mem_must_strdup(path);
        copy[path_len(copy)] = '\0';
        n->dirs[n->dir_count++] = copy;
    }
}

static void name_change_fini(struct sim_name_change *c) {
    mem_free(c->gone);
    mem_free(c->came);
}

/* Where one was removed, that is durable too: so the new one isn't removed with it. */
void sim_add_dir(struct sim_disk *d, const char *path) {
    size_t kept = 0;
    for (size_t i = 0; i < d->change_count; i++) {
        struct sim_name_change *c = &d->changes[i];
        if (c->file == NULL && strcmp(c->gone, path) == 0) {
            names_apply(&d->safe, c);
            name_change_fini(c);
        } else {
            d->changes[kept++] = *c;
        }
    }
    d->change_count = kept;
    names_add_dir(&d->now, path);
    names_add_dir(&d->safe, path);
}

void sim_settle_dir(struct sim_disk *d, const char *dir, uint64_t seq) {
    size_t kept = 0;
    for (size_t i = 0; i < d->change_count; i++) {
        struct sim_name_change *c = &d->changes[i];
        const char *path = c->came != NULL ? c->came : c->gone;
        if (c->seq <= seq && sim_is_in_dir(path, dir)) {
            names_apply(&d->safe, c);
            name_change_fini(c);
        } else {
            d->changes[kept++] = *c;
        }
    }
    d->change_count = kept;
}

uint64_t sim_used(const struct sim_disk *d) {
    uint64_t sum = 0;
    for (size_t i = 0; i < d->now.count; i++) {
        sum += d->now.list[i].file->now.len;
    }
    return sum;
}

/* --- the power cut ----------------------------------------------------------------------------------- */

/* Decides which changes survive. */
struct cut {
    enum sim_cut how;
    struct rng rng;
    uint64_t bias;   /* of 256, RANDOM */
    uint64_t moment; /* IN_ORDER, REORDER */
};

static bool survives(struct cut *c, uint64_t seq) {
    switch (c->how) {
    case SIM_CUT_NOTHING:
        return false;
    case SIM_CUT_ALL:
        return true;
    case SIM_CUT_RANDOM:
        return rng_below(&c->rng, 256) < c->bias;
    case SIM_CUT_IN_ORDER:
        return seq < c->moment;
    case SIM_CUT_REORDER:
        return seq >= c->moment;
    case SIM_CUT_COUNT:
        break;
    }
    dc_unreachable();
}

static void cut_init(struct cut *c, const struct sim_disk *d, enum sim_cut how, uint64_t seed) {
    uint64_t oldest = UINT64_MAX;
    uint64_t newest = 0;
    for (const struct sim_file *f = d->files; f != NULL; f = f->next) {
        for (size_t i = 0; i < f->count; i++) {
            oldest = f->changes[i].seq < oldest ? f->changes[i].seq : oldest;
            newest = f->changes[i].seq > newest ? f->changes[i].seq : newest;
        }
    }
    for (size_t i = 0; i < d->change_count; i++) {
        oldest = d->changes[i].seq < oldest ? d->changes[i].seq : oldest;
        newest = d->changes[i].seq > newest ? d->changes[i].seq : newest;
    }
    *c = (struct cut){.how = how};
    rng_seed(&c->rng, seed);
    c->bias = rng_below(&c->rng, 257);
    c->moment = newest == 0 ? 0 : oldest + rng_below(&c->rng, newest - oldest + 2);
}

static void crash_files(struct sim_disk *d, struct sim_disk *to, struct cut *c) {
    for (struct sim_file *f = d->files; f != NULL; f = f->next) {
        f->twin = sim_file_create(to);
        content_copy(&f->twin->safe, &f->safe);
        for (size_t i = 0; i < f->count; i++) {
            if (survives(c, f->changes[i].seq)) {
                change_apply(&f->twin->safe, &f->changes[i]);
            }
        }
        content_copy(&f->twin->now, &f->twin->safe);
    }
}

/* Files of a directory that isn't there: it has another name, or none. */
static void drop_orphans(struct sim_names *n) {
    for (size_t i = n->count; i-- > 0;) {
        if (!parent_exists(n, n->list[i].path)) {
            mem_free(n->list[i].path);
            n->list[i] = n->list[--n->count];
        }
    }
}

static void crash_names(struct sim_disk *d, struct sim_disk *to, struct cut *c) {
    for (size_t i = 0; i < d->safe.dir_count; i++) {
        names_add_dir(&to->safe, d->safe.dirs[i]);
    }
    for (size_t i = 0; i < d->safe.count; i++) {
        names_add(&to->safe, d->safe.list[i].path, d->safe.list[i].file->twin);
    }
    for (size_t i = 0; i < d->change_count; i++) {
        if (survives(c, d->changes[i].seq)) {
            struct sim_name_change moved = d->changes[i];
            moved.file = moved.file != NULL ? moved.file->twin : NULL;
            names_apply(&to->safe, &moved);
        }
    }
    drop_orphans(&to->safe);
    for (size_t i = 0; i < to->safe.dir_count; i++) {
        names_add_dir(&to->now, to->safe.dirs[i]);
    }
    for (size_t i = 0; i < to->safe.count; i++) {
        names_add(&to->now, to->safe.list[i].path, to->safe.list[i].file);
    }
}

struct sim_disk *sim_disk_crash(struct sim_disk *d, enum sim_cut how, uint64_t seed) {
    struct sim_disk *to = sim_disk_create();
    struct cut c;
    pthread_mutex_lock(&d->mutex);
    cut_init(&c, d, how, seed);
    crash_files(d, to, &c);
    crash_names(d, to, &c);
    to->capacity = d->capacity;
    pthread_mutex_unlock(&d->mutex);
    return to;
}

/* --- the disk ---------------------------------------------------------------------------------------- */

struct sim_disk *sim_disk_create(void) {
    enum { TRACE_MAX = 4 * 1024 * 1024 }; /* what comes behind is left out */
    struct sim_disk *d = mem_must_zalloc(sizeof(*d));
    d->io = sim_io;
    d->io.arg = d;
    d->capacity = UINT64_MAX;
    pthread_mutex_init(&d->mutex, NULL);
    buf_init(&d->trace, TRACE_MAX);
    sim_add_dir(d, ".");
    sim_add_dir(d, "/");
    return d;
}

void sim_disk_destroy(struct sim_disk *d) {
    if (d == NULL) {
        return;
    }
    for (struct sim_file *f = d->files; f != NULL;) {
        struct sim_file *next = f->next;
        file_destroy(f);
        f = next;
    }
    names_fini(&d->now);
    names_fini(&d->safe);
    for (size_t i = 0; i < d->change_count; i++) {
        name_change_fini(&d->changes[i]);
    }
    for (size_t i = 0; i < d->handle_count; i++) {
        mem_free(d->handles[i].path);
    }
    mem_free(d->changes);
    mem_free(d->handles);
    mem_free(d->maps);
    buf_fini(&d->trace);
    pthread_mutex_destroy(&d->mutex);
    mem_free(d);
}

const struct io *sim_disk_io(const struct sim_disk *d) {
    return &d->io;
}

uint64_t sim_disk_unsynced(struct sim_disk *d) {
    pthread_mutex_lock(&d->mutex);
    uint64_t count = d->change_count;
    for (const struct sim_file *f = d->files; f != NULL; f = f->next) {
        count += f->count;
    }
    pthread_mutex_unlock(&d->mutex);
    return count;
}

void sim_disk_fail(struct sim_disk *d, enum sim_call kind, uint64_t n, uint64_t times, int err) {
    pthread_mutex_lock(&d->mutex);
    d->faults[kind] = (struct sim_fault){times > 0 ? n : 0, times, err};
    pthread_mutex_unlock(&d->mutex);
}

void sim_disk_set_capacity(struct sim_disk *d, uint64_t len) {
    pthread_mutex_lock(&d->mutex);
    d->capacity = len;
    pthread_mutex_unlock(&d->mutex);
}

uint64_t sim_disk_used(struct sim_disk *d) {
    pthread_mutex_lock(&d->mutex);
    uint64_t len = sim_used(d);
    pthread_mutex_unlock(&d->mutex);
    return len;
}

void sim_disk_stop_after(struct sim_disk *d, uint64_t n) {
    pthread_mutex_lock(&d->mutex);
    d->stop_after = n > 0 ? d->done + n : 0;
    pthread_mutex_unlock(&d->mutex);
}

uint64_t sim_disk_changes(struct sim_disk *d) {
    pthread_mutex_lock(&d->mutex);
    uint64_t done = d->done;
    pthread_mutex_unlock(&d->mutex);
    return done;
}

uint64_t sim_disk_calls(struct sim_disk *d, enum sim_call kind) {
    pthread_mutex_lock(&d->mutex);
    uint64_t calls = d->calls[kind];
    pthread_mutex_unlock(&d->mutex);
    return calls;
}

void sim_disk_set_hook(struct sim_disk *d, sim_hook_fn hook, void *arg) {
    pthread_mutex_lock(&d->mutex);
    d->hook = hook;
    d->hook_arg = arg;
    pthread_mutex_unlock(&d->mutex);
}

char *sim_disk_take_trace(struct sim_disk *d) {
    pthread_mutex_lock(&d->mutex);
    char *text = mem_must_alloc(d->trace.len + 1);
    if (d->trace.len > 0) {
        memcpy(text, d->trace.ptr, d->trace.len);
    }
    text[d->trace.len] = '\0';
    buf_reset(&d->trace, SIZE_MAX);
    pthread_mutex_unlock(&d->mutex);
    return text;
}

void sim_disk_put(struct sim_disk *d, const char *path, const void *ptr, size_t len) {
    pthread_mutex_lock(&d->mutex);
    dc_assert(sim_parent_exists(d, path));
    const struct sim_name *n = sim_names_find(&d->now, path);
    struct sim_file *f = n != NULL ? n->file : sim_file_create(d);
    names_add(&d->now, path, f);
    names_add(&d->safe, path, f);
    f->count = 0;
    content_set_len(&f->now, 0);
    content_write(&f->now, 0, ptr, len);
    content_copy(&f->safe, &f->now);
    pthread_mutex_unlock(&d->mutex);
}

static void put_file(struct sim_disk *d, const char *from, const char *to) {
    enum { PIECE_LEN = 64 * 1024 };
    struct buf content;
    FILE *file = fopen(from, "rb");
    size_t n = 1;
    dc_assert(file != NULL);
    buf_init(&content, 0);
    while (n > 0) {
        char *room = buf_room(&content, PIECE_LEN);
        dc_assert(room != NULL);
        n = fread(room, 1, PIECE_LEN, file);
        content.len += n;
    }
    dc_assert(ferror(file) == 0);
    sim_disk_put(d, to, content.ptr, content.len);
    fclose(file);
    buf_fini(&content);
}

void sim_disk_put_dir(struct sim_disk *d, const char *from, const char *to) {
    DIR *dir = opendir(from);
    dc_assert(dir != NULL && d->io.mkdir(&d->io, to) == 0);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char source[512], target[512];
        int len = snprintf(source, sizeof(source), "%s/%s", from, e->d_name);
        dc_assert(len > 0 && len < (int)sizeof(source));
        snprintf(target, sizeof(target), "%s/%s", to, e->d_name);
        if (e->d_type == DT_REG) {
            put_file(d, source, target);
        }
    }
    closedir(dir);
}

void sim_disk_lose(struct sim_disk *d, const char *path, uint64_t at, uint64_t len) {
    pthread_mutex_lock(&d->mutex);
    struct sim_name *n = sim_names_find(&d->now, path);
    if (n != NULL) {
        n->file->lost_from = at;
        n->file->lost_end = at + len;
    }
    pthread_mutex_unlock(&d->mutex);
}

bool sim_disk_flip(struct sim_disk *d, const char *path, uint64_t at, uint8_t bits) {
    pthread_mutex_lock(&d->mutex);
    const struct sim_name *n = sim_names_find(&d->now, path);
    bool there = n != NULL && at < n->file->now.len;
    if (there) {
        struct sim_content *both[] = {&n->file->now, &n->file->safe};
        for (int i = 0; i < 2; i++) {
            char c = 0;
            if (sim_content_read(both[i], at, &c, 1) == 1) {
                c = (char)((uint8_t)c ^ bits);
                content_write(both[i], at, &c, 1);
            }
        }
    }
    pthread_mutex_unlock(&d->mutex);
    return there;
}
