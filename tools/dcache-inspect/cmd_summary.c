/* SPDX-License-Identifier: BSD-3-Clause */
/* summary: what stands in headers, footers and indexes; no block is read, of a segment only the frames. */
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "tools/dcache-inspect/inspect.h"

#include <inttypes.h>

/* --- a chain of histories ------------------------------------------------------------------------------------------------ */

static void show_chain(struct emit *out, const struct history *chain, uint32_t count) {
    emit_open_list(out, "histories");
    for (uint32_t i = 0; i < count; i++) {
        if (out->json) {
            emit_open(out, NULL);
            emit_id(out, "id", chain[i].id);
            emit_lsn(out, "start", chain[i].start);
            emit_lsn(out, "epoch", chain[i].epoch);
            emit_lsn(out, "parent_end", chain[i].parent_end);
            emit_close(out);
        } else {
            fprintf(out->to, "    %016" PRIx64 "  from LSN %" PRIu64 ", epoch %" PRIu64,
                    chain[i].id, chain[i].start, chain[i].epoch);
            if (chain[i].parent_end > 0) {
                fprintf(out->to, ", forked at LSN %" PRIu64, chain[i].parent_end);
            }
            putc('\n', out->to);
        }
    }
    emit_close_list(out);
}

/* --- a snapshot ---------------------------------------------------------------------------------------------------------- */

struct keyspace_sums {
    uint64_t entries, blocks, pieces, plain, stored, piece_bytes;
};

/* The databases, then what has a number that none has, then the system keyspace. */
enum { PLACE_UNKNOWN = KEYSPACE_MAX, PLACE_SYSTEM, PLACES };

static uint32_t place_of(uint32_t keyspace) {
    return keyspace < KEYSPACE_MAX       ? keyspace
           : keyspace == KEYSPACE_SYSTEM ? PLACE_SYSTEM
                                         : PLACE_UNKNOWN;
}

static void sum_blocks(const struct snap *s, struct keyspace_sums *sums) {
    for (uint32_t i = 0; i < snap_facts(s)->block_count; i++) {
        const struct snap_block_info *b = snap_block_info(s, i);
        struct keyspace_sums *k = &sums[place_of(b->keyspace)];
        k->entries += b->entries;
        k->blocks += b->kind == SNAP_ENTRIES;
        k->pieces += b->kind == SNAP_PIECE;
        k->piece_bytes += b->kind == SNAP_PIECE ? b->plain_len : 0;
        k->plain += b->plain_len;
        k->stored += b->stored_len;
    }
}

static void show_keyspaces(struct emit *out, const struct snap *s) {
    struct keyspace_sums sums[PLACES] = {{0}};
    sum_blocks(s, sums);
    emit_open_list(out, "keyspaces");
    if (!out->json) {
        fprintf(out->to, "    %8s %12s %8s %8s %15s %15s %7s\n", "keyspace", "keys", "blocks",
                "pieces", "plain bytes", "stored bytes", "ratio");
    }
    for (uint32_t i = 0; i < PLACES; i++) {
        const struct keyspace_sums *k = &sums[i];
        uint32_t id = i == PLACE_SYSTEM ? KEYSPACE_SYSTEM : i;
        char keyspace[EMIT_KEYSPACE_LEN];
        if (k->blocks + k->pieces == 0) {
            continue;
        }
        if (!out->json) {
            fprintf(out->to,
                    "    %8s %12" PRIu64 " %8" PRIu64 " %8" PRIu64 " %15" PRIu64 " %15" PRIu64
                    " %6.1f%%\n",
                    text_keyspace(keyspace, id), k->entries, k->blocks, k->pieces, k->plain,
                    k->stored, k->plain > 0 ? 100.0 * (double)k->stored / (double)k->plain : 0.0);
            continue;
        }
        emit_open(out, NULL);
        emit_keyspace(out, id);
        emit_u64(out, "keys", k->entries);
        emit_u64(out, "blocks", k->blocks);
        emit_u64(out, "pieces", k->pieces);
        emit_u64(out, "piece_bytes", k->piece_bytes);
        emit_u64(out, "plain_bytes", k->plain);
        emit_u64(out, "stored_bytes", k->stored);
        emit_ratio(out, "ratio", k->stored, k->plain);
        emit_close(out);
    }
    emit_close_list(out);
}

