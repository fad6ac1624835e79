/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * With jemalloc, malloc() itself is jemalloc's (and the libraries' too), so the figures cover the process. Plain
 * malloc() is used where it has a shorter fast path than mallocx().
 *
 * Without jemalloc (sanitizer builds) two counters stand in for its statistics. They are exact for what passes through
 * this file and know nothing of the libraries.
 */
#include "server/base/mem.h"

#include "server/base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(DC_HAVE_JEMALLOC)
#    include <jemalloc/jemalloc.h>
#endif

/* --- fault countdown --- */

static _Atomic uint64_t fault_countdown;

void mem_fault_after(uint64_t calls) {
    atomic_store_explicit(&fault_countdown, calls, memory_order_relaxed);
}

/* One of several threads sees the countdown go from one to zero: that call fails. */
static bool fault_counts_down(void) {
    uint64_t left = atomic_load_explicit(&fault_countdown, memory_order_relaxed);
    while (left > 0 &&
           !atomic_compare_exchange_weak_explicit(&fault_countdown, &left, left - 1,
                                                  memory_order_relaxed, memory_order_relaxed)) {}
    return left == 1;
}

static inline bool fault_hits(void) {
    return dc_unlikely(atomic_load_explicit(&fault_countdown, memory_order_relaxed) > 0) &&
           fault_counts_down();
}

/* --- the allocator and its accounting --- */

#if defined(DC_HAVE_JEMALLOC)

/* Runs of up to 512 small pieces, at most 80 KB: jemalloc keeps 128 bytes of its own for each run, and its default is one
 * page for 32 pieces of 128 bytes. (Its documented way to be configured by the program: it reads this.) */
const char *malloc_conf = "slab_sizes:1-48:6|49-64:8|65-80:10|81-96:12|97-112:14|113-128:16|129-"
                          "160:20|161-192:12|193-224:14|"
                          "225-256:16|257-320:20|321-384:12|385-448:14|449-512:16|513-640:20|641-"
                          "768:12|769-896:14|897-1024:16";

/* --- pages in runs ---
 *
 * A page that is touched for the first time costs a fault, in a virtual machine ten microseconds and more: for a store that grows, more than all
 * the rest. jemalloc takes its memory in runs of up to 80 KB; their pages are had with one call for all of them when the run is begun. To jemalloc
 * memory that was never used, or was given back, isn't committed: so it says when it is about to use it. */

enum {
    PAGE_LEN = 4096,
    POPULATE_MIN_LEN = 2 * PAGE_LEN,
    POPULATE_MAX_LEN =
        80 * 1024, /* what is longer is one piece, and may never be used to its end */
};

static extent_hooks_t jemallocs, ours;
static pthread_once_t hooks_once = PTHREAD_ONCE_INIT;
static _Atomic bool cannot_populate;

/* NOLINTNEXTLINE(readability-function-size): the parameters are jemalloc's */
static void *alloc_uncommitted(extent_hooks_t *hooks, void *at, size_t size, size_t align,
                               bool *zero, bool *commit, unsigned arena) {
    bool wanted = *commit;
    void *ptr = jemallocs.alloc(hooks, at, size, align, zero, commit, arena);
    *commit = wanted;
    return ptr;
}

/* Where that can't be done, pages come one by one. False: it is done. */
static bool commit(extent_hooks_t *hooks, void *at, size_t size, size_t offset, size_t len,
                   unsigned arena) {
    (void)hooks, (void)size, (void)arena;
    if (len >= POPULATE_MIN_LEN && len <= POPULATE_MAX_LEN &&
        !atomic_load_explicit(&cannot_populate, memory_order_relaxed)) {
        int before = errno;
        if (madvise((char *)at + offset, len, MADV_POPULATE_WRITE) != 0 && errno == EINVAL) {
            atomic_store_explicit(&cannot_populate, true, memory_order_relaxed); /* before 5.14 */
        }
        errno = before;
    }
    return false;
}

