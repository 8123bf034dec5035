/* Pseudoterminals: making them, the line discipline, window sizes, sessions and job control. */
#include "check.h"
#include <pty.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <termios.h>

static int master, side;
static char text[256];

/* What a read finds, as text; waits for the first bytes only. */
static const char *got(int fd) {
    static char shown[600];
    ssize_t n = read(fd, text, sizeof text);
    char *to = shown;
    if (n < 0)
        return strerrorname_np(errno);
    for (ssize_t i = 0; i < n; i++)
        to += sprintf(to, text[i] < 32 || text[i] == 127 ? "\\%o" : "%c", text[i]);
    *to = 0;
    return shown;
}

static int events(int fd, int asked) {
    struct pollfd p = {fd, asked, 0};
    poll(&p, 1, 0);
    return p.revents;
}

/* On Linux keys and output come to the other end by and by; to poll there waits for that. */
static int type(const char *keys) {
    int n = write(master, keys, strlen(keys));
    events(side, POLLIN);
    return n;
}

static void local(int on, int off) {
    struct termios t;
    tcgetattr(side, &t);
    t.c_lflag = (t.c_lflag | on) & ~off;
    tcsetattr(side, TCSANOW, &t);
}

static int waiting(int fd) {
    int n = -1;
    events(fd, POLLIN);
    return ioctl(fd, FIONREAD, &n) ? -1 : n;
}

