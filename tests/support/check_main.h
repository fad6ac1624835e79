/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * check_main: what every unit test starts with: <check.h>, main(), a seed, and code that must die.
 *
 *     START_TEST(a_sentence_about_the_module) { ... } END_TEST
 *     CHECK_MAIN("module", a_sentence_about_the_module, another_one)
 *
 * Check runs each test in a process of its own, except under sanitizers (whose reports a child would swallow) and with
 * CK_FORK=no. DC_SEED=n repeats a run.
 */
#ifndef TESTS_SUPPORT_CHECK_MAIN_H
#define TESTS_SUPPORT_CHECK_MAIN_H

#include "server/base/rng.h"

#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define TEST_SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define TEST_SANITIZED 1
#    endif
#endif
#if !defined(TEST_SANITIZED)
#    define TEST_SANITIZED 0
#endif

static uint64_t test_seed_value;

/* A generator seeded for this run; the seed is printed when the run starts. */
static inline struct rng test_rng(void) {
    struct rng r;
    rng_seed(&r, test_seed_value);
    return r;
}

static inline void test_seed_init(void) {
    const char *text = getenv("DC_SEED");
    test_seed_value = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)getpid();
    printf("DC_SEED=%" PRIu64 "\n", test_seed_value);
    fflush(stdout);
}

/* Runs 'fn' in a child. True when it ended by abort(): an assertion or an allocation that must not fail. */
static inline bool test_aborts(void (*fn)(void *arg), void *arg) {
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        fn(arg);
        _exit(0);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static inline int check_main(const char *name, const TTest *const *tests, size_t count) {
    test_seed_init();
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    for (size_t i = 0; i < count; i++) {
        tcase_add_test(tcase, tests[i]);
    }
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    if (TEST_SANITIZED) {
        srunner_set_fork_status(runner, CK_NOFORK);
    }
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define CHECK_MAIN(name, ...)                                               \
    int main(void) {                                                        \
        const TTest *const tests[] = {__VA_ARGS__};                         \
        return check_main((name), tests, sizeof(tests) / sizeof(tests[0])); \
    }

#endif