/* What comes back is zeros. */
static bool decommit(extent_hooks_t *hooks, void *at, size_t size, size_t offset, size_t len,
                     unsigned arena) {
    return jemallocs.purge_forced == NULL ||
           jemallocs.purge_forced(hooks, at, size, offset, len, arena);
}

/* Where the kernel gives no more than it has, jemalloc keeps what isn't committed without access; there it is left alone. */
static bool is_accessible(extent_hooks_t *hooks) {
    bool zero = false, committed = false;
    void *probe = hooks->alloc(hooks, NULL, POPULATE_MAX_LEN, PAGE_LEN, &zero, &committed, 0);
    if (probe != NULL) {
        munmap(probe, POPULATE_MAX_LEN);
    }
    return probe != NULL && committed;
}

static void make_hooks(void) {
    extent_hooks_t *hooks = NULL;
    size_t size = sizeof(hooks);
    if (mallctl("arena.0.extent_hooks", &hooks, &size, NULL, 0) == 0 && is_accessible(hooks)) {
        jemallocs = ours = *hooks;
        ours.alloc = alloc_uncommitted;
        ours.commit = commit;
        ours.decommit = decommit;
    }
}

void mem_thread_begin(void) {
    unsigned arena = 0;
    size_t size = sizeof(arena);
    char name[64];
    extent_hooks_t *hooks = &ours;
    pthread_once(&hooks_once, make_hooks);
    if (ours.alloc != NULL && mallctl("thread.arena", &arena, &size, NULL, 0) == 0) {
        snprintf(name, sizeof(name), "arena.%u.extent_hooks", arena);
        (void)mallctl(name, NULL, NULL, &hooks, sizeof(hooks));
    }
}

static inline void *note_alloc(void *ptr) {
    return ptr;
}

static inline void note_free(void *ptr) {
    (void)ptr;
}

static void *raw_alloc_aligned(size_t align, size_t len) {
    return mallocx(len, MALLOCX_ALIGN(align));
}

static void raw_free_sized(void *ptr, size_t len) {
    sdallocx(ptr, len, 0);
}

static void raw_free_aligned(void *ptr, size_t align, size_t len) {
    sdallocx(ptr, len, MALLOCX_ALIGN(align));
}

size_t mem_good_size(size_t len) {
    return nallocx(len > 0 ? len : 1, 0);
}

void *mem_alloc_good(size_t len) {
    return mem_alloc(len);
}

void mem_places(void *const *ptrs, uint32_t count, struct mem_place *out) {
    size_t found[MEM_PLACES_MAX * 3]; /* free pieces, pieces, bytes of the run: for each */
    size_t size = count * 3 * sizeof(found[0]);
    void *in[MEM_PLACES_MAX];
    dc_assert(count <= MEM_PLACES_MAX);
    memcpy(in, ptrs, count * sizeof(in[0]));
    int err =
        mallctl("experimental.utilization.batch_query", found, &size, in, count * sizeof(in[0]));
    for (uint32_t i = 0; i < count; i++) {
        out[i] = err == 0 ? (struct mem_place){found[3 * i], found[3 * i + 1]}
                          : (struct mem_place){0, 1};
    }
}

void *mem_alloc_dense(void *old, size_t align, size_t len) {
    unsigned arena = 0;
    size_t size = sizeof(arena);
    if (mallctl("arenas.lookup", &arena, &size, &old, sizeof(old)) != 0) {
        return NULL;
    }
    return mallocx(len, MALLOCX_TCACHE_NONE | (int)MALLOCX_ARENA(arena) | MALLOCX_ALIGN(align));
}

void mem_free_dense(void *ptr, size_t align, size_t len) {
    sdallocx(ptr, len, MALLOCX_TCACHE_NONE | MALLOCX_ALIGN(align));
}

/* The thread's running totals, which jemalloc keeps in the thread's own memory. */
static _Thread_local const uint64_t *thread_allocated, *thread_freed;
static _Thread_local int64_t thread_seen;

