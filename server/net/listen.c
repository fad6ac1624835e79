/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/net/listen.h"

#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/net/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ACCEPTS_PER_EVENT = 256 };

struct listener {
    struct node *node;
    struct worker *acceptor;
    struct event *event;
    int fd;
    bool is_unix;
    const char *path; /* of a Unix socket */
};

struct listeners {
    uint32_t count;
    struct handover *before; /* while they are opened: sockets of the run before; NULL = none */
    struct listener at[LISTENERS_MAX];
    char unix_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* --- accepting --------------------------------------------------------------------------------------- */

/* A connection on its way to its worker. */
struct arrival {
    struct message message;
    int fd;
    bool is_unix;
    char addr[CLIENT_ADDR_MAX];
    char laddr[CLIENT_ADDR_MAX];
};

static void arrive(struct cmd_worker *w, struct message *m) {
    struct arrival *a = (struct arrival *)m;
    conn_open((struct worker *)w, a->fd, a->addr, a->laddr, a->is_unix);
    mem_free(a);
}

static void print_address(const struct sockaddr_storage *ss, char *to, size_t size) {
    char host[INET6_ADDRSTRLEN] = "?";
    if (ss->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(to, size, "%s:%u", host, ntohs(in->sin_port));
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(to, size, "[%s]:%u", host, ntohs(in6->sin6_port));
    }
}

static struct worker *least_busy(struct node *n) {
    struct worker *best = (struct worker *)n->workers[0];
    for (uint32_t i = 1; i < n->worker_count; i++) {
        struct worker *w = (struct worker *)n->workers[i];
        if (atomic_load_explicit(&w->conn_count, memory_order_relaxed) <
            atomic_load_explicit(&best->conn_count, memory_order_relaxed)) {
            best = w;
        }
    }
    return best;
}

static void turn_away(struct listener *l, int fd, const char *text) {
    /* Best effort: the peer may be gone already. */
    ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
    close(fd);
    metric_add(&l->acceptor->cmd.metrics, METRIC_CONNECTIONS_REJECTED, 1);
}

static bool is_stranger(const struct listener *l, const char *addr) {
    return !l->is_unix && conf_get(l->node->conf, protected_mode) &&
           !atomic_load_explicit(&l->node->has_password, memory_order_relaxed) &&
           strncmp(addr, "127.", 4) != 0 && strncmp(addr, "[::1]", 5) != 0 &&
           strncmp(addr, "[::ffff:127.", 12) != 0;
}

static void set_options(const struct listener *l, int fd) {
    int on = 1;
    int idle = (int)conf_get(l->node->conf, tcp_keepalive);
    if (l->is_unix) {
        return;
    }
    /* Hints: a socket that refuses them works all the same. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (idle > 0) {
        int interval = idle / 3 > 0 ? idle / 3 : 1;
        int count = 3;
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    }
}

static void hand_over(struct listener *l, struct arrival *a) {
    struct node *n = l->node;
    struct worker *w = least_busy(n);
    set_options(l, a->fd);
    a->message.run = arrive;
    atomic_fetch_add_explicit(&w->conn_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->client_count, 1, memory_order_relaxed);
    metric_add(&l->acceptor->cmd.metrics, METRIC_CONNECTIONS_ACCEPTED, 1);
    if (w == l->acceptor) {
        arrive(&w->cmd, &a->message);
    } else {
        worker_post(w, &a->message);
    }
}

static bool accept_one(struct listener *l) {
    struct node *n = l->node;
    struct sockaddr_storage peer, local;
    socklen_t peer_len = sizeof(peer), local_len = sizeof(local);
    char addr[CLIENT_ADDR_MAX], laddr[CLIENT_ADDR_MAX];
    int fd = accept4(l->fd, (struct sockaddr *)&peer, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
            diag(DIAG_WARNING, "listen.accept_failed error=\"%s\"", dc_errno_text(errno));
        }
        return false;
    }
    if (l->is_unix) {
        snprintf(addr, sizeof(addr), "%.*s:0", CLIENT_ADDR_MAX - 3, l->path);
        memcpy(laddr, addr, sizeof(laddr));
    } else {
        print_address(&peer, addr, sizeof(addr));
        (void)getsockname(fd, (struct sockaddr *)&local, &local_len);
        print_address(&local, laddr, sizeof(laddr));
    }
    if (atomic_load_explicit(&n->client_count, memory_order_relaxed) >=
        (uint64_t)conf_get(n->conf, maxclients)) {
        turn_away(l, fd, "-ERR max number of clients reached\r\n");
    } else if (is_stranger(l, addr)) {
        turn_away(
            l, fd,
            "-DENIED dcache is running in protected mode: no password is set and the connection "
            "comes from another machine. Set requirepass, or protected-mode no.\r\n");
    } else {
        struct arrival *a = mem_must_alloc(sizeof(*a));
        a->fd = fd;
        a->is_unix = l->is_unix;
        memcpy(a->addr, addr, sizeof(addr));
        memcpy(a->laddr, laddr, sizeof(laddr));
        hand_over(l, a);
    }
    return true;
}

static void on_accept(evutil_socket_t fd, short what, void *arg) {
    struct listener *l = arg;
    (void)fd, (void)what;
    worker_turn_begin(l->acceptor);
    for (uint32_t i = 0; i < ACCEPTS_PER_EVENT && accept_one(l); i++) {}
}

/* --- opening ----------------------------------------------------------------------------------------- */

/* The same place to listen at. */
static bool same_address(const struct sockaddr_storage *have, const struct sockaddr *want) {
    if (have->ss_family != want->sa_family) {
        return false;
    }
    if (want->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)have;
        const struct sockaddr_in *b = (const struct sockaddr_in *)(const void *)want;
        return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
    }
    if (want->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)have;
        const struct sockaddr_in6 *b = (const struct sockaddr_in6 *)(const void *)want;
        return a->sin6_port == b->sin6_port && a->sin6_scope_id == b->sin6_scope_id &&
               memcmp(&a->sin6_addr, &b->sin6_addr, sizeof(a->sin6_addr)) == 0;
    }
    return strcmp(((const struct sockaddr_un *)have)->sun_path,
                  ((const struct sockaddr_un *)(const void *)want)->sun_path) == 0;
}

