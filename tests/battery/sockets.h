/* What checks of sockets have in common. */
#include "check.h"
#include <sys/socket.h>

static int poll1(int fd, int events, int timeout) {
    struct pollfd p = {.fd = fd, .events = events};
    int n = poll(&p, 1, timeout);
    return n <= 0 ? n : p.revents;
}
static int opt(int fd, int level, int name) {
    int v = -7;
    socklen_t l = sizeof v;
    return getsockopt(fd, level, name, &v, &l) ? -1 : v;
}
static int setopt(int fd, int level, int name, int v) { return setsockopt(fd, level, name, &v, sizeof v); }
#define SA(a) (struct sockaddr *)&(a), sizeof(a)
#define ALL (POLLIN | POLLOUT | POLLRDHUP | POLLPRI)
