/* Making sockets, their options, and Unix sockets. */
#include "sockets.h"
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <linux/sockios.h>
#include <netinet/in.h>

static struct sockaddr_un un(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, path);
    return a;
}

static void making(void) {
    int p[2], fd;
    struct stat s;
    T(close(socket(AF_UNIX, SOCK_STREAM, 0)));
    T(close(socket(AF_UNIX, SOCK_DGRAM, 0)));
    T(close(socket(AF_UNIX, SOCK_SEQPACKET, 0)));
    T(close(socket(AF_UNIX, SOCK_STREAM, 1)));
    T(socket(AF_UNIX, SOCK_STREAM, 2));
    T(socket(AF_UNIX, SOCK_RDM, 0));
    T(socket(AF_UNIX, 0, 0));
    T(socket(AF_UNIX, 11, 0));
    T(socket(AF_UNIX, SOCK_STREAM | 0x100, 0));
    T(socket(99, SOCK_STREAM, 0));
    T(socket(-1, SOCK_STREAM, 0));
    T(socket(AF_UNSPEC, SOCK_STREAM, 0));
    T(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    T(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    T(socket(AF_INET, SOCK_STREAM, 300));
    T(socket(AF_INET, SOCK_SEQPACKET, 0));
    T(close(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)));
    T(close(socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP)));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_GETFL));
    T(fstat(fd, &s));
    T(s.st_mode);
    T(s.st_nlink);
    T(s.st_size);
    T(lseek(fd, 0, SEEK_CUR));
    T(pread(fd, p, 1, 0));
    T(ftruncate(fd, 0));
    T(fsync(fd));
    T(mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    close(fd);
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8));
    T(socketpair(AF_INET, SOCK_STREAM, 0, p));
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    close(p[0]);
    close(p[1]);
    fd = open("/dev/null", O_RDWR);
    T(listen(fd, 1));
    T(accept(fd, 0, 0));
    T(send(fd, "x", 1, 0));
    T(recv(fd, p, 1, 0));
    T(shutdown(fd, 0));
    T(opt(fd, SOL_SOCKET, SO_TYPE));
    T(bind(-1, 0, 0));
    T(bind(fd, 0, 0));
    close(fd);
}

static void options(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), n;
    struct timeval tv = {1, 500000};
    struct linger lg = {1, 5};
    struct ucred uc;
    socklen_t l;
    T(opt(fd, SOL_SOCKET, SO_TYPE));
    T(opt(fd, SOL_SOCKET, SO_DOMAIN));
    T(opt(fd, SOL_SOCKET, SO_PROTOCOL));
    T(opt(fd, SOL_SOCKET, SO_ACCEPTCONN));
    T(opt(fd, SOL_SOCKET, SO_ERROR));
    T(opt(fd, SOL_SOCKET, SO_SNDBUF));
    T(opt(fd, SOL_SOCKET, SO_RCVBUF));
    T(setopt(fd, SOL_SOCKET, SO_SNDBUF, 10000));
    T(opt(fd, SOL_SOCKET, SO_SNDBUF));
    T(setopt(fd, SOL_SOCKET, SO_SNDBUF, 1));
    T(opt(fd, SOL_SOCKET, SO_SNDBUF));
    T(setopt(fd, SOL_SOCKET, SO_RCVBUF, 0));
    T(opt(fd, SOL_SOCKET, SO_RCVBUF));
    T(opt(fd, SOL_SOCKET, SO_RCVLOWAT));
    T(opt(fd, SOL_SOCKET, SO_SNDLOWAT));
    T(opt(fd, SOL_SOCKET, SO_REUSEADDR));
    T(setopt(fd, SOL_SOCKET, SO_REUSEADDR, 5));
    T(opt(fd, SOL_SOCKET, SO_REUSEADDR));
    T(opt(fd, SOL_SOCKET, SO_KEEPALIVE));
    T(opt(fd, SOL_SOCKET, SO_PASSCRED));
    T(opt(fd, SOL_SOCKET, SO_PRIORITY));
    T(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, "x", 1));
    T(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (void *)8, 4));
    T(setsockopt(fd, SOL_SOCKET, 9999, &fd, 4));
    T(opt(fd, SOL_SOCKET, 9999));
    T(opt(fd, IPPROTO_TCP, 1));
    T(setopt(fd, IPPROTO_TCP, 1, 1));
    T(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    memset(&tv, 0, sizeof tv);
    l = sizeof tv;
    T(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &l));
    T(tv.tv_sec * 1000000 + tv.tv_usec);
    tv = (struct timeval){0, 1000000};
    T(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    T(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, 8));
    T(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    memset(&lg, 0, sizeof lg);
    l = sizeof lg;
    T(getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &l));
    T(lg.l_onoff * 100 + lg.l_linger);
    l = 2;
    n = -1;
    T(getsockopt(fd, SOL_SOCKET, SO_TYPE, &n, &l));
    T(l);
    l = -1;
    T(getsockopt(fd, SOL_SOCKET, SO_TYPE, &n, &l));
    T(getsockopt(fd, SOL_SOCKET, SO_TYPE, &n, (void *)8));
    l = sizeof uc;
    T(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &l));
    T(uc.pid);
    T(uc.uid);
    T(poll1(fd, ALL, 0));
    close(fd);
}

