/* TCP and UDP on the machine itself. */
#include "sockets.h"
#include <poll.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

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
static char text_[80];
static char *name_of(int fd, int peer) {
    struct sockaddr_in6 a;
    socklen_t l = sizeof a;
    if (peer ? getpeername(fd, (void *)&a, &l) : getsockname(fd, (void *)&a, &l))
        return strcpy(text_, strerrorname_np(errno));
    if (a.sin6_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, text_, 80);
    else
        inet_ntop(AF_INET6, &a.sin6_addr, text_, 80);
    return text_;
}

static int listener(void) {
    struct sockaddr_in a = in("127.0.0.1", 0);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    bind(s, SA(a));
    listen(s, 5);
    return s;
}
static int client(int s, int flags) {
    struct sockaddr_in a = in("127.0.0.1", port_of(s));
    int c = socket(AF_INET, SOCK_STREAM | flags, 0);
    connect(c, SA(a));
    return c;
}

static void options(void) {
    int t = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0), s = socket(AF_INET6, SOCK_STREAM, 0);
    struct tcp_info ti;
    socklen_t l = sizeof ti;
    T(opt(t, SOL_SOCKET, SO_PROTOCOL));
    T(opt(u, SOL_SOCKET, SO_PROTOCOL));
    T(opt(t, SOL_SOCKET, SO_SNDBUF));
    T(opt(t, SOL_SOCKET, SO_RCVBUF));
    T(opt(u, SOL_SOCKET, SO_SNDBUF));
    T(opt(t, SOL_SOCKET, SO_KEEPALIVE));
    T(opt(u, SOL_SOCKET, SO_BROADCAST));
    T(opt(t, IPPROTO_TCP, TCP_NODELAY));
    T(setopt(t, IPPROTO_TCP, TCP_NODELAY, 1));
    T(opt(t, IPPROTO_TCP, TCP_NODELAY));
    T(opt(t, IPPROTO_TCP, TCP_CORK));
    T(opt(t, IPPROTO_TCP, TCP_KEEPIDLE));
    T(opt(t, IPPROTO_TCP, TCP_KEEPINTVL));
    T(opt(t, IPPROTO_TCP, TCP_KEEPCNT));
    T(setopt(t, IPPROTO_TCP, TCP_KEEPIDLE, 0));
    T(setopt(t, IPPROTO_TCP, TCP_KEEPIDLE, 40000));
    T(setopt(t, IPPROTO_TCP, TCP_KEEPIDLE, 60));
    T(opt(t, IPPROTO_TCP, TCP_KEEPIDLE));
    T(setopt(t, IPPROTO_TCP, TCP_USER_TIMEOUT, -5));
    T(opt(t, IPPROTO_TCP, 200));
    T(setopt(t, IPPROTO_TCP, 200, 1));
    T(opt(u, IPPROTO_TCP, TCP_NODELAY));
    T(opt(t, IPPROTO_IP, IP_TTL));
    T(setopt(t, IPPROTO_IP, IP_TTL, 0));
    T(setopt(t, IPPROTO_IP, IP_TTL, 256));
    T(setopt(t, IPPROTO_IP, IP_TTL, 9));
    T(opt(t, IPPROTO_IP, IP_TTL));
    T(opt(t, IPPROTO_IP, IP_TOS));
    T(opt(t, IPPROTO_IPV6, IPV6_V6ONLY));
    T(opt(s, IPPROTO_IPV6, IPV6_V6ONLY));
    T(setopt(s, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    T(opt(s, IPPROTO_IPV6, IPV6_V6ONLY));
    T(getsockopt(t, IPPROTO_TCP, TCP_INFO, &ti, &l));
    T(ti.tcpi_state);
    T(poll1(t, ALL, 0));
    T(poll1(u, ALL, 0));
    T(setopt(t, SOL_SOCKET, SO_SNDBUF, 5000));
    T(opt(t, SOL_SOCKET, SO_SNDBUF));
    close(t);
    close(u);
    close(s);
}

static void names(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), t, p;
    struct sockaddr_in a = in("127.0.0.1", 0), far = in("192.0.2.77", 0), any = in("0.0.0.0", 0);
    struct sockaddr_in6 b = in6("::1", 0), any6 = in6("::", 0);
    S(name_of(s, 0));
    S(name_of(s, 1));
    T(port_of(s));
    T(bind(s, SA(far)));
    T(bind(s, (void *)&a, 4));
    T(bind(s, (void *)&a, 1));
    T(bind(s, (void *)&a, -1));
    T(bind(s, (void *)8, 16));
    T(bind(s, SA(b)));
    T(bind(s, SA(a)));
    S(name_of(s, 0));
    T(port_of(s) >= 32768);
    T(bind(s, SA(a)));
    a.sin_port = htons(port_of(s));
    t = socket(AF_INET, SOCK_STREAM, 0);
    T(bind(t, SA(a)));
    T(setopt(t, SOL_SOCKET, SO_REUSEADDR, 1));
    T(bind(t, SA(a)));
    T(setopt(s, SOL_SOCKET, SO_REUSEADDR, 1));
    T(bind(t, SA(a)));
    T(listen(s, 1));
    T(listen(t, 1));
    close(t);
    t = socket(AF_INET, SOCK_STREAM, 0);
    T(setopt(t, SOL_SOCKET, SO_REUSEADDR, 1));
    T(bind(t, SA(a)));
    any.sin_port = a.sin_port;
    T(bind(t, SA(any)));
    a = in("127.0.0.2", port_of(s));
    T(bind(t, SA(a)));
    close(t);
    t = socket(AF_INET6, SOCK_STREAM, 0);
    any6.sin6_port = htons(port_of(s));
    T(bind(t, SA(any6)));
    T(setopt(t, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    T(bind(t, SA(any6)));
    close(t);
    close(s);
    s = socket(AF_INET, SOCK_STREAM, 0);
    T(listen(s, 1));
    S(name_of(s, 0));
    T(port_of(s) >= 32768);
    close(s);
    s = socket(AF_INET, SOCK_STREAM, 0);
    t = socket(AF_INET, SOCK_STREAM, 0);
    setopt(s, SOL_SOCKET, SO_REUSEPORT, 1);
    setopt(t, SOL_SOCKET, SO_REUSEPORT, 1);
    a = in("127.0.0.1", 0);
    T(bind(s, SA(a)));
    a.sin_port = htons(port_of(s));
    T(bind(t, SA(a)));
    T(listen(s, 1));
    T(listen(t, 1));
    close(s);
    close(t);
    (void)p;
}

static void connections(void) {
    int s = listener(), c, d, n;
    char b[200];
    static char big[1 << 16];
    struct sockaddr_in a = in("127.0.0.1", port_of(s)), nobody = in("127.0.0.1", 1), r;
    struct sockaddr_in6 six = in6("::1", 1);
    struct linger lg = {1, 0};
    struct tcp_info ti;
    socklen_t l;
    T(poll1(s, ALL, 0));
    c = socket(AF_INET, SOCK_STREAM, 0);
    T(send(c, "x", 1, MSG_NOSIGNAL));
    T(recv(c, b, 1, 0));
    T(shutdown(c, SHUT_WR));
    T(accept(c, 0, 0));
    T(connect(c, SA(nobody)));
    T(connect(c, SA(six)));
    T(connect(c, (void *)&a, 4));
    T(connect(c, SA(a)));
    T(connect(c, SA(a)));
    T(poll1(s, ALL, 1000));
    T(poll1(c, ALL, 0));
    l = sizeof r;
    T((d = accept(s, (void *)&r, &l)) >= 0);
    T(l);
    T(r.sin_family);
    T(ntohs(r.sin_port) == port_of(c));
    S(name_of(d, 0));
    S(name_of(d, 1));
    S(name_of(c, 1));
    T(listen(c, 1));
    T(bind(c, SA(a)));
    l = sizeof ti;
    T(getsockopt(c, IPPROTO_TCP, TCP_INFO, &ti, &l));
    T(ti.tcpi_state);
    T(write(c, "hello", 5));
    T(poll1(d, ALL, 1000));
    T(ioctl(d, FIONREAD, &n));
    T(n);
    T(recv(d, b, 2, MSG_PEEK));
    T(recv(d, b, 200, 0));
    T(recv(d, b, 200, MSG_DONTWAIT));
    T(recv(d, b, 1, MSG_OOB));
    T(sendto(c, "to", 2, 0, SA(nobody)));
    T(recv(d, b, 200, 0));
    T(shutdown(c, SHUT_WR));
    T(send(c, "x", 1, MSG_NOSIGNAL));
    T(poll1(d, ALL, 1000));
    T(recv(d, b, 1, 0));
    T(recv(d, b, 1, 0));
    T(poll1(c, ALL, 0));
    l = sizeof ti;
    getsockopt(d, IPPROTO_TCP, TCP_INFO, &ti, &l);
    T(ti.tcpi_state);
    T(write(d, "half", 4));
    T(recv(c, b, 200, 0));
    T(shutdown(d, SHUT_RDWR));
    T(poll1(c, ALL, 1000));
    T(recv(c, b, 1, 0));
    T(shutdown(c, SHUT_RDWR) >= -1);
    close(c);
    close(d);

    /* An orderly end: the first write goes, the next hears of it. */
    c = client(s, 0);
    d = accept(s, 0, 0);
    close(d);
    T(poll1(c, ALL, 1000));
    T(recv(c, b, 1, 0));
    T(send(c, "x", 1, MSG_NOSIGNAL));
    usleep(1000);
    T(poll1(c, ALL, 0));
    T(send(c, "x", 1, MSG_NOSIGNAL));
    T(recv(c, b, 1, 0));
    close(c);
    /* Resets: bytes unread, and no lingering. */
    c = client(s, 0);
    d = accept(s, 0, 0);
    T(write(c, "unread", 6));
    T(write(d, "last", 4));
    T(poll1(d, POLLIN, 1000));
    close(d);
    T(poll1(c, ALL, 1000));
    T(opt(c, SOL_SOCKET, SO_ERROR));
    T(recv(c, b, 10, 0) >= -1);
    T(send(c, "x", 1, MSG_NOSIGNAL));
    S(name_of(c, 1));
    close(c);
    c = client(s, 0);
    d = accept(s, 0, 0);
    T(setsockopt(d, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    close(d);
    T(poll1(c, ALL, 1000));
    T(recv(c, b, 10, 0));
    T(recv(c, b, 10, 0));
    close(c);

    /* Without waiting. */
    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    T(connect(c, SA(nobody)));
    T(poll1(c, ALL, 1000));
    T(opt(c, SOL_SOCKET, SO_ERROR));
    T(opt(c, SOL_SOCKET, SO_ERROR));
    T(connect(c, SA(nobody)));
    T(connect(c, SA(nobody)));
    T(connect(c, SA(a)));
    T(poll1(c, POLLOUT, 1000));
    T(opt(c, SOL_SOCKET, SO_ERROR));
    T(connect(c, SA(a)));
    T(connect(c, SA(a)));
    T((d = accept(s, 0, 0)) >= 0);
    T(recv(c, b, 1, 0));
    long sent = 0, got = 0;
    while ((n = write(c, big, sizeof big)) > 0)
        sent += n;
    T(n);
    T(sent > 100000);
    T(poll1(c, POLLOUT, 0));
    shutdown(c, SHUT_WR);
    while ((n = read(d, big, sizeof big)) > 0)
        got += n;
    T(got == sent);
    close(c);
    close(d);
    T(fcntl(s, F_SETFL, O_NONBLOCK));
    T(accept(s, 0, 0));

    /* A listener that goes, and one that is shut. */
    c = client(s, 0);
    T(write(c, "x", 1));
    close(s);
    T(poll1(c, POLLIN, 1000));
    T(recv(c, b, 1, 0));
    close(c);
    T((c = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    T(connect(c, SA(a)));
    close(c);
    s = listener();
    T(shutdown(s, SHUT_RD));
    T(accept(s, 0, 0));
    close(s);

    /* Both families at one listener. */
    six = in6("::", 0);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    T(bind(s, SA(six)));
    T(listen(s, 3));
    a = in("127.0.0.1", port_of(s));
    c = socket(AF_INET, SOCK_STREAM, 0);
    T(connect(c, SA(a)));
    T((d = accept(s, 0, 0)) >= 0);
    S(name_of(d, 1));
    S(name_of(d, 0));
    close(c);
    close(d);
    six = in6("::1", port_of(s));
    c = socket(AF_INET6, SOCK_STREAM, 0);
    T(connect(c, SA(six)));
    T((d = accept(s, 0, 0)) >= 0);
    S(name_of(d, 1));
    close(c);
    close(d);
    six = in6("::ffff:127.0.0.1", port_of(s));
    c = socket(AF_INET6, SOCK_STREAM, 0);
    T(connect(c, SA(six)));
    S(name_of(c, 1));
    S(name_of(c, 0));
    close(c);
    T(setopt(s, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    close(s);
}

static void datagrams(void) {
    int u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM, 0), n;
    char b[200];
    static char big[70000];
    struct sockaddr_in a = in("127.0.0.1", 0), r, nobody = in("127.0.0.1", 9);
    socklen_t l = sizeof r;
    T(listen(u, 1));
    T(accept(u, 0, 0));
    T(send(u, "x", 1, 0));
    T(shutdown(u, SHUT_RD));
    T(port_of(u) > 0);
    close(u);
    u = socket(AF_INET, SOCK_DGRAM, 0);
    T(bind(u, SA(a)));
    a.sin_port = htons(port_of(u));
    T(sendto(v, "one", 3, 0, SA(a)));
    T(port_of(v) >= 32768);
    S(name_of(v, 0));
    T(sendto(v, "", 0, 0, SA(a)));
    T(sendto(v, "three", 5, 0, SA(a)));
    T(poll1(u, ALL, 1000));
    T(ioctl(u, FIONREAD, &n));
    T(n);
    T(recvfrom(u, b, 200, 0, (void *)&r, &l));
    T(l);
    T(ntohs(r.sin_port) == port_of(v));
    T(recv(u, b, 200, 0));
    T(recv(u, b, 2, MSG_TRUNC));
    T(recv(u, b, 2, MSG_DONTWAIT));
    T(sendto(v, big, 65507, 0, SA(a)));
    T(recv(u, big, sizeof big, 0));
    T(sendto(v, big, 65508, 0, SA(a)));
    a.sin_port = 0;
    T(sendto(v, "x", 1, 0, SA(a)));
    a.sin_port = htons(port_of(u));
    T(sendto(v, "x", 1, 0, SA(nobody)));
    T(recv(v, b, 1, MSG_DONTWAIT));
    T(connect(v, SA(nobody)));
    S(name_of(v, 0));
    S(name_of(v, 1));
    T(send(v, "x", 1, 0));
    T(poll1(v, ALL, 1000));
    T(recv(v, b, 1, MSG_DONTWAIT));
    T(send(v, "x", 1, 0));
    T(send(v, "x", 1, 0));
    T(opt(v, SOL_SOCKET, SO_ERROR) >= 0);
    T(connect(v, SA(a)));
    T(send(v, "conn", 4, 0));
    T(recvfrom(u, b, 200, 0, (void *)&r, &l));
    T(sendto(u, "reply", 5, 0, (void *)&r, l));
    T(recv(v, b, 200, 0));
    /* Only the peer is heard. */
    n = socket(AF_INET, SOCK_DGRAM, 0);
    T(sendto(n, "x", 1, 0, (void *)&r, l));
    T(recv(v, b, 200, MSG_DONTWAIT));
    r.sin_family = AF_UNSPEC;
    T(connect(v, SA(r)));
    T(send(v, "x", 1, 0));
    S(name_of(v, 1));
    a = in("255.255.255.255", 9);
    T(sendto(v, "x", 1, 0, SA(a)));
    T(shutdown(v, SHUT_RDWR));
    close(u);
    close(v);
    close(n);
}

/* What nobody will read is lost, but not more than can be under way: the rest is told. */
static void to_nobody(void) {
    struct sockaddr_in a = in("127.0.0.1", 0);
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t n = sizeof a;
    bind(l, SA(a));
    listen(l, 1);
    getsockname(l, (void *)&a, &n);
    connect(c, SA(a));
    close(accept(l, 0, 0));
    char *much = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec v[256];
    for (int i = 0; i < 256; i++) v[i].iov_base = much, v[i].iov_len = 1 << 20;
    long sent = writev(c, v, 256);
    T(sent > 0 && sent < 256 << 20);
    T(writev(c, v, 256));
    close(c);
    close(l);
}

static void segments(void) {
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = in("127.0.0.1", 0);
    T(opt(l, IPPROTO_TCP, TCP_MAXSEG));
    T(setopt(l, IPPROTO_TCP, TCP_MAXSEG, 87));
    T(setopt(l, IPPROTO_TCP, TCP_MAXSEG, 32768));
    T(setopt(l, IPPROTO_TCP, TCP_MAXSEG, -1));
    T(setopt(l, IPPROTO_TCP, TCP_MAXSEG, 873));
    T(opt(l, IPPROTO_TCP, TCP_MAXSEG));
    T(setopt(l, IPPROTO_TCP, TCP_KEEPIDLE, -1));
    T(setopt(l, IPPROTO_TCP, TCP_KEEPIDLE, 77));
    T(setopt(l, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000));
    T(setopt(l, IPPROTO_IP, IP_TTL, 9));
    T(setopt(l, IPPROTO_IP, IP_TOS, 0x10));
    bind(l, SA(a));
    listen(l, 3);
    a.sin_port = htons(port_of(l));
    T(opt(c, IPPROTO_IP, IP_MTU));
    T(setopt(c, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 2));
    T(setopt(c, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1));
    T(opt(c, IPPROTO_TCP, TCP_FASTOPEN_CONNECT));
    T(connect(c, SA(a)));
    T(setopt(c, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1));
    /* Who has a cookie from before connects only now. */
    T(send(c, "x", 1, 0));
    int s = accept(l, 0, 0);
    T(opt(c, IPPROTO_TCP, TCP_MAXSEG));
    T(opt(s, IPPROTO_TCP, TCP_MAXSEG));
    T(opt(s, IPPROTO_TCP, TCP_KEEPIDLE));
    T(opt(s, IPPROTO_TCP, TCP_USER_TIMEOUT));
    T(opt(s, IPPROTO_IP, IP_TTL));
    T(opt(s, IPPROTO_IP, IP_TOS));
    T(opt(c, IPPROTO_IP, IP_MTU));
    T(setsockopt(c, IPPROTO_TCP, TCP_ULP, "nonesuch", 8));
    T(setsockopt(c, IPPROTO_TCP, TCP_ULP, "", 0));
    close(l);
    close(c);
    close(s);
}

/* Of sockets that share a port, those of IPv4 get what comes by it. */
static void preferred(void) {
    char c;
    for (int six = 0; six < 2; six++) {
        int s[4], none = 0;
        struct sockaddr_in a = in("0.0.0.0", 0);
        struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};
        for (int i = 0; i < 4; i++) {
            int family = (i < 2) == six ? AF_INET6 : AF_INET;
            s[i] = socket(family, SOCK_DGRAM, 0);
            setopt(s[i], SOL_SOCKET, SO_REUSEPORT, 1);
            if (i) a.sin_port = a6.sin6_port = htons(port_of(s[0]));
            N("bind", i, family == AF_INET ? bind(s[i], SA(a)) : bind(s[i], SA(a6)));
        }
        a = in("127.0.0.1", port_of(s[0]));
        for (int i = 0; i < 8; i++) {
            int from = socket(AF_INET, SOCK_DGRAM, 0);
            N("sent", i, sendto(from, "x", 1, 0, SA(a)));
            close(from);
        }
        int came = 0, *four = six ? s + 2 : s;
        struct pollfd both[2] = {{four[0], POLLIN, 0}, {four[1], POLLIN, 0}};
        while (came < 8 && poll(both, 2, 3000) > 0)
            for (int i = 0; i < 2; i++) came += recv(four[i], &c, 1, MSG_DONTWAIT) == 1;
        for (int i = 0; i < 4; i++) none += recv(s[i], &c, 1, MSG_DONTWAIT) == 1;
        N("came", six, came);
        N("to others", six, none);
        for (int i = 0; i < 4; i++) close(s[i]);
    }
}

/* The other side has sent all, and is gone when something comes: reading ends in order, the error is for who writes. */
static void gone(void) {
    char c;
    int s = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), other;
    struct sockaddr_in a = in("127.0.0.1", 0);
    T(bind(s, SA(a)));
    T(listen(s, 1));
    a.sin_port = htons(port_of(s));
    T(connect(client, SA(a)));
    other = accept(s, 0, 0);
    close(other);
    T(poll1(client, POLLIN, 3000));
    T(send(client, "x", 1, 0));
    T(poll1(client, 0, 3000));
    T(recv(client, &c, 1, 0));
    T(recv(client, &c, 1, MSG_DONTWAIT));
    T(opt(client, SOL_SOCKET, SO_ERROR));
    T(opt(client, SOL_SOCKET, SO_ERROR));
    T(send(client, "y", 1, 0));
    T(recv(client, &c, 1, 0));
    close(client);
    close(s);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    to_nobody();
    options();
    names();
    connections();
    datagrams();
    segments();
    preferred();
    gone();
    return 0;
}
