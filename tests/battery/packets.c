/* Filters on sockets: programs that are sound or not, and what they let in. */
#include "check.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#ifndef SO_GET_FILTER
#define SO_GET_FILTER SO_ATTACH_FILTER
#endif
static int put(int fd, struct sock_filter *f, int n) {
    struct sock_fprog p = {n, f};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p);
}
#define ATTACH(fd, ...) ({ struct sock_filter f_[] = {__VA_ARGS__}; put(fd, f_, sizeof f_ / sizeof *f_); })
static int one = 1, zero = 0;

/* Send it and see how much arrives; -1 if nothing has. */
static int through(int from, int to, const char *what, int n) {
    char b[256];
    send(from, what, n, 0);
    return recv(to, b, sizeof b, MSG_DONTWAIT);
}

static void sound(int fd) {
    T(ATTACH(fd, BPF_STMT(BPF_RET | BPF_K, 0xffff)));
    T(ATTACH(fd, BPF_STMT(BPF_LD | BPF_IMM, 1)));
    T(ATTACH(fd, BPF_STMT(BPF_RET | BPF_X, 1)));
    T(ATTACH(fd, BPF_STMT(BPF_RET | BPF_A, 1)));
    T(put(fd, 0, 1));
    T(put(fd, (void *)8, 1));
    T(put(fd, (void *)8, 0));
    T(put(fd, (void *)8, 4097));
    T(ATTACH(fd, BPF_STMT(BPF_JMP | BPF_JA, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_JMP | BPF_JA, 1), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_JMP | BPF_JA, -1), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_JUMP(BPF_JMP | BPF_JEQ, 0, 0, 1), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_JUMP(BPF_JMP | BPF_JEQ, 0, 0, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_LD | BPF_MEM, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ST, 0), BPF_STMT(BPF_LD | BPF_MEM, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ST, 16), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ALU | BPF_DIV, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ALU | BPF_MOD, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ALU | BPF_LSH, 32), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_ALU | BPF_LSH, 31), BPF_STMT(BPF_RET, 0)));
    T(ATTACH(fd, BPF_STMT(BPF_LD | BPF_ABS | BPF_W, SKF_AD_OFF + 252), BPF_STMT(BPF_RET, 0)));
    /* Every code, alone before an answer. */
    for (int code = 0; code < 0x140; code++) {
        struct sock_filter f[] = {{code, 0, 0, 1}, {BPF_RET, 0, 0, 0}, {BPF_RET, 0, 0, 0}};
        N("code", code, put(fd, f, 3));
    }
    T(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &one, 4));
    T(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &one, 4));
    T(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &one, 3));
    struct sock_fprog p = {1, 0};
    T(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, 15));
    T(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, 17));
    T(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, (void *)8, sizeof p));
    struct sock_filter back[4];
    socklen_t n = 4;
    T(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, back, &n));
    T(n);
    ATTACH(fd, BPF_STMT(BPF_LD | BPF_IMM, 7), BPF_STMT(BPF_RET | BPF_A, 0));
    n = 4;
    T(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, back, &n));
    T(n);
    T(back[0].k * 1000 + back[1].code);
    n = 1;
    T(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, back, &n));
    n = 0;
    T(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, 0, &n));
    T(n);
}

