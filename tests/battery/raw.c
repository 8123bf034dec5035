/* Raw sockets, and ICMP sockets for anybody: echoes within the machine. */
#include "sockets.h"
#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <sys/ioctl.h>

static unsigned char b[70000];

static struct sockaddr_in in(const char *ip, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    return a;
}
static struct sockaddr_in6 in6(const char *ip) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, ip, &a.sin6_addr);
    return a;
}
static unsigned short sum(const void *at, int len) {
    const unsigned short *w = at;
    unsigned s = 0;
    for (; len > 1; len -= 2)
        s += *w++;
    s = (s >> 16) + (s & 0xffff);
    return ~(s + (s >> 16));
}
static int echo(int fd, struct sockaddr_in *to, int ident, int seq) {
    struct { struct icmphdr h; char data[8]; } m = {.h = {.type = ICMP_ECHO}, .data = "payload"};
    m.h.un.echo.id = htons(ident);
    m.h.un.echo.sequence = htons(seq);
    m.h.checksum = sum(&m, sizeof m);
    return sendto(fd, &m, sizeof m, 0, (void *)to, sizeof *to);
}
/* The next message of a raw socket: what its header and ICMP's say. */
static void show(int fd) {
    struct sockaddr_in from;
    socklen_t l = sizeof from;
    struct ip *ip = (void *)b;
    struct icmphdr *h = (void *)(b + 20);
    T(poll1(fd, POLLIN, 1000));
    T(recvfrom(fd, b, sizeof b, MSG_DONTWAIT, (void *)&from, &l));
    if (errno)
        return;
    T(l);
    T(from.sin_port);
    S(inet_ntoa(from.sin_addr));
    T(ip->ip_v * 100 + ip->ip_hl);
    T(ip->ip_p);
    T(ip->ip_ttl);
    T(sum(ip, 20));
    S(inet_ntoa(ip->ip_dst));
    T(h->type);
    T(ntohs(h->un.echo.id));
    T(ntohs(h->un.echo.sequence));
    T(sum(h, 16));
}

int main(void) {
    struct sockaddr_in a = in("127.0.0.1", 0);
    struct sockaddr_in6 a6 = in6("::1");
    T(socket(AF_INET, SOCK_RAW, 0));
    T(socket(AF_INET, SOCK_RAW, 300));
    T(socket(AF_INET, SOCK_STREAM, IPPROTO_ICMP));
    T(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMP));
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (s < 0)
        return 0;
    T(opt(s, SOL_SOCKET, SO_TYPE));
    T(opt(s, SOL_SOCKET, SO_PROTOCOL));
    T(opt(s, IPPROTO_IP, IP_HDRINCL));
    T(listen(s, 1));
    T(send(s, "x", 1, 0));
    T(echo(s, &a, 0x1234, 1));
    show(s);
    show(s);
    T(recv(s, b, sizeof b, MSG_DONTWAIT));
    unsigned only = ~(1u << ICMP_ECHOREPLY);
    T(setsockopt(s, 255, 1, &only, sizeof only));
    T(setopt(s, IPPROTO_IP, IP_TTL, 17));
    T(echo(s, &a, 0x1234, 2));
    show(s);
    T(recv(s, b, sizeof b, MSG_DONTWAIT));
    a = in("127.0.0.7", 0);
    T(connect(s, SA(a)));
    T(echo(s, &a, 7, 3));
    show(s);
    T(shutdown(s, SHUT_WR));
    T(echo(s, &a, 7, 4));
    close(s);

    /* Another protocol, with a header of one's own. */
    s = socket(AF_INET, SOCK_RAW, 253);
    int r = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), t = socket(AF_INET, SOCK_RAW, 254);
    a = in("127.0.0.1", 0);
    T(opt(r, IPPROTO_IP, IP_HDRINCL));
    struct { struct ip h; char data[4]; } p = {.h = {.ip_v = 4, .ip_hl = 5, .ip_ttl = 33, .ip_p = 253}, .data = "own"};
    p.h.ip_dst = a.sin_addr;
    T(sendto(r, &p, sizeof p, 0, SA(a)));
    T(poll1(s, POLLIN, 1000));
    T(recv(s, b, sizeof b, MSG_DONTWAIT));
    T(((struct ip *)b)->ip_ttl);
    S((char *)b + 20);
    T(recv(t, b, sizeof b, MSG_DONTWAIT));
    T(sendto(r, &p, 10, 0, SA(a)));
    T(sendto(s, b, 66000, 0, SA(a)));
    T(sendto(s, "abc", 3, 0, SA(a)));
    T(poll1(s, POLLIN, 1000));
    T(recv(s, b, 10, MSG_TRUNC | MSG_DONTWAIT));
    a = in("127.0.0.9", 0);
    T(bind(t, SA(a)));
    T(sendto(t, "one", 3, 0, SA(a)));
    T(poll1(t, POLLIN, 1000));
    T(recv(t, b, sizeof b, MSG_DONTWAIT));
    a = in("127.0.0.1", 0);
    T(sendto(t, "other", 5, 0, SA(a)));
    T(recv(t, b, sizeof b, MSG_DONTWAIT));
    a = in("192.0.2.99", 0);
    T(bind(t, SA(a)));
    close(r);
    close(s);
    close(t);

    s = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    struct icmp6_filter f6;
    ICMP6_FILTER_SETBLOCKALL(&f6);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f6);
    T(setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &f6, sizeof f6));
    T(setopt(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    struct icmp6_hdr h6 = {.icmp6_type = ICMP6_ECHO_REQUEST};
    h6.icmp6_id = htons(99);
    T(sendto(s, &h6, sizeof h6, 0, SA(a6)));
    T(poll1(s, POLLIN, 1000));
    T(recv(s, b, sizeof b, MSG_DONTWAIT));
    T(b[0]);
    T(b[2] || b[3]);
    T(b[5]);
    T(recv(s, b, sizeof b, MSG_DONTWAIT));
    close(s);
    W(CHILD(setuid(65534); _exit(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 ? errno : 0)));

    /* For anybody, where the machine lets them. */
    s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    if (s >= 0) {
        a = in("127.0.0.1", 0);
        if (echo(s, &a, 0, 1) != 16)
            printf("no echo: %s\n", strerror(errno));
        char reply[100];
        struct pollfd wait = {s, POLLIN, 0};
        if (poll(&wait, 1, 1000) != 1 || recv(s, reply, 100, 0) != 16 || reply[0] != 0 || memcmp(reply + 8, "payload", 8))
            printf("no answer\n");
        struct icmphdr other = {.type = ICMP_ADDRESS};
        if (sendto(s, &other, 8, 0, SA(a)) >= 0 || errno != EINVAL)
            printf("anything goes\n");
        close(s);
    }
    return 0;
}