static void streams(void) {
    int s, c, d, n, p[2];
    char b[100];
    struct sockaddr_un a = un("sock"), r;
    struct stat st;
    struct ucred uc;
    socklen_t l;
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    T(listen(s, 5));
    T(accept(s, 0, 0));
    T(send(s, "x", 1, MSG_NOSIGNAL));
    T(recv(s, b, 1, 0));
    T(shutdown(s, SHUT_RDWR));
    T(getpeername(s, SA(r)));
    l = sizeof r;
    T(getsockname(s, (void *)&r, &l));
    T(l);
    close(s);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(s, SA(a)));
    T(bind(s, SA(a)));
    T(stat("sock", &st));
    T(st.st_mode);
    T(open("sock", O_RDWR));
    l = sizeof r;
    T(getsockname(s, (void *)&r, &l));
    T(l);
    S(r.sun_path);
    l = 4;
    T(getsockname(s, (void *)&r, &l));
    T(l);
    c = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(c, SA(a)));
    T(connect(c, SA(a)));
    T(listen(s, 2));
    T(opt(s, SOL_SOCKET, SO_ACCEPTCONN));
    T(poll1(s, ALL, 0));
    T(fcntl(s, F_SETFL, O_NONBLOCK));
    T(accept(s, 0, 0));
    r = un("nowhere");
    T(connect(c, SA(r)));
    T(close(creat("plain", 0644)));
    r = un("plain");
    T(connect(c, SA(r)));
    r = un("no/where");
    T(bind(c, SA(r)));
    r = un("");
    T(connect(c, (void *)&r, 2));
    T(connect(c, (void *)&r, 1));
    T(connect(c, (void *)&r, 200));
    r.sun_family = AF_INET;
    T(connect(c, SA(r)));
    T(bind(c, SA(r)));
    T(connect(c, SA(a)));
    T(connect(c, SA(a)));
    T(poll1(s, ALL, 0));
    T(poll1(c, ALL, 0));
    T(write(c, "early", 5));
    l = sizeof r;
    T((d = accept4(s, (void *)&r, &l, SOCK_CLOEXEC)) >= 0);
    T(l);
    T(fcntl(d, F_GETFD));
    T(fcntl(d, F_GETFL));
    T(accept4(s, 0, 0, 1));
    T(poll1(d, ALL, 0));
    T(ioctl(d, FIONREAD, &n));
    T(n);
    T(recv(d, b, 2, MSG_PEEK));
    T(recv(d, b, 100, 0));
    T(recv(d, b, 100, MSG_DONTWAIT));
    T(recv(d, b, 0, MSG_DONTWAIT));
    T(ioctl(s, FIONREAD, &n));
    l = sizeof r;
    T(getpeername(c, (void *)&r, &l));
    S(r.sun_path);
    l = sizeof r;
    T(getpeername(d, (void *)&r, &l));
    T(l);
    l = sizeof r;
    T(getsockname(d, (void *)&r, &l));
    S(r.sun_path);
    l = sizeof uc;
    T(getsockopt(d, SOL_SOCKET, SO_PEERCRED, &uc, &l));
    T(uc.pid == getpid() && uc.uid == geteuid() && uc.gid == getegid());
    T(sendto(c, "x", 1, 0, SA(a)));
    T(send(c, "x", 1, MSG_OOB | MSG_NOSIGNAL) >= -1);
    T(send(c, (void *)8, 1, 0));
    T(recv(d, b, 100, MSG_DONTWAIT) >= -1);
    T(listen(c, 1));
    T(shutdown(c, 7));
    T(shutdown(c, SHUT_WR));
    T(send(c, "x", 1, MSG_NOSIGNAL));
    T(poll1(d, ALL, 0));
    T(poll1(c, ALL, 0));
    T(recv(d, b, 1, 0));
    T(send(d, "back", 4, 0));
    T(recv(c, b, 100, 0));
    T(shutdown(d, SHUT_RD));
    T(poll1(d, ALL, 0));
    T(shutdown(d, SHUT_WR));
    T(poll1(c, ALL, 0));
    T(recv(c, b, 1, 0));
    close(d);
    T(poll1(c, ALL, 0));
    T(recv(c, b, 1, 0));
    T(send(c, "x", 1, MSG_NOSIGNAL));
    close(c);

    /* Unread bytes make it a reset. */
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    T(write(p[0], "unread", 6));
    close(p[1]);
    T(poll1(p[0], ALL, 0));
    T(opt(p[0], SOL_SOCKET, SO_ERROR));
    T(read(p[0], b, 1));
    T(send(p[0], "x", 1, MSG_NOSIGNAL));
    close(p[0]);
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    T(write(p[0], "unread", 6));
    close(p[1]);
    T(read(p[0], b, 1));
    T(read(p[0], b, 1));
    close(p[0]);

    /* A full queue, and a listener that goes. */
    T(listen(s, 0));
    c = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    T(connect(c, SA(a)));
    d = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    T(connect(d, SA(a)));
    close(s);
    T(poll1(c, ALL, 0));
    T(recv(c, b, 1, 0));
    T(recv(c, b, 1, 0));
    T(connect(d, SA(a)));
    close(c);
    close(d);
    T(unlink("sock"));

    /* The signal. */
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    close(p[1]);
    W(CHILD(signal(SIGPIPE, SIG_DFL); write(p[0], "x", 1)));
    W(CHILD(signal(SIGPIPE, SIG_DFL); send(p[0], "x", 1, 0)));
    W(CHILD(signal(SIGPIPE, SIG_DFL); send(p[0], "x", 1, MSG_NOSIGNAL)));
    close(p[0]);

    /* MSG_WAITALL and time limits. */
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    T(write(p[0], "abc", 3));
    if (!fork()) {
        usleep(20000);
        write(p[0], "def", 3);
        _exit(0);
    }
    T(recv(p[1], b, 6, MSG_WAITALL));
    wait(0);
    struct timeval tv = {0, 20000};
    T(setsockopt(p[1], SOL_SOCKET, SO_RCVTIMEO, SA(tv)));
    T(recv(p[1], b, 1, 0));
    T(write(p[0], "q", 1));
    T(recv(p[1], b, 6, MSG_WAITALL));
    /* Filling it. */
    T(fcntl(p[0], F_SETFL, O_NONBLOCK));
    static char big[65536];
    long sent = 0;
    while ((n = write(p[0], big, sizeof big)) > 0)
        sent += n;
    T(n);
    T(sent > 100000 && sent < 1000000);
    T(poll1(p[0], POLLOUT, 0));
    long got = 0;
    T(setopt(p[1], SOL_SOCKET, SO_RCVLOWAT, 1));
    while ((n = recv(p[1], big, sizeof big, MSG_DONTWAIT)) > 0)
        got += n;
    T(got == sent);
    T(poll1(p[0], POLLOUT, 0));
    T(ioctl(p[0], SIOCOUTQ, &n));
    T(n);
    close(p[0]);
    close(p[1]);
}