static const uint64_t *thread_counter(const char *name) {
    uint64_t *counter = NULL;
    size_t size = sizeof(counter);
    int err = mallctl(name, &counter, &size, NULL, 0);
    dc_assert(err == 0 && counter != NULL);
    return counter;
}

int64_t mem_thread_delta(void) {
    if (dc_unlikely(thread_allocated == NULL)) {
        thread_freed = thread_counter("thread.deallocatedp");
        thread_allocated = thread_counter("thread.allocatedp");
    }
    int64_t net = (int64_t)(*thread_allocated - *thread_freed);
    int64_t delta = net - thread_seen;
    thread_seen = net;
    return delta;
}

static uint64_t read_stat(const char *name) {
    size_t value = 0, size = sizeof(value);
    int err = mallctl(name, &value, &size, NULL, 0);
    dc_assert(err == 0);
    return value;
}

/* 4096 is MALLCTL_ARENAS_ALL: the sum over all arenas. */
static void allocator_stats(struct mem_stats *out) {
    uint64_t epoch = 1;
    int err = mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
    dc_assert(err == 0);
    out->allocated = read_stat("stats.allocated");
    out->active = read_stat("stats.active");
    out->resident = read_stat("stats.resident");
    uint64_t pages = read_stat("stats.arenas.4096.pdirty") + read_stat("stats.arenas.4096.pmuzzy");
    out->dirty = pages * read_stat("arenas.page");
}

bool mem_report(mem_report_fn write_text, void *arg) {
    malloc_stats_print(write_text, arg, NULL);
    return true;
}

void mem_purge(void) {
    mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
}

void mem_decay(void) {
    mallctl("arena.4096.decay", NULL, NULL, NULL, 0);
}

const char *mem_allocator_name(void) {
    static char name[64];
    if (name[0] == '\0') {
        const char *version = "";
        size_t size = sizeof(version);
        mallctl("version", &version, &size, NULL, 0);
        snprintf(name, sizeof(name), "jemalloc-%.*s", (int)strcspn(version, "-"), version);
    }
    return name;
}

#else

void mem_thread_begin(void) {}

static _Atomic int64_t total;
static _Thread_local int64_t thread_net;

static void note(int64_t bytes) {
    thread_net += bytes;
    atomic_fetch_add_explicit(&total, bytes, memory_order_relaxed);
}

static inline void *note_alloc(void *ptr) {
    note((int64_t)malloc_usable_size(ptr));
    return ptr;
}

static inline void note_free(void *ptr) {
    note(-(int64_t)malloc_usable_size(ptr));
}

static void *raw_alloc_aligned(size_t align, size_t len) {
    void *ptr = NULL;
    return posix_memalign(&ptr, align < sizeof(void *) ? sizeof(void *) : align, len) == 0 ? ptr
                                                                                           : NULL;
}

/* Made up, so that some moves happen and some don't in sanitizer builds too. */
void mem_places(void *const *ptrs, uint32_t count, struct mem_place *out) {
    dc_assert(count <= MEM_PLACES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        out[i] =
            (struct mem_place){((uintptr_t)ptrs[i] >> 4 ^ (uintptr_t)ptrs[i] >> 6) & 1 ? 2 : 0, 8};
    }
}

void *mem_alloc_dense(void *old, size_t align, size_t len) {
    (void)old;
    return align <= 16 ? mem_alloc_good(len) : mem_alloc_aligned(align, len);
}

void mem_free_dense(void *ptr, size_t align, size_t len) {
    (void)align;
    mem_free_sized(ptr, len);
}

static void raw_free_sized(void *ptr, size_t len) {
    dc_assert(ptr == NULL || malloc_usable_size(ptr) >= len);
    free(ptr);
}

static void raw_free_aligned(void *ptr, size_t align, size_t len) {
    (void)align;
    raw_free_sized(ptr, len);
}

/* What the C library's allocator does on a 64-bit machine: a word of header, steps of 16. */
size_t mem_good_size(size_t len) {
    return len <= 24 ? 24 : ((len + 8 + 15) & ~(size_t)15) - 8;
}

