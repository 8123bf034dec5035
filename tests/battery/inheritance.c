/* Futexes that lend urgency, bare and as the thread library uses them; and the calls that came after `futex`. */
#include "check.h"
#include <pthread.h>
#include <semaphore.h>

static long fx(void *at, int op, long value, const void *time, void *other, int third) {
    return syscall(SYS_futex, at, op, value, time, other, third);
}
static uint32_t word, other, third_word;
static int tid(void) {
    return syscall(SYS_gettid);
}
static void nap(int ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) && errno == EINTR) {
    }
}
static struct timespec in(clockid_t clock, long ms) {
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_nsec += ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}
/* Is that thread asleep? */
static int sleeps(int who) {
    char path[64], line[400] = {0};
    sprintf(path, "/proc/self/task/%d/stat", who);
    FILE *f = fopen(path, "r");
    if (!f) return 1;
    fread(line, 1, 399, f);
    fclose(f);
    return strrchr(line, ')') && strrchr(line, ')')[2] == 'S';
}
static volatile int started[8], order[8], has[8], finished, result[8];
static pthread_t threads[8];
static void *locker(void *a) {
    long i = (long)a;
    started[i] = tid();
    errno = 0;
    result[i] = fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0) ? errno : 0;
    order[i] = ++finished;
    fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
    return 0;
}
static void start(int i, void *(*f)(void *)) {
    started[i] = 0;
    pthread_create(&threads[i], 0, f, (void *)(long)i);
    while (!started[i]) nap(1);
    nap(3);
    while (!sleeps(started[i])) nap(2);
}
/* Returns when the first thread, which says that it is about to, waits. */
static volatile int about_to_wait;
static void first_waits(void) {
    while (!about_to_wait || !sleeps(getpid())) nap(2);
}
static void *dies(void *a) {
    word = tid();
    started[(long)a] = tid();
    first_waits();
    return 0;
}
static void *holds_other(void *a) {
    fx(&other, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
    started[(long)a] = tid();
    errno = 0;
    result[(long)a] = fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0) ? errno : 0;
    fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
    fx(&other, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
    return 0;
}
static void *requeued(void *a) {
    long i = (long)a;
    started[i] = tid();
    errno = 0;
    result[i] = fx(&third_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 7, 0, &word, 0) ? errno : 0;
    order[i] = ++finished;
    if (!result[i]) {
        has[i] = (word & FUTEX_TID_MASK) == tid();
        fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
    }
    return 0;
}
static void handler(int s) {
    (void)s;
}
static long sum;
static pthread_mutex_t pi;
static void *adder(void *a) {
    (void)a;
    for (int i = 0; i < 5000; i++) {
        pthread_mutex_lock(&pi);
        sum++;
        if (i % 512 == 0) sched_yield();
        pthread_mutex_unlock(&pi);
    }
    return 0;
}
static void *takes_and_dies(void *a) {
    pthread_mutex_lock(a);
    started[0] = 1;
    first_waits();
    return 0;
}
/* The tale of three: a slow one holds the lock, a busy one keeps the CPU, an urgent one wants the lock. One CPU for all. */
static volatile int slow_has, slow_done, stop, busy_ran;
static sem_t go;
static void be(int policy, int priority) {
    struct sched_param p = {priority};
    T(sched_setscheduler(0, policy, &p));
}
static void *slow(void *a) {
    (void)a;
    pthread_mutex_lock(&pi);
    slow_has = 1;
    sem_post(&go);
    /* Some work: it never ends in time if the busy one comes first. */
    while (!busy_ran) {
    }
    for (volatile long i = 0; i < 20000000; i++) {
    }
    slow_done = 1;
    pthread_mutex_unlock(&pi);
    return 0;
}
static void *busy(void *a) {
    (void)a;
    be(SCHED_FIFO, 10);
    busy_ran = 1;
    struct timespec end = in(CLOCK_MONOTONIC, 8000), now;
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while (!stop && now.tv_sec < end.tv_sec);
    return 0;
}

int main(void) {
    struct timespec t = {0, 0}, bad = {0, 1000000000};
    catch_();
    /* One thread alone. */
    T(fx(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(word == tid());
    T(fx(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx(&word, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(word);
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(fx(&word, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    T(word == tid());
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(fx(&word, FUTEX_LOCK_PI2, 0, 0, 0, 0));
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    word = FUTEX_OWNER_DIED;
    T(fx(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(word == (FUTEX_OWNER_DIED | tid()));
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(word);
    word = 0x3ffffff0;
    T(fx(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx(&word, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    word = 0;
    T(fx((char *)&word + 1, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx((char *)&word + 2, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(fx((void *)8, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx((void *)8, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T(fx((void *)8, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(fx((void *)8, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_CLOCK_REALTIME, 0, 0, 0, 0));
    T(fx(&word, FUTEX_UNLOCK_PI | FUTEX_CLOCK_REALTIME, 0, 0, 0, 0));
    T(fx(&word, FUTEX_TRYLOCK_PI | FUTEX_CLOCK_REALTIME, 0, 0, 0, 0));
    T(fx(&word, FUTEX_LOCK_PI, 0, &bad, 0, 0));
    T(fx(&word, FUTEX_LOCK_PI, 0, (void *)8, 0, 0));
    T(fx(&word, FUTEX_TRYLOCK_PI, 0, (void *)8, 0, 0));
    T(fx(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    /* Several: the one that waited longest comes first. */
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    for (int i = 0; i < 3; i++) start(i, locker);
    T(word == (FUTEX_WAITERS | tid()));
    T(fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], 0);
        N("order", i, order[i]);
        N("result", i, result[i]);
    }
    T(word);
    /* Times. LOCK_PI's is of the realtime clock, LOCK_PI2's of the other unless it says so. */
    start(0, dies);
    T(fx(&word, FUTEX_TRYLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, &t, 0, 0));
    t = in(CLOCK_REALTIME, 10);
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, &t, 0, 0));
    t = in(CLOCK_MONOTONIC, 10);
    T(fx(&word, FUTEX_LOCK_PI2 | FUTEX_PRIVATE_FLAG, 0, &t, 0, 0));
    t = in(CLOCK_REALTIME, 10);
    T(fx(&word, FUTEX_LOCK_PI2 | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME, 0, &t, 0, 0));
    /* The holder dies with it. */
    uint32_t dead = word;
    about_to_wait = 1;
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T((word & FUTEX_TID_MASK) == tid());
    T(word & FUTEX_OWNER_DIED);
    T(fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T(word);
    pthread_join(threads[0], 0);
    word = dead;
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    word = 0;
    /* Two that would wait for each other. */
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    start(1, holds_other);
    T(fx(&other, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T(fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    pthread_join(threads[1], 0);
    T(result[1]);
    T(word | other);
    /* A signal does not end the wait. */
    struct sigaction sa = {.sa_handler = handler};
    sigaction(SIGUSR1, &sa, 0);
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    finished = 0;
    start(0, locker);
    pthread_kill(threads[0], SIGUSR1);
    nap(30);
    T(finished);
    T(fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    pthread_join(threads[0], 0);
    T(result[0]);
    /* Between processes. */
    uint32_t *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    T(fx(shared, FUTEX_LOCK_PI, 0, 0, 0, 0));
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        uint32_t *there = mremap(shared, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x60000000);
        int got = fx(there, FUTEX_LOCK_PI, 0, 0, 0, 0);
        _exit(got == 0 && (*there & FUTEX_TID_MASK) == getpid() ? 3 : 4);
    }
    while (!(*(volatile uint32_t *)shared & FUTEX_WAITERS)) nap(1);
    nap(10);
    T(fx(shared, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    int status;
    waitpid(child, &status, 0);
    W(status);
    T(fx(shared, FUTEX_LOCK_PI, 0, 0, 0, 0));
    /* Moved from another word. */
    word = 0;
    third_word = 7;
    T(fx(&third_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 6, 0, &word, 0));
    T(fx(&third_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 7, 0, &third_word, 0));
    T(fx(&third_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 7, &bad, &word, 0));
    t = in(CLOCK_MONOTONIC, 10);
    T(fx(&third_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 7, &t, &word, 0));
    t = in(CLOCK_REALTIME, 10);
    T(fx(&third_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME, 7, &t, &word, 0));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 2, (void *)1, &word, 7));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 0, (void *)1, &word, 7));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, (void *)-1L, &word, 7));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, (void *)1, &third_word, 7));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, (void *)1, &word, 6));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, (void *)1, &word, 7));
    finished = 0;
    for (int i = 0; i < 3; i++) start(i, requeued);
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, (void *)100, &other, 7));
    T(fx(&word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    T(fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, (void *)1, &word, 7));
    nap(20);
    T(finished);
    T(word == (FUTEX_WAITERS | tid()));
    T(fx(&word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0));
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], 0);
        N("requeued", i, result[i]);
        N("has it", i, has[i]);
        N("order", i, order[i]);
    }
    long moved = fx(&third_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, 0, &word, 7);
    pthread_join(threads[2], 0);
    T(moved);
    T(has[2]);
    T(result[2]);
    T(word);
    /* The thread library's mutexes. */
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    T(pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT));
    T(pthread_mutex_init(&pi, &kind));
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, adder, 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    T(sum);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t robust;
    T(pthread_mutex_init(&robust, &kind));
    started[0] = about_to_wait = 0;
    pthread_create(&threads[0], 0, takes_and_dies, &robust);
    while (!started[0]) nap(1);
    T(pthread_mutex_trylock(&robust));
    about_to_wait = 1;
    T(pthread_mutex_lock(&robust));
    T(pthread_mutex_consistent(&robust));
    T(pthread_mutex_unlock(&robust));
    pthread_join(threads[0], 0);
    T(pthread_mutex_lock(&robust));
    t = in(CLOCK_REALTIME, 10);
    T(pthread_mutex_unlock(&robust));
    T(pthread_mutex_lock(&pi));
    T(pthread_mutex_unlock(&pi));
    /* Urgency is lent. */
    if (!getuid()) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        T(sched_setaffinity(0, sizeof one, &one));
        be(SCHED_FIFO, 20);
        sem_init(&go, 0, 0);
        pthread_attr_t low;
        pthread_attr_init(&low);
        pthread_attr_setinheritsched(&low, PTHREAD_EXPLICIT_SCHED);
        pthread_create(&threads[0], &low, slow, 0);
        sem_wait(&go);
        T(slow_has);
        pthread_create(&threads[1], 0, busy, 0);
        while (!busy_ran) nap(1);
        T(slow_done);
        T(pthread_mutex_lock(&pi));
        T(slow_done);
        stop = 1;
        T(pthread_mutex_unlock(&pi));
        pthread_join(threads[0], 0);
        pthread_join(threads[1], 0);
        be(SCHED_OTHER, 0);
    }
    /* The calls that came after. */
    struct { uint64_t value, at; uint32_t flags, none; } list[2] = {{7, (uint64_t)&third_word, 2 | 128, 0}, {0, (uint64_t)&word, 2 | 128, 0}};
    T(syscall(454, &third_word, 0xffffffff, 1, 2));
    T(syscall(454, &third_word, 0xffffffff, 0, 2 | 128));
    T(syscall(454, &third_word, 0, 1, 2));
    T(syscall(454, &third_word, 0x100000000, 1, 2));
    T(syscall(454, &third_word, 1, 1, 1));
    T(syscall(454, &third_word, 1, 1, 2 | 64));
    T(syscall(454, (char *)&third_word + 1, 1, 1, 2));
    T(syscall(454, (void *)8, 1, 1, 2));
    T(syscall(455, &third_word, 6, 0xffffffff, 2, 0, 0));
    T(syscall(455, &third_word, 7, 0, 2, 0, 0));
    T(syscall(455, &third_word, 0x100000007, 1, 2, 0, 0));
    T(syscall(455, &third_word, 7, 0x100000001, 2, 0, 0));
    T(syscall(455, &third_word, 7, 1, 3, 0, 0));
    t = in(CLOCK_MONOTONIC, 10);
    T(syscall(455, &third_word, 7, 1, 2 | 128, &t, CLOCK_MONOTONIC));
    t = in(CLOCK_REALTIME, 10);
    T(syscall(455, &third_word, 7, 1, 2 | 128, &t, CLOCK_REALTIME));
    T(syscall(455, &third_word, 7, 1, 2 | 128, &t, CLOCK_BOOTTIME));
    T(syscall(455, &third_word, 7, 1, 2 | 128, &bad, CLOCK_REALTIME));
    T(syscall(455, &third_word, 7, 1, 2 | 128, 8, CLOCK_REALTIME));
    T(syscall(456, list, 0, 1, 1));
    T(syscall(456, list, 1, 1, 1));
    T(syscall(456, 0, 0, 1, 1));
    T(syscall(456, 8, 0, 1, 1));
    T(syscall(456, list, 0, -1, 1));
    T(syscall(456, list, 0, 1, -1));
    list[0].value = 6;
    T(syscall(456, list, 0, 1, 1));
    list[1].none = 1;
    T(syscall(456, list, 0, 1, 1));
    return 0;
}