static void packets(void) {
    int s, c, d, n, p[2], i;
    char b[100];
    struct sockaddr_un a = un("dgram"), a2 = un("dgram2"), r;
    socklen_t l;
    s = socket(AF_UNIX, SOCK_DGRAM, 0);
    c = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    T(bind(s, SA(a)));
    T(listen(s, 1));
    T(accept(s, 0, 0));
    T(poll1(s, ALL, 0));
    T(send(c, "x", 1, 0));
    T(sendto(c, "one", 3, 0, SA(a)));
    T(sendto(c, "", 0, 0, SA(a)));
    T(bind(c, SA(a2)));
    T(sendto(c, "three", 5, 0, SA(a)));
    T(ioctl(s, FIONREAD, &n));
    T(n);
    l = sizeof r;
    T(recvfrom(s, b, 100, 0, (void *)&r, &l));
    T(l);
    l = sizeof r;
    T(recvfrom(s, b, 100, 0, (void *)&r, &l));
    l = sizeof r;
    T(recvfrom(s, b, 2, MSG_PEEK | MSG_TRUNC, (void *)&r, &l));
    T(recvfrom(s, b, 2, 0, (void *)&r, &l));
    T(l);
    S(r.sun_path);
    T(recv(s, b, 1, MSG_DONTWAIT));
    T(connect(c, SA(a)));
    T(send(c, "conn", 4, 0));
    T(recv(s, b, 100, 0));
    T(connect(s, SA(a)));
    T(connect(c, SA(a)));
    T(send(c, "x", 1, 0));
    T(connect(s, SA(a2)));
    T(send(c, "x", 1, 0));
    T(recv(s, b, 100, 0));
    r.sun_family = AF_UNSPEC;
    T(connect(s, (void *)&r, 2));
    l = sizeof r;
    T(getpeername(s, (void *)&r, &l));
    r = un("nobody");
    T(sendto(c, "x", 1, 0, SA(r)));
    close(s);
    T(send(c, "x", 1, 0));
    T(poll1(c, ALL, 0));
    close(c);
    unlink("dgram");
    unlink("dgram2");
    T(socketpair(AF_UNIX, SOCK_DGRAM, 0, p));
    T(send(p[0], "x", 1, 0));
    T(shutdown(p[0], SHUT_WR));
    T(send(p[0], "x", 1, 0));
    T(recv(p[1], b, 100, 0));
    T(recv(p[1], b, 100, MSG_DONTWAIT));
    T(shutdown(p[1], SHUT_RD));
    T(recv(p[1], b, 100, 0));
    close(p[0]);
    close(p[1]);

    T(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p));
    T(send(p[0], "one", 3, 0));
    T(send(p[0], "twotwo", 6, 0));
    T(recv(p[1], b, 100, 0));
    struct iovec v = {b, 3};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    T(recvmsg(p[1], &m, 0));
    T(m.msg_flags);
    T(recv(p[1], b, 100, MSG_DONTWAIT));
    close(p[0]);
    T(recv(p[1], b, 100, 0));
    T(send(p[1], "x", 1, MSG_NOSIGNAL));
    T(poll1(p[1], ALL, 0));
    close(p[1]);
    s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    T(bind(s, SA(a)));
    T(listen(s, 3));
    c = socket(AF_UNIX, SOCK_STREAM, 0);
    T(connect(c, SA(a)));
    close(c);
    c = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    T(send(c, "x", 1, 0));
    T(recv(c, b, 1, 0));
    T(connect(c, SA(a)));
    T((d = accept(s, 0, 0)) >= 0);
    T(send(c, "seq", 3, 0));
    T(recv(d, b, 100, 0));
    close(c);
    T(recv(d, b, 100, 0));
    close(d);
    close(s);
    unlink("dgram");

    /* Abstract names. */
    a = un("");
    memcpy(a.sun_path, "\0battery\0x", 10);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(s, (void *)&a, 2 + 10));
    l = sizeof r;
    T(getsockname(s, (void *)&r, &l));
    T(l);
    T(memcmp(r.sun_path, "\0battery\0x", 10));
    c = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(c, (void *)&a, 2 + 10));
    T(connect(c, (void *)&a, 2 + 10));
    T(listen(s, 1));
    T(connect(c, (void *)&a, 2 + 9));
    T(connect(c, (void *)&a, 2 + 10));
    close(s);
    close(c);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(s, (void *)&a, 2));
    l = sizeof r;
    T(getsockname(s, (void *)&r, &l));
    T(l);
    T(r.sun_path[0]);
    close(s);
    for (i = 0; i < 0; i++) {}
}

