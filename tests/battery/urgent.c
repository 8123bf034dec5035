/* Urgent data: MSG_OOB over TCP and over Unix sockets. */
#include "sockets.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

static char b[100];
static volatile int urged;
static void on_urg(int signo) { urged += signo == SIGURG; }

/* What a read gives: its bytes, or an error. */
static char *got(int fd, int len, int flags) {
    memset(b, 0, sizeof b);
    int n = recv(fd, b, len, flags | MSG_DONTWAIT);
    return n < 0 ? strcpy(b, strerrorname_np(errno)) : b;
}
static int mark(int fd) {
    int at = -7;
    return ioctl(fd, SIOCATMARK, &at) ? -1 : at;
}
static int waits(int fd) {
    int n = -7;
    return ioctl(fd, FIONREAD, &n) ? -1 : n;
}

static void tcp(int p[2]) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t l = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    bind(s, SA(a));
    listen(s, 1);
    getsockname(s, (void *)&a, &l);
    p[0] = socket(AF_INET, SOCK_STREAM, 0);
    connect(p[0], SA(a));
    p[1] = accept(s, 0, 0);
    close(s);
}

/* On both kinds of stream. */
#define EACH(word, ...) do { \
        for (int kind = 0; kind < 2; kind++) { \
            int p[2]; \
            if (kind) socketpair(AF_UNIX, SOCK_STREAM, 0, p); else tcp(p); \
            __VA_ARGS__; \
            close(p[0]); close(p[1]); \
        } } while (0)
#define SETTLE(fd, events) poll1(fd, events, 1000)