static void show_snapshot(struct emit *out, const char *path, const struct snap *s) {
    const struct snap_facts *f = snap_facts(s);
    emit_begin(out, "snapshot");
    if (out->json) {
        emit_str(out, "what", "snapshot");
    }
    emit_str(out, "file", path);
    emit_size(out, "size", f->file_len);
    emit_hex(out, "node_id", f->node_id, NODE_ID_LEN);
    emit_time(out, "begun", f->begun_ms);
    emit_time(out, "finished", f->finished_ms);
    emit_lsn(out, "start_lsn", f->start_lsn);
    emit_lsn(out, "end_lsn", f->end_lsn);
    emit_u64(out, "keys", f->entries);
    emit_u64(out, "blocks", f->block_count);
    emit_size(out, "plain", f->plain_bytes);
    emit_size(out, "stored", f->stored_bytes);
    emit_ratio(out, "compressed_to", f->stored_bytes, f->plain_bytes);
    emit_size(out, "tail", f->tail_len);
    emit_u64(out, "slots_per_range", (uint64_t)1 << f->range_bits);
    emit_id(out, "checksum", f->sum);
    show_keyspaces(out, s);
    show_chain(out, f->chain, f->chain_count);
    emit_end(out);
}

static enum status summary_of_snapshot(struct inspect *in) {
    struct snap *s = NULL;
    enum dc_err err = snap_open(&io_posix, in->args[0], &s);
    if (err != DC_OK) {
        return complain(err);
    }
    show_snapshot(&in->out, in->args[0], s);
    snap_close(s);
    return STATUS_FINE;
}

/* --- a segment ----------------------------------------------------------------------------------------------------------- */

struct log_sums {
    uint64_t frames, effects, bytes, forks, closes;
    uint64_t kinds[MUT_FLUSH + 1];
    int64_t first_ms, last_ms;
    enum log_end end;
    struct log_end_info info;
};

static void sum_frame(struct log_sums *sums, const struct frame_ref *frame) {
    struct effect_view e;
    size_t at = FRAME_HEADER_LEN;
    sums->first_ms = sums->frames == 0 ? frame->head.time_ms : sums->first_ms;
    sums->last_ms = frame->head.time_ms;
    sums->frames++;
    sums->bytes += frame->len;
    sums->forks += frame->head.kind == FRAME_FORK;
    sums->closes += frame->head.kind == FRAME_CLOSE;
    for (uint32_t i = 0; i < frame->head.effect_count; i++) {
        if (!effect_decode(frame->bytes, frame->len, at, frame->lsn, &e)) {
            return;
        }
        sums->effects++;
        sums->kinds[e.kind]++;
        at += e.len;
    }
}

static enum dc_err sum_log(const struct log_dir *d, struct log_sums *sums) {
    struct log_reader *r = NULL;
    struct frame_ref frame;
    *sums = (struct log_sums){.end = LOG_MORE};
    enum dc_err err = log_reader_open(&r, d, 0);
    if (err != DC_OK) {
        return err;
    }
    while ((sums->end = log_reader_next(r, &frame)) == LOG_MORE) {
        sum_frame(sums, &frame);
    }
    log_reader_end(r, &sums->info);
    log_reader_close(r);
    return DC_OK;
}

static const char *end_word(enum log_end end) {
    switch (end) {
    case LOG_MORE:
    case LOG_END:
        return "whole";
    case LOG_TORN:
        return "torn";
    case LOG_DAMAGED:
        return "damaged";
    case LOG_FAILED:
        return "unreadable";
    }
    return "?";
}