void *mem_alloc_good(size_t len) {
    return mem_alloc(mem_good_size(len));
}

int64_t mem_thread_delta(void) {
    int64_t delta = thread_net;
    thread_net = 0;
    return delta;
}

static void allocator_stats(struct mem_stats *out) {
    int64_t now = atomic_load_explicit(&total, memory_order_relaxed);
    out->allocated = now > 0 ? (uint64_t)now : 0;
    out->active = out->allocated;
    out->resident = out->allocated;
    out->dirty = 0;
}

bool mem_report(mem_report_fn write_text, void *arg) {
    (void)write_text;
    (void)arg;
    return false;
}

void mem_purge(void) {
    malloc_trim(0);
}

void mem_decay(void) {}

const char *mem_allocator_name(void) {
    return "libc";
}

#endif

/* --- fallible calls --- */

void *mem_alloc(size_t len) {
    if (fault_hits()) {
        return NULL;
    }
    return note_alloc(malloc(len > 0 ? len : 1));
}

void *mem_alloc_aligned(size_t align, size_t len) {
    dc_debug_assert(align > 0 && (align & (align - 1)) == 0);
    if (fault_hits()) {
        return NULL;
    }
    return note_alloc(raw_alloc_aligned(align, len > 0 ? len : 1));
}

/* The size is noted before, because afterwards the old address means nothing. */
static void *realloc_noted(void *ptr, size_t len) {
    note_free(ptr);
    void *moved = realloc(ptr, len > 0 ? len : 1);
    note_alloc(moved != NULL ? moved : ptr);
    return moved;
}

void *mem_realloc(void *ptr, size_t len) {
    return fault_hits() ? NULL : realloc_noted(ptr, len);
}

void mem_free(void *ptr) {
    note_free(ptr);
    free(ptr);
}

void mem_free_sized(void *ptr, size_t len) {
    if (ptr != NULL) {
        note_free(ptr);
        raw_free_sized(ptr, len > 0 ? len : 1);
    }
}

void mem_free_aligned(void *ptr, size_t align, size_t len) {
    if (ptr != NULL) {
        note_free(ptr);
        raw_free_aligned(ptr, align, len > 0 ? len : 1);
    }
}

/* --- calls that don't fail --- */

_Noreturn static void out_of_memory(size_t len) {
    char text[96];
    int n = snprintf(text, sizeof(text), "out of memory: %zu bytes can't be had, the node stops\n",
                     len);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {
        /* There is nobody left to tell. */
    }
    abort();
}

void *mem_must_alloc(size_t len) {
    void *ptr = malloc(len > 0 ? len : 1);
    if (ptr == NULL) {
        out_of_memory(len);
    }
    return note_alloc(ptr);
}

void *mem_must_zalloc(size_t len) {
    void *ptr = calloc(1, len > 0 ? len : 1);
    if (ptr == NULL) {
        out_of_memory(len);
    }
    return note_alloc(ptr);
}

void *mem_must_aligned(size_t align, size_t len) {
    void *ptr = raw_alloc_aligned(align, len);
    if (ptr == NULL) {
        out_of_memory(len);
    }
    return note_alloc(ptr);
}

void *mem_must_realloc(void *ptr, size_t len) {
    void *moved = realloc_noted(ptr, len);
    if (moved == NULL) {
        out_of_memory(len);
    }
    return moved;
}

char *mem_must_strdup(const char *str) {
    size_t len = strlen(str) + 1;
    return memcpy(mem_must_alloc(len), str, len);
}

/* --- figures --- */

/* The second number of statm is the resident pages. 0 where there is no /proc. */
static uint64_t process_rss(void) {
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t len = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (len <= 0) {
        return 0;
    }
    text[len] = '\0';
    const char *second = strchr(text, ' ');
    return second != NULL ? strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

void mem_stats_read(struct mem_stats *out) {
    allocator_stats(out);
    out->process_rss = process_rss();
}