/* A socket that the run before listened with: who has connected meanwhile waits in its backlog. -1 = there is none. */
static int take_inherited(struct listeners *ls, const struct sockaddr *want, int backlog) {
    for (uint32_t i = 0; ls->before != NULL && i < ls->before->socket_count; i++) {
        struct sockaddr_storage have;
        socklen_t len = sizeof(have);
        int fd = ls->before->sockets[i];
        memset(&have, 0, sizeof(have));
        if (fd >= 0 && getsockname(fd, (struct sockaddr *)&have, &len) == 0 &&
            same_address(&have, want) && listen(fd, backlog) == 0) {
            ls->before->sockets[i] = -1;
            return fd;
        }
    }
    return -1;
}

static enum dc_err add_listener(struct listeners *ls, struct node *n, struct worker *acceptor,
                                int fd, bool is_unix) {
    if (ls->count == LISTENERS_MAX) {
        close(fd);
        return dc_fail(DC_ECONF, "bind: more than %d addresses", LISTENERS_MAX - 1);
    }
    struct listener *l = &ls->at[ls->count++];
    *l = (struct listener){.node = n, .acceptor = acceptor, .fd = fd, .is_unix = is_unix};
    l->event = event_new(acceptor->base, fd, EV_READ | EV_PERSIST, on_accept, l);
    if (l->event == NULL || event_add(l->event, NULL) < 0) {
        return dc_fail(DC_EIO, "watching a listening socket: %s", dc_errno_text(errno));
    }
    return DC_OK;
}

static int listen_on(const struct addrinfo *ai, int backlog) {
    int on = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, backlog) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

/* One address of 'bind'. A leading minus: it may be missing on this machine. */
static enum dc_err open_tcp(struct listeners *ls, struct node *n, struct worker *acceptor,
                            const char *address) {
    bool optional = address[0] == '-';
    const char *host = address + optional;
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *ai = NULL;
    if (strcmp(host, "*") == 0) {
        host = "0.0.0.0";
    }
    snprintf(port, sizeof(port), "%d", (int)conf_get(n->conf, port));
    int rc = getaddrinfo(host, port, &hints, &ai);
    if (rc != 0) {
        return optional ? DC_OK : dc_fail(DC_EIO, "bind %s: %s", host, gai_strerror(rc));
    }
    int backlog = (int)conf_get(n->conf, tcp_backlog);
    int fd = take_inherited(ls, ai->ai_addr, backlog);
    fd = fd >= 0 ? fd : listen_on(ai, backlog);
    int error = errno;
    freeaddrinfo(ai);
    if (fd >= 0) {
        return add_listener(ls, n, acceptor, fd, false);
    }
    if (optional && (error == EADDRNOTAVAIL || error == EAFNOSUPPORT)) {
        return DC_OK;
    }
    return dc_fail(DC_EIO, "can't listen on %s port %s: %s", host, port, dc_errno_text(error));
}

