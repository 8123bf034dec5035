/* UDP: what goes beside the bytes, groups, broadcasts, what comes back. */
#include "sockets.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>

#ifndef SO_TIMESTAMPNS
#define SO_TIMESTAMPNS 35
#endif

static char b[2000], control[512];

static struct sockaddr_in in(const char *ip, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    return a;
}
static struct sockaddr_in6 in6(const char *ip, int port) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, ip, &a.sin6_addr);
    return a;
}
static int port_of(int fd) {
    struct sockaddr_in6 a;
    socklen_t l = sizeof a;
    return getsockname(fd, (void *)&a, &l) ? -1 : ntohs(a.sin6_port);
}
static int bound(int domain, const char *ip) {
    int s = socket(domain, SOCK_DGRAM, 0);
    struct sockaddr_in a = in(ip, 0);
    struct sockaddr_in6 a6 = in6(ip, 0);
    if (domain == AF_INET ? bind(s, SA(a)) : bind(s, SA(a6)))
        perror("bind");
    return s;
}

/* Receive one, and print what came beside it. */
static void show(int fd, int flags) {
    struct sockaddr_storage from;
    struct iovec v = {b, sizeof b};
    struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v, .msg_iovlen = 1,
                       .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *h;
    char t[80];
    T(recvmsg(fd, &m, flags | MSG_DONTWAIT));
    if (errno)
        return;
    T(m.msg_flags);
    T(m.msg_namelen);
    for (h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        T(h->cmsg_level * 1000 + h->cmsg_type);
        T(h->cmsg_len);
        unsigned char *d = CMSG_DATA(h);
        if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *i = (void *)d;
            T(i->ipi_ifindex);
            S(inet_ntop(AF_INET, &i->ipi_spec_dst, t, 80));
            S(inet_ntop(AF_INET, &i->ipi_addr, t, 80));
        } else if (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo *i = (void *)d;
            T(i->ipi6_ifindex);
            S(inet_ntop(AF_INET6, &i->ipi6_addr, t, 80));
        } else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_TOS) {
            T(*d);
        } else if (h->cmsg_type == IP_RECVERR || h->cmsg_type == IPV6_RECVERR) {
            struct sock_extended_err *e = (void *)d;
            T(e->ee_errno);
            T(e->ee_origin * 10000 + e->ee_type * 100 + e->ee_code);
            T(SO_EE_OFFENDER(e)->sa_family);
        } else if (h->cmsg_level == SOL_SOCKET) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            T(labs(now.tv_sec - ((struct timespec *)d)->tv_sec) < 100);
        } else if (h->cmsg_len == CMSG_LEN(4)) {
            T(*(int *)d);
        }
    }
}

/* Send a byte with one message beside it. */
static int beside(int fd, void *to, int to_len, int level, int type, void *data, int len) {
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_name = to, .msg_namelen = to_len, .msg_iov = &v, .msg_iovlen = 1,
                       .msg_control = control, .msg_controllen = CMSG_SPACE(len)};
    struct cmsghdr *h = (void *)control;
    memset(control, 0, sizeof control);
    *h = (struct cmsghdr){CMSG_LEN(len), level, type};
    memcpy(CMSG_DATA(h), data, len);
    return sendmsg(fd, &m, 0);
}
#define BESIDE(fd, to, level, type, value) beside(fd, &to, sizeof to, level, type, &value, sizeof value)

