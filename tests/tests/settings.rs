//! What is written below `/proc/sys` binds from then on. (The host's own settings are nobody's to change, so nothing is compared.)

use hafez_tests::Hafez;

/// Each answer is a child's, so that limits and identities go with it.
const SCRIPT: &str = "
import fcntl, mmap, os, resource, subprocess
def put(name, value):
    with open('/proc/sys/' + name, 'w') as f: f.write(str(value))
def child(f):
    r, w = os.pipe()
    if os.fork() == 0:
        try: said = f()
        except (OSError, ValueError) as e: said = e
        os.write(w, str(said).encode())
        os._exit(0)
    os.close(w)
    os.wait()
    with open(r) as f: return f.read()
def regions():
    held, buffer, lines = [], bytearray(1 << 16), 0
    with open('/proc/self/maps', 'rb', buffering=0) as f:
        try:
            while True: held.append(mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED, prot=[1, 3][len(held) % 2]))
        except OSError: pass
        while (n := f.readinto(buffer)) > 0: lines += buffer[:n].count(b'\\n') - buffer[:n].count(b'[vsyscall]')
    return lines
def pipes():
    os.setuid(65534)
    ends = [os.pipe() for _ in range(6)]
    sizes = [fcntl.fcntl(r, fcntl.F_GETPIPE_SZ) for r, _ in ends]
    try: fcntl.fcntl(ends[0][0], fcntl.F_SETPIPE_SZ, 131072)
    except OSError as e: sizes.append(e.errno)
    return sizes
def large():
    os.setuid(65534)
    return fcntl.fcntl(os.pipe()[0], fcntl.F_SETPIPE_SZ, 131072)
def stack(): return subprocess.run(['grep', 'stack', '/proc/self/maps'], capture_output=True).stdout

put('vm/max_map_count', 300); print('regions', child(regions)); put('vm/max_map_count', 65530)
put('fs/pipe-user-pages-soft', 64); print('pipes', child(pipes)); put('fs/pipe-user-pages-soft', 0)
put('fs/pipe-user-pages-hard', 64); print('pipes', child(pipes)); put('fs/pipe-user-pages-hard', 0)
put('fs/pipe-max-size', 65536); print('pipe', child(large))
put('fs/nr_open', 2048); print('files', child(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))))
put('kernel/pid_max', 301); print('numbers', max(int(child(os.getpid)) for _ in range(310)))
put('kernel/randomize_va_space', 0); print('stack', stack() == stack())
put('kernel/sem', '250 32000 32'); print('semaphores', open('/proc/sys/kernel/sem').read().split())
for name, value in [('kernel/pid_max', 300), ('kernel/sem', '1 x'), ('fs/pipe-max-size', 1), ('kernel/randomize_va_space', 3)]:
    try: put(name, value)
    except OSError as e: print(name, e.errno)
put('vm/panic_on_oom', '0\\n'); put('kernel/printk', '4 4 1 7')
try: put('vm/panic_on_oom', 1)
except OSError as e: print('kept', e.errno)
os.setuid(65534)
try: put('kernel/pid_max', 4194304)
except OSError as e: print('nobody', e.errno)
";

#[test]
fn settings_bind() {
    let told = Hafez::memory("64M").run(&["/usr/bin/python3", "-c", SCRIPT]).good().text();
    // One region more than the limit says, as on Linux: it is asked before.
    let expected = "regions 301
pipes [65536, 65536, 65536, 65536, 8192, 8192, 1]
pipes [Errno 23] Too many open files in system
pipe [Errno 1] Operation not permitted
files not allowed to raise maximum limit
numbers 300
stack True
semaphores ['250', '32000', '32', '32000']
kernel/pid_max 22
kernel/sem 22
fs/pipe-max-size 22
kernel/randomize_va_space 22
kept 22
nobody 13
";
    assert_eq!(told, expected);
}

/// Strangers' names in directories that everybody may write to; and numbers that somebody wants for System V's things.
const OTHERS: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def put(name, value):
    with open('/proc/sys/' + name, 'w') as f: f.write(str(value))
def get(name): return open('/proc/sys/' + name).read().strip()
def tries(*path, flags=os.O_RDONLY):
    for name in path:
        try: os.close(os.open(name, flags, 0o600)); print(name, 'opened')
        except OSError as e: print(name, e.errno)
