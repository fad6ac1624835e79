/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Let L(i, j) be the length for the first i bytes of a and the first j of b. Along a row L rises by 0 or 1 at each step,
 * so a row is a bit vector; and the whole next row follows from it in a few operations on words (Hyyro 2004): with V
 * having a 0 where L rises, and M having a 1 where b equals the next byte of a,
 *
 *     V' = (V + (V & M)) | (V & ~M)
 *
 * where the sum carries from word to word. For finding the subsequence itself the rows are kept. Walking back from
 * (i, j), a table would go up if L(i-1, j) > L(i, j-1), else left. Where the bytes differ L(i, j) is the greater of the
 * two; so it goes up exactly if L(i, j) > L(i, j-1), which is to say, if the row's bit j-1 is 0.
 */
#include "server/cmd/lcs.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/cmd/bits.h"

enum { WORD_BITS = 64, SYMBOLS = 256 };

/* For each byte value that occurs in a: where it stands in b. */
struct masks {
    uint16_t index[SYMBOLS]; /* 0 = doesn't occur, else 1 + number of its vector */
    uint64_t *words;
};

static enum dc_err masks_init(struct masks *m, struct bytes a, struct bytes b, size_t words) {
    uint16_t count = 0;
    memset(m->index, 0, sizeof(m->index));
    for (size_t i = 0; i < a.len && count < SYMBOLS; i++) {
        uint16_t *index = &m->index[(uint8_t)a.ptr[i]];
        *index = *index == 0 ? ++count : *index;
    }
    m->words = mem_alloc(count * words * sizeof(uint64_t));
    if (m->words == NULL) {
        return DC_ENOMEM;
    }
    memset(m->words, 0, count * words * sizeof(uint64_t));
    for (size_t j = 0; j < b.len; j++) {
        uint16_t index = m->index[(uint8_t)b.ptr[j]];
        if (index != 0) {
            m->words[(index - 1u) * words + j / WORD_BITS] |= (uint64_t)1 << j % WORD_BITS;
        }
    }
    return DC_OK;
}

static void next_row(uint64_t *row, const uint64_t *mask, size_t words) {
    uint64_t carry = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t hits = row[i] & mask[i];
        uint64_t sum = row[i] + hits;
        uint64_t with_carry = sum + carry;
        carry = (sum < hits) | (with_carry < carry);
        row[i] = with_carry | (row[i] & ~mask[i]);
    }
}

enum dc_err lcs_init(struct lcs *l, struct bytes a, struct bytes b, bool ranges) {
    *l = (struct lcs){.a = a, .b = b};
    if (a.len == 0 || b.len == 0) {
        return DC_OK;
    }
    size_t words = (b.len + WORD_BITS - 1) / WORD_BITS;
    size_t row_size = words * sizeof(uint64_t);
    struct masks masks = {.words = NULL};
    enum dc_err err = DC_ENOMEM;
    uint64_t *row = mem_alloc(row_size);
    l->row_len = (b.len + 7) / 8;
    l->rows = ranges ? mem_alloc(a.len * l->row_len) : NULL;
    if (row == NULL || (ranges && l->rows == NULL)) {
        goto out;
    }
    err = masks_init(&masks, a, b, words);
    if (err != DC_OK) {
        goto out;
    }
    memset(row, 0xff, row_size); /* bits behind the end of b stay 1 */
    for (size_t i = 0; i < a.len; i++) {
        next_row(row, masks.words + (masks.index[(uint8_t)a.ptr[i]] - 1u) * words, words);
        if (ranges) {
            memcpy(l->rows + i * l->row_len, row, l->row_len);
        }
    }
    l->len = words * WORD_BITS - bits_count(bytes_of((const char *)row, row_size));
out:
    mem_free(masks.words);
    mem_free(row);
    if (err != DC_OK) {
        lcs_fini(l);
    }
    return err;
}

static bool goes_up(const struct lcs *l, size_t i, size_t j) {
    return (l->rows[(i - 1) * l->row_len + (j - 1) / 8] >> (j - 1) % 8 & 1) == 0;
}

size_t lcs_ranges(const struct lcs *l, struct lcs_range *out) {
    size_t i = l->a.len, j = l->b.len, count = 0;
    bool inside = false;
    while (i > 0 && j > 0) {
        if (l->a.ptr[i - 1] != l->b.ptr[j - 1]) {
            if (goes_up(l, i, j)) {
                i--;
            } else {
                j--;
            }
            inside = false;
            continue;
        }
        i--;
        j--;
        if (inside) {
            out[count - 1].a_from = i;
            out[count - 1].b_from = j;
        } else {
            dc_assert(count < l->len);
            out[count++] = (struct lcs_range){i, i, j, j};
            inside = true;
        }
    }
    return count;
}

void lcs_fini(struct lcs *l) {
    mem_free(l->rows);
    l->rows = NULL;
}