static void headers(void) {
    int u = bound(AF_INET, "127.0.0.1"), v = socket(AF_INET, SOCK_DGRAM, 0), n;
    unsigned char c;
    struct sockaddr_in a = in("127.0.0.1", port_of(u));
    T(setopt(u, IPPROTO_IP, IP_PKTINFO, 1));
    T(opt(u, IPPROTO_IP, IP_PKTINFO));
    T(setopt(u, IPPROTO_IP, IP_RECVTTL, 1));
    T(setopt(u, IPPROTO_IP, IP_RECVTOS, 1));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    T(setopt(v, IPPROTO_IP, IP_TTL, 9));
    T(setopt(v, IPPROTO_IP, IP_TOS, 0x28));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, MSG_PEEK);
    show(u, 0);
    n = 33;
    T(BESIDE(v, a, IPPROTO_IP, IP_TTL, n));
    show(u, 0);
    n = 0;
    T(BESIDE(v, a, IPPROTO_IP, IP_TTL, n));
    n = 256;
    T(BESIDE(v, a, IPPROTO_IP, IP_TTL, n));
    c = 7;
    T(BESIDE(v, a, IPPROTO_IP, IP_TTL, c));
    T(BESIDE(v, a, IPPROTO_IP, IP_TOS, c));
    show(u, 0);
    T(BESIDE(v, a, IPPROTO_IP, 99, c));
    T(BESIDE(v, a, SOL_SOCKET, 99, c));
    T(BESIDE(v, a, SOL_SOCKET, SCM_RIGHTS, n));
    T(BESIDE(v, a, 4242, 99, c));
    T(setopt(u, IPPROTO_IP, IP_RECVTTL, 0));
    T(setopt(u, IPPROTO_IP, IP_RECVTOS, 0));
    while (recv(u, b, 9, MSG_DONTWAIT) > 0) {}
    struct in_pktinfo info = {0};
    inet_pton(AF_INET, "127.0.0.5", &info.ipi_spec_dst);
    T(BESIDE(v, a, IPPROTO_IP, IP_PKTINFO, info));
    show(u, 0);
    struct sockaddr_in r;
    socklen_t l = sizeof r;
    T(BESIDE(v, a, IPPROTO_IP, IP_PKTINFO, info));
    T(recvfrom(u, b, 9, 0, (void *)&r, &l));
    S(inet_ntoa(r.sin_addr));
    info.ipi_ifindex = 4711;
    T(BESIDE(v, a, IPPROTO_IP, IP_PKTINFO, info));
    inet_pton(AF_INET, "192.0.2.99", &info.ipi_spec_dst);
    info.ipi_ifindex = 0;
    T(BESIDE(v, a, IPPROTO_IP, IP_PKTINFO, info));
    T(setopt(u, IPPROTO_IP, IP_PKTINFO, 0));
    T(setopt(u, IPPROTO_IP, IP_RECVORIGDSTADDR, 1));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    T(setopt(u, IPPROTO_IP, IP_RECVORIGDSTADDR, 0));
    T(setopt(u, SOL_SOCKET, SO_TIMESTAMP, 1));
    T(opt(u, SOL_SOCKET, SO_TIMESTAMP));
    T(opt(u, SOL_SOCKET, SO_TIMESTAMPNS));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    T(setopt(u, SOL_SOCKET, SO_TIMESTAMPNS, 1));
    T(opt(u, SOL_SOCKET, SO_TIMESTAMP));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    T(setopt(u, SOL_SOCKET, SO_TIMESTAMP, 0));
    T(opt(u, SOL_SOCKET, SO_TIMESTAMPNS));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    close(u);
    close(v);
}