def child(uid, f):
    sys.stdout.flush()
    if os.fork() == 0:
        os.setuid(uid)
        f()
        sys.stdout.flush()
        os._exit(0)
    os.wait()
os.chdir('/tmp')
for name in 'open', 'own':
    os.mkdir(name)
    os.chmod(name, 0o1777)
os.chown('own', 1000, 1000)
open('target', 'w').close()
def stranger():
    for place in 'open', 'own':
        os.symlink('/tmp/target', place + '/link')
        os.mkfifo(place + '/fifo', 0o666)
        open(place + '/file', 'w').close()
    os.chmod('open/file', 0o666)
os.umask(0)
child(1000, stranger)
def all():
    tries('open/link', 'own/link')
    tries('open/fifo', 'own/fifo', flags=os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
    tries('open/file', 'own/file', flags=os.O_RDWR | os.O_CREAT)
for setting in 'symlinks', 'fifos', 'regular': put('fs/protected_' + setting, 1)
all()
child(1000, lambda: tries('open/link'))
tries('open/file', 'open/fifo', flags=os.O_RDWR | os.O_NONBLOCK)
for setting in 'symlinks', 'fifos', 'regular': put('fs/protected_' + setting, 0)
all()
put('fs/protected_hardlinks', 0)
child(1000, lambda: os.link('/tmp/target', '/tmp/open/hard'))
print(os.path.exists('open/hard'))
for kind, make in ('shm', lambda: libc.shmget(0, 4096, 0o600)), ('msg', lambda: libc.msgget(0, 0o600)), ('sem', lambda: libc.semget(0, 1, 0o600)):
    setting = 'kernel/' + kind + '_next_id'
    before = get(setting)
    put(setting, 4711)
    print(kind, before, get(setting), make(), get(setting))
    put(setting, 4711)
    again = make()
    print(again not in (4711, -1), get(setting))
    try: put(setting, -1)
    except OSError as e: print(e.errno)
";

#[test]
fn settings_of_names_and_numbers() {
    let told = Hafez::memory("64M").run(&["/usr/bin/python3", "-c", OTHERS]).good().text();
    let expected = "open/link 13
own/link opened
open/fifo 13
own/fifo opened
open/file 13
own/file opened
open/link opened
open/file opened
open/fifo opened
open/link opened
own/link opened
open/fifo opened
own/fifo opened
open/file opened
own/file opened
True
shm -1 4711 4711 -1
True -1
22
msg -1 4711 4711 -1
True -1
22
sem -1 4711 4711 -1
True -1
22
";
    assert_eq!(told, expected);
}

/// `gzip` takes the file of the configuration, and it says what is so.
#[test]
fn configuration_is_told() {
    let script = "zcat /proc/config.gz && gzip -t < /proc/config.gz && echo whole";
    let told = Hafez::memory("64M").run(&["/bin/sh", "-c", script]).good().text();
    for line in
        ["CONFIG_X86_64=y", "CONFIG_SYSVIPC=y", "CONFIG_SWAP=y", "# CONFIG_USER_NS is not set", "whole"]
    {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
}

/// A descriptor of `userfaultfd(2)` comes from its device, too: for who may open that. (The host may not have it.)
#[test]
fn userfaults_have_a_device() {
    let script = "
import fcntl, os, struct
device = os.open('/dev/userfaultfd', os.O_RDWR)
fd = fcntl.ioctl(device, 0xaa00, os.O_CLOEXEC)
api = fcntl.ioctl(fd, 0xc018aa3f, struct.pack('QQQ', 0xaa, 0, 0))
print(os.readlink(f'/proc/self/fd/{fd}'), struct.unpack('QQQ', api)[0])
for asked, request in (device, 0xaa01), (os.open('/dev/null', os.O_RDWR), 0xaa00):
    try: fcntl.ioctl(asked, request, 0)
    except OSError as e: print(e.errno)
os.setuid(65534)
try: os.open('/dev/userfaultfd', os.O_RDWR)
except OSError as e: print(e.errno)
";
    let told = Hafez::memory("64M").run(&["/usr/bin/python3", "-c", script]).good().text();
    assert_eq!(told, "anon_inode:[userfaultfd] 170\n22\n25\n13\n");
}
