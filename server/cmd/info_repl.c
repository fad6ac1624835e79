/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INFO's section replication. Sentinel and client libraries read it: the role stands before the lines of the replicas, fields that they
 * know keep their names, units and places.
 */
#include "replication/repl.h"
#include "server/base/sum.h"
#include "server/cmd/acks.h"
#include "server/cmd/info.h"
#include "server/cmd/node.h"

#include <inttypes.h>

/* 40 hex digits that name a history, as Redis's tools expect them. */
static void put_replid(struct buf *out, const char *name, uint64_t id) {
    if (id == 0) {
        buf_printf(out, "%s:%040d\r\n", name, 0);
        return;
    }
    buf_printf(out, "%s:%016" PRIx64 "%016" PRIx64 "%08" PRIx32 "\r\n", name, id,
               sum64(&id, sizeof(id), 1), (uint32_t)sum64(&id, sizeof(id), 2));
}

static int64_t seconds_since(int64_t mono_us) {
    return mono_us == 0 ? -1 : (time_mono_us() - mono_us) / 1000000;
}

static void write_copy(const struct repl_view *v, struct buf *out) {
    uint64_t left = v->copy_len > v->copy_bytes ? v->copy_len - v->copy_bytes : 0;
    double percent = v->copy_len > 0 ? 100.0 * (double)v->copy_bytes / (double)v->copy_len : 0;
    buf_printf(out,
               "master_sync_total_bytes:%" PRIu64 "\r\nmaster_sync_read_bytes:%" PRIu64
               "\r\nmaster_sync_left_bytes:%" PRIu64
               "\r\nmaster_sync_perc:%.2f\r\nmaster_sync_last_io_seconds_ago:%" PRId64 "\r\n",
               v->copy_len, v->copy_bytes, left, percent, seconds_since(v->last_io_us));
}

static void write_replica(struct node *n, const struct repl_view *v, struct buf *out) {
    bool up = v->link == LINK_CONNECTED;
    buf_printf(out,
               "master_host:%s\r\nmaster_port:%" PRIu32
               "\r\nmaster_link_status:%s\r\nmaster_last_io_seconds_ago:%" PRId64
               "\r\nmaster_sync_in_progress:%d\r\n",
               v->host, v->port, up ? "up" : "down", up ? seconds_since(v->last_io_us) : -1,
               v->link == LINK_SYNC);
    buf_printf(out, "slave_read_repl_offset:%" PRIu64 "\r\nslave_repl_offset:%" PRIu64 "\r\n",
               v->received_lsn, v->untaken ? 0 : v->applied_lsn);
    buf_printf(out, "replica_lag_bytes:%" PRId64 "\r\nreplica_lag_usec:%" PRId64 "\r\n",
               v->lag_bytes, v->lag_bytes < 0 ? -1 : v->behind_us);
    if (v->link == LINK_SYNC) {
        write_copy(v, out);
    }
    if (!up) {
        buf_printf(out,
                   "master_link_down_since_seconds:%" PRId64 "\r\nmaster_link_down_reason:%s\r\n",
                   seconds_since(v->down_since_us), v->why_down);
    }
    buf_printf(
        out, "slave_priority:%" PRId64 "\r\nslave_read_only:1\r\nreplica_announced:%" PRId64 "\r\n",
        v->unfit ? 0 : conf_get(n->conf, replica_priority), conf_get(n->conf, replica_announced));
}

/* --- replicas of this node --------------------------------------------------------------------------------------- */

struct replica_lines {
    struct node *node;
    struct buf text;
    uint32_t count;
    int64_t now_us;
};