static void pairs(void) {
    unsigned number = -1;
    int locked = -1;
    master = posix_openpt(O_RDWR | O_NOCTTY);
    T(master >= 0);
    T(ioctl(master, TIOCGPTN, &number));
    T(ioctl(master, TIOCGPTLCK, &locked));
    T(locked);
    T(open(ptsname(master), O_RDWR | O_NOCTTY));
    T(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    T(grantpt(master));
    T(unlockpt(master));
    T(ioctl(master, TIOCGPTLCK, &locked));
    T(locked);
    P(side = open(ptsname(master), O_RDWR | O_NOCTTY));
    T(isatty(master));
    T(isatty(side));
    struct stat s;
    T(fstat(side, &s));
    T(s.st_mode & S_IFMT);
    T(major(s.st_rdev));
    T(minor(s.st_rdev) == number);
    T(strcmp(ttyname(side), ptsname(master)));
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    T(fcntl(peer, F_GETFD));
    T(!strcmp(ttyname(peer), ptsname(master)));
    T(ioctl(side, TIOCGPTN, &number));
    T(ioctl(side, TIOCGPTPEER, O_RDWR));
    T(ioctl(0x7fff, TIOCGPTN, &number));
    T(ioctl(master, TIOCGPTN, 8));
    T(lseek(side, 0, SEEK_CUR));
    T(pread(side, text, 1, 0));
    T(fchmod(side, 0600));
    T(fstat(side, &s));
    T(s.st_mode & 07777);
    T(open("/dev/pts/99999", O_RDWR));
    T(open("/dev/pts/007", O_RDWR));
    T(open("/dev/pts/x", O_RDWR | O_CREAT, 0600));
    close(peer);
}

static void settings(void) {
    struct termios t, m;
    struct winsize w = {0};
    T(tcgetattr(side, &t));
    T(t.c_iflag);
    T(t.c_oflag);
    T(t.c_cflag);
    T(t.c_lflag);
    T(t.c_line);
    for (int i = 0; i < 17; i++)
        N("key", i, t.c_cc[i]);
    T(cfgetospeed(&t));
    T(tcgetattr(master, &m));
    T(memcmp(&t, &m, offsetof(struct termios, c_cc) + 19));
    T(ioctl(side, TIOCGWINSZ, &w));
    T(w.ws_row + w.ws_col);
    w.ws_row = 30, w.ws_col = 70;
    T(ioctl(master, TIOCSWINSZ, &w));
    memset(&w, 0, sizeof w);
    T(ioctl(side, TIOCGWINSZ, &w));
    T(w.ws_row * 1000 + w.ws_col);
    T(tcflush(side, TCIOFLUSH));
    T(tcflush(side, 7));
    T(tcdrain(side));
    T(tcsendbreak(side, 0));
    T(ioctl(side, TIOCOUTQ, &w));
    int d = -1;
    T(ioctl(side, TIOCGETD, &d));
    T(d);
    d = 0;
    T(ioctl(side, TIOCSETD, &d));
    T(ioctl(side, TIOCMGET, &d));
    T(ioctl(side, 0x5499, &d));
    t.c_cflag &= ~(CSIZE | CREAD);
    t.c_cflag |= CS5 | PARENB;
    T(tcsetattr(side, TCSADRAIN, &t));
    T(tcgetattr(side, &t));
    T((t.c_cflag & CSIZE) == CS8);
    T((t.c_cflag & PARENB) == 0);
    T((t.c_cflag & CREAD) == CREAD);
}

static void lines(void) {
    T(type("one\n"));
    S(got(master));
    S(got(side));
    type("ab\177c\n");
    S(got(master));
    S(got(side));
    type("some words\027\n");
    S(got(master));
    S(got(side));
    type("gone\025kept\n");
    S(got(master));
    S(got(side));
    type("\002\033\n");
    S(got(master));
    S(got(side));
    type("\026\003x\n");
    S(got(master));
    S(got(side));
    type("a\tb\177\177c\n");
    S(got(master));
    S(got(side));
    type("no newline");
    T(waiting(side));
    T(events(side, POLLIN | POLLOUT));
    type("\004");
    T(waiting(side));
    T(events(side, POLLIN | POLLOUT));
    S(got(side));
    S(got(master));
    type("\004");
    T(read(side, text, 10));
    type("first\nsecond\n");
    T(read(side, text, 3));
    T(read(side, text, 100));
    T(read(side, text, 100));
    got(master);
    type("cr\r");
    S(got(side));
    S(got(master));
    T(write(side, "a\nb\n", 4));
    S(got(master));
    T(write(side, "x\ty\r\n", 5));
    S(got(master));
    local(0, ECHO);
    type("unseen\n");
    S(got(side));
    T(waiting(master));
    local(ECHONL, 0);
    type("unseen\n");
    S(got(side));
    S(got(master));
    local(ECHO, ECHONL | ECHOE);
    type("ab\177c\n");
    S(got(side));
    S(got(master));
    local(ECHOE, ECHOKE);
    type("ab\025c\n");
    S(got(side));
    S(got(master));
    local(ECHOKE, ECHOCTL);
    type("\001\n");
    S(got(side));
    S(got(master));
    local(ECHOCTL, 0);
    struct termios t;
    tcgetattr(side, &t);
    tcflag_t in = t.c_iflag, out = t.c_oflag;
    t.c_iflag = INLCR | IGNCR;
    t.c_cc[VEOL] = ';';
    tcsetattr(side, TCSANOW, &t);
    type("q\r;");
    S(got(side));
    S(got(master));
    t.c_iflag = in;
    t.c_cc[VEOL] = 0;
    t.c_oflag = OPOST | OCRNL | TAB3;
    tcsetattr(side, TCSANOW, &t);
    write(side, "a\tb\r", 4);
    S(got(master));
    t.c_oflag = OPOST | OLCUC | ONOCR | ONLRET;
    tcsetattr(side, TCSANOW, &t);
    write(side, "\rab\r\n\r", 6);
    S(got(master));
    t.c_oflag = 0;
    tcsetattr(side, TCSANOW, &t);
    write(side, "r\n", 2);
    S(got(master));
    t.c_oflag = out;
    t.c_iflag = in | IUTF8;
    tcsetattr(side, TCSANOW, &t);
    type("\303\251\177e\n");
    S(got(side));
    S(got(master));
    t.c_iflag = in;
    tcsetattr(side, TCSANOW, &t);
    T(fcntl(side, F_SETFL, O_NONBLOCK));
    T(read(side, text, 10));
    T(fcntl(master, F_SETFL, O_NONBLOCK));
    T(read(master, text, 10));
    T(read(side, text, 0));
    fcntl(side, F_SETFL, 0);
    fcntl(master, F_SETFL, 0);
    T(write(side, (char *)8, 3));
    T(read(side, (char *)8, 0));
    static char long_line[6000];
    memset(long_line, 'l', sizeof long_line);
    local(0, ECHO);
    T(write(master, long_line, 5000));
    type("\n");
    T(read(side, long_line, 6000));
    T(long_line[4094] == '\n');
    local(ECHO, 0);
}

static void raw(void) {
    struct termios t;
    tcgetattr(side, &t);
    struct termios before = t;
    type("typed");
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    tcsetattr(side, TCSANOW, &t);
    S(got(side));
    got(master);
    type("k");
    S(got(side));
    T(waiting(master));
    type("\003\004\r");
    S(got(side));
    t.c_cc[VMIN] = 3;
    tcsetattr(side, TCSANOW, &t);
    type("ab");
    T(events(side, POLLIN));
    T(waiting(side));
    type("c");
    T(events(side, POLLIN));
    S(got(side));
    t.c_cc[VMIN] = 0;
    tcsetattr(side, TCSANOW, &t);
    T(read(side, text, 10));
    fcntl(side, F_SETFL, O_NONBLOCK);
    T(read(side, text, 10));
    fcntl(side, F_SETFL, 0);
    t.c_cc[VTIME] = 1;
    tcsetattr(side, TCSANOW, &t);
    T(read(side, text, 10));
    t.c_cc[VMIN] = 5;
    tcsetattr(side, TCSANOW, &t);
    type("xy");
    T(read(side, text, 10));
    type("zz");
    T(tcflush(side, TCIFLUSH));
    T(waiting(side));
    write(side, "pending", 7);
    T(waiting(master));
    T(tcflush(side, TCOFLUSH));
    S(got(master));
    type("raw");
    tcsetattr(side, TCSANOW, &before);
    T(waiting(side));
    S(got(side));
    tcflush(side, TCIOFLUSH);
    T(tcsetattr(side, TCSAFLUSH, &before));
}

static void flow(void) {
    type("\023");
    fcntl(side, F_SETFL, O_NONBLOCK);
    T(write(side, "stopped", 7));
    T(events(side, POLLOUT));
    type("\021");
    T(write(side, "going", 5));
    S(got(master));
    T(tcflow(side, TCOOFF));
    T(write(side, "stopped", 7));
    T(tcflow(side, TCOON));
    T(write(side, "going", 5));
    S(got(master));
    T(tcflow(side, TCIOFF));
    S(got(master));
    T(tcflow(side, TCION));
    S(got(master));
    T(tcflow(side, 9));
    int on = 1, is = -1;
    T(ioctl(master, TIOCPKT, &on));
    T(ioctl(master, TIOCGPKT, &is));
    T(is);
    T(write(side, "data", 4));
    S(got(master));
    type("\023");
    S(got(master));
    type("\021");
    S(got(master));
    tcflush(side, TCIFLUSH);
    S(got(master));
    struct termios t;
    tcgetattr(side, &t);
    t.c_iflag &= ~IXON;
    tcsetattr(side, TCSANOW, &t);
    T(events(master, POLLIN | POLLPRI));
    S(got(master));
    t.c_iflag |= IXON;
    tcsetattr(side, TCSANOW, &t);
    S(got(master));
    T(ioctl(side, TIOCPKT, &on));
    on = 0;
    T(ioctl(master, TIOCPKT, &on));
    fcntl(side, F_SETFL, 0);
}

static volatile sig_atomic_t hups, conts, winches, ints, tstps, ttous;
static void count(int signo) {
    switch (signo) {
    case SIGHUP: hups++; break;
    case SIGCONT: conts++; break;
    case SIGWINCH: winches++; break;
    case SIGINT: ints++; break;
    case SIGTSTP: tstps++; break;
    case SIGTTOU: ttous++; break;
    }
}

/* A session of its own on the side. */
static void session(void) {
    signal(SIGHUP, count);
    signal(SIGCONT, count);
    signal(SIGWINCH, count);
    signal(SIGINT, count);
    T(tcgetpgrp(side));
    T(tcgetsid(side));
    T(ioctl(side, TIOCNOTTY));
    T(setsid() == getpid());
    T(open("/dev/tty", O_RDWR));
    T(ioctl(side, TIOCSCTTY, 0));
    T(ioctl(side, TIOCSCTTY, 0));
    T(tcgetpgrp(side) == getpgrp());
    T(tcgetsid(side) == getsid(0));
    pid_t group = -1;
    T(ioctl(master, TIOCGPGRP, &group));
    T(group == getpgrp());
    P(open("/dev/tty", O_RDWR));
    T(tcsetpgrp(side, getpid()));
    T(tcsetpgrp(side, -1));
    T(tcsetpgrp(side, getpgid(getppid())));
    T(tcsetpgrp(side, 999999));
    T(tcsetpgrp(0, getpid()));
    type("\003");
    T(ints);
    struct winsize w = {11, 22};
    ioctl(master, TIOCSWINSZ, &w);
    T(winches);
    ioctl(master, TIOCSWINSZ, &w);
    T(winches);
    tcflush(side, TCIOFLUSH);
    char key = 'K';
    T(ioctl(side, TIOCSIG, SIGINT));
    T(ioctl(master, TIOCSIG, SIGINT));
    T(ints);
    T(ioctl(master, TIOCSIG, 0));

    /* A job in the background. */
    int gate[2];
    pipe(gate);
    pid_t job = fork();
    if (!job) {
        setpgid(0, 0);
        signal(SIGINT, SIG_DFL);
        write(gate[1], "", 1);
        _exit(read(side, text, 10) == 5 ? 7 : 8);
    }
    read(gate[0], text, 1);
    int status;
    waitpid(job, &status, WUNTRACED);
    W(status);
    T(tcsetpgrp(side, job));
    T(tcgetpgrp(side) == job);
    type("line\n");
    kill(job, SIGCONT);
    waitpid(job, &status, 0);
    W(status);

    /* Now this one is in the background itself. */
    signal(SIGTTOU, SIG_IGN);
    T(tcsetpgrp(side, getpgrp()));
    signal(SIGTTOU, SIG_DFL);

    /* Writing and setting from the background. */
    struct termios t;
    tcgetattr(side, &t);
    t.c_lflag |= TOSTOP;
    tcsetattr(side, TCSANOW, &t);
    for (int i = 0; i < 6; i++) {
        job = fork();
        if (!job) {
            setpgid(0, 0);
            if (i == 2 || i == 4) signal(SIGTTOU, SIG_IGN);
            if (i == 5) signal(SIGTTIN, SIG_IGN);
            errno = 0;
            int answer = i == 0 || i == 2 ? write(side, "b", 1)
                : i == 1 || i == 4 ? tcsetattr(side, TCSANOW, &t)
                : i == 3 ? tcsetpgrp(side, getpgrp())
                : read(side, text, 1);
            _exit(answer < 0 ? errno : 100 + answer);
        }
        setpgid(job, job);
        waitpid(job, &status, WUNTRACED);
        N("background", i, WIFSTOPPED(status) ? 1000 + WSTOPSIG(status) : WEXITSTATUS(status));
        if (WIFSTOPPED(status)) {
            kill(job, SIGKILL);
            waitpid(job, &status, 0);
        }
    }
    t.c_lflag &= ~TOSTOP;
    tcsetattr(side, TCSANOW, &t);
    tcflush(side, TCIOFLUSH);

    /* Stopped by a key. */
    job = fork();
    if (!job) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(side, getpid());
        write(gate[1], "", 1);
        for (;;) pause();
    }
    read(gate[0], text, 1);
    type("\032");
    waitpid(job, &status, WUNTRACED);
    W(status);
    signal(SIGTTOU, SIG_IGN);
    tcsetpgrp(side, getpgrp());
    kill(job, SIGCONT);
    waitpid(job, &status, WCONTINUED);
    W(status);
    signal(SIGTTOU, SIG_DFL);
    tcsetpgrp(side, job);
    type("\034");
    waitpid(job, &status, 0);
    W(WTERMSIG(status));
    signal(SIGTTOU, SIG_IGN);
    tcsetpgrp(side, getpgrp());

    /* One that gives the terminal up. */
    W(CHILD({
        int had = open("/dev/tty", O_RDWR) >= 0;
        int left = ioctl(side, TIOCNOTTY);
        int has = open("/dev/tty", O_RDWR) >= 0;
        _exit(had * 4 + (left == 0) * 2 + has);
    }));
    /* A new session has none, and cannot take this one's. */
    W(CHILD({
        setsid();
        int none = open("/dev/tty", O_RDWR) < 0 && errno == ENXIO;
        int taken = ioctl(side, TIOCSCTTY, 0) < 0 && errno == EPERM;
        int group = tcgetpgrp(side) < 0 && errno == ENOTTY;
        int opened = open(ttyname(side), O_RDWR);
        int still = open("/dev/tty", O_RDWR) < 0 && errno == ENXIO;
        _exit(none * 16 + taken * 8 + group * 4 + (opened >= 0) * 2 + still);
    }));
    hups = conts = 0;
    T(ioctl(side, TIOCNOTTY));
    T(hups * 10 + conts);
    T(tcgetpgrp(side));
    /* Taken again just by opening it. */
    P(open(ttyname(side), O_RDWR));
    T(tcgetpgrp(side) == getpgrp());
}

