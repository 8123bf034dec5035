/* Sockets as they are listed over NETLINK_SOCK_DIAG, and interfaces as files. */
#include "sockets.h"
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <sys/un.h>

static int diag;
static char answer[1 << 16];

/* Ask, and look through all that is told for the socket with this number; its message, or NULL. The value of the end is in `ended`. */
static int ended;
static char *ask(const void *body, int length, int flags, unsigned ino) {
    char question[256] = {0};
    struct nlmsghdr *head = (void *)question;
    *head = (struct nlmsghdr){.nlmsg_len = sizeof *head + length, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = 77};
    memcpy(NLMSG_DATA(head), body, length);
    static char found[4096];
    char *mine = NULL;
    if (send(diag, question, head->nlmsg_len, 0) < 0) {
        ended = -errno;
        return NULL;
    }
    for (;;) {
        int n = recv(diag, answer, sizeof answer, 0);
        for (struct nlmsghdr *m = (void *)answer; NLMSG_OK(m, n); m = NLMSG_NEXT(m, n)) {
            if (m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR) {
                ended = *(int *)NLMSG_DATA(m);
                return mine;
            }
            unsigned its = *(unsigned char *)NLMSG_DATA(m) == AF_UNIX ? ((struct unix_diag_msg *)NLMSG_DATA(m))->udiag_ino
                                                                        : ((struct inet_diag_msg *)NLMSG_DATA(m))->idiag_inode;
            if (its == ino && m->nlmsg_len <= sizeof found) mine = memcpy(found, m, m->nlmsg_len);
        }
    }
}

static unsigned number(int fd) {
    struct stat s;
    fstat(fd, &s);
    return s.st_ino;
}