/* Descriptors and credentials beside the bytes. */
static void beside(void) {
    int p[2], q[2], n, i, fds[10];
    char b[100], control[300];
    struct iovec v = {b, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(8)};
    struct cmsghdr *h = (void *)control;
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    T(pipe(q));
    *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(h), q, 8);
    b[0] = 'r';
    T(sendmsg(p[0], &m, 0));
    T(write(p[0], "more", 4));
    close(q[0]);
    memset(control, 0, sizeof control);
    v.iov_len = 100;
    m.msg_controllen = sizeof control;
    T(recvmsg(p[1], &m, MSG_CMSG_CLOEXEC));
    T(m.msg_flags);
    T(m.msg_controllen);
    T(h->cmsg_len);
    T(h->cmsg_level * 10 + h->cmsg_type);
    memcpy(fds, CMSG_DATA(h), 8);
    T(write(q[1], "through", 7));
    T(read(fds[0], b, 100));
    T(fcntl(fds[0], F_GETFD));
    close(fds[0]);
    close(fds[1]);
    T(recvmsg(p[1], &m, MSG_DONTWAIT));
    /* Too little room. */
    m.msg_controllen = CMSG_SPACE(8);
    *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS};
    q[0] = q[1];
    memcpy(CMSG_DATA(h), q, 8);
    v.iov_len = 1;
    T(sendmsg(p[0], &m, 0));
    m.msg_controllen = CMSG_LEN(4);
    T(recvmsg(p[1], &m, 0));
    T(m.msg_flags);
    T(m.msg_controllen);
    T(h->cmsg_len);
    close(*(int *)CMSG_DATA(h));
    m.msg_controllen = CMSG_SPACE(8);
    *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(h), q, 8);
    T(sendmsg(p[0], &m, 0));
    m.msg_control = 0;
    m.msg_controllen = 0;
    T(recvmsg(p[1], &m, 0));
    T(m.msg_flags);
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(8);
    *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS};
    fds[0] = 0;
    fds[1] = 777;
    memcpy(CMSG_DATA(h), fds, 8);
    T(sendmsg(p[0], &m, 0));
    h->cmsg_len = 5;
    T(sendmsg(p[0], &m, 0));
    h->cmsg_len = 500;
    T(sendmsg(p[0], &m, 0));
    *h = (struct cmsghdr){CMSG_LEN(8), SOL_SOCKET, 77};
    T(sendmsg(p[0], &m, 0));
    *h = (struct cmsghdr){CMSG_LEN(8), 99, 77};
    T(sendmsg(p[0], &m, 0));
    m.msg_iovlen = 2000;
    T(sendmsg(p[0], &m, 0));
    m.msg_iovlen = 1;
    T(sendmsg(p[0], (void *)8, 0));
    T(recvmsg(p[1], (void *)8, 0));
    while (recv(p[1], b, 100, MSG_DONTWAIT) > 0) {}
    /* Credentials. */
    T(setopt(p[1], SOL_SOCKET, SO_PASSCRED, 1));
    T(write(p[0], "c", 1));
    m.msg_controllen = sizeof control;
    T(recvmsg(p[1], &m, 0));
    T(m.msg_controllen);
    T(h->cmsg_len);
    T(h->cmsg_type);
    T(*(int *)CMSG_DATA(h) == getpid());
    *h = (struct cmsghdr){CMSG_LEN(12), SOL_SOCKET, SCM_CREDENTIALS};
    struct ucred uc = {getpid(), getuid(), getgid()};
    memcpy(CMSG_DATA(h), &uc, 12);
    m.msg_controllen = CMSG_SPACE(12);
    T(sendmsg(p[0], &m, 0));
    h->cmsg_len = CMSG_LEN(8);
    T(sendmsg(p[0], &m, 0));
    close(p[0]);
    close(p[1]);
    close(q[1]);

    /* Several messages at once. */
    T(socketpair(AF_UNIX, SOCK_DGRAM, 0, p));
    struct mmsghdr mm[4];
    struct iovec vs[4];
    memset(mm, 0, sizeof mm);
    for (i = 0; i < 4; i++) {
        vs[i] = (struct iovec){b + 10 * i, 3 + i};
        mm[i].msg_hdr.msg_iov = &vs[i];
        mm[i].msg_hdr.msg_iovlen = 1;
    }
    T(sendmmsg(p[0], mm, 3, 0));
    T(mm[2].msg_len);
    for (i = 0; i < 4; i++)
        vs[i].iov_len = 10;
    T(recvmmsg(p[1], mm, 4, MSG_DONTWAIT, 0));
    T(mm[0].msg_len * 100 + mm[1].msg_len * 10 + mm[2].msg_len);
    T(recvmmsg(p[1], mm, 4, MSG_DONTWAIT, 0));
    T(send(p[0], "x", 1, 0));
    T(recvmmsg(p[1], mm, 4, MSG_WAITFORONE, 0));
    n = 0;
    T(recvmmsg(p[1], (void *)8, 4, MSG_DONTWAIT, 0));
    close(p[0]);
    close(p[1]);
}