/* The socket of the run before, or a new one. */
static enum dc_err bind_unix(struct listeners *ls, const struct sockaddr_un *un, int backlog,
                             int *fd_out) {
    int fd = take_inherited(ls, (const struct sockaddr *)un, backlog);
    *fd_out = fd;
    if (fd >= 0) {
        return DC_OK;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return dc_fail(DC_EIO, "unixsocket %s: %s", un->sun_path, dc_errno_text(errno));
    }
    (void)unlink(un->sun_path); /* of an earlier run */
    if (bind(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 || listen(fd, backlog) < 0) {
        enum dc_err err =
            dc_fail(DC_EIO, "can't listen on %s: %s", un->sun_path, dc_errno_text(errno));
        close(fd);
        return err;
    }
    *fd_out = fd;
    return DC_OK;
}

static enum dc_err open_unix(struct listeners *ls, struct node *n, struct worker *acceptor,
                             const char *path) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char perm[16];
    if (strlen(path) >= sizeof(un.sun_path)) {
        return dc_fail(DC_ECONF, "unixsocket %s: the path is too long", path);
    }
    memcpy(un.sun_path, path, strlen(path) + 1);
    int fd = -1;
    enum dc_err err = bind_unix(ls, &un, (int)conf_get(n->conf, tcp_backlog), &fd);
    if (err != DC_OK) {
        return err;
    }
    (void)conf_text(n->conf, CONF_ID_unixsocketperm, perm, sizeof(perm));
    mode_t mode = (mode_t)strtoul(perm, NULL, 8);
    if (mode != 0 && chmod(path, mode) < 0) {
        diag(DIAG_WARNING, "listen.chmod_failed path=%s error=\"%s\"", path, dc_errno_text(errno));
    }
    memcpy(ls->unix_path, path, strlen(path) + 1);
    err = add_listener(ls, n, acceptor, fd, true);
    if (err == DC_OK) {
        ls->at[ls->count - 1].path = ls->unix_path;
    }
    return err;
}

enum dc_err listeners_open(struct node *n, struct worker *acceptor, struct handover *before,
                           struct listeners **out) {
    struct listeners *ls = mem_must_zalloc(sizeof(*ls));
    char addresses[1024];
    char path[256];
    enum dc_err err = DC_OK;
    *out = ls;
    ls->before = before;
    (void)conf_text(n->conf, CONF_ID_bind, addresses, sizeof(addresses));
    (void)conf_text(n->conf, CONF_ID_unixsocket, path, sizeof(path));
    if (conf_get(n->conf, port) != 0) {
        char *save = NULL;
        for (char *at = strtok_r(addresses, " ", &save); at != NULL && err == DC_OK;
             at = strtok_r(NULL, " ", &save)) {
            err = open_tcp(ls, n, acceptor, at);
        }
    }
    if (err == DC_OK && path[0] != '\0') {
        err = open_unix(ls, n, acceptor, path);
    }
    if (err == DC_OK && ls->count == 0) {
        err = dc_fail(DC_ECONF, "nothing to listen on: port is 0 and no unixsocket is set, or no "
                                "address of 'bind' exists here");
    }
    ls->before = NULL;
    return err;
}

void listeners_close(struct listeners *ls, struct handover *after) {
    if (ls == NULL) {
        return;
    }
    for (uint32_t i = 0; i < ls->count; i++) {
        if (ls->at[i].event != NULL) {
            event_free(ls->at[i].event);
        }
        if (after != NULL) {
            after->sockets[after->socket_count++] = ls->at[i].fd;
        } else {
            close(ls->at[i].fd);
        }
    }
    if (ls->unix_path[0] != '\0' && after == NULL) {
        (void)unlink(ls->unix_path);
    }
    mem_free(ls);
}
