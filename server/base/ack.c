/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/ack.h"

#include "server/base/limits.h"
#include "server/base/num.h"

#include <stdio.h>

static const char *const local_names[] = {
    [ACK_DEFAULT] = "default", [ACK_MEMORY] = "memory", [ACK_OS] = "os", [ACK_DISK] = "disk"};

/* Up to the separator, which is taken as well. */
static struct bytes cut(struct bytes *s, char separator) {
    const char *at = s->len > 0 ? memchr(s->ptr, separator, s->len) : NULL;
    struct bytes part = bytes_of(s->ptr, at == NULL ? s->len : (size_t)(at - s->ptr));
    size_t taken = part.len + (at != NULL);
    *s = bytes_of(s->ptr + taken, s->len - taken);
    return part;
}

static bool put_local(struct ack_level *level, enum ack_local local) {
    bool first = level->local == ACK_DEFAULT;
    level->local = (uint8_t)local;
    return first;
}

/* Behind "replicas:" or "quorum:". */
static bool put_disk(struct ack_level *level, struct bytes rest, bool more) {
    level->replicas_disk = more;
    return !more || bytes_is(rest, "disk");
}

static bool put_part(struct ack_level *level, struct bytes part) {
    for (enum ack_local i = ACK_MEMORY; i <= ACK_DISK; i++) {
        if (bytes_is(part, local_names[i])) {
            return put_local(level, i);
        }
    }
    if (level->replicas > 0 || level->quorum) {
        return false;
    }
    struct bytes word = cut(&part, ':');
    if (bytes_is(word, "quorum")) {
        level->quorum = true;
        return put_disk(level, part, part.ptr > word.ptr + word.len);
    }
    struct bytes number = cut(&part, ':');
    uint64_t count;
    if (!bytes_is(word, "replicas") || !num_parse_u64(number, &count) || count == 0 ||
        count > REPLICAS_MAX) {
        return false;
    }
    level->replicas = (uint8_t)count;
    return put_disk(level, part, part.ptr > number.ptr + number.len);
}

bool ack_parse(struct bytes text, struct ack_level *out) {
    struct ack_level level = {.local = ACK_DEFAULT};
    *out = level;
    if (bytes_is(text, local_names[ACK_DEFAULT])) {
        return true;
    }
    bool more = true;
    while (more) {
        struct bytes part = cut(&text, '+');
        more = text.ptr > part.ptr + part.len;
        if (!put_part(&level, part)) {
            return false;
        }
    }
    if (level.local == ACK_DEFAULT) {
        level.local = ACK_MEMORY;
    }
    *out = level;
    return true;
}

size_t ack_text(struct ack_level level, char *to) {
    bool copies = level.replicas > 0 || level.quorum;
    const char *local = copies && level.local == ACK_MEMORY ? "" : local_names[level.local];
    const char *plus = copies && local[0] != '\0' ? "+" : "";
    const char *disk = level.replicas_disk ? ":disk" : "";
    int len = level.quorum ? snprintf(to, ACK_TEXT_MAX, "%s%squorum%s", local, plus, disk)
              : copies     ? snprintf(to, ACK_TEXT_MAX, "%s%sreplicas:%u%s", local, plus,
                                      level.replicas, disk)
                           : snprintf(to, ACK_TEXT_MAX, "%s", local);
    return (size_t)len;
}
