/* SPDX-License-Identifier: BSD-3-Clause */
/* Notes in a data directory that nobody uses what its next start is to do, as a link does: adopt_note <dir> copy | rewind <lsn> <history>. */
#include "persist/adopt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    struct meta *m = NULL;
    bool rebuilt;
    enum dc_err err = argc < 3 ? DC_EGENERIC : meta_open(argv[1], &m, &rebuilt);
    if (err == DC_OK && argc == 3 && strcmp(argv[2], "copy") == 0) {
        err = adopt_note_copy(m);
    } else if (err == DC_OK && argc == 5 && strcmp(argv[2], "rewind") == 0) {
        err = adopt_note_rewind(m, strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 16));
    } else if (err == DC_OK) {
        err = DC_EGENERIC;
    }
    meta_close(m);
    if (err != DC_OK) {
        fprintf(stderr, "adopt_note: %s\n", dc_fail_take(err));
    }
    return err == DC_OK ? 0 : 1;
}
