/* Who is at the other side, what a connection leaves behind, and datagrams and connections that are made in parts. */
#include "sockets.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/sem.h>
#include <sys/un.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#define SO_PEERPIDFD 77
#endif
#define SCM_PIDFD_ 4
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

static int is_me(int pidfd) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    FILE *f = fopen(path, "r");
    int pid = -5;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "Pid: %d", &pid);
    if (f) fclose(f);
    return pid == getpid();
}

/* Receive a byte; what came beside it, as decimal digits: the types in their order. 1000 more for each that names this process. */
static long beside(int fd, int room) {
    char byte, control[256];
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
    if (recvmsg(fd, &m, 0) < 0) return -1;
    long sum = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        sum = sum * 10 + c->cmsg_type;
        if (c->cmsg_type == SCM_PIDFD_ && c->cmsg_len == CMSG_LEN(4)) {
            int got = *(int *)CMSG_DATA(c);
            sum += 1000 * is_me(got) + 2000 * !!(fcntl(got, F_GETFD) & FD_CLOEXEC);
            close(got);
        }
        if (c->cmsg_type == SCM_RIGHTS) close(*(int *)CMSG_DATA(c));
    }
    return sum + 10000 * !!(m.msg_flags & MSG_CTRUNC);
}

static int send_with_fd(int fd) {
    char control[CMSG_SPACE(4)] = {0};
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(4);
    *(int *)CMSG_DATA(c) = 0;
    return sendmsg(fd, &m, 0);
}

static void processes(void) {
    for (int kind = 0; kind < 3; kind++) {
        int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}, p[2];
        socketpair(AF_UNIX, types[kind], 0, p);
        T(opt(p[0], SOL_SOCKET, SO_PASSPIDFD));
        T(setopt(p[0], SOL_SOCKET, SO_PASSPIDFD, 1));
        T(opt(p[0], SOL_SOCKET, SO_PASSPIDFD));
        T(write(p[1], "a", 1));
        T(beside(p[0], 256));
        T(write(p[1], "a", 1));
        T(beside(p[0], CMSG_LEN(0)));
        T(send_with_fd(p[1]));
        T(beside(p[0], 256));
        T(setopt(p[0], SOL_SOCKET, SO_PASSCRED, 1));
        T(send_with_fd(p[1]));
        T(beside(p[0], 256));
        T(setopt(p[0], SOL_SOCKET, SO_PASSPIDFD, 0));
        T(write(p[1], "a", 1));
        T(beside(p[0], 256));
        int fd = opt(p[0], SOL_SOCKET, SO_PEERPIDFD);
        T(is_me(fd));
        T(fcntl(fd, F_GETFD));
        close(fd), close(p[0]), close(p[1]);
    }
    int lone = socket(AF_UNIX, SOCK_STREAM, 0);
    T(opt(lone, SOL_SOCKET, SO_PEERPIDFD));
    gid_t groups[8];
    socklen_t n = sizeof groups;
    T(getsockopt(lone, SOL_SOCKET, SO_PEERGROUPS, groups, &n));
    close(lone);
    int p[2];
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    int mine = getgroups(0, NULL);
    n = 4096;
    gid_t *all = calloc(1, 4096);
    T(getsockopt(p[0], SOL_SOCKET, SO_PEERGROUPS, all, &n));
    T((int)(n / 4) == mine);
    n = mine ? 3 : 0;
    T(mine ? getsockopt(p[0], SOL_SOCKET, SO_PEERGROUPS, all, &n) == -1 && errno == ERANGE : 1);
    T((int)(n / 4) == mine);
    free(all), close(p[0]), close(p[1]);
}