static void show_sums(struct emit *out, const struct log_sums *sums) {
    emit_u64(out, "frames", sums->frames);
    emit_u64(out, "effects", sums->effects);
    emit_open(out, "by_kind");
    for (uint32_t i = MUT_PUT; i <= MUT_FLUSH; i++) {
        emit_u64(out, effect_name((enum mut_kind)i), sums->kinds[i]);
    }
    emit_u64(out, "fork", sums->forks);
    emit_u64(out, "close", sums->closes);
    emit_close(out);
    if (sums->frames > 0) {
        emit_time(out, "first_time", sums->first_ms);
        emit_time(out, "last_time", sums->last_ms);
    }
    emit_size(out, "log_bytes", sums->bytes);
    emit_lsn(out, "end_lsn", sums->info.lsn);
    emit_str(out, "state", end_word(sums->end));
    emit_str(out, "state_text", sums->info.text);
}

static const char *head_word(enum head_verdict verdict) {
    switch (verdict) {
    case HEAD_OK:
        return "whole";
    case HEAD_NOT_OURS:
        return "not a log segment";
    case HEAD_NEWER:
        return "of a newer format";
    case HEAD_DAMAGED:
        return "damaged";
    }
    return "?";
}

static enum status summary_of_segment(struct inspect *in) {
    struct emit *out = &in->out;
    struct log_dir d;
    struct log_sums sums;
    enum dc_err err = log_dir_open_file(&d, &io_posix, in->args[0]);
    if (err != DC_OK) {
        return complain(err);
    }
    const struct segment_info *s = &d.segments[0];
    err = sum_log(&d, &sums);
    if (err == DC_OK) {
        emit_begin(out, "log segment");
        if (out->json) {
            emit_str(out, "what", "segment");
        }
        emit_str(out, "file", in->args[0]);
        emit_size(out, "size", s->file_len);
        emit_str(out, "header", head_word(s->verdict));
        emit_hex(out, "node_id", s->head.node_id, NODE_ID_LEN);
        emit_time(out, "created", s->head.created_ms);
        emit_id(out, "history", s->head.history.id);
        emit_lsn(out, "first_lsn", s->head.first_lsn);
        emit_lsn(out, "durable_lsn", s->durable_lsn);
        show_sums(out, &sums);
        emit_end(out);
    }
    bool damaged = s->verdict != HEAD_OK || sums.end == LOG_DAMAGED;
    log_dir_close(&d);
    return err != DC_OK ? complain(err) : damaged ? STATUS_FOUND : STATUS_FINE;
}

/* --- a data directory ---------------------------------------------------------------------------------------------------- */

struct dir_walk {
    struct emit *out;
    const char *dir;
    uint64_t bytes;
    bool damaged;
};

static void show_snapshot_line(void *arg, const char *name) {
    struct dir_walk *w = arg;
    struct emit *out = w->out;
    char path[VIEW_PATH_MAX];
    uint64_t end_lsn;
    uint64_t history;
    struct snap *s = NULL;
    if (!snap_name_parse(name, &end_lsn, &history) ||
        snprintf(path, sizeof(path), "%s/%s", w->dir, name) >= (int)sizeof(path)) {
        return;
    }
    enum dc_err err = snap_open(&io_posix, path, &s);
    const struct snap_facts *f = s != NULL ? snap_facts(s) : NULL;
    w->bytes += f != NULL ? f->file_len : 0;
    w->damaged |= f == NULL;
    if (out->json) {
        emit_open(out, NULL);
        emit_str(out, "file", name);
        emit_str(out, "state", f != NULL ? "whole" : dc_fail_take(err));
        if (f != NULL) {
            emit_lsn(out, "start_lsn", f->start_lsn);
            emit_lsn(out, "end_lsn", f->end_lsn);
            emit_u64(out, "keys", f->entries);
            emit_u64(out, "size", f->file_len);
            emit_time(out, "finished", f->finished_ms);
        }
        emit_close(out);
    } else if (f != NULL) {
        char time[EMIT_TIME_LEN];
        char size[EMIT_SIZE_LEN];
        fprintf(out->to, "    %s  %s, %" PRIu64 " keys, LSN %" PRIu64 "..%" PRIu64 ", %s\n", name,
                text_time(time, f->finished_ms), f->entries, f->start_lsn, f->end_lsn,
                text_size(size, f->file_len));
    } else {
        fprintf(out->to, "    %s  %s\n", name, dc_fail_take(err));
    }
    snap_close(s);
}

