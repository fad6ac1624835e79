/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Redis defines the dialect by its code, odd corners included: a range may stand backwards, an unclosed class ends with
 * the pattern, "[^" at the end matches any byte, '\' in a class compares with regard to case, bytes are signed in
 * ranges, and no pattern but the empty one matches the empty text. tests/unit/test_glob.c lists them.
 *
 * Only the last '*' seen is tried further to the right: what stands before it has matched as early as possible, and a
 * later match there can't help. So the time is at most (length of pattern) x (length of text), without recursion.
 */
#include "server/base/glob.h"

#include "server/base/limits.h"

struct glob {
    const char *p, *p_end;
    const char *t, *t_end;
    bool ignore_case;
};

static inline int fold(const struct glob *g, int c) {
    return g->ignore_case && c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static inline int byte_at(const char *p) {
    return (signed char)*p;
}

/* One item of a class, at g->p; leaves g->p at the last byte of the item. */
static bool match_item(struct glob *g) {
    int c = byte_at(g->t);
    if (g->p_end - g->p >= 2 && *g->p == '\\') {
        g->p++;
        return byte_at(g->p) == c;
    }
    if (g->p_end - g->p >= 3 && g->p[1] == '-') {
        int low = byte_at(g->p), high = byte_at(g->p + 2);
        g->p += 2;
        if (low > high) {
            int swap = low;
            low = high;
            high = swap;
        }
        c = fold(g, c);
        return c >= fold(g, low) && c <= fold(g, high);
    }
    return fold(g, byte_at(g->p)) == fold(g, c);
}

/* A class behind its '['; leaves g->p behind the ']', or at the end of the pattern. */
static bool match_class(struct glob *g) {
    bool negated = g->p < g->p_end && *g->p == '^';
    g->p += negated;
    bool match = false;
    while (g->p < g->p_end && *g->p != ']') {
        match |= match_item(g);
        g->p++;
    }
    g->p += g->p < g->p_end;
    return match != negated;
}

/* One byte of text against the next element of the pattern, which is no '*'. Moves behind both. */
static bool match_one(struct glob *g) {
    bool match = true; /* of '?' */
    char c = *g->p++;
    if (c == '[') {
        match = match_class(g);
    } else if (c != '?') {
        if (c == '\\' && g->p < g->p_end) {
            c = *g->p++;
        }
        match = fold(g, byte_at(&c)) == fold(g, byte_at(g->t));
    }
    g->t++;
    return match;
}

static void skip_stars(struct glob *g) {
    while (g->p < g->p_end && *g->p == '*') {
        g->p++;
    }
}

bool glob_match(struct bytes pattern, struct bytes text, bool ignore_case) {
    struct glob g = {pattern.ptr, pattern.ptr + pattern.len, text.ptr, text.ptr + text.len,
                     ignore_case};
    if (text.len == 0) {
        return pattern.len == 0;
    }
    const char *star_p = NULL, *star_t = NULL; /* behind the last '*'; where its rest is tried */
    for (int stars = 0; g.t < g.t_end;) {
        if (g.p < g.p_end && *g.p == '*') {
            skip_stars(&g);
            if (g.p == g.p_end) {
                return true;
            }
            if (++stars > GLOB_NESTING_MAX) {
                return false;
            }
            star_p = g.p;
            star_t = g.t;
        } else if (g.p == g.p_end || !match_one(&g)) {
            if (star_p == NULL) {
                return false;
            }
            g.p = star_p;
            g.t = ++star_t;
        }
    }
    skip_stars(&g);
    /* Text used up, pattern not: trying further right would only leave less text. */
    return g.p == g.p_end;
}
