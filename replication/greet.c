/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/greet.h"

#include <stdio.h>
#include <string.h>

enum dc_err greet_create(const struct self *s, int64_t timeout_ms, struct link **out) {
    struct link_opts opts = {.timeout_ms = timeout_ms, .key = s->link_key};
    return link_create(&opts, out);
}

enum dc_err greet_connect(const struct self *s, struct link *l, const char *host, uint16_t port) {
    char user[CONF_VALUE_MAX + 1], password[CONF_VALUE_MAX + 1];
    size_t user_len = conf_text(s->conf, CONF_ID_masteruser, user, sizeof(user));
    (void)conf_text(s->conf, CONF_ID_masterauth, password, sizeof(password));
    struct link_target target = {
        .host = host, .port = port, .user = user_len > 0 ? user : NULL, .password = password};
    return link_connect(l, &target);
}

static enum dc_err hear_answer(const struct self *s, struct link *l, int64_t timeout_ms,
                               struct greeting *g) {
    struct link_message m;
    struct wire_answer a;
    enum dc_err err = link_receive(l, timeout_ms, &m);
    if (err != DC_OK) {
        return err;
    }
    if (m.type != WIRE_ANSWER || !wire_answer_decode(m.body, g->chain, &a)) {
        return dc_fail(DC_EPROTO, "%s doesn't answer the greeting", link_peer(l));
    }
    if (memcmp(a.peer_id, s->peer_id, PEER_ID_LEN) == 0) {
        return dc_fail(DC_EPROTO, "%s is this node itself", link_peer(l));
    }
    memcpy(g->peer_id, a.peer_id, PEER_ID_LEN);
    snprintf(g->text, sizeof(g->text), "%.*s", (int)a.text.len, a.text.ptr);
    return view_of_answer(&a, &g->source, &g->answer);
}

enum dc_err greet_exchange(const struct self *s, struct link *l, enum wire_purpose purpose,
                           struct chain_ask ask, int64_t timeout_ms, struct greeting *out) {
    struct buf body;
    buf_init(&body, 0);
    self_view(s, &out->self);
    enum dc_err err = self_hello(s, purpose, ask, &body);
    err = err == DC_OK ? link_send(l, WIRE_HELLO, buf_bytes(&body), NULL, 0) : err;
    buf_fini(&body);
    return err == DC_OK ? hear_answer(s, l, timeout_ms, out) : err;
}
