// flags: -pthread
// Does everything to sockets, in any order: a fuzzer of the network part.
//
//   sockets SEED STEPS
//
// Two threads work on the same few descriptors, none of which waits: every family, names and ports that collide, descriptors sent
// through themselves, closed in between; urgent data, groups, whatever beside the bytes; all watched by one instance of epoll. At the end it prints "alive".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 24
static int fds[MANY];
static int watch;
static long steps;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// An address out of a few, so that they meet; sometimes rubbish.
static socklen_t address(uint64_t *r, struct sockaddr_storage *a) {
    memset(a, 0, sizeof *a);
    uint64_t n = next(r);
    struct sockaddr_in *in = (void *)a;
    struct sockaddr_in6 *in6 = (void *)a;
    struct sockaddr_un *un = (void *)a;
    switch (n % 8) {
    case 7:
        in->sin_family = AF_INET;
        in->sin_port = htons(20000 + n / 7 % 6);
        in->sin_addr.s_addr = htonl(n & 64 ? 0xef010203 : n & 128 ? INADDR_BROADCAST : 0x7fffffff);
        return sizeof *in;
    case 0:
        in->sin_family = AF_INET;
        in->sin_port = htons(20000 + n / 7 % 6);
        in->sin_addr.s_addr = htonl(n & 64 ? INADDR_LOOPBACK : INADDR_ANY);
        return sizeof *in;
    case 1:
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(20000 + n / 7 % 6);
        in6->sin6_addr = n & 64 ? in6addr_loopback : in6addr_any;
        return sizeof *in6;
    case 2:
        un->sun_family = AF_UNIX;
        return 3 + sprintf(un->sun_path, "/tmp/fuzz%d", (int)(n / 7 % 4));
    case 3:
        un->sun_family = AF_UNIX;
        un->sun_path[1] = 'a' + n / 7 % 4;
        return 4;
    case 4:
        a->ss_family = AF_UNSPEC;
        return sizeof *in;
    case 5:
        a->ss_family = AF_UNIX;
        return 2;
    default:
        for (size_t i = 0; i < sizeof *a; i++)
            ((char *)a)[i] = next(r);
        return n / 7 % 140;
    }
}

