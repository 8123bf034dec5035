/* POSIX message queues, by the calls themselves where the C library would look first. */
#include "check.h"
#include <mqueue.h>
#include <pthread.h>
#include <sys/epoll.h>

static char name[64];
static volatile int got, code, value, sender_is_me;
static void told(int signo, siginfo_t *info, void *context) {
    (void)context;
    got = signo;
    code = info->si_code;
    value = info->si_value.sival_int;
    sender_is_me = info->si_pid == getpid() && info->si_uid == getuid();
}
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;
static volatile int by_thread;
static void in_thread(union sigval v) {
    pthread_mutex_lock(&lock);
    by_thread = v.sival_int;
    pthread_cond_signal(&came);
    pthread_mutex_unlock(&lock);
}
static long kopen(const char *n, int flags, int mode, struct mq_attr *a) {
    return syscall(SYS_mq_open, n, flags, mode, a);
}
static struct timespec in(long ms) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}
static char text[9000];
static mqd_t q;
static void *late(void *a) {
    usleep(60000);
    mq_send(q, a, 4, 9);
    return 0;
}
static void *drain(void *a) {
    (void)a;
    usleep(60000);
    mq_receive(q, text, sizeof text, 0);
    return 0;
}
static void on_alarm(int s) {
    (void)s;
}