static void waiting(void) {
    int p[2], e = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP}, got[4];
    char b[10];
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    T(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev));
    T(epoll_wait(e, got, 4, 0));
    T(got[0].events);
    T(epoll_wait(e, got, 4, 0));
    T(write(p[1], "x", 1));
    T(epoll_wait(e, got, 4, 0));
    T(got[0].events);
    T(write(p[1], "x", 1));
    T(epoll_wait(e, got, 4, 0));
    T(read(p[0], b, 10));
    T(shutdown(p[1], SHUT_WR));
    T(epoll_wait(e, got, 4, 0));
    T(got[0].events);
    close(p[1]);
    T(epoll_wait(e, got, 4, 0));
    T(got[0].events);
    close(p[0]);
    T(epoll_wait(e, got, 4, 0));
    close(e);
}

/* What fchmod and fchown change of what has no name, and that a name gets a socket's mode. */
static void modes(void) {
    struct stat st;
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "moded"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0), p[2];
    T(fstat(s, &st) ? -1 : st.st_mode);
    T(fchmod(s, 0620));
    T(fstat(s, &st) ? -1 : st.st_mode);
    T(bind(s, SA(a)));
    T(stat("moded", &st) ? -1 : st.st_mode);
    T(fchmod(s, 0666));
    T(fstat(s, &st) ? -1 : st.st_mode);
    T(stat("moded", &st) ? -1 : st.st_mode);
    T(listen(s, 1));
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    T(connect(c, SA(a)));
    int e = accept(s, 0, 0);
    T(fstat(e, &st) ? -1 : st.st_mode);
    T(ftruncate(s, 0));
    pipe(p);
    T(fchmod(p[0], 0640));
    T(fstat(p[1], &st) ? -1 : st.st_mode);
    T(fchown(p[0], -1, getgid()));
    struct timespec times[2] = {{1, 0}, {2, 0}};
    T(futimens(p[0], times));
    T(fstat(p[1], &st) ? -1 : st.st_atime * 10 + st.st_mtime);
    close(s);
    close(c);
    close(e);
    close(p[0]);
    close(p[1]);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    making();
    modes();
    options();
    streams();
    packets();
    beside();
    waiting();
    return 0;
}