static void inet(int family, int kind, int protocol) {
    struct sockaddr_in a4 = {AF_INET, 0, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {AF_INET6, 0, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr *at = family == AF_INET ? (void *)&a4 : (void *)&a6;
    socklen_t n = family == AF_INET ? sizeof a4 : sizeof a6;
    int s = socket(family, kind, 0);
    struct inet_diag_req_v2 q = {.sdiag_family = family, .sdiag_protocol = protocol, .idiag_states = ~0u};
    T(ask(&q, sizeof q, NLM_F_DUMP, number(s)) != NULL);
    bind(s, at, n);
    if (kind == SOCK_STREAM) listen(s, 5);
    getsockname(s, at, &n);
    char *m = ask(&q, sizeof q, NLM_F_DUMP, number(s));
    T(m != NULL);
    T(ended);
    if (m) {
        struct nlmsghdr *h = (void *)m;
        struct inet_diag_msg *d = NLMSG_DATA(h);
        T(h->nlmsg_type);
        T(h->nlmsg_flags & NLM_F_MULTI);
        T(h->nlmsg_seq);
        T(d->idiag_family == family);
        T(d->idiag_state);
        T(d->idiag_timer);
        T(d->id.idiag_sport == (family == AF_INET ? a4.sin_port : a6.sin6_port));
        T(d->id.idiag_dport);
        T(family == AF_INET ? memcmp(d->id.idiag_src, &a4.sin_addr, 4) : memcmp(d->id.idiag_src, &a6.sin6_addr, 16));
        T(d->id.idiag_if);
        T(d->idiag_rqueue);
        T(d->idiag_wqueue);
        T(d->idiag_uid == getuid());
        uint64_t cookie;
        socklen_t l = 8;
        getsockopt(s, SOL_SOCKET, SO_COOKIE, &cookie, &l);
        T(memcmp(d->id.idiag_cookie, &cookie, 8));
    }
    q.idiag_states = 1 << 1;
    T(ask(&q, sizeof q, NLM_F_DUMP, number(s)) != NULL);
    if (kind == SOCK_STREAM) {
        int c = socket(family, kind, 0);
        T(connect(c, at, n));
        m = ask(&q, sizeof q, NLM_F_DUMP, number(c));
        T(m != NULL);
        if (m) T(((struct inet_diag_msg *)NLMSG_DATA((struct nlmsghdr *)m))->id.idiag_dport == (family == AF_INET ? a4.sin_port : a6.sin6_port));
        T(poll1(s, POLLIN, -1));
        q.idiag_states = 1 << 10;
        m = ask(&q, sizeof q, NLM_F_DUMP, number(s));
        if (m) T(((struct inet_diag_msg *)NLMSG_DATA((struct nlmsghdr *)m))->idiag_rqueue);
        T(ask(&q, sizeof q, NLM_F_DUMP, number(c)) != NULL);
        close(c);
    }
    T(ask(&q, sizeof q - 1, NLM_F_DUMP, 0) != NULL);
    T(ended);
    close(s);
}

static void local(void) {
    struct sockaddr_un at = {AF_UNIX};
    struct unix_diag_req q = {.sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN};
    snprintf(at.sun_path, sizeof at.sun_path, "here");
    int s = socket(AF_UNIX, SOCK_STREAM, 0), p[2];
    T(bind(s, SA(at)));
    T(listen(s, 5));
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p);
    int fds[] = {s, p[0]};
    for (int i = 0; i < 2; i++) {
        char *m = ask(&q, sizeof q, NLM_F_DUMP, number(fds[i]));
        N("told", i, m != NULL);
        if (!m) continue;
        struct nlmsghdr *h = (void *)m;
        struct unix_diag_msg *d = NLMSG_DATA(h);
        T(d->udiag_family);
        T(d->udiag_type);
        T(d->udiag_state);
        struct rtattr *a = (void *)(d + 1);
        for (int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *d); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
            N("attribute", a->rta_type, RTA_PAYLOAD(a));
            if (a->rta_type == UNIX_DIAG_NAME) T(memcmp(RTA_DATA(a), "here", 4));
            if (a->rta_type == UNIX_DIAG_PEER) T(*(unsigned *)RTA_DATA(a) == number(p[1]));
            if (a->rta_type == UNIX_DIAG_RQLEN) {
                T(*(unsigned *)RTA_DATA(a));
                T(((unsigned *)RTA_DATA(a))[1]);
            }
        }
    }
    q.udiag_states = 1 << 7;
    T(ask(&q, sizeof q, NLM_F_DUMP, number(s)) != NULL);
    q.sdiag_family = 99;
    T(ask(&q, sizeof q, NLM_F_DUMP, 0) != NULL);
    T(ended);
    close(s), close(p[0]), close(p[1]);
}

static char *file(const char *name) {
    static char path[128], text[128];
    snprintf(path, sizeof path, "/sys/class/net/lo/%s", name);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return strcpy(text, strerrorname_np(errno));
    int n = read(fd, text, sizeof text - 1);
    if (n < 0) strcpy(text, strerrorname_np(errno));
    else text[n] = 0;
    for (char *at = text; (at = strchr(at, '\n')); at++) *at = at[1] ? ' ' : 0;
    close(fd);
    return text;
}

int main(void) {
    diag = socket(AF_NETLINK, SOCK_DGRAM, 4);
    T(diag >= 0);
    inet(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    inet(AF_INET6, SOCK_STREAM, IPPROTO_TCP);
    inet(AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    local();
    const char *names[] = {"address", "broadcast", "addr_len", "mtu", "flags", "ifindex", "iflink", "type", "operstate", "carrier", "speed", "duplex", "dormant",
                           "tx_queue_len", "dev_id", "ifalias", "link_mode", "statistics/rx_errors", "statistics/collisions", "uevent", "nothing"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) printf(FAMILY ".%s: %s\n", names[i], file(names[i]));
    struct stat s;
    T(lstat("/sys/class/net/lo", &s));
    T(S_ISLNK(s.st_mode));
    char to[200] = {0};
    T(readlink("/sys/class/net/lo", to, 199) > 0);
    S(to);
    return 0;
}
