/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/link_key.h"
#include "server/base/diag.h"
#include "tests/support/check_main.h"
#include "tests/support/temp_dir.h"

#include <string.h>
#include <sys/stat.h>

#define KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eFF"

static char dir[TEMP_DIR_MAX];
static char path[TEMP_DIR_MAX + 8];

static enum dc_err read_as(const char *text, mode_t mode, uint8_t key[CRYPTO_KEY_LEN]) {
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    ck_assert_int_eq(chmod(path, mode), 0);
    return link_key_read(path, key);
}

static void begin(void) {
    temp_dir_make(dir);
    snprintf(path, sizeof(path), "%s/key", dir);
    crypto_init();
}

START_TEST(a_key_is_64_hex_digits) {
    static const char *const good[] = {KEY, KEY "\n", KEY "\r\n"};
    begin();
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint8_t key[CRYPTO_KEY_LEN] = {0};
        ck_assert(read_as(good[i], 0600, key) == DC_OK);
        ck_assert_mem_eq(key, "\x00\x01\x02\x03\x04\x05", 6);
        ck_assert_uint_eq(key[31], 0xff);
    }
    temp_dir_remove(dir);
}
END_TEST

START_TEST(what_is_no_key_is_told) {
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "0 hex digits, where a key has 64"},
        {"0123", "4 hex digits, where a key has 64"},
        {KEY "0", "65 hex digits"},
        {KEY KEY KEY, "128 hex digits"},
        {KEY " ", "character 65 is no hex digit"},
        {"key: " KEY, "character 1 is no hex digit"},
        {KEY "\n" KEY "\n", "character 65 is no hex digit"},
    };
    begin();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t key[CRYPTO_KEY_LEN];
        enum dc_err err = read_as(bad[i].text, 0600, key);
        ck_assert_int_eq(err, DC_ECONF);
        const char *text = dc_fail_take(err);
        ck_assert_msg(strstr(text, bad[i].says) != NULL, "%s", text);
        ck_assert_msg(strstr(text, path) != NULL, "%s", text);
        ck_assert_msg(strstr(text, "0123") == NULL, "the key is told: %s", text);
    }
    temp_dir_remove(dir);
}
END_TEST

START_TEST(a_file_that_isnt_there_is_told) {
    uint8_t key[CRYPTO_KEY_LEN];
    begin();
    enum dc_err err = link_key_read(path, key);
    ck_assert_int_eq(err, DC_ECONF);
    ck_assert_ptr_nonnull(strstr(dc_fail_take(err), "No such file"));
    err = link_key_read(dir, key);
    ck_assert_int_eq(err, DC_ECONF);
    ck_assert_ptr_nonnull(strstr(dc_fail_take(err), "Is a directory"));
    temp_dir_remove(dir);
}
END_TEST

START_TEST(a_key_that_others_can_read_is_told_and_taken) {
    char log[TEMP_DIR_MAX + 8], text[512] = {0};
    uint8_t key[CRYPTO_KEY_LEN];
    begin();
    snprintf(log, sizeof(log), "%s/log", dir);
    ck_assert(diag_open(log) == DC_OK);
    ck_assert(read_as(KEY, 0640, key) == DC_OK);
    diag_close();
    FILE *f = fopen(log, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_gt(fread(text, 1, sizeof(text) - 1, f), 0);
    fclose(f);
    ck_assert_msg(strstr(text, "link.key_readable") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "mode=0640") != NULL, "%s", text);
    temp_dir_remove(dir);
}
END_TEST

CHECK_MAIN("link_key", a_key_is_64_hex_digits, what_is_no_key_is_told,
           a_file_that_isnt_there_is_told, a_key_that_others_can_read_is_told_and_taken)
