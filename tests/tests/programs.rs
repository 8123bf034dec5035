//! Real programs, which nobody here wrote, give inside what they give outside: the same bytes, complaints and exit codes.

use hafez_tests::{Hafez, Scratch, guest, text};

fn small() -> Hafez {
    Hafez::memory("64M")
}

/// A script of the usual shell.
fn sh(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

#[test]
fn exit_codes() {
    small().same(&["true"]);
    small().same(&["false"]);
    small().same(&sh("exit 42"));
    small().same(&sh("exit 255"));
}

#[test]
fn arguments_and_output_are_bytes() {
    small().same(&["printf", "%s|", "a b", "", "ü", "-n", "*"]);
    small().same(&sh(r"printf 'a\000\377\r\n'; printf 'complaint\377\n' >&2; exit 3"));
}

#[test]
fn standard_input_passes_through_whole() {
    let input: Vec<u8> = (0..2_000_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    small().input(input.clone()).same(&["cat"]);
    small().input(input).same(&["sha256sum"]);
    small().input("").same(&["wc", "-c"]);
    small().same(&["cat"]);
}

#[test]
fn the_world_inside_is_the_one_outside() {
    small().same(&["id"]);
    small().dir("/usr/share").same(&["pwd"]);
    small().same(&["env"]);
    small().same(&sh("umask; ulimit -n; ulimit -s"));
    small().same(&["cat", "/etc/passwd"]);
    small().same(&["ls", "-la", "/etc", "/usr/bin"]);
    small().same(&["stat", "-c", "%n %s %a %u %g %F %Y", "/etc/passwd", "/bin", "/usr/bin/env", "/usr"]);
    small().same(&["readlink", "-f", "/bin/sh"]);
    small().same(&["head", "-c", "100000", "/usr/bin/perl"]);
    small().same(&["ls", "/nowhere"]);
}

#[test]
fn nothing_outside_can_be_written() {
    let scratch = Scratch::new();
    scratch.put("mine", "as it was");
    let there = scratch.file("mine");
    let there = there.to_str().expect("a plain path");
    let outcome = small().run(&sh(&format!("echo gone > {there}; rm -f {there}; mkdir {there}.d")));
    assert_ne!(outcome.code, 0);
    assert!(outcome.complaint().contains("Read-only file system"), "{outcome:?}");
    assert_eq!(std::fs::read_to_string(there).expect("the file"), "as it was");
}

#[test]
fn a_writable_directory_is_written_through() {
    let scratch = Scratch::new();
    scratch.put("old", "one\n");
    let work = small().option("--rw").option(scratch.path()).dir(scratch.path());
    let script = "set -e; echo two >> old; mkdir d; mv old d/new; ln -s d/new link; cp /etc/passwd p; chmod 600 p; \
                  head -c 3000000 /usr/bin/perl > big; truncate -s 1000001 big; rm p; cat link; ls -lR | grep -c new";
    let inside = work.run(&sh(script)).good();
    assert_eq!(inside.text(), "one\ntwo\n2\n");
    assert_eq!(std::fs::read_to_string(scratch.file("d/new")).expect("the file"), "one\ntwo\n");
    assert!(!scratch.file("p").exists());
    let perl = std::fs::read("/usr/bin/perl").expect("perl");
    assert!(std::fs::read(scratch.file("big")).expect("the file") == perl[..1_000_001]);
}

#[test]
fn temporary_files_are_the_machines_own() {
    let script = "cd /tmp && seq 1 200000 > n && sort -rn n > r && wc -l r && head -1 r && rm n r && ls -A | wc -l && df /tmp > /dev/null";
    let outcome = small().run(&sh(script)).good();
    assert_eq!(outcome.text(), "200000 r\n200000\n0\n");
}

#[test]
fn signals_kill_with_their_number() {
    small().same(&["bash", "-c", "kill -TERM $$; sleep 5"]);
    small().same(&["bash", "-c", "kill -SEGV $$; sleep 5"]);
    small().same(&["bash", "-c", "trap 'echo caught; exit 9' USR1; kill -USR1 $$; sleep 5"]);
    small().same(&[
        "bash",
        "-c",
        // The shell's own words for a dead child name its process number, so they stay out of the comparison.
        "exec 2>/dev/null; (exit 3); echo $?; (kill -9 $BASHPID); echo $?; sleep 0.01 & wait $!; echo $?",
    ]);
    small().same(&["bash", "-c", "exec 2>/dev/null; bash -c 'kill -ABRT $$'; echo $?"]);
    small().same(&sh("timeout 0.2 sleep 5; echo $?"));
}

#[test]
fn pipelines() {
    small().same(&["bash", "-c", "find /usr/share/doc -name 'c*' | sort | head -300 | sed 's/[0-9]//g' | uniq -c | sort -rn | head -20"]);
    small().same(&sh("yes | head -100000 | tail -1"));
    small().same(&["bash", "-c", "set -o pipefail; yes | head -1; echo ${PIPESTATUS[@]}"]);
    small().same(&[
        "bash",
        "-c",
        "diff <(seq 1 9) <(seq 2 10); cat <<< here; echo $(( 6 * 7 )) $(echo nested $(echo deep))",
    ]);
}

#[test]
fn busybox_in_16_mebibytes() {
    Hafez::memory("16M").same(&[
        "/bin/busybox",
        "sh",
        "-c",
        "echo hello; ls /etc | wc -l; seq 1 1000 | sort -rn | head -1",
    ]);
}

#[test]
fn python_in_32_mebibytes() {
    Hafez::memory("32M").same(&["python3", "-c", "print(sum(i * i for i in range(10**5)), 'ok')"]);
}

#[test]
fn python_at_work() {
    let program = "
import hashlib, json, os, re, subprocess, sys, tempfile, threading, collections
print(hashlib.sha256(open('/usr/bin/perl', 'rb').read()).hexdigest())
print(json.dumps({'a': [1, 2.5, None], 'ü': 'x'}, sort_keys=True))
print(subprocess.run(['tr', 'a-z', 'A-Z'], input=b'shout', capture_output=True).stdout)
with tempfile.TemporaryFile() as f:
    f.write(b'x' * 300000); f.seek(299990); print(f.read())
total = []
def work(n): total.append(sum(range(n)))
threads = [threading.Thread(target=work, args=(n * 1000,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(total))
print(collections.Counter(re.findall(r'\\w+', open('/usr/share/common-licenses/GPL-3').read())).most_common(3))
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(w, b'from the child'); os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.read(r, 100))
try: open('/nowhere')
except OSError as e: print(e)
sys.exit(5)
";
    Hafez::memory("64M").same(&["python3", "-c", program]);
}

#[test]
fn perl_awk_sed_grep() {
    small().same(&["perl", "-e", "my %h; while (<>) { $h{$_}++ for split /\\W+/ } print map { \"$_ $h{$_}\\n\" } (sort { $h{$b} <=> $h{$a} || $a cmp $b } keys %h)[0..9]", "/usr/share/common-licenses/GPL-3"]);
    small().same(&[
        "awk",
        "{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) s += n[w]; print s, length(n) }",
        "/usr/share/common-licenses/GPL-3",
    ]);
    small().same(&["sed", "-n", "s/the \\(.*\\) of/\\1/p", "/usr/share/common-licenses/GPL-2"]);
    small().same(&["grep", "-rc", "License", "/usr/share/common-licenses"]);
}

#[test]
fn archives() {
    let scratch = Scratch::new();
    let file = scratch.put("text", "");
    text::collect(&file, 2 << 20).expect("text");
    let here = small().dir(scratch.path());
    here.same(&sh("sha256sum text; md5sum text; cksum text; wc text"));
    here.same(&sh("z=$(mktemp); gzip -9c text | tee $z | sha256sum; gunzip -c < $z | cmp - text && rm $z"));
    here.same(&sh("xz -0 -c text | xz -dc | sha256sum"));
    here.same(&sh("tar -C /usr/share -cf - common-licenses | tar -tvf -"));
}

#[test]
fn sqlite_works() {
    let sql = "create table t(a integer primary key, b text); \
               with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) \
               insert into t select i, hex(i * 7919 % 10007) from n; create index x on t(b); \
               select count(*), min(b), max(b) from t; select a from t where b = hex(1234) order by a; \
               select count(*) from t a join t b on a.b = b.b;";
    small().same(&["sqlite3", ":memory:", sql]);
}

#[test]
fn the_compiler_compiles() {
    let scratch = Scratch::new();
    scratch.put(
        "f.c",
        "#include <stdio.h>\nint main(int n, char **v) { printf(\"%d %s\\n\", n, v[1]); return 4; }\n",
    );
    let here = small().option("--rw").option(scratch.path()).dir(scratch.path()).seconds(240);
    here.run(&["gcc", "-O2", "-Wall", "-o", "f", "f.c"]).good();
    let made = hafez_tests::host(&["./f", "here"], None, scratch.path());
    assert_eq!((made.code, made.text().as_str()), (4, "2 here\n"));
    small().dir(scratch.path()).same(&["./f", "there"]);
}

#[test]
fn threads_sort_in_parallel() {
    let scratch = Scratch::new();
    let file = scratch.put("text", "");
    text::collect(&file, 4 << 20).expect("text");
    small().dir(scratch.path()).same(&["sort", "--parallel=4", "-S", "16M", "text"]);
}

#[test]
fn proc_tells_about_the_process() {
    small().same(&sh("tr '\\0' ' ' < /proc/self/cmdline; readlink /proc/self/exe; cat /proc/self/comm"));
    let maps = small().run(&["cat", "/proc/self/maps"]).good().text();
    assert!(maps.contains("[heap]") && maps.contains("[stack]") && maps.contains("r-xp"), "{maps}");
    let info = small().run(&["cat", "/proc/meminfo"]).good().text();
    for field in ["MemTotal:", "MemFree:", "SwapTotal:", "SwapFree:"] {
        assert!(info.contains(field), "{field} is not in\n{info}");
    }
}

/// Not every Linux that the battery is compared with knows names for memory.
#[test]
fn memory_can_be_named() {
    let script = "import ctypes, mmap
libc, memory = ctypes.CDLL(None), mmap.mmap(-1, 8192)
at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
name = lambda text: libc.prctl(0x53564d41, 0, ctypes.c_ulong(at), ctypes.c_ulong(4096), text)
maps = lambda: [line.split(None, 5)[5].strip() for line in open('/proc/self/maps') if 'anon_shmem' in line]
print(name(b'a name'), maps(), name(b'[no'), name(None), maps())";
    let told = small().run(&["python3", "-c", script]).good().text();
    assert_eq!(told, "0 ['[anon_shmem:a name]'] -1 0 []\n");
}

#[test]
fn a_root_of_its_own() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.file("bin")).expect("a directory");
    std::fs::copy("/bin/busybox", scratch.file("bin/sh")).expect("busybox");
    scratch.put("hello", "from the root\n");
    let outcome = small().option("--root").option(scratch.path()).run(&[
        "/bin/sh",
        "-c",
        "cat /hello; pwd; ls / | head -3",
    ]);
    let text = outcome.good().text();
    assert!(text.starts_with("from the root\n/\n"), "{text}");
}

#[test]
fn every_processor_model() {
    for model in ["qemu64", "max", "EPYC", "Skylake-Client-noTSX-IBRS"] {
        let run = Hafez::with(&["-m", "64M", "--accel", "tcg", "--qemu-arg", "-cpu", "--qemu-arg", model]);
        run.same(&["python3", "-c", "import math; print(math.sqrt(2) ** 3, 2 ** 100 % 97)"]);
    }
}

#[test]
fn both_policies() {
    let pages = guest("overcommit");
    for policy in ["generations", "clock"] {
        let run = Hafez::with(&["-m", "24M", "--policy", policy]);
        run.same(&[pages.to_str().expect("a plain path"), "48", "1"]);
    }
}

#[test]
fn counted_time_repeats_exactly() {
    let meter = guest("meter");
    let run =
        || Hafez::with(&["-m", "64M", "--icount"]).run(&[meter.as_os_str(), "null".as_ref()]).good().text();
    let (first, second) = (run(), run());
    assert!(first.starts_with("null "), "{first}");
    assert_eq!(first, second);
}

/// The machine's clock can be set, and all that waits for a moment of it obeys; the host's is untouched.
#[test]
fn the_clock_is_set() {
    let program = guest("settime");
    let before = std::time::SystemTime::now();
    let words = [program.as_os_str(), std::ffi::OsStr::new("the-machine-is-mine")];
    let text = Hafez::memory("64M").run(&words).good().text();
    assert_eq!(text, "all as it should be\n");
    let passed = std::time::SystemTime::now().duration_since(before);
    assert!(passed.is_ok_and(|passed| passed.as_secs() < 1_000_000), "the host's clock was set");
}