static void told(void) {
    int u = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_STREAM, 0), x = socket(AF_UNIX, SOCK_STREAM, 0);
    char room[256];
    socklen_t n = 8;
    T(getsockopt(u, SOL_SOCKET, SO_NETNS_COOKIE, room, &n));
    n = 4;
    T(getsockopt(u, SOL_SOCKET, SO_NETNS_COOKIE, room, &n));
    n = 16;
    T(getsockopt(u, SOL_SOCKET, SO_NETNS_COOKIE, room, &n));
    n = 16;
    T(getsockopt(u, SOL_SOCKET, SO_COOKIE, room, &n));
    T(n);
    n = 7;
    T(getsockopt(u, SOL_SOCKET, SO_COOKIE, room, &n));
    n = sizeof room;
    T(getsockopt(u, SOL_SOCKET, SO_MEMINFO, room, &n));
    T(n);
    T(((int *)room)[1] == opt(u, SOL_SOCKET, SO_RCVBUF));
    T(((int *)room)[3] == opt(u, SOL_SOCKET, SO_SNDBUF));
    T(opt(u, SOL_SOCKET, SO_INCOMING_NAPI_ID));
    T(opt(u, SOL_SOCKET, SO_BPF_EXTENSIONS));
    T(opt(u, SOL_SOCKET, SO_BUF_LOCK));
    T(setopt(u, SOL_SOCKET, SO_SNDBUF, 30000));
    T(opt(u, SOL_SOCKET, SO_BUF_LOCK));
    T(setopt(u, SOL_SOCKET, SO_RCVBUF, 30000));
    T(opt(u, SOL_SOCKET, SO_BUF_LOCK));
    T(setopt(u, SOL_SOCKET, SO_BUF_LOCK, 4));
    T(setopt(u, SOL_SOCKET, SO_BUF_LOCK, 1));
    T(opt(u, SOL_SOCKET, SO_BUF_LOCK));
    T(setopt(u, SOL_SOCKET, SO_INCOMING_CPU, 3));
    T(opt(u, SOL_SOCKET, SO_INCOMING_CPU));
    T(setopt(u, SOL_SOCKET, SO_BUSY_POLL, -1));
    T(setopt(x, SOL_SOCKET, SO_REUSEPORT, 0));
    T(setopt(x, SOL_SOCKET, SO_REUSEPORT, 1));
    T(setopt(t, SOL_SOCKET, SO_REUSEPORT, 1));
    n = sizeof room;
    T(getsockopt(u, SOL_SOCKET, SO_PEERNAME, room, &n));
    struct sockaddr_in to = {AF_INET, htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    T(connect(u, SA(to)));
    n = sizeof to;
    T(getsockopt(u, SOL_SOCKET, SO_PEERNAME, room, &n));
    T(n);
    T(memcmp(room, &to, sizeof to));
    n = 4;
    T(getsockopt(u, SOL_SOCKET, SO_PEERNAME, room, &n));
    n = sizeof to + 1;
    T(getsockopt(u, SOL_SOCKET, SO_PEERNAME, room, &n));
    close(u), close(t), close(x);
}

static int listening(struct sockaddr_in *at, int reuse) {
    int l = socket(AF_INET, SOCK_STREAM, 0);
    setopt(l, SOL_SOCKET, SO_REUSEADDR, reuse);
    if (bind(l, (struct sockaddr *)at, sizeof *at) || listen(l, 5)) {
        close(l);
        return -1;
    }
    socklen_t n = sizeof *at;
    getsockname(l, (struct sockaddr *)at, &n);
    return l;
}
static int bind_to(struct sockaddr_in at, int reuse) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    setopt(s, SOL_SOCKET, SO_REUSEADDR, reuse);
    int r = bind(s, SA(at));
    int e = errno;
    close(s);
    errno = e;
    return r;
}

/* The same, once what is still on its way has come: who closed second has gone when the other side's last word has been heard. */
static int bind_later(struct sockaddr_in at, int reuse) {
    int r;
    for (int i = 0; (r = bind_to(at, reuse)) && i < 2000; i++) usleep(10000);
    return r;
}