/* What happens when the other end goes. */
static void ends(void) {
    int m, s;
    openpty(&m, &s, 0, 0, 0);
    write(s, "left", 4);
    T(events(m, POLLIN));
    close(s);
    T(events(m, POLLIN | POLLOUT));
    S(got(m));
    T(read(m, text, 10));
    T(events(m, POLLIN));
    T(write(m, "k\n", 2));
    s = open(ptsname(m), O_RDWR | O_NOCTTY);
    T(events(m, POLLIN) & POLLHUP);
    int n = open(ptsname(m), O_RDWR | O_NOCTTY);
    close(s);
    T(events(m, POLLIN) & POLLHUP);
    char name[64];
    strcpy(name, ptsname(m));
    close(m);
    T(read(n, text, 10));
    T(write(n, "x", 1));
    T(events(n, POLLIN | POLLOUT));
    struct termios t;
    T(tcgetattr(n, &t));
    T(tcsetpgrp(n, getpgrp()));
    T(access(name, F_OK));
    T(open(name, O_RDWR));
    close(n);

    /* The leader of the session is told. */
    openpty(&m, &s, 0, 0, 0);
    int gate[2], status;
    pipe(gate);
    pid_t leader = fork();
    if (!leader) {
        sigset_t both;
        sigemptyset(&both);
        sigaddset(&both, SIGHUP);
        sigaddset(&both, SIGCONT);
        sigprocmask(SIG_BLOCK, &both, 0);
        setsid();
        ioctl(s, TIOCSCTTY, 0);
        close(m);
        pid_t other = fork();
        if (!other) {
            /* In the foreground: told when the leader ends. */
            int signo;
            setpgid(0, 0);
            signal(SIGTTOU, SIG_IGN);
            tcsetpgrp(s, getpid());
            write(gate[1], "", 1);
            sigwait(&both, &signo);
            if (signo == SIGCONT) sigwait(&both, &signo);
            write(gate[1], signo == SIGHUP ? "h" : "?", 1);
            _exit(0);
        }
        /* Ours was a copy: the parent's is the last. */
        int signo, seen = 0;
        while (seen != 3) {
            sigwait(&both, &signo);
            seen |= signo == SIGHUP ? 1 : 2;
        }
        int tty = open("/dev/tty", O_RDWR) < 0 ? errno : 0;
        _exit(tty == ENXIO);
    }
    read(gate[0], text, 1);
    close(m);
    waitpid(leader, &status, 0);
    W(status);
    T(read(gate[0], text, 1));
    T(text[0]);
    close(s);

    /* The leader of a session on a terminal ends: who is in the foreground is told. */
    openpty(&m, &s, 0, 0, 0);
    leader = fork();
    if (!leader) {
        setsid();
        ioctl(s, TIOCSCTTY, 0);
        sigset_t both;
        sigemptyset(&both);
        sigaddset(&both, SIGHUP);
        sigprocmask(SIG_BLOCK, &both, 0);
        if (!fork()) {
            int signo;
            sigwait(&both, &signo);
            int none = tcgetpgrp(s) < 0 && errno == ENOTTY;
            write(gate[1], none ? "n" : "?", 1);
            _exit(0);
        }
        _exit(0);
    }
    waitpid(leader, &status, 0);
    T(read(gate[0], text, 1));
    T(text[0]);
    close(m);
    close(s);
}

int main(void) {
    pairs();
    settings();
    lines();
    raw();
    flow();
    W(CHILD(session()));
    ends();
}