static void *work(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9E3779B97F4A7C15u + 1, *r = &state;
    static char shared[1 << 17];
    char control[128];
    for (long i = 0; i < steps; i++) {
        uint64_t n = next(r);
        int at = n % MANY, fd = fds[at], other = fds[n / 7 % MANY], value = n >> 40 & 7;
        struct sockaddr_storage a;
        socklen_t len = sizeof a;
        struct iovec v[2] = {{shared, n >> 20 & 0xfff}, {shared + 5000, n >> 30 & (n & 1 << 19 ? 0xffff : 0xff)}};
        struct msghdr m = {&a, 0, v, 2, control, sizeof control, 0};
        struct cmsghdr *h = (void *)control;
        switch (next(r) % 30) {
        case 0: case 1: {
            static const int families[] = {AF_UNIX, AF_UNIX, AF_INET, AF_INET6};
            static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
            close(fd);
            fds[at] = socket(families[n >> 8 & 3], kinds[n >> 10 & 3] | SOCK_NONBLOCK, 0);
            if (n & 1 << 14) {
                static const int more[][3] = {{AF_INET, SOCK_RAW, IPPROTO_ICMP}, {AF_INET, SOCK_RAW, IPPROTO_RAW}, {AF_INET6, SOCK_RAW, 58},
                                              {AF_INET, SOCK_DGRAM, IPPROTO_ICMP}, {AF_INET, SOCK_DGRAM, 136}, {AF_NETLINK, SOCK_RAW, 0},
                                              {AF_INET6, SOCK_DGRAM, 0}, {AF_INET, SOCK_RAW, 253}};
                const int *k = more[n >> 16 & 7];
                close(fds[at]);
                fds[at] = socket(k[0], k[1] | SOCK_NONBLOCK, k[2]);
            }
            break;
        }
        case 2: {
            int p[2];
            if (!socketpair(AF_UNIX, (n & 256 ? SOCK_STREAM : n & 512 ? SOCK_DGRAM : SOCK_SEQPACKET) | SOCK_NONBLOCK, 0, p)) {
                close(fd);
                close(other);
                fds[at] = p[0];
                fds[n / 7 % MANY] = p[1];
            }
            break;
        }
        case 3: case 4: len = address(r, &a); bind(fd, (void *)&a, len); break;
        case 5: case 6: listen(fd, value - 1); break;
        case 7: case 8: case 9: len = address(r, &a); connect(fd, (void *)&a, len); break;
        case 10: case 11: {
            int new = accept4(fd, n & 256 ? (void *)&a : 0, &len, SOCK_NONBLOCK);
            if (new >= 0) {
                close(other);
                fds[n / 7 % MANY] = new;
            }
            break;
        }
        case 12: writev(fd, v, 2); break;
        case 13: readv(fd, v, 2); break;
        case 14: recv(fd, shared, v[1].iov_len, n & (MSG_PEEK | MSG_TRUNC | MSG_WAITALL)); break;
        case 15: shutdown(fd, value & 3); break;
        case 16: unlink(n & 256 ? "/tmp/fuzz0" : "/tmp/fuzz1"); break;
        case 17: case 18:
            *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS};
            memcpy(CMSG_DATA(h), &fd, 4);
            memcpy(CMSG_DATA(h) + 4, &fds[n / 99 % MANY], 4);
            m.msg_controllen = CMSG_SPACE(8);
            if (n & 1 << 12)
                m.msg_namelen = address(r, &a);
            sendmsg(other, &m, MSG_NOSIGNAL);
            break;
        case 19: case 20: {
            m.msg_namelen = sizeof a;
            if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) >= 0 && m.msg_controllen >= CMSG_LEN(4) && h->cmsg_type == SCM_RIGHTS) {
                int got[2] = {-1, -1};
                memcpy(got, CMSG_DATA(h), h->cmsg_len >= CMSG_LEN(8) ? 8 : 4);
                close(other);
                fds[n / 7 % MANY] = got[0];
                if (got[1] >= 0)
                    close(got[1]);
            }
            break;
        }
        case 21: {
            int number = n >> 50 & 63, level = n & 256 ? SOL_SOCKET : n & 512 ? 0 : n & 1024 ? 6 : 41;
            if (number == SO_RCVTIMEO || number == SO_SNDTIMEO)
                break;
            setsockopt(fd, level, number, &value, 4);
            getsockopt(fd, level, number, control, &(socklen_t){64});
            break;
        }
        case 22: {
            struct pollfd p[3] = {{fd, 0xffff, 0}, {other, POLLIN, 0}, {fds[0], POLLOUT, 0}};
            poll(p, 3, 0);
            ioctl(fd, n & 256 ? FIONREAD : TIOCOUTQ, &value);
            getsockname(fd, (void *)&a, &len);
            len = sizeof a;
            getpeername(fd, (void *)&a, &len);
            break;
        }
        case 23: case 24: {
            // Control messages that are nearly right, to any kind of socket.
            static const int levels[] = {SOL_SOCKET, 0, 41, 0, 41, 17};
            static const int types[] = {1, 2, 8, 1, 50, 52, 67, 2, 29, 11};
            int data = n >> 22 & 31;
            for (size_t k = 0; k < sizeof control; k++)
                control[k] = n >> 60 ? 0 : next(r);
            *h = (struct cmsghdr){CMSG_LEN(data) - (n >> 59 & 1), levels[(n >> 10 & 7) % 6], types[(n >> 13 & 15) % 10]};
            m.msg_controllen = CMSG_SPACE(data);
            if (n & 1 << 12)
                m.msg_namelen = address(r, &a);
            sendmsg(fd, &m, MSG_NOSIGNAL | (n & 1 << 28 ? MSG_OOB : 0));
            break;
        }
        case 25: recv(fd, shared, n >> 33 & 3, n & 256 ? MSG_OOB : n & 512 ? MSG_OOB | MSG_PEEK : n & 1024 ? MSG_ERRQUEUE : MSG_PEEK); break;
        case 26: send(fd, shared, n >> 33 & 3, MSG_OOB | MSG_NOSIGNAL); break;
        case 27: {
            // Groups: join, leave, sources; the interface, flags.
            unsigned words[70];
            for (int k = 0; k < 70; k++)
                words[k] = n >> 58 ? htonl(k ? 0x7f000001 + (n >> 30 & 3) : 0xef010200 + (n >> 20 & 7)) : next(r);
            setsockopt(fd, n & 256 ? 0 : n & 512 ? 41 : 255, n & 1024 ? 32 + (n >> 12 & 31) : n >> 12 & 127, words, n >> 40 & 1 ? 12 : n >> 41 & 1 ? 8 : (n >> 42 & 511) % 281);
            setsockopt(fd, SOL_SOCKET, n & 2048 ? SO_OOBINLINE : SO_TIMESTAMP, &value, 4);
            break;
        }
        case 28: {
            struct epoll_event e = {.events = EPOLLIN | (n & 256 ? EPOLLET : 0) | (n & 512 ? EPOLLONESHOT : 0) | (n & 1024 ? EPOLLOUT : 0)}, got[8];
            epoll_ctl(watch, 1 + value % 3, fd, &e);
            epoll_wait(watch, got, 1 + value, 0);
            break;
        }
        default: len = address(r, &a); sendto(fd, shared, v[1].iov_len, MSG_NOSIGNAL, (void *)&a, len);
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    uintptr_t seed = argc > 1 ? atol(argv[1]) : 1;
    steps = argc > 2 ? atol(argv[2]) : 10000;
    signal(SIGPIPE, SIG_IGN);
    memset(fds, -1, sizeof fds);
    watch = epoll_create1(0);
    pthread_t other;
    pthread_create(&other, 0, work, (void *)(2 * seed + 1));
    work((void *)(2 * seed));
    pthread_join(other, 0);
    puts("alive");
    return 0;
}
