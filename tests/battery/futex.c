/* Futexes, bare and as the thread library uses them. */
#include "check.h"
#include <pthread.h>
static long fx(void *a, int op, int v, void *t, void *b, int v3) {
    return syscall(SYS_futex, a, op, v, t, b, v3);
}
static uint32_t w, w2, *sh;
static volatile int ready;
static volatile int woke;
static void *waiter(void *arg) {
    long r;
    __sync_fetch_and_add(&ready, 1);
    do r = fx(arg, FUTEX_WAIT|FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
    while (r == -1 && errno == EINTR);
    __sync_fetch_and_add(&woke, 1);
    return (void*)(r == 0 ? 0L : (long)errno);
}
static void nap(int ms) {
    struct timespec t = {0, ms*1000000L};
    nanosleep(&t, 0);
}
static void hnd(int s) {
}
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static long total;
static int turn;
static void *adder(void *a) {
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&m);
        total++;
        pthread_mutex_unlock(&m);
        if (i % 64 == 0) sched_yield();
    }
    return 0;
}
static void *ping(void *a) {
    long me = (long)a;
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&m);
        while (turn != me) pthread_cond_wait(&cv, &m);
        turn = !me;
        pthread_cond_broadcast(&cv);
        pthread_mutex_unlock(&m);
    }
    return 0;
}
static void *robust(void *a) {
    pthread_mutex_lock(a);
    return 0;
}
int main(void) {
    struct timespec t = {0, 10000000}, bad = {0, 1000000000}, neg = {-1, 0}, past = {0, 0}, abs;
    catch_();
    T(fx(&w, FUTEX_WAIT, 1, 0, 0, 0));
    T(fx(&w, FUTEX_WAIT, 0, &t, 0, 0));
    T(fx(&w, FUTEX_WAIT, 0, &bad, 0, 0));
    T(fx(&w, FUTEX_WAIT, 0, &neg, 0, 0));
    T(fx(&w, FUTEX_WAIT, 0, &past, 0, 0));
    T(fx((char*)&w+1, FUTEX_WAIT, 0, &t, 0, 0));
    T(fx((void*)8, FUTEX_WAIT, 0, &t, 0, 0));
    T(fx((void*)8, FUTEX_WAIT|128, 0, &t, 0, 0));
    T(fx((void*)8, FUTEX_WAKE, 1, 0, 0, 0));
    T(fx((void*)8, FUTEX_WAKE|128, 1, 0, 0, 0));
    T(fx((char*)&w+2, FUTEX_WAKE|128, 1, 0, 0, 0));
    T(fx((void*)0xffff800000000000L, FUTEX_WAKE|128, 1, 0, 0, 0));
    T(fx((void*)0xffff800000000000L, FUTEX_WAIT|128, 1, 0, 0, 0));
    T(fx(&w, FUTEX_WAIT_BITSET, 0, &past, 0, 0));
    T(fx(&w, FUTEX_WAIT_BITSET, 0, &past, 0, -1));
    T(fx(&w, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, &past, 0, -1));
    T(fx(&w, FUTEX_WAIT|FUTEX_CLOCK_REALTIME, 1, &past, 0, -1));
    T(fx(&w, FUTEX_WAKE|FUTEX_CLOCK_REALTIME, 1, 0, 0, 0));
    clock_gettime(CLOCK_REALTIME, &abs);
    abs.tv_nsec += 20000000;
    if (abs.tv_nsec >= 1000000000) abs.tv_sec++, abs.tv_nsec -= 1000000000;
    T(fx(&w, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, &abs, 0, -1));
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    T((now.tv_sec > abs.tv_sec) || (now.tv_sec == abs.tv_sec && now.tv_nsec >= abs.tv_nsec));
    T(fx(&w, FUTEX_WAKE_BITSET, 1, 0, 0, 0));
    T(fx(&w, 99, 1, 0, 0, 0));
    T(fx(&w, FUTEX_FD, 1, 0, 0, 0));
    T(fx(&w, FUTEX_REQUEUE, -1, 0, &w2, 0));
    T(fx(&w, FUTEX_CMP_REQUEUE, 1, (void*)-1L, &w2, 0));
    T(fx(&w, FUTEX_CMP_REQUEUE, 1, (void*)1, &w2, 5));
    T(fx(&w, FUTEX_WAKE, 1, 0, 0, 0));
    T(fx(&w, FUTEX_WAKE_OP, 1, (void*)1, &w2, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0)));
    T(w2);
    T(fx(&w, FUTEX_WAKE_OP, 1, (void*)1, &w2, FUTEX_OP(FUTEX_OP_ADD, -3, FUTEX_OP_CMP_EQ, 0)));
    T(w2);
    T(fx(&w, FUTEX_WAKE_OP, 1, (void*)1, &w2, FUTEX_OP(FUTEX_OP_OR|8, 4, FUTEX_OP_CMP_EQ, 0)));
    T(w2);
    T(fx(&w, FUTEX_WAKE_OP, 1, (void*)1, (void*)8, FUTEX_OP(FUTEX_OP_OR, 4, FUTEX_OP_CMP_EQ, 0)));
    T(fx(&w, FUTEX_WAKE_OP, 1, (void*)1, &w2, 7u<<28));
    T(fx(&w, FUTEX_WAKE_OP, 1, (void*)1, &w2, 9u<<24));
    pthread_t th[8];
    void *res;
    for (int i = 0; i < 8; i++) pthread_create(&th[i], 0, waiter, &w);
    while (ready < 8) nap(1);
    nap(30);
    T(fx(&w, FUTEX_WAKE|128, 1, 0, 0, 0));
    T(fx(&w, FUTEX_WAKE|128, 2, 0, 0, 0));
    for (int i = 0; i < 1000 && woke < 3; i++) nap(2);
    nap(20);
    T(woke);
    T(fx(&w, FUTEX_CMP_REQUEUE|128, 1, (void*)2, &w2, 0));
    for (int i = 0; i < 1000 && woke < 4; i++) nap(2);
    nap(20);
    T(woke);
    T(fx(&w, FUTEX_WAKE|128, 100, 0, 0, 0));
    T(fx(&w2, FUTEX_WAKE|128, 100, 0, 0, 0));
    long sum = 0;
    for (int i = 0; i < 8; i++) {
        pthread_join(th[i], &res);
        sum += (long)res;
    }
    T(sum);
    T(woke);
    /* Who waits in the plain way is not moved to a lock. */
    pthread_create(&th[0], 0, waiter, &w);
    long refused = 0;
    uint32_t lock = 0;
    for (int i = 0; i < 5000 && refused == 0; i++, nap(2)) refused = fx(&w, FUTEX_CMP_REQUEUE_PI|128, 1, 0, &lock, 0);
    T(refused < 0 ? -errno : refused);
    T(lock);
    T(fx(&w, FUTEX_WAKE|128, 1, 0, 0, 0));
    pthread_join(th[0], &res);
    T((long)res);
    /* shared across processes, at different addresses */
    sh = mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t p = fork();
    if (!p) {
        uint32_t *s = mremap(sh, 4096, 4096, MREMAP_MAYMOVE|MREMAP_FIXED, (void*)0x60000000);
        nap(40);
        *s = 1;
        exit(fx(s, FUTEX_WAKE, 1, 0, 0, 0));
    }
    T(fx(sh, FUTEX_WAIT, 0, 0, 0, 0));
    int st;
    waitpid(p, &st, 0);
    T(WEXITSTATUS(st));
    /* signals */
    struct sigaction sa = {0};
    sa.sa_handler = hnd;
    sigaction(SIGALRM, &sa, 0);
    /* Again and again, so that one comes while we wait, however late that begins. */
    struct itimerval it = {{0,30000},{0,30000}};
    setitimer(ITIMER_REAL, &it, 0);
    T(fx(&w, FUTEX_WAIT, 0, 0, 0, 0));
    struct timespec two = {20, 0};
    T(fx(&w, FUTEX_WAIT, 0, &two, 0, 0));
    sa.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &sa, 0);
    struct timespec q = {20, 0};
    T(fx(&w, FUTEX_WAIT, 0, &q, 0, 0));
    it = (struct itimerval){{0,0},{0,0}};
    setitimer(ITIMER_REAL, &it, 0);
    /* pthread */
    for (long i = 0; i < 4; i++) pthread_create(&th[i], 0, adder, 0);
    for (int i = 0; i < 4; i++) pthread_join(th[i], 0);
    T(total);
    for (long i = 0; i < 2; i++) pthread_create(&th[i], 0, ping, (void*)i);
    for (int i = 0; i < 2; i++) pthread_join(th[i], 0);
    T(turn);
    pthread_mutexattr_t at;
    pthread_mutexattr_init(&at);
    pthread_mutexattr_setrobust(&at, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t rm;
    pthread_mutex_init(&rm, &at);
    pthread_create(&th[0], 0, robust, &rm);
    pthread_join(th[0], 0);
    T(pthread_mutex_lock(&rm));
    T(pthread_mutex_consistent(&rm));
    T(pthread_mutex_unlock(&rm));
    pthread_mutexattr_setpshared(&at, 1);
    pthread_mutex_t *pm = (void*)(sh+64);
    pthread_mutex_init(pm, &at);
    fflush(stdout);
    p = fork();
    if (!p) {
        pthread_mutex_lock(pm);
        _exit(0);
    }
    waitpid(p, &st, 0);
    T(pthread_mutex_lock(pm));
    T(pthread_mutex_consistent(pm));
    T(pthread_mutex_unlock(pm));
    T(syscall(SYS_set_robust_list, 0, 12));
    T(syscall(SYS_get_robust_list, 99999, &p, &st));
    struct {
        uint64_t v, a;
        uint32_t f, r;
    }
    wv[2] = {{0, (uint64_t)&w, 2|128, 0}, {7, (uint64_t)&w2, 2|128, 0}};
    struct timespec mono;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    T(syscall(449, wv, 2, 0, &mono, CLOCK_MONOTONIC));
    wv[1].v = w2;
    T(syscall(449, wv, 2, 0, &mono, CLOCK_MONOTONIC));
    T(syscall(449, wv, 0, 0, 0, 0));
    T(syscall(449, wv, 129, 0, 0, 0));
    T(syscall(449, wv, 2, 1, 0, 0));
    T(syscall(449, wv, 2, 0, &mono, 5));
    wv[0].f = 1;
    T(syscall(449, wv, 2, 0, &mono, 1));
    return 0;
}
