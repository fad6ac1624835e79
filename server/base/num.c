/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/num.h"

#include "server/base/assert.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char digit_pairs[] = "00010203040506070809"
                                  "10111213141516171819"
                                  "20212223242526272829"
                                  "30313233343536373839"
                                  "40414243444546474849"
                                  "50515253545556575859"
                                  "60616263646566676869"
                                  "70717273747576777879"
                                  "80818283848586878889"
                                  "90919293949596979899";

bool num_parse_u64(struct bytes text, uint64_t *out) {
    if (text.len == 0 || text.len > 20 || (text.ptr[0] == '0' && text.len > 1)) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)(unsigned char)text.ptr[i] - '0';
        if (digit > 9) {
            return false;
        }
        /* Nineteen digits always fit. */
        if (i == 19 && (value > UINT64_MAX / 10 || value * 10 > UINT64_MAX - digit)) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

bool num_parse_i64(struct bytes text, int64_t *out) {
    if (text.len == 0) {
        return false;
    }
    bool negative = text.ptr[0] == '-';
    uint64_t value;
    if (!num_parse_u64(bytes_of(text.ptr + negative, text.len - negative), &value)) {
        return false;
    }
    if (value > (uint64_t)INT64_MAX + negative || (negative && value == 0)) {
        return false;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool num_parse_ld(struct bytes text, long double *out) {
    char copy[NUM_LD_TEXT_MAX];
    if (text.len == 0 || text.len >= sizeof(copy) || isspace((unsigned char)text.ptr[0])) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    char *end;
    errno = 0;
    long double value = strtold(copy, &end);
    bool range = errno == ERANGE && (isinf(value) || fpclassify(value) == FP_ZERO);
    if (end != copy + text.len || range || isnan(value)) {
        return false;
    }
    *out = value;
    return true;
}

bool num_parse_size(struct bytes text, int64_t *out) {
    static const struct {
        const char *word;
        int64_t factor;
    } units[] = {
        {"", 1},        {"b", 1},        {"k", 1000},       {"kb", 1 << 10},
        {"m", 1000000}, {"mb", 1 << 20}, {"g", 1000000000}, {"gb", 1 << 30},
    };
    if (text.len == 0) {
        return false;
    }
    size_t digits = 0;
    int64_t value = 0;
    for (; digits < text.len && isdigit((unsigned char)text.ptr[digits]); digits++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, text.ptr[digits] - '0', &value)) {
            return false;
        }
    }
    struct bytes unit = bytes_of(text.ptr + digits, text.len - digits);
    for (size_t i = 0; digits > 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (bytes_is(unit, units[i].word)) {
            return !__builtin_mul_overflow(value, units[i].factor, out);
        }
    }
    return false;
}

static size_t count_digits(uint64_t value) {
    size_t count = 1;
    for (; value >= 10000; value /= 10000) {
        count += 4;
    }
    return count + (value >= 10) + (value >= 100) + (value >= 1000);
}

size_t num_format_u64(char *to, uint64_t value) {
    size_t len = count_digits(value);
    char *at = to + len;
    for (; value >= 100; value /= 100) {
        at -= 2;
        memcpy(at, digit_pairs + 2 * (value % 100), 2);
    }
    if (value >= 10) {
        memcpy(to, digit_pairs + 2 * value, 2);
    } else {
        *to = (char)('0' + value);
    }
    return len;
}

size_t num_format_i64(char *to, int64_t value) {
    if (value >= 0) {
        return num_format_u64(to, (uint64_t)value);
    }
    *to = '-';
    return 1 + num_format_u64(to + 1, 0 - (uint64_t)value);
}

static size_t copy_word(char *to, const char *word) {
    size_t len = strlen(word);
    memcpy(to, word, len);
    return len;
}

size_t num_format_f64(char *to, double value) {
    if (isnan(value)) {
        return copy_word(to, "nan");
    }
    if (isinf(value)) {
        return copy_word(to, value > 0 ? "inf" : "-inf");
    }
    char text[NUM_F64_TEXT_MAX];
    int len = snprintf(text, sizeof(text), "%.17g", value);
    dc_assert(len > 0 && len < NUM_F64_TEXT_MAX);
    return copy_word(to, text);
}

size_t num_format_ld(char *to, size_t size, long double value) {
    if (isinf(value)) {
        return size < 5 ? 0 : copy_word(to, value > 0 ? "inf" : "-inf");
    }
    int printed = snprintf(to, size, "%.17Lf", value);
    if (printed <= 0 || (size_t)printed >= size) {
        return 0;
    }
    size_t len = (size_t)printed;
    while (to[len - 1] == '0') {
        len--;
    }
    len -= to[len - 1] == '.';
    if (len == 2 && to[0] == '-' && to[1] == '0') {
        to[0] = '0';
        len = 1;
    }
    return len;
}