/* What becomes of a byte that was urgent until another came (within the machine at once: Unix). */
static void older(void) {
    int p[2];
    for (int inlined = 0; inlined < 2; inlined++)
        for (int first = 0; first < 2; first++) {
            socketpair(AF_UNIX, SOCK_STREAM, 0, p);
            if (inlined) T(setopt(p[1], SOL_SOCKET, SO_OOBINLINE, 1));
            T(send(p[0], "x", 1, MSG_OOB));
            if (first) S(got(p[1], 1, MSG_OOB));
            T(send(p[0], "y", 1, MSG_OOB));
            T(mark(p[1]));
            S(got(p[1], 1, MSG_PEEK));
            S(got(p[1], 1, 0));
            T(mark(p[1]));
            S(got(p[1], 1, MSG_OOB));
            T(mark(p[1]));
            S(got(p[1], 1, 0));
            T(mark(p[1]));
            close(p[0]); close(p[1]);
        }
    for (int inlined = 0; inlined < 2; inlined++) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, p);
        T(send(p[0], "hello", 5, MSG_OOB));
        T(send(p[0], "wor", 3, MSG_OOB));
        S(got(p[1], 1, MSG_OOB));
        T(mark(p[1]));
        T(send(p[0], "ld", 2, MSG_OOB));
        S(got(p[1], 20, MSG_PEEK));
        S(got(p[1], 20, 0));
        T(mark(p[1]));
        S(got(p[1], 20, MSG_OOB));
        T(send(p[0], "rest", 4, 0));
        if (inlined) T(setopt(p[1], SOL_SOCKET, SO_OOBINLINE, 1));
        S(got(p[1], 20, MSG_PEEK));
        S(got(p[1], 20, 0));
        T(mark(p[1]));
        close(p[0]); close(p[1]);
    }
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGURG, on_urg);
    EACH("plain", {
        T(mark(p[1]));
        T(recv(p[1], b, 1, MSG_OOB));
        T(send(p[0], "abc", 3, MSG_OOB));
        T(SETTLE(p[1], POLLPRI | POLLIN));
        T(poll1(p[1], ALL, 0));
        T(waits(p[1]));
        T(mark(p[1]));
        S(got(p[1], 10, MSG_OOB | MSG_PEEK));
        S(got(p[1], 10, MSG_PEEK));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
        T(waits(p[1]));
        T(poll1(p[1], ALL, 0));
        S(got(p[1], 10, MSG_OOB));
        T(poll1(p[1], POLLPRI | POLLIN, 0));
        S(got(p[1], 10, MSG_OOB));
        T(mark(p[1]));
        S(got(p[1], 10, 0));
        T(send(p[0], "de", 2, 0));
        T(SETTLE(p[1], POLLIN));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
    });
    /* Bytes before and behind, and one that is never asked for. */
    EACH("around", {
        T(send(p[0], "12", 2, 0));
        T(send(p[0], "!", 1, MSG_OOB));
        T(send(p[0], "34", 2, 0));
        T(SETTLE(p[1], POLLPRI));
        usleep(20000);
        T(waits(p[1]) > 0);
        S(got(p[1], 1, 0));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
        S(got(p[1], 10, MSG_OOB));
        S(got(p[1], 10, 0));
    });
    /* In its place. */
    EACH("inline", {
        T(setopt(p[1], SOL_SOCKET, SO_OOBINLINE, 1));
        T(send(p[0], "12", 2, 0));
        T(send(p[0], "!", 1, MSG_OOB));
        T(send(p[0], "34", 2, 0));
        T(SETTLE(p[1], POLLPRI));
        usleep(20000);
        S(got(p[1], 10, MSG_OOB));
        T(waits(p[1]));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
        T(poll1(p[1], POLLIN, 0));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
    });
    /* A second one moves the mark. */
    EACH("twice", {
        T(send(p[0], "1", 1, 0));
        T(send(p[0], "!", 1, MSG_OOB));
        T(send(p[0], "2", 1, 0));
        T(send(p[0], "?", 1, MSG_OOB));
        T(send(p[0], "3", 1, 0));
        T(SETTLE(p[1], POLLPRI));
        usleep(20000);
        S(got(p[1], 10, MSG_OOB));
        S(got(p[1], 10, 0));
        S(got(p[1], 10, 0));
    });
    EACH("nothing else", {
        T(send(p[0], "!", 1, MSG_OOB));
        T(SETTLE(p[1], POLLPRI));
        T(poll1(p[1], POLLIN | POLLPRI, 0));
        T(mark(p[1]));
        S(got(p[1], 10, 0));
        T(mark(p[1]));
        S(got(p[1], 10, MSG_OOB));
        T(poll1(p[1], POLLIN | POLLPRI, 0));
        T(send(p[0], "", 0, MSG_OOB) >= -1);
        close(p[0]);
        T(SETTLE(p[1], POLLIN));
        S(got(p[1], 10, 0));
        S(got(p[1], 10, MSG_OOB));
    });
    /* The signal, and what recvmsg tells. */
    EACH("signal", {
        struct iovec v = {b, 10};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
        urged = 0;
        T(fcntl(p[1], F_SETOWN, getpid()));
        T(send(p[0], "x!", 2, MSG_OOB));
        T(SETTLE(p[1], POLLPRI));
        T(urged);
        T(recvmsg(p[1], &m, MSG_OOB));
        T(m.msg_flags);
        T(recvmsg(p[1], &m, 0));
        T(m.msg_flags);
        if (!kind) {
            v.iov_len = 0;
            T(send(p[0], "!", 1, MSG_OOB));
            T(SETTLE(p[1], POLLPRI));
            T(recvmsg(p[1], &m, MSG_OOB));
            T(m.msg_flags);
        }
    });
    EACH("waiting", {
        int e = epoll_create1(0);
        struct epoll_event ev = {.events = EPOLLPRI | EPOLLET};
        struct epoll_event out;
        T(epoll_ctl(e, EPOLL_CTL_ADD, p[1], &ev));
        T(epoll_wait(e, &out, 1, 0));
        T(send(p[0], "!", 1, MSG_OOB));
        T(epoll_wait(e, &out, 1, 1000));
        T(out.events & EPOLLPRI);
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p[1], &set);
        struct timeval now = {0, 0};
        T(select(p[1] + 1, 0, 0, &set, &now));
        T(recv(p[1], b, 5, MSG_OOB));
        FD_SET(p[1], &set);
        T(select(p[1] + 1, 0, 0, &set, &now));
        close(e);
    });
    older();
    int d[2];
    T(socketpair(AF_UNIX, SOCK_DGRAM, 0, d));
    T(send(d[0], "x", 1, MSG_OOB));
    T(recv(d[0], b, 1, MSG_OOB));
    T(mark(d[0]) >= -1);
    return 0;
}
