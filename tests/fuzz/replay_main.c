/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs each file of the given corpus directories (or each given file) through the fuzzer that it is linked with, so
 * that what a fuzzer once found stays tested with every compiler. An empty corpus is a failure: it would test nothing.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void die(const char *what) {
    fprintf(stderr, "replay: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The input gets an allocation of exactly its size, so that AddressSanitizer sees a read past its end. */
static int replay_file(const char *path) {
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (file == NULL || fstat(fileno(file), &st) != 0) {
        die(path);
    }
    size_t len = (size_t)st.st_size;
    uint8_t *data = malloc(len > 0 ? len : 1);
    if (data == NULL || fread(data, 1, len, file) != len) {
        die(path);
    }
    fclose(file);
    /* The name first: after an abort it is the last line of the output. */
    printf("%s\n", path);
    fflush(stdout);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
    return 1;
}

static int replay_dir(const char *path) {
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0) {
        die(path);
    }
    int files = 0;
    for (int i = 0; i < count; i++) {
        char name[4096];
        if (names[i]->d_name[0] != '.') {
            snprintf(name, sizeof(name), "%s/%s", path, names[i]->d_name);
            files += replay_file(name);
        }
        free(names[i]);
    }
    free(names);
    return files;
}

int main(int argc, char **argv) {
    int files = 0;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0) {
            die(argv[i]);
        }
        files += S_ISDIR(st.st_mode) ? replay_dir(argv[i]) : replay_file(argv[i]);
    }
    printf("replayed %d inputs\n", files);
    return files > 0 ? 0 : 1;
}