int main(void) {
    catch_();
    sprintf(name, "/battery-%d", getpid());
    struct mq_attr a = {0, 3, 16, 0}, b;
    unsigned priority = 77;
    /* Names. */
    T(kopen("a/b", O_CREAT | O_RDWR, 0600, 0));
    T(kopen(".", O_CREAT | O_RDWR, 0600, 0));
    T(kopen("..", O_RDWR, 0600, 0));
    T(kopen("", O_CREAT | O_RDWR, 0600, 0));
    memset(text, 'n', 256);
    T(kopen(text, O_CREAT | O_RDWR, 0600, 0));
    text[255] = 0;
    long fd = kopen(text, O_CREAT | O_RDWR, 0600, 0);
    P(fd);
    close(fd);
    T(syscall(SYS_mq_unlink, text));
    memset(text, 'n', 5000);
    T(kopen(text, O_RDWR, 0, 0));
    T(syscall(SYS_mq_unlink, text));
    T(kopen((void *)8, O_RDWR, 0, 0));
    T(syscall(SYS_mq_unlink, 8));
    T(syscall(SYS_mq_unlink, ""));
    T(syscall(SYS_mq_unlink, "."));
    T(syscall(SYS_mq_unlink, "a/b"));
    T(mq_open("noslash", O_RDWR));
    T(mq_open(name, O_RDWR));
    T(mq_unlink(name));
    T(mq_open("/", O_RDWR));
    /* Attributes. */
    T(kopen(name + 1, O_RDWR, 0, (void *)8));
    for (int i = 0; i < 6; i++) {
        struct mq_attr bad[] = {{0, 0, 16}, {0, 3, 0}, {0, -1, 16}, {0, 3, -1}, {0, 1L << 40, 1}, {0, 1, 1L << 40}};
        N("bad attributes", i, mq_open(name, O_CREAT | O_RDWR, 0600, &bad[i]));
    }
    W(CHILD(if (!getuid()) setuid(1000); struct mq_attr most = {0, 10, 8192}, more = {0, 11, 8192}, longer = {0, 10, 8193};
        q = mq_open(name, O_CREAT | O_RDWR, 0600, &most); T(q >= 0); T(mq_unlink(name));
        T(mq_open(name, O_CREAT | O_RDWR, 0600, &more)); T(mq_open(name, O_CREAT | O_RDWR, 0600, &longer))));
    W(CHILD(if (!getuid()) setuid(61234); struct rlimit r = {1000, 1000}; T(setrlimit(RLIMIT_MSGQUEUE, &r)); T(mq_open(name, O_CREAT | O_RDWR, 0600, 0)); T(mq_open(name, O_CREAT | O_RDWR, 0600, &a) >= 0); T(mq_unlink(name))));
    umask(027);
    T((q = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0666, &a)) >= 0);
    umask(022);
    T(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &a));
    T(mq_getattr(q, &b));
    T(b.mq_flags);
    T(b.mq_maxmsg);
    T(b.mq_msgsize);
    T(b.mq_curmsgs);
    struct stat sb;
    T(fstat(q, &sb));
    T(sb.st_mode);
    T(sb.st_size);
    T(sb.st_uid == getuid());
    T(fcntl(q, F_GETFD));
    T(fcntl(q, F_GETFL));
    T(kopen(name + 1, O_ACCMODE, 0, 0));
    mqd_t same = mq_open(name, O_CREAT | O_RDWR, 0, 0);
    T(same >= 0);
    T(mq_getattr(same, &b));
    T(b.mq_maxmsg);
    mqd_t r = mq_open(name, O_RDONLY), w = mq_open(name, O_WRONLY | O_NONBLOCK);
    T(r >= 0);
    T(w >= 0);
    /* Sending and receiving. */
    struct pollfd p = {q, POLLIN | POLLOUT};
    T(poll(&p, 1, 0));
    T(p.revents);
    T(mq_send(r, "x", 1, 0));
    T(mq_receive(w, text, 16, 0));
    T(mq_send(q, "seventeen letters", 17, 0));
    T(mq_send(q, "x", 1, 32768));
    T(mq_send(q, "low", 3, 1));
    T(mq_send(q, "high", 4, 32767));
    T(mq_send(w, "low too", 7, 1));
    T(mq_send(w, "full", 4, 1));
    T(poll(&p, 1, 0));
    T(p.revents);
    T(mq_receive(q, text, 15, 0));
    T(mq_getattr(r, &b));
    T(b.mq_curmsgs);
    char line[100] = {0};
    T(read(r, line, 100));
    S(line);
    T(read(r, line, 100));
    T(lseek(r, 0, SEEK_SET));
    T(read(r, line, 5));
    T(write(w, "x", 1));
    struct timespec t = {0, 1000000000};
    T(mq_timedsend(q, "x", 1, 1, &t));
    T(syscall(SYS_mq_timedsend, q, "x", 1, 1, 8));
    t = (struct timespec){-1, 0};
    T(mq_timedsend(q, "x", 1, 1, &t));
    t = (struct timespec){0, 0};
    T(mq_timedsend(q, "x", 1, 1, &t));
    t = in(50);
    T(mq_timedsend(q, "x", 1, 1, &t));
    memset(text, 0, 64);
    T(mq_receive(r, text, 64, &priority));
    S(text);
    T(priority);
    memset(text, 0, 64);
    T(mq_receive(r, text, 16, &priority));
    S(text);
    T(priority);
    memset(text, 0, 64);
    T(syscall(SYS_mq_timedreceive, r, text, 16, 8, 0));
    T(mq_getattr(r, &b));
    T(b.mq_curmsgs);
    T(mq_send(q, "", 0, 0));
    T(mq_receive(r, text, 16, &priority));
    T(mq_send(q, (void *)8, 4, 0));
    T(mq_send(q, "gone", 4, 0));
    T(mq_receive(q, (void *)8, 16, 0));
    T(mq_getattr(r, &b));
    T(b.mq_curmsgs);
    t = in(50);
    T(mq_timedreceive(q, text, 16, 0, &t));
    t = (struct timespec){0, -1};
    T(mq_timedreceive(q, text, 16, 0, &t));
    T(mq_send(q, "x", 1, 0));
    T(mq_timedreceive(q, text, 16, 0, &t));
    t = (struct timespec){1, 0};
    T(mq_timedreceive(q, text, 16, 0, &t));
    T(mq_timedreceive(q, text, 16, 0, &t));
    /* O_NONBLOCK is the description's. */
    b = (struct mq_attr){.mq_flags = O_NONBLOCK, .mq_maxmsg = 99};
    struct mq_attr old;
    T(mq_setattr(q, &b, &old));
    T(old.mq_flags);
    T(mq_receive(q, text, 16, 0));
    T(mq_getattr(q, &old));
    T(old.mq_flags == O_NONBLOCK);
    T(old.mq_maxmsg);
    T(mq_getattr(same, &old));
    T(old.mq_flags);
    b.mq_flags = O_NONBLOCK | 1;
    T(mq_setattr(q, &b, 0));
    b.mq_flags = 0;
    T(mq_setattr(q, &b, 0));
    T(syscall(SYS_mq_getsetattr, q, 8, 0));
    T(syscall(SYS_mq_getsetattr, q, 0, 8));
    T(syscall(SYS_mq_getsetattr, 0, 0, &b));
    T(syscall(SYS_mq_getsetattr, 999, 0, &b));
    T(mq_send(999, "x", 1, 0));
    T(mq_send(1, "x", 1, 0));
    T(mq_receive(1, text, 16, 0));
    T(mq_notify(1, 0));
    T(mq_notify(999, 0));
    /* Waiting, here and in another process; signals. */
    pthread_t th;
    pthread_create(&th, 0, late, "late");
    T(mq_receive(q, text, 16, &priority));
    T(priority);
    pthread_join(th, 0);
    for (int i = 0; i < 3; i++) mq_send(q, "fill", 4, i);
    pthread_create(&th, 0, drain, 0);
    T(mq_send(q, "last", 4, 0));
    pthread_join(th, 0);
    for (int i = 0; i < 3; i++) N("in order", i, mq_receive(q, text, 16, &priority) * 100 + priority);
    W(CHILD(mq_send(q, "child", 5, 3)));
    T(mq_receive(q, text, 16, &priority));
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    /* Again and again, so that one comes while we wait, however late that begins. */
    struct itimerval it = {{0, 40000}, {0, 40000}};
    setitimer(ITIMER_REAL, &it, 0);
    T(mq_receive(q, text, 16, 0));
    t = in(5000);
    T(mq_timedreceive(q, text, 16, 0, &t));
    sa.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &sa, 0);
    t = in(120);
    T(mq_timedreceive(q, text, 16, 0, &t));
    it = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &it, 0);
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    T(epoll_ctl(ep, EPOLL_CTL_ADD, q, &ev));
    T(epoll_wait(ep, &ev, 1, 0));
    pthread_create(&th, 0, late, "late");
    T(epoll_wait(ep, &ev, 1, 5000));
    T(mq_receive(q, text, 16, 0));
    pthread_join(th, 0);
    /* Being told. */
    sa = (struct sigaction){.sa_sigaction = told, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &sa, 0);
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    T(mq_notify(q, &e));
    T(mq_notify(same, &e));
    lseek(r, 0, SEEK_SET);
    T(read(r, line, 48));
    line[48] = 0;
    S(line);
    W(CHILD(T(mq_notify(q, &e)); T(mq_notify(q, 0)); close(q)));
    T(mq_send(q, "one", 3, 0));
    T(got);
    T(code);
    T(value);
    T(sender_is_me);
    got = 0;
    T(mq_send(q, "two", 3, 0));
    T(got);
    T(mq_notify(q, &e));
    T(mq_receive(q, text, 16, 0));
    T(mq_receive(q, text, 16, 0));
    T(got);
    T(mq_send(q, "three", 5, 0));
    T(got);
    T(mq_receive(q, text, 16, 0));
    got = 0;
    T(mq_notify(q, &e));
    T(mq_notify(q, 0));
    T(mq_notify(q, 0));
    T(mq_send(q, "four", 4, 0));
    T(got);
    T(mq_receive(q, text, 16, 0));
    T(mq_notify(q, &e));
    pthread_create(&th, 0, late, "late");
    T(mq_receive(q, text, 16, 0));
    pthread_join(th, 0);
    T(got);
    T(close(same));
    T(mq_notify(q, &e));
    T(mq_notify(q, 0));
    e.sigev_signo = 65;
    T(mq_notify(q, &e));
    e.sigev_signo = 0;
    T(mq_notify(q, &e));
    T(mq_notify(q, 0));
    e.sigev_notify = 9;
    T(mq_notify(q, &e));
    T(syscall(SYS_mq_notify, q, 8));
    e.sigev_notify = SIGEV_NONE;
    T(mq_notify(q, &e));
    T(mq_notify(q, &e));
    T(mq_send(q, "five", 4, 0));
    T(mq_notify(q, &e));
    T(mq_notify(q, 0));
    T(mq_receive(q, text, 16, 0));
    e.sigev_notify = SIGEV_THREAD;
    e.sigev_signo = 1;
    T(syscall(SYS_mq_notify, q, &e));
    e.sigev_value.sival_ptr = text;
    e.sigev_signo = 999;
    T(syscall(SYS_mq_notify, q, &e));
    e.sigev_signo = ep;
    T(syscall(SYS_mq_notify, q, &e));
    e = (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_thread, .sigev_value.sival_int = 5};
    T(mq_notify(q, &e));
    T(mq_send(q, "six", 3, 0));
    pthread_mutex_lock(&lock);
    t = in(5000);
    while (!by_thread && !pthread_cond_timedwait(&came, &lock, &t));
    pthread_mutex_unlock(&lock);
    T(by_thread);
    /* It lives on without its name. */
    W(CHILD(if (!getuid()) { setgid(1000); setuid(1000); } T(syscall(SYS_mq_unlink, name + 1)); T(kopen(name + 1, O_RDWR, 0, 0)); T(kopen(name + 1, O_RDONLY, 0, 0) >= 0)));
    T(mq_unlink(name));
    T(mq_open(name, O_RDWR));
    T(mq_receive(q, text, 16, 0));
    T((same = mq_open(name, O_CREAT | O_RDWR, 0600, &a)) >= 0);
    T(mq_send(same, "new", 3, 0));
    T(mq_getattr(q, &b));
    T(b.mq_curmsgs);
    T(mq_close(q));
    T(mq_close(q));
    T(mq_unlink(name));
    return 0;
}