static void udp(int family) {
    int to = socket(family, SOCK_DGRAM, 0), from = socket(family, SOCK_DGRAM, 0);
    struct sockaddr_storage a = {0};
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    a.ss_family = family;
    if (family == AF_INET) ((struct sockaddr_in *)&a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else ((struct sockaddr_in6 *)&a)->sin6_addr = in6addr_loopback;
    bind(to, (void *)&a, len);
    getsockname(to, (void *)&a, &len);
    T(connect(from, (void *)&a, len));
    int port = ntohs(family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port : ((struct sockaddr_in6 *)&a)->sin6_port);
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_RET, 0));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_RET, 10));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_RET, 3));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_RET, 1000));
    T(through(from, to, "hello", 5));
    /* The header: ports, length; then the bytes. */
    ATTACH(to, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 2), BPF_JUMP(BPF_JMP | BPF_JEQ, port, 0, 1), BPF_STMT(BPF_RET, -1), BPF_STMT(BPF_RET, 0));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4), BPF_JUMP(BPF_JMP | BPF_JEQ, 13, 0, 1), BPF_STMT(BPF_RET, -1), BPF_STMT(BPF_RET, 0));
    T(through(from, to, "hello", 5));
    T(through(from, to, "hell", 4));
    ATTACH(to, BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ, 'h', 0, 1), BPF_STMT(BPF_RET, -1), BPF_STMT(BPF_RET, 0));
    T(through(from, to, "hello", 5));
    T(through(from, to, "jello", 5));
    T(through(from, to, "", 0));
    ATTACH(to, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 9), BPF_JUMP(BPF_JMP | BPF_JEQ, 0x656c6c6f, 0, 1), BPF_STMT(BPF_RET, -1), BPF_STMT(BPF_RET, 0));
    T(through(from, to, "hello", 5));
    T(through(from, to, "help!", 5));
    /* Its length, doubled, by the index and back. */
    ATTACH(to, BPF_STMT(BPF_LD | BPF_LEN, 0), BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0), BPF_STMT(BPF_ST, 3),
        BPF_STMT(BPF_LDX | BPF_MEM, 3), BPF_STMT(BPF_MISC | BPF_TXA, 0), BPF_STMT(BPF_ALU | BPF_RSH, 1), BPF_STMT(BPF_ALU | BPF_SUB, 1), BPF_STMT(BPF_RET | BPF_A, 0));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 8), BPF_STMT(BPF_LD | BPF_B | BPF_IND, 8), BPF_STMT(BPF_RET | BPF_A, 0));
    T(through(from, to, "\x01" "abc\x0a" "fgh", 8));
    /* Nothing to divide by. */
    ATTACH(to, BPF_STMT(BPF_LDX | BPF_IMM, 0), BPF_STMT(BPF_LD | BPF_IMM, 9), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), BPF_STMT(BPF_RET, -1));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL), BPF_JUMP(BPF_JMP | BPF_JEQ, family == AF_INET ? 0x800 : 0x86dd, 0, 1),
        BPF_STMT(BPF_RET, -1), BPF_STMT(BPF_RET, 0));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE), BPF_STMT(BPF_ALU | BPF_ADD, 9), BPF_STMT(BPF_RET | BPF_A, 0));
    T(through(from, to, "hello", 5));
    ATTACH(to, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_IFINDEX), BPF_STMT(BPF_ALU | BPF_ADD, 9), BPF_STMT(BPF_RET | BPF_A, 0));
    T(through(from, to, "hello", 5));
    /* What was there before it came stays. */
    setsockopt(to, SOL_SOCKET, SO_DETACH_FILTER, &one, 4);
    send(from, "before", 6, 0);
    ATTACH(to, BPF_STMT(BPF_RET, 0));
    char b[10];
    T(recv(to, b, sizeof b, MSG_DONTWAIT));
    T(recv(to, b, sizeof b, MSG_DONTWAIT));
    /* It stays. */
    int got = 9;
    len = 4;
    T(getsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &got, &len));
    T(got);
    T(setsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &zero, 4));
    T(setsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &one, 4));
    T(setsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &one, 4));
    T(setsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &zero, 4));
    T(getsockopt(to, SOL_SOCKET, SO_LOCK_FILTER, &got, &len));
    T(got);
    T(ATTACH(to, BPF_STMT(BPF_RET, -1)));
    T(setsockopt(to, SOL_SOCKET, SO_DETACH_FILTER, &one, 4));
    T(through(from, to, "hello", 5));
    close(from), close(to);
}

static void local(int kind) {
    int s[2];
    socketpair(AF_UNIX, kind, 0, s);
    T(ATTACH(s[1], BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ, 'y', 0, 1), BPF_STMT(BPF_RET, -1), BPF_STMT(BPF_RET, 0)));
    T(through(s[0], s[1], "yes", 3));
    T(through(s[0], s[1], "no", 2));
    T(send(s[0], "no", 2, 0));
    T(through(s[1], s[0], "no", 2));
    T(ATTACH(s[1], BPF_STMT(BPF_RET, 2)));
    T(through(s[0], s[1], "yes", 3));
    T(ATTACH(s[1], BPF_STMT(BPF_RET, 0)));
    T(through(s[0], s[1], "yes", 3));
    close(s[0]), close(s[1]);
}

int main(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    sound(fd);
    close(fd);
    udp(AF_INET);
    udp(AF_INET6);
    local(SOCK_DGRAM);
    local(SOCK_SEQPACKET);
    local(SOCK_STREAM);
    T(ATTACH(999, BPF_STMT(BPF_RET, 0)));
    int p[2];
    pipe(p);
    T(ATTACH(p[0], BPF_STMT(BPF_RET, 0)));
    return 0;
}