static void show_segment_line(struct dir_walk *w, const struct segment_info *s) {
    struct emit *out = w->out;
    w->bytes += s->file_len;
    w->damaged |= s->verdict != HEAD_OK && !s->blank && !s->abandoned;
    if (out->json) {
        emit_open(out, NULL);
        emit_str(out, "file", s->name);
        emit_str(out, "header", head_word(s->verdict));
        emit_id(out, "history", s->head.history.id);
        emit_lsn(out, "first_lsn", s->head.first_lsn);
        emit_lsn(out, "durable_lsn", s->durable_lsn);
        emit_u64(out, "size", s->file_len);
        emit_time(out, "created", s->head.created_ms);
        emit_bool(out, "abandoned", s->abandoned);
        emit_close(out);
        return;
    }
    char size[EMIT_SIZE_LEN];
    fprintf(out->to, "    %s  from LSN %" PRIu64 ", durable to %" PRIu64 ", %s%s%s%s\n", s->name,
            s->head.first_lsn, s->durable_lsn, text_size(size, s->file_len),
            s->abandoned ? ", abandoned" : "", s->verdict != HEAD_OK ? ", header " : "",
            s->verdict != HEAD_OK ? head_word(s->verdict) : "");
}

static enum status summary_of_dir(struct inspect *in) {
    struct emit *out = &in->out;
    struct dir_walk w = {.out = out, .dir = in->args[0]};
    struct log_dir d;
    struct log_sums sums = {.end = LOG_END};
    enum dc_err err = log_dir_open(&d, &io_posix, in->args[0]);
    if (err != DC_OK) {
        return complain(err);
    }
    err = sum_log(&d, &sums);
    emit_begin(out, "data directory");
    if (out->json) {
        emit_str(out, "what", "directory");
    }
    emit_str(out, "directory", in->args[0]);
    if (d.count > 0) {
        emit_hex(out, "node_id", d.segments[d.count - 1].head.node_id, NODE_ID_LEN);
    }
    emit_open_list(out, "snapshots");
    int rc = io_posix.list(&io_posix, in->args[0], show_snapshot_line, &w);
    emit_close_list(out);
    emit_open_list(out, "segments");
    for (uint32_t i = 0; i < d.count; i++) {
        show_segment_line(&w, &d.segments[i]);
    }
    emit_close_list(out);
    emit_size(out, "size", w.bytes);
    if (d.count > 0) {
        emit_open(out, "log");
        show_sums(out, &sums);
        emit_close(out);
    }
    show_chain(out, d.chain, d.chain_count);
    emit_end(out);
    log_dir_close(&d);
    if (rc != 0) {
        return complain(dc_fail(DC_EIO, "%s: %s", in->args[0], dc_errno_text(-rc)));
    }
    return err != DC_OK                           ? complain(err)
           : w.damaged || sums.end == LOG_DAMAGED ? STATUS_FOUND
                                                  : STATUS_FINE;
}

enum status cmd_summary(struct inspect *in) {
    enum path_kind kind;
    enum dc_err err = path_look(in->args[0], &kind);
    if (err != DC_OK) {
        return complain(err);
    }
    switch (kind) {
    case PATH_SNAPSHOT:
        return summary_of_snapshot(in);
    case PATH_SEGMENT:
        return summary_of_segment(in);
    case PATH_DIR:
        return summary_of_dir(in);
    }
    return STATUS_TROUBLE;
}