static void headers6(void) {
    int u = bound(AF_INET6, "::1"), v = socket(AF_INET6, SOCK_DGRAM, 0), n;
    struct sockaddr_in6 a = in6("::1", port_of(u));
    T(opt(v, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
    T(opt(v, IPPROTO_IPV6, IPV6_MULTICAST_HOPS));
    T(opt(v, IPPROTO_IPV6, IPV6_TCLASS));
    T(setopt(u, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
    T(setopt(u, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    T(setopt(u, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
    T(opt(u, IPPROTO_IPV6, IPV6_RECVTCLASS));
    T(setopt(u, IPPROTO_IPV6, IPV6_RECVRTHDR, 1));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    T(setopt(v, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 12));
    T(setopt(v, IPPROTO_IPV6, IPV6_TCLASS, 0x40));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    n = 77;
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_HOPLIMIT, n));
    show(u, 0);
    n = -1;
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_HOPLIMIT, n));
    show(u, 0);
    n = 256;
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_HOPLIMIT, n));
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_TCLASS, n));
    n = 3;
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_TCLASS, n));
    show(u, 0);
    T(BESIDE(v, a, IPPROTO_IPV6, 99, n));
    struct in6_pktinfo info = {0};
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_PKTINFO, info));
    show(u, 0);
    inet_pton(AF_INET6, "2001:db8::77", &info.ipi6_addr);
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_PKTINFO, info));
    T(BESIDE(v, a, IPPROTO_IPV6, IPV6_PKTINFO, n));
    close(u);
    close(v);
    /* IPv4 at a socket for both. */
    u = bound(AF_INET6, "::");
    v = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in four = in("127.0.0.1", port_of(u));
    T(setopt(u, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
    T(setopt(u, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    T(sendto(v, "x", 1, 0, SA(four)));
    show(u, 0);
    T(setopt(u, IPPROTO_IP, IP_RECVTTL, 1));
    T(setopt(u, IPPROTO_IP, IP_PKTINFO, 1));
    T(sendto(v, "x", 1, 0, SA(four)));
    show(u, 0);
    close(u);
    close(v);
}

static void groups(void) {
    int u = bound(AF_INET, "0.0.0.0"), w = bound(AF_INET, "0.0.0.0"), v = bound(AF_INET, "127.0.0.1"), x, n;
    unsigned char c = 0;
    struct sockaddr_in a = in("239.1.2.3", port_of(u)), one = in("127.0.0.1", port_of(u));
    struct ip_mreq r = {0};
    struct ip_mreqn rn = {0};
    struct in_addr ia;
    socklen_t l;
    inet_pton(AF_INET, "239.1.2.3", &r.imr_multiaddr);
    inet_pton(AF_INET, "127.0.0.1", &r.imr_interface);
    T(setsockopt(u, IPPROTO_IP, IP_DROP_MEMBERSHIP, &r, sizeof r));
    T(setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, 4));
    T(setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    T(setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    rn.imr_multiaddr.s_addr = htonl(0x7f000001);
    T(setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &rn, sizeof rn));
    rn.imr_multiaddr = r.imr_multiaddr;
    rn.imr_ifindex = 4711;
    T(setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &rn, sizeof rn));
    rn.imr_ifindex = 1;
    T(setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &rn, sizeof rn));
    x = socket(AF_INET, SOCK_STREAM, 0);
    T(setsockopt(x, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    close(x);
    T(opt(v, IPPROTO_IP, IP_MULTICAST_TTL));
    T(opt(v, IPPROTO_IP, IP_MULTICAST_LOOP));
    T(opt(v, IPPROTO_IP, IP_MULTICAST_ALL));
    T(setopt(v, IPPROTO_IP, IP_MULTICAST_TTL, 256));
    T(setopt(v, IPPROTO_IP, IP_MULTICAST_TTL, 3));
    l = 1;
    T(getsockopt(v, IPPROTO_IP, IP_MULTICAST_TTL, &c, &l));
    T(l);
    T(c);
    T(setsockopt(v, IPPROTO_IP, IP_MULTICAST_LOOP, &c, 1));
    T(opt(v, IPPROTO_IP, IP_MULTICAST_LOOP));
    inet_pton(AF_INET, "192.0.2.99", &ia);
    T(setsockopt(v, IPPROTO_IP, IP_MULTICAST_IF, &ia, 4));
    ia = r.imr_interface;
    T(setsockopt(v, IPPROTO_IP, IP_MULTICAST_IF, &ia, 4));
    ia.s_addr = 0;
    l = 4;
    T(getsockopt(v, IPPROTO_IP, IP_MULTICAST_IF, &ia, &l));
    S(inet_ntoa(ia));
    T(setopt(u, IPPROTO_IP, IP_PKTINFO, 1));
    T(setopt(u, IPPROTO_IP, IP_RECVTTL, 1));
    T(sendto(v, "x", 1, 0, SA(a)));
    show(u, 0);
    /* Another port, and one that has not joined. */
    a.sin_port = htons(port_of(w));
    T(sendto(v, "x", 1, 0, SA(a)));
    T(recv(w, b, 9, MSG_DONTWAIT));
    T(setopt(w, IPPROTO_IP, IP_MULTICAST_ALL, 0));
    T(sendto(v, "x", 1, 0, SA(a)));
    T(recv(w, b, 9, MSG_DONTWAIT));
    close(w);
    a.sin_port = htons(port_of(u));
    T(setsockopt(u, IPPROTO_IP, IP_DROP_MEMBERSHIP, &r, sizeof r));
    T(sendto(v, "x", 1, 0, SA(a)));
    T(recv(u, b, 9, MSG_DONTWAIT));
    T(sendto(v, "x", 1, 0, SA(one)));
    T(recv(u, b, 9, MSG_DONTWAIT));
    /* Several at one port all hear it; bound to the group itself, too. */
    int many[3];
    n = 0;
    for (int i = 0; i < 3; i++) {
        many[i] = socket(AF_INET, SOCK_DGRAM, 0);
        setopt(many[i], SOL_SOCKET, SO_REUSEADDR, 1);
        struct sockaddr_in at = i == 2 ? in("239.1.2.3", n) : in("0.0.0.0", n);
        T(bind(many[i], SA(at)));
        n = port_of(many[i]);
        T(setsockopt(many[i], IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    }
    a.sin_port = htons(n);
    T(sendto(v, "many", 4, 0, SA(a)));
    for (int i = 0; i < 3; i++)
        N("recv", i, recv(many[i], b, 9, MSG_DONTWAIT));
    one.sin_port = htons(n);
    T(sendto(v, "one", 3, 0, SA(one)));
    int heard = 0;
    for (int i = 0; i < 3; i++)
        heard += recv(many[i], b, 9, MSG_DONTWAIT) == 3;
    T(heard);
    /* Only some senders. */
    struct ip_mreq_source s = {.imr_multiaddr = r.imr_multiaddr, .imr_interface = r.imr_interface};
    inet_pton(AF_INET, "127.0.0.9", &s.imr_sourceaddr);
    T(setsockopt(many[0], IPPROTO_IP, IP_BLOCK_SOURCE, &s, sizeof s));
    T(setsockopt(many[0], IPPROTO_IP, IP_BLOCK_SOURCE, &s, sizeof s));
    T(setsockopt(many[0], IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &s, sizeof s));
    T(setsockopt(many[0], IPPROTO_IP, IP_UNBLOCK_SOURCE, &s, sizeof s));
    T(setsockopt(many[0], IPPROTO_IP, IP_UNBLOCK_SOURCE, &s, sizeof s));
    T(setsockopt(many[0], IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &s, sizeof s));
    inet_pton(AF_INET, "127.0.0.1", &s.imr_sourceaddr);
    T(setsockopt(many[1], IPPROTO_IP, IP_BLOCK_SOURCE, &s, sizeof s));
    T(sendto(v, "some", 4, 0, SA(a)));
    for (int i = 0; i < 3; i++)
        N("recv", i, recv(many[i], b, 9, MSG_DONTWAIT));
    T(setsockopt(many[0], IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, &s, sizeof s));
    T(setsockopt(many[0], IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &s, sizeof s));
    T(sendto(v, "again", 5, 0, SA(a)));
    T(recv(many[0], b, 9, MSG_DONTWAIT));
    T(setsockopt(many[0], IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, &s, sizeof s));
    struct group_req g = {.gr_interface = 1};
    memcpy(&g.gr_group, &a, sizeof a);
    T(setsockopt(v, IPPROTO_IP, MCAST_JOIN_GROUP, &g, sizeof g));
    T(setsockopt(v, IPPROTO_IP, MCAST_JOIN_GROUP, &g, 100));
    T(setsockopt(v, IPPROTO_IP, MCAST_LEAVE_GROUP, &g, sizeof g));
    T(setsockopt(v, IPPROTO_IP, MCAST_LEAVE_GROUP, &g, sizeof g));
    for (int i = 0; i < 3; i++)
        close(many[i]);
    /* As many as one socket may have. */
    for (n = 0; n < 30; n++) {
        r.imr_multiaddr.s_addr = htonl(0xef000100 + n);
        if (setsockopt(u, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r))
            break;
    }
    T(n);
    close(u);
    close(v);
}

static void groups6(void) {
    int u = bound(AF_INET6, "::"), v = bound(AF_INET6, "::1");
    struct sockaddr_in6 a = in6("ff01::99", port_of(u));
    struct ipv6_mreq r = {.ipv6mr_interface = 1};
    inet_pton(AF_INET6, "ff01::99", &r.ipv6mr_multiaddr);
    T(setsockopt(u, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &r, sizeof r));
    T(setsockopt(u, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r));
    T(setsockopt(u, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r));
    T(setsockopt(u, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, 10));
    T(setopt(v, IPPROTO_IPV6, IPV6_MULTICAST_IF, 4711));
    T(setopt(v, IPPROTO_IPV6, IPV6_MULTICAST_IF, 1));
    T(opt(v, IPPROTO_IPV6, IPV6_MULTICAST_IF));
    T(setopt(v, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 5));
    T(opt(v, IPPROTO_IPV6, IPV6_MULTICAST_HOPS));
    T(sendto(v, "six", 3, 0, SA(a)));
    T(setsockopt(u, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &r, sizeof r));
    r.ipv6mr_interface = 4711;
    T(setsockopt(u, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r));
    r.ipv6mr_interface = 1;
    inet_pton(AF_INET6, "::1", &r.ipv6mr_multiaddr);
    T(setsockopt(u, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r));
    close(u);
    close(v);
}

static void back(void) {
    int v = socket(AF_INET, SOCK_DGRAM, 0), u = bound(AF_INET, "127.0.0.1"), n = port_of(u);
    struct sockaddr_in nobody = in("127.0.0.1", n), r = {0}, all = in("127.255.255.255", 9);
    struct sockaddr_in6 nobody6 = in6("::1", n);
    close(u);
    T(sendto(v, "lost", 4, 0, SA(nobody)));
    T(poll1(v, ALL, 50));
    T(recvmsg(v, &(struct msghdr){0}, MSG_ERRQUEUE | MSG_DONTWAIT));
    T(setopt(v, IPPROTO_IP, IP_RECVERR, 1));
    T(sendto(v, "lost", 4, 0, SA(nobody)));
    T(poll1(v, ALL, 1000));
    show(v, MSG_ERRQUEUE);
    S(b);
    T(poll1(v, ALL, 0));
    T(opt(v, SOL_SOCKET, SO_ERROR));
    T(sendto(v, "lost", 4, 0, SA(nobody)));
    T(poll1(v, POLLERR, 1000));
    T(opt(v, SOL_SOCKET, SO_ERROR));
    T(opt(v, SOL_SOCKET, SO_ERROR));
    T(recv(v, b, 9, MSG_DONTWAIT));
    show(v, MSG_ERRQUEUE);
    T(sendto(v, b, 1500, 0, SA(nobody)));
    T(poll1(v, POLLERR, 1000));
    show(v, MSG_ERRQUEUE);
    T(setopt(v, IPPROTO_IP, IP_RECVERR, 0));
    T(connect(v, SA(all)));
    T(sendto(v, "all", 3, 0, SA(all)));
    T(setopt(v, SOL_SOCKET, SO_BROADCAST, 1));
    T(sendto(v, "all", 3, 0, SA(all)));
    close(v);
    v = socket(AF_INET6, SOCK_DGRAM, 0);
    T(setopt(v, IPPROTO_IPV6, IPV6_RECVERR, 1));
    T(sendto(v, "lost", 4, 0, SA(nobody6)));
    T(poll1(v, POLLERR, 1000));
    show(v, MSG_ERRQUEUE);
    close(v);
    /* What `connect` gave goes with it. */
    v = socket(AF_INET, SOCK_DGRAM, 0);
    T(connect(v, SA(nobody)));
    T(port_of(v) > 0);
    r.sin_family = AF_UNSPEC;
    T(connect(v, SA(r)));
    T(port_of(v));
    close(v);
    v = bound(AF_INET, "0.0.0.0");
    T(connect(v, SA(nobody)));
    T(connect(v, SA(r)));
    T(port_of(v));
    close(v);
}

/* The same sender is always heard by the same of those that share a port. */
static void shared(void) {
    int s[4], n = 0, hits[4] = {0}, same = 1, used = 0;
    for (int i = 0; i < 4; i++) {
        s[i] = socket(AF_INET, SOCK_DGRAM, 0);
        setopt(s[i], SOL_SOCKET, SO_REUSEPORT, 1);
        struct sockaddr_in a = in("127.0.0.1", n);
        T(bind(s[i], SA(a)));
        n = port_of(s[i]);
    }
    struct sockaddr_in a = in("127.0.0.1", n);
    for (int k = 0; k < 40; k++) {
        int v = socket(AF_INET, SOCK_DGRAM, 0), first = -1;
        for (int again = 0; again < 3; again++) {
            sendto(v, "x", 1, 0, SA(a));
            for (int i = 0; i < 4; i++)
                if (recv(s[i], b, 9, MSG_DONTWAIT) == 1) {
                    same &= first < 0 || first == i;
                    first = i;
                    hits[i]++;
                }
        }
        close(v);
    }
    for (int i = 0; i < 4; i++)
        used += hits[i] > 0;
    T(same);
    T(hits[0] + hits[1] + hits[2] + hits[3]);
    T(used >= 2);
    for (int i = 0; i < 4; i++)
        close(s[i]);
}

static void lost(void) {
    int u = bound(AF_INET, "127.0.0.1"), v = socket(AF_INET, SOCK_DGRAM, 0), n = 0;
    struct sockaddr_in a = in("127.0.0.1", port_of(u));
    T(opt(u, SOL_SOCKET, SO_RXQ_OVFL));
    T(setopt(u, SOL_SOCKET, SO_RXQ_OVFL, 1));
    T(setopt(u, SOL_SOCKET, SO_RCVBUF, 4000));
    for (int i = 0; i < 100; i++)
        n += sendto(v, b, 1000, 0, SA(a)) == 1000;
    T(n);
    for (n = 0; recv(u, b, 2000, MSG_DONTWAIT) == 1000;)
        n++;
    T(n > 0 && n < 100);
    close(u);
    close(v);
}

/* One call's bytes cut into several datagrams. */
static void pieces(void) {
    int u = bound(AF_INET, "127.0.0.1"), v = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = in("127.0.0.1", port_of(u));
    connect(v, SA(a));
    T(opt(v, IPPROTO_UDP, UDP_SEGMENT));
    T(setopt(v, IPPROTO_UDP, UDP_SEGMENT, -1));
    T(setopt(v, IPPROTO_UDP, UDP_SEGMENT, 65536));
    T(setopt(v, IPPROTO_UDP, UDP_SEGMENT, 10));
    T(opt(v, IPPROTO_UDP, UDP_SEGMENT));
    T(send(v, b, 25, 0));
    for (int i = 0; i < 4; i++)
        N("piece", i, recv(u, b, 100, MSG_DONTWAIT));
    T(send(v, b, 5, 0));
    T(recv(u, b, 100, MSG_DONTWAIT));
    T(send(v, b, 0, 0));
    T(recv(u, b, 100, MSG_DONTWAIT));
    T(send(v, b, 1280, 0));
    T(send(v, b, 1281, 0));
    while (recv(u, b, 100, MSG_DONTWAIT) > 0)
        ;
    T(setopt(v, IPPROTO_UDP, UDP_SEGMENT, 0));
    struct iovec io = {b, 21};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(2)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    *h = (struct cmsghdr){CMSG_LEN(2), IPPROTO_UDP, UDP_SEGMENT};
    *(short *)CMSG_DATA(h) = 10;
    T(sendmsg(v, &m, 0));
    for (int i = 0; i < 4; i++)
        N("piece of one", i, recv(u, b, 100, MSG_DONTWAIT));
    h->cmsg_len = CMSG_LEN(4);
    T(sendmsg(v, &m, 0));
    h->cmsg_type = 99;
    T(sendmsg(v, &m, 0));
    T(setopt(u, IPPROTO_UDP, UDP_GRO, 5));
    T(opt(u, IPPROTO_UDP, UDP_GRO));
    T(setopt(u, IPPROTO_UDP, UDP_GRO, 0));
    close(u);
    close(v);
}

/* Linux begins to note when packets came some time after it was asked for the first time: return once it does, with a socket that keeps it at it. */
static int noting(void) {
    int u = bound(AF_INET, "127.0.0.1"), v = socket(AF_INET, SOCK_DGRAM, 0), kinds = 8 | 16;
    struct sockaddr_in a = in("127.0.0.1", port_of(u));
    setsockopt(u, SOL_SOCKET, 37 /* SO_TIMESTAMPING */, &kinds, sizeof kinds);
    connect(v, SA(a));
    struct iovec io = {b, 21};
    struct msghdr m;
    do {
        sched_yield();
        send(v, "hey", 3, 0);
        m = (struct msghdr){.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        recvmsg(u, &m, 0);
    } while (!CMSG_FIRSTHDR(&m));
    close(v);
    return u;
}

/* How long packets may be, when they came, when they are to go. */
static void ways(void) {
    int noted = noting();
    int u = bound(AF_INET, "127.0.0.1"), v = socket(AF_INET, SOCK_DGRAM, 0), six = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in a = in("127.0.0.1", port_of(u));
    struct sockaddr_in6 a6 = in6("::1", 9);
    T(opt(v, IPPROTO_IP, IP_MTU));
    T(setopt(v, IPPROTO_IP, IP_MTU, 1500));
    connect(v, SA(a));
    T(opt(v, IPPROTO_IP, IP_MTU));
    T(opt(six, IPPROTO_IPV6, IPV6_MTU));
    connect(six, SA(a6));
    T(opt(six, IPPROTO_IPV6, IPV6_MTU));
    T(setopt(six, IPPROTO_IPV6, IPV6_DONTFRAG, 1));
    T(opt(six, IPPROTO_IPV6, IPV6_DONTFRAG));
    T(opt(u, SOL_SOCKET, 37 /* SO_TIMESTAMPING */));
    T(setopt(u, SOL_SOCKET, 37, 1 << 25));
    T(setopt(u, SOL_SOCKET, 37, 8 | 16));
    T(opt(u, SOL_SOCKET, 37));
    send(v, "hey", 3, 0);
    struct iovec io = {b, 21};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    T(recvmsg(u, &m, 0));
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        struct timespec *t = (void *)CMSG_DATA(h);
        N("time stamps", h->cmsg_type, h->cmsg_len);
        N("by whom", (t[0].tv_sec != 0), (t[1].tv_sec != 0) * 2 + (t[2].tv_sec != 0));
    }
    struct { int clock; unsigned flags; } when = {CLOCK_MONOTONIC, 0};
    io.iov_len = 3;
    m.msg_controllen = CMSG_SPACE(8);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, 61 /* SCM_TXTIME */};
    memset(CMSG_DATA(h), 0, 8);
    T(sendmsg(v, &m, 0));
    T(setsockopt(v, SOL_SOCKET, 61 /* SO_TXTIME */, &when, 4));
    T(setsockopt(v, SOL_SOCKET, 61, &when, 8));
    T(sendmsg(v, &m, 0));
    T(recv(u, b, 100, MSG_DONTWAIT));
    when.flags = 4;
    T(setsockopt(v, SOL_SOCKET, 61, &when, 8));
    when.flags = 2;
    T(setsockopt(v, SOL_SOCKET, 61, &when, 8));
    when.clock = 77;
    T(setsockopt(v, SOL_SOCKET, 61, &when, 8));
    socklen_t l = sizeof when;
    T(getsockopt(v, SOL_SOCKET, 61, &when, &l));
    T(when.clock);
    T(when.flags);
    close(u);
    close(v);
    close(six);
    close(noted);
}

int main(void) {
    headers();
    headers6();
    groups();
    groups6();
    back();
    shared();
    lost();
    pieces();
    ways();
    return 0;
}
