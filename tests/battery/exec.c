/* Becoming another program: what may, what may not, what stays. */
#include "check.h"
#include <elf.h>
#include <spawn.h>
#include <sys/auxv.h>

extern char **environ;
static char self[64];

static void put(const char *path, const void *text, size_t len, int mode) {
    int fd = open(path, O_CREAT|O_TRUNC|O_WRONLY, 0600);
    write(fd, text, len);
    fchmod(fd, mode);
    close(fd);
}
static void script(const char *path, const char *text, int mode) {
    put(path, text, strlen(text), mode);
}
#define X(path) T(execl(path, "x", (char *)0))
static int run(const char *path) {
    return CHILD(execl(path, "zero", "A", "B", (char *)0); _exit(errno));
}
static void on(int signal) {}

/* An ELF file that is as wrong as the caller makes it. */
static void elf(const char *path, void (*spoil)(Elf64_Ehdr *, Elf64_Phdr *)) {
    struct { Elf64_Ehdr e; Elf64_Phdr p[2]; unsigned char code[16]; } f = {
        .e = {.e_ident = "\177ELF\2\1\1", .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1, .e_entry = 0x400000 + sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr),
              .e_phoff = sizeof(Elf64_Ehdr), .e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1},
        .p = {{PT_LOAD, PF_R|PF_X, 0, 0x400000, 0x400000, sizeof f, sizeof f, 4096}},
        /* mov $60,%eax; mov $42,%edi; syscall */
        .code = {0xb8, 60, 0, 0, 0, 0xbf, 42, 0, 0, 0, 0x0f, 0x05, 0xf4}};
    if (spoil) spoil(&f.e, f.p);
    put(path, &f, sizeof f, 0755);
}
static void class(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_ident[4] = 1; }
static void machine(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_machine = EM_ARM; }
static void type(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_type = ET_REL; }
static void phentsize(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phentsize = 32; }
static void phnum(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 0; }
static void phmany(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 60000; }
static void phoff(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phoff = 1 << 20; }
static void version(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_version = 9; }
static void data(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_ident[5] = 2; }
static void entry(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_entry = 0x10; }
static void filesz(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_filesz = p->p_memsz + 1; }
static void congruence(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_vaddr += 8; }
static void kernel(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_vaddr = 0xffffffff80000000; }
static void huge(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_memsz = 1ull << 50; }
static void noload(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_type = PT_NOTE; }
static void bss(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_memsz += 100000; p->p_flags |= PF_W; }
static void rdonlybss(Elf64_Ehdr *e, Elf64_Phdr *p) { p->p_memsz += 100; }
static void interp(Elf64_Ehdr *e, Elf64_Phdr *p) { p[1] = (Elf64_Phdr){PT_INTERP, PF_R, 0, 0, 0, 0, 0, 1}; e->e_phnum = 2; }
static void interpfar(Elf64_Ehdr *e, Elf64_Phdr *p) { p[1] = (Elf64_Phdr){PT_INTERP, PF_R, 1 << 20, 0, 0, 20, 20, 1}; e->e_phnum = 2; }
static void dyn(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_type = ET_DYN; e->e_entry -= 0x400000; p->p_vaddr = 0; }
static void low(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_entry -= 0x400000; p->p_vaddr = 0; }

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "child")) {
        N("arguments", argc, 0);
        for (int i = 1; i < argc; i++) S(argv[i]);
        return 40 + argc;
    }
    if (argc > 1 && !strcmp(argv[1], "kept")) {
        for (int fd = 3; fd < 12; fd++) N("descriptor", fd, fcntl(fd, F_GETFD));
        struct sigaction a;
        sigaction(SIGUSR1, 0, &a);
        T(a.sa_handler == SIG_DFL);
        sigaction(SIGUSR2, 0, &a);
        T(a.sa_handler == SIG_IGN);
        sigset_t s;
        sigprocmask(0, 0, &s);
        T(sigismember(&s, SIGHUP));
        sigpending(&s);
        T(sigismember(&s, SIGHUP));
        stack_t alt;
        sigaltstack(0, &alt);
        T(alt.ss_flags);
        T(nice(0));
        struct rlimit l;
        getrlimit(RLIMIT_CORE, &l);
        T(l.rlim_cur);
        T(umask(0));
        T(alarm(0));
        return 0;
    }
    if (argc != 1 || getenv("AGAIN")) return argc == 0 ? 56 : argc > 1 ? 40 : 55;
    snprintf(self, sizeof self, "%s/self", place_);
    char command[200];
    snprintf(command, sizeof command, "cp /proc/%d/exe %s", getpid(), self);
    system(command);
    int st;
    pid_t p;
    T(getauxval(AT_PAGESZ));
    T(getauxval(AT_PHENT));
    T(getauxval(AT_CLKTCK));
    T(getauxval(AT_SECURE));
    T(getauxval(AT_FLAGS));
    T(getauxval(AT_BASE));
    T(getauxval(AT_UID) == getuid());
    T(getauxval(AT_EGID) == getegid());
    T(getauxval(AT_ENTRY) != 0);
    T(getauxval(AT_RANDOM) != 0);
    T(getauxval(AT_HWCAP) != 0);
    T(getauxval(AT_PHDR) != 0);
    S((char *)getauxval(AT_PLATFORM));
    /* paths */
    X("/nowhere");
    X("/etc/passwd");
    X("/etc");
    X("/etc/passwd/x");
    X("");
    T(syscall(SYS_execve, 8, 0, 0));
    T(syscall(SYS_execve, "/bin/true", 8, 0));
    T(syscall(SYS_execve, "/bin/true", 0, 8));
    char *bad[] = {"x", (char *)8, 0};
    T(execv("/bin/true", bad));
    char lname[5000];
    memset(lname, 'a', 4999);
    lname[4999] = 0;
    T(execl(lname, "x", (char *)0));
    lname[300] = 0;
    T(execl(lname, "x", (char *)0));
    symlink("loop", "loop");
    X("./loop");
    script("noexec", "#!/bin/sh\n", 0644);
    X("./noexec");
    mkfifo("fifo", 0777);
    X("./fifo");
    X("/dev/null");
    /* what is no program */
    script("empty", "", 0755);
    X("./empty");
    script("text", "echo hi\n", 0755);
    X("./text");
    script("junk", "\177ELFxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0755);
    X("./junk");
    script("short", "\177ELF", 0755);
    X("./short");
    /* scripts */
    script("nointerpreter", "#!/nowhere/at/all\n", 0755);
    X("./nointerpreter");
    script("blank", "#!\n", 0755);
    X("./blank");
    script("blanks", "#!   \t \n", 0755);
    X("./blanks");
    script("bare", "#!", 0755);
    X("./bare");
    char text[700];
    snprintf(text, sizeof text, "#!%s/round\n", place_);
    script("round", text, 0755);
    X("./round");
    snprintf(text, sizeof text, "#! %s \t child one two \nrest\n", self);
    script("script", text, 0755);
    W(run("./script"));
    snprintf(text, sizeof text, "#!%s child", self);
    script("noend", text, 0755);
    W(run("./noend"));
    script("nested", "#!./script\n", 0755);
    W(run("./nested"));
    script("n3", "#!./nested\n", 0755);
    script("n4", "#!./n3\n", 0755);
    script("n5", "#!./n4\n", 0755);
    script("n6", "#!./n5\n", 0755);
    W(run("./n3"));
    W(run("./n4"));
    W(run("./n5"));
    W(run("./n6"));
    memset(text, 'y', sizeof text);
    memcpy(text, "#!/bin/true ", 12);
    put("long", text, 600, 0755);
    W(run("./long"));
    memset(text, 'y', sizeof text);
    memcpy(text, "#!/", 3);
    put("longpath", text, 600, 0755);
    W(run("./longpath"));
    script("directory", "#!/tmp\n", 0755);
    X("./directory");
    script("relative", "#!self child\n", 0755);
    W(run("./relative"));
    /* ELF files */
    elf("good", 0);
    W(run("./good"));
#define ELF(how) do { elf("elf", how); st = run("./elf"); N("ELF " #how, 0, st); } while (0)
    ELF(class);
    ELF(machine);
    ELF(type);
    ELF(phentsize);
    ELF(phnum);
    ELF(phmany);
    ELF(phoff);
    ELF(version);
    ELF(data);
    ELF(entry);
    ELF(filesz);
    ELF(kernel);
    ELF(huge);
    ELF(noload);
    ELF(bss);
    ELF(rdonlybss);
    ELF(interp);
    ELF(interpfar);
    ELF(dyn);
    ELF(low);
    ELF(congruence);
    /* arguments */
    char *big = malloc(200000);
    memset(big, 'x', 199999);
    big[199999] = 0;
    T(execl("/bin/true", "x", big, (char *)0));
    big[131071] = 0;
    W(CHILD(execl("/bin/true", "x", big, (char *)0); _exit(errno)));
    char **many = malloc(8 * 300001);
    for (int i = 0; i < 300000; i++) many[i] = "0123456789";
    many[300000] = 0;
    T(execv("/bin/true", many));
    many[10000] = 0;
    W(CHILD(execv("/bin/true", many); _exit(errno)));
    char *none[] = {0};
    setenv("AGAIN", "1", 1);
    W(CHILD(execv(self, none); _exit(errno)));
    char *again[] = {"AGAIN=1", 0};
    W(CHILD(execve(self, 0, again); _exit(errno)));
    unsetenv("AGAIN");
    /* by descriptor */
    char *av[] = {"fx", "child", "by descriptor", 0};
    int fd = open(self, O_RDONLY|O_CLOEXEC);
    W(CHILD(fexecve(fd, av, environ); _exit(errno)));
    W(CHILD(syscall(SYS_execveat, fd, "", av, environ, AT_EMPTY_PATH); _exit(errno)));
    T(syscall(SYS_execveat, fd, "", av, environ, 0));
    T(syscall(SYS_execveat, 99, "x", av, environ, 0));
    T(syscall(SYS_execveat, 99, "", av, environ, AT_EMPTY_PATH));
    T(syscall(SYS_execveat, fd, "x", av, environ, 0));
    T(syscall(SYS_execveat, fd, "", av, environ, 1));
    symlink("self", "link");
    T(syscall(SYS_execveat, AT_FDCWD, "link", av, environ, AT_SYMLINK_NOFOLLOW));
    W(CHILD(syscall(SYS_execveat, AT_FDCWD, "link", av, environ, 0); _exit(errno)));
    int path = open(self, O_PATH);
    W(CHILD(fexecve(path, av, environ); _exit(errno)));
    int dot = open(".", O_PATH|O_DIRECTORY);
    W(CHILD(syscall(SYS_execveat, dot, "self", av, environ, 0); _exit(errno)));
    int sc = open("script", O_RDONLY), scc = open("script", O_RDONLY|O_CLOEXEC);
    W(CHILD(fexecve(scc, av, environ); _exit(errno)));
    (void)sc;
    /* busy text */
    elf("busy", 0);
    int w = open("busy", O_WRONLY);
    T(w >= 0);
    W(run("./busy"));
    close(w);
    W(run("./busy"));
    W(CHILD(int fd = open("/proc/self/exe", O_WRONLY); _exit(fd < 0 ? errno : 0)));
    /* what stays */
    for (int i = 3; i < 20; i++) close(i);
    open("/dev/null", O_RDONLY);
    open("/dev/null", O_RDONLY|O_CLOEXEC);
    dup3(3, 5, O_CLOEXEC);
    dup2(5, 6);
    fcntl(6, F_SETFD, FD_CLOEXEC);
    fcntl(3, F_DUPFD_CLOEXEC, 7);
    fcntl(3, F_DUPFD, 8);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGUSR1, on);
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGHUP);
    sigprocmask(SIG_BLOCK, &s, 0);
    stack_t alt = {malloc(65536), 0, 65536};
    sigaltstack(&alt, 0);
    W(CHILD(struct rlimit l = {0, 0}; setrlimit(RLIMIT_CORE, &l); umask(077); nice(3); alarm(100); raise(SIGHUP); execl(self, self, "kept", (char *)0)));
    sigprocmask(SIG_UNBLOCK, &s, 0);
    /* the library's ways */
    char *sv[] = {self, "child", "spawned", 0};
    T(posix_spawn(&p, self, 0, 0, sv, environ));
    waitpid(p, &st, 0);
    W(st);
    T(posix_spawn(&p, "/nowhere", 0, 0, sv, environ));
    T(posix_spawnp(&p, "no-such-program", 0, 0, sv, environ));
    W(system("exit 6"));
    W(system("kill -9 $$"));
    FILE *f = popen("echo popen; exit 3", "r");
    char line[100];
    fgets(line, 6, f);
    S(line);
    W(pclose(f));
    return 0;
}