static void add_replica(const struct replica_seen *seen, void *arg) {
    struct replica_lines *l = arg;
    if (seen->slot < 0) {
        return; /* known, not attached */
    }
    buf_printf(&l->text,
               "slave%" PRIu32 ":ip=%s,port=%u,state=%s,offset=%" PRIu64 ",lag=%" PRId64
               ",lag_bytes=%" PRIu64 ",durable=%" PRIu64 ",applied=%" PRIu64 ",sent_bytes=%" PRIu64
               "\r\n",
               l->count++, seen->addr, (unsigned)seen->port, replica_state_name(seen->state),
               seen->received, replica_silence_us(seen, l->now_us) / 1000000,
               repl_behind(l->node->log, seen), seen->durable, seen->applied, seen->sent_bytes);
}

static void write_replicas(struct node *n, struct buf *out) {
    struct replica_lines l = {.node = n, .now_us = time_mono_us()};
    buf_init(&l.text, 0);
    replicas_each(n->replicas, add_replica, &l);
    buf_printf(out, "connected_slaves:%" PRIu32 "\r\n", l.count);
    if (conf_get(n->conf, min_replicas_to_write) > 0 &&
        conf_get(n->conf, min_replicas_max_lag) > 0) {
        buf_printf(out, "min_slaves_good_slaves:%" PRIu32 "\r\n", acks_good_replicas(n));
    }
    buf_append_bytes(out, buf_bytes(&l.text));
    buf_fini(&l.text);
}

/* The log on the disk is what others are sent from. */
static void write_backlog(const struct repl_stats *s, struct buf *out) {
    buf_printf(out,
               "repl_backlog_active:%d\r\nrepl_backlog_size:%" PRIu64
               "\r\nrepl_backlog_first_byte_offset:%" PRIu64 "\r\nrepl_backlog_histlen:%" PRIu64
               "\r\n",
               s->log_oldest != 0, s->log_bytes, s->log_oldest, s->log_bytes);
}

static void write_syncs(const struct repl_stats *s, struct buf *out) {
    buf_printf(out,
               "replication_full_sent:%" PRIu64 "\r\nreplication_partial_sent:%" PRIu64
               "\r\nreplication_refused:%" PRIu64 "\r\nreplication_copies_under_way:%" PRIu64
               "\r\nreplication_full_sent_reason:%s\r\nreplication_full_received:%" PRIu64
               "\r\nreplication_partial_received:%" PRIu64
               "\r\nreplication_full_received_reason:%s\r\n",
               s->sent_full, s->sent_partial, s->refused, s->copies_under_way, s->sent_full_reason,
               s->got_full, s->got_partial, s->got_full_reason);
}

/* --- histories --------------------------------------------------------------------------------------------------- */

static void write_histories(const struct node *n, struct buf *out) {
    const struct histories *h = log_chain(n->log);
    const struct history *last = histories_last(h);
    uint32_t count = h->count;
    put_replid(out, "master_replid", last != NULL ? last->id : 1);
    put_replid(out, "master_replid2", count > 1 ? h->list[count - 2].id : 0);
    buf_printf(out, "master_repl_offset:%" PRIu64 "\r\n", log_head(n->log).v);
    if (count > 1) {
        buf_printf(out, "second_repl_offset:%" PRIu64 "\r\n", last->parent_end + 1);
    } else {
        buf_append_str(out, "second_repl_offset:-1\r\n");
    }
    buf_printf(out, "replication_epoch:%" PRIu64 "\r\n", last != NULL ? last->epoch : 0);
}

void info_write_replication(struct node *n, struct buf *out) {
    struct repl_view v = {.role = ROLE_PRIMARY};
    struct repl_stats s = {.sent_full = 0};
    if (n->repl != NULL) {
        repl_view(n->repl, &v);
        repl_stats(n->repl, &s);
    }
    buf_printf(out, "role:%s\r\n", v.is_slave ? "slave" : "master");
    if (v.is_slave) {
        write_replica(n, &v, out);
    }
    write_replicas(n, out);
    buf_printf(out, "master_failover_state:%s\r\n", repl_failover_name(v.failover));
    write_histories(n, out);
    write_backlog(&s, out);
    write_syncs(&s, out);
}