/* A port whose connections live on, or have ended a moment ago. */
static void rest(int reuse) {
    for (int first = 0; first < 3; first++) {
        struct sockaddr_in at = {AF_INET, 0, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int l = listening(&at, reuse), c = socket(AF_INET, SOCK_STREAM, 0);
        T(connect(c, SA(at)));
        int s = accept(l, NULL, NULL);
        close(l);
        N("alive, without", first, bind_to(at, 0));
        N("alive, with", first, bind_to(at, 1));
        struct sockaddr_in any = {AF_INET, at.sin_port}, other = at;
        other.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
        N("alive, anywhere", first, bind_to(any, 0));
        N("alive, elsewhere", first, bind_to(other, 0));
        char byte;
        if (first == 0) {
            close(s);
            T(read(c, &byte, 1));
            close(c);
        } else if (first == 1) {
            close(c);
            T(read(s, &byte, 1));
            close(s);
        } else {
            struct linger now = {1, 0};
            setsockopt(s, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            close(s);
            T(read(c, &byte, 1));
            close(c);
        }
        int (*try)(struct sockaddr_in, int) = first == 0 ? bind_to : bind_later;
        N("ended, without", first, try(at, 0));
        N("ended, with", first, try(at, 1));
        N("ended, anywhere", first, try(any, 0));
        N("ended, elsewhere", first, bind_to(other, 0));
    }
}

/* Addresses that are not the machine's. */
static void strange(void) {
    struct sockaddr_in at = {AF_INET, 0, .sin_addr.s_addr = htonl(0xc0000201)};
    for (int kind = SOCK_STREAM; kind <= SOCK_DGRAM; kind++) {
        int s = socket(AF_INET, kind, 0);
        N("bind", kind, bind(s, SA(at)));
        N("IP_FREEBIND", kind, setopt(s, IPPROTO_IP, IP_FREEBIND, 1));
        N("bind freely", kind, bind(s, SA(at)));
        struct sockaddr_in is;
        socklen_t n = sizeof is;
        N("getsockname", kind, getsockname(s, (void *)&is, &n));
        N("its address", kind, is.sin_addr.s_addr == at.sin_addr.s_addr);
        close(s);
    }
}

static int received(int fd) {
    static char room[70000];
    return recv(fd, room, sizeof room, MSG_DONTWAIT);
}

static void parts(int family) {
    struct sockaddr_in a4 = {AF_INET, 0, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {AF_INET6, 0, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr *at = family == AF_INET ? (void *)&a4 : (void *)&a6;
    socklen_t n = family == AF_INET ? sizeof a4 : sizeof a6;
    int r = socket(family, SOCK_DGRAM, 0), other = socket(family, SOCK_DGRAM, 0), s = socket(family, SOCK_DGRAM, 0);
    bind(other, at, n);
    struct sockaddr_storage second;
    getsockname(other, (void *)&second, &n);
    bind(r, at, n);
    getsockname(r, at, &n);
    static char big[65536];
    T(sendto(s, "abc", 3, MSG_MORE, at, n));
    T(received(r));
    T(sendto(s, "de", 2, MSG_MORE, (void *)&second, n));
    T(send(s, "f", 1, 0));
    T(received(r));
    T(received(other));
    T(send(s, "f", 1, 0));
    T(send(s, "f", 1, MSG_MORE));
    T(connect(s, at, n));
    T(send(s, "abc", 3, MSG_MORE));
    T(send(s, "", 0, 0));
    T(received(r));
    T(opt(s, IPPROTO_UDP, UDP_CORK));
    T(setopt(s, IPPROTO_UDP, UDP_CORK, 1));
    T(opt(s, IPPROTO_UDP, UDP_CORK));
    T(send(s, "abc", 3, 0));
    T(write(s, "defg", 4));
    T(received(r));
    T(setopt(s, IPPROTO_UDP, UDP_CORK, 0));
    T(received(r));
    T(setopt(s, IPPROTO_UDP, UDP_CORK, 0));
    T(received(r));
    T(send(s, big, 60000, MSG_MORE));
    T(send(s, big, 6000, 0));
    T(received(r));
    T(send(s, "x", 1, 0));
    T(received(r));
    T(send(s, "abc", 3, MSG_MORE));
    T(send(s, (void *)16, 3, 0));
    T(send(s, "x", 1, 0));
    T(received(r));
    T(send(s, "abc", 3, MSG_MORE));
    close(s);
    T(received(r));
    close(r), close(other);
}

static void fast(void) {
    struct sockaddr_in at = {AF_INET, 0, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, none = {AF_UNSPEC};
    int l = listening(&at, 0), s = socket(AF_INET, SOCK_STREAM, 0);
    char room[64];
    T(send(s, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL));
    T(sendto(s, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL, SA(none)));
    T(sendto(s, "abc", 3, MSG_FASTOPEN, SA(at)));
    int c = accept(l, NULL, NULL);
    T(recv(c, room, 3, MSG_WAITALL));
    T(sendto(s, "abc", 3, MSG_FASTOPEN, SA(at)));
    T(opt(c, IPPROTO_TCP, 36));
    T(setopt(c, IPPROTO_TCP, 36, 2));
    T(setopt(c, IPPROTO_TCP, 36, 1));
    T(opt(c, IPPROTO_TCP, 36));
    T(send(s, "0123456789", 10, 0));
    T(poll1(c, POLLIN, -1));
    while (recv(c, room, 10, MSG_PEEK | MSG_WAITALL) < 10);
    char control[64];
    struct iovec v = {room, 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    T(recvmsg(c, &m, 0));
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    T(h != NULL);
    if (h) {
        T(h->cmsg_level);
        T(h->cmsg_type);
        T(h->cmsg_len);
        T(*(int *)CMSG_DATA(h));
    }
    close(s), close(c), close(l);
    s = socket(AF_INET, SOCK_STREAM, 0);
    T(sendto(s, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL, SA(at)));
    close(s);
}

/* Which of several wrong things is told. */
static void order(void) {
    void *bad = (void *)16;
    int p[2], null = open("/dev/null", O_RDWR), u = socket(AF_INET, SOCK_DGRAM, 0), x = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_in at = {AF_INET, htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    T(socketpair(AF_INET, SOCK_STREAM, 0, bad));
    T(socketpair(99, SOCK_STREAM, 0, bad));
    T(socketpair(AF_UNIX, SOCK_STREAM | 0x100, 0, bad));
    T(socketpair(AF_INET, SOCK_STREAM, 0, p));
    T(connect(null, bad, 16));
    T(connect(null, SA(at)));
    T(sendto(-1, (void *)0xffffffff80000000, 1, 0, NULL, 0));
    T(sendto(u, bad, 1, 0, SA(at)));
    T(sendto(x, "x", 1, MSG_NOSIGNAL, (void *)&at, 0));
    struct msghdr m = {.msg_namelen = -1};
    T(sendmsg(u, &m, 0));
    m.msg_name = &at;
    T(sendmsg(u, &m, 0));
    struct sockaddr_in far[40] = {at};
    m.msg_name = far, m.msg_namelen = sizeof far;
    T(sendmsg(u, &m, 0));
    T(recv(u, p, 1, MSG_OOB | MSG_DONTWAIT));
    close(null), close(u), close(x);
    struct sembuf one = {0, 0, 0};
    struct timespec odd = {0, -1}, now = {0, 0};
    int set = semget(IPC_PRIVATE, 1, 0600);
    T(semop(-1, bad, 0));
    T(semop(-1, bad, 501));
    T(semop(-1, bad, 1));
    T(semop(-1, &one, 1));
    T(semtimedop(set, bad, 1, &odd));
    T(semtimedop(set, &one, 1, bad));
    T(semtimedop(set, &one, 1, &odd));
    for (int command = 1; command < 20; command++) N("semctl", command, syscall(SYS_semctl, -1, 0, command, bad));
    T(semctl(set, 0, IPC_RMID));
    T(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, bad, NULL));
    T(syscall(SYS_clock_nanosleep, CLOCK_REALTIME_ALARM, 0, bad, NULL));
    T(syscall(SYS_clock_nanosleep, CLOCK_REALTIME_ALARM, 0, &odd, NULL));
    T(syscall(SYS_clock_nanosleep, CLOCK_REALTIME_COARSE, 0, &now, NULL));
}

int main(void) {
    processes();
    told();
    rest(0);
    rest(1);
    parts(AF_INET);
    parts(AF_INET6);
    fast();
    strange();
    order();
    return 0;
}
