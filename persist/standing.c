/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The texts:
 *
 *   role      "primary", or "replica <port> <host>"
 *   seen      "<epoch>"
 *   fence     "<epoch> <history>", or ""
 *   peer      the node's own id, 32 hex digits
 *   peer-<n>  "<id> <received> <durable> <seen, ms> <port> <host>", or ""
 */
#include "persist/standing.h"

#include "server/base/assert.h"
#include "server/base/crypto.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ID_TEXT_LEN = 2 * NODE_ID_LEN, TEXT_LEN = 512, NAME_LEN = 16 };

static_assert((int)TEXT_LEN >= (int)ID_TEXT_LEN + (int)HOST_NAME_MAX_LEN + 4 * 21 + 8,
              "a peer fits");
static_assert((int)TEXT_LEN <= (int)META_TEXT_MAX, "a text fits");

static enum dc_err malformed(const char *name, const char *text) {
    return dc_fail(DC_ECORRUPT, "the metadata say of '%s': \"%.200s\"", name, text);
}

static bool read_hex(const char *text, uint8_t id[NODE_ID_LEN]) {
    for (int i = 0; i < NODE_ID_LEN; i++) {
        unsigned byte;
        if (strspn(text + 2 * i, "0123456789abcdef") < 2 ||
            sscanf(text + 2 * i, "%2x", &byte) != 1) {
            return false;
        }
        id[i] = (uint8_t)byte;
    }
    return true;
}

/* The rest of a text is a host. */
static bool read_host(const char *rest, char to[HOST_NAME_MAX_LEN]) {
    size_t len = strlen(rest);
    if (len >= HOST_NAME_MAX_LEN) {
        return false;
    }
    memcpy(to, rest, len + 1);
    return true;
}

/* --- role, epoch, fence ------------------------------------------------------------------------------ */

static bool parse_role(const char *text, struct standing *s) {
    int used = 0;
    if (text[0] == '\0') {
        return true;
    }
    if (strcmp(text, "primary") == 0) {
        s->role = STANDING_PRIMARY;
        return true;
    }
    s->role = STANDING_REPLICA;
    return sscanf(text, "replica %" SCNu16 " %n", &s->port, &used) == 1 && used > 0 &&
           text[used] != '\0' && read_host(text + used, s->host);
}

enum dc_err standing_get(struct meta *m, struct standing *out) {
    char text[META_TEXT_MAX];
    memset(out, 0, sizeof(*out));
    enum dc_err err = meta_get_text(m, "role", text, sizeof(text));
    if (err == DC_OK && !parse_role(text, out)) {
        err = malformed("role", text);
    }
    err = err != DC_OK ? err : meta_get_text(m, "seen", text, sizeof(text));
    if (err == DC_OK && text[0] != '\0' && sscanf(text, "%" SCNu64, &out->epoch) != 1) {
        err = malformed("seen", text);
    }
    err = err != DC_OK ? err : meta_get_text(m, "fence", text, sizeof(text));
    if (err == DC_OK && text[0] != '\0' &&
        sscanf(text, "%" SCNu64 " %" SCNu64, &out->fence_epoch, &out->fence_history) != 2) {
        err = malformed("fence", text);
    }
    return err;
}

enum dc_err standing_put(struct meta *m, const struct standing *s) {
    return standing_put_with(m, s, NULL, 0);
}

enum dc_err standing_put_with(struct meta *m, const struct standing *s,
                              const struct meta_text *more, uint32_t count) {
    char role[TEXT_LEN] = "", seen[TEXT_LEN], fence[TEXT_LEN] = "";
    if (s->role == STANDING_REPLICA) {
        dc_assert(s->host[0] != '\0');
        snprintf(role, sizeof(role), "replica %" PRIu16 " %s", s->port, s->host);
    } else if (s->role == STANDING_PRIMARY) {
        snprintf(role, sizeof(role), "primary");
    }
    snprintf(seen, sizeof(seen), "%" PRIu64, s->epoch);
    if (s->fence_epoch != 0) {
        snprintf(fence, sizeof(fence), "%" PRIu64 " %" PRIu64, s->fence_epoch, s->fence_history);
    }
    struct meta_text texts[3 + STANDING_MORE_MAX] = {
        {"role", role}, {"seen", seen}, {"fence", fence}};
    dc_assert(count <= STANDING_MORE_MAX);
    for (uint32_t i = 0; i < count; i++) {
        texts[3 + i] = more[i];
    }
    return meta_put_texts(m, texts, 3 + count);
}

enum dc_err standing_own_id(struct meta *m, uint8_t id[NODE_ID_LEN]) {
    char text[META_TEXT_MAX];
    enum dc_err err = meta_get_text(m, "peer", text, sizeof(text));
    if (err != DC_OK) {
        return err;
    }
    if (text[0] != '\0') {
        return read_hex(text, id) ? DC_OK : malformed("peer", text);
    }
    crypto_random(id, NODE_ID_LEN);
    crypto_hex(text, id, NODE_ID_LEN);
    return meta_put_text(m, "peer", text);
}

/* --- peers ------------------------------------------------------------------------------------------- */

static bool parse_peer(const char *text, struct standing_peer *p) {
    int used = 0;
    memset(p, 0, sizeof(*p));
    if (!read_hex(text, p->id)) {
        return false;
    }
    text += ID_TEXT_LEN;
    return sscanf(text, " %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNu16 " %n", &p->received,
                  &p->durable, &p->seen_ms, &p->port, &used) == 4 &&
           used > 0 && read_host(text + used, p->host);
}

enum dc_err standing_get_peers(struct meta *m, struct standing_peer *out, uint32_t *count) {
    enum dc_err err = DC_OK;
    *count = 0;
    for (uint32_t i = 0; i < PEERS_MAX && err == DC_OK; i++) {
        char name[NAME_LEN], text[META_TEXT_MAX];
        snprintf(name, sizeof(name), "peer-%" PRIu32, i);
        err = meta_get_text(m, name, text, sizeof(text));
        if (err != DC_OK || text[0] == '\0') {
            break; /* they stand without a gap */
        }
        if (parse_peer(text, &out[*count])) {
            ++*count;
        } else {
            err = malformed(name, text);
        }
    }
    return err;
}

enum dc_err standing_put_peers(struct meta *m, const struct standing_peer *peers, uint32_t count) {
    struct meta_text texts[PEERS_MAX];
    char names[PEERS_MAX][NAME_LEN];
    char values[PEERS_MAX][TEXT_LEN];
    dc_assert(count <= PEERS_MAX);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        char id[ID_TEXT_LEN + 1];
        snprintf(names[i], sizeof(names[i]), "peer-%" PRIu32, i);
        values[i][0] = '\0';
        if (i < count) {
            const struct standing_peer *p = &peers[i];
            crypto_hex(id, p->id, NODE_ID_LEN);
            snprintf(values[i], sizeof(values[i]),
                     "%s %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRIu16 " %s", id, p->received,
                     p->durable, p->seen_ms, p->port, p->host);
        }
        texts[i] = (struct meta_text){names[i], values[i]};
    }
    return meta_put_texts(m, texts, PEERS_MAX);
}
