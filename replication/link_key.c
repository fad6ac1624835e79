/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/link_key.h"

#include "server/base/diag.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGITS = 2 * CRYPTO_KEY_LEN };

static struct bytes without_line_end(struct bytes text) {
    while (text.len > 0 && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == '\r')) {
        text.len--;
    }
    return text;
}

static enum dc_err parse_key(const char *path, struct bytes text, uint8_t key[CRYPTO_KEY_LEN]) {
    size_t digits = 0;
    while (digits < text.len && memchr("0123456789abcdefABCDEF", text.ptr[digits], 22) != NULL) {
        digits++;
    }
    if (digits < text.len) {
        return dc_fail(DC_ECONF, "replication-key-file %s: character %zu is no hex digit", path,
                       digits + 1);
    }
    return crypto_unhex(key, CRYPTO_KEY_LEN, text)
               ? DC_OK
               : dc_fail(DC_ECONF, "replication-key-file %s: %zu hex digits, where a key has %d",
                         path, digits, DIGITS);
}

enum dc_err link_key_read(const char *path, uint8_t key[CRYPTO_KEY_LEN]) {
    char text[2 * DIGITS]; /* so that a longer file is seen */
    struct stat st;
    enum dc_err err = DC_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text)) : -1;
    if (n < 0) {
        err = dc_fail(DC_ECONF, "replication-key-file %s: %s", path, dc_errno_text(errno));
        goto out;
    }
    if (fstat(fd, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        diag(DIAG_WARNING, "link.key_readable file=%s mode=%04o wanted=0600", path,
             (unsigned)(st.st_mode & 07777));
    }
    err = parse_key(path, without_line_end(bytes_of(text, (size_t)n)), key);
out:
    if (fd >= 0) {
        close(fd);
    }
    crypto_wipe(text, sizeof(text));
    return err;
}
