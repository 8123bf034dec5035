//! `--rw`: a directory that the machine and the host both write. Who opens a file after the other has closed it sees what he wrote.

use hafez_tests::{Hafez, Scratch};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The machine at work, with the directory writable.
fn start(scratch: &Scratch, script: &str) -> Child {
    let hafez = Hafez::memory("64M").option("--rw").option(scratch.path()).dir(scratch.path());
    hafez
        .command(&["sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the machine")
}

/// Waits until the host sees this content.
#[track_caller]
fn wait_for(path: &Path, content: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while !fs::read_to_string(path).is_ok_and(|is| is == content) {
        assert!(Instant::now() < end, "{} is {:?}", path.display(), fs::read_to_string(path));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the machine said in the end.
#[track_caller]
fn end(machine: Child) -> String {
    let done = machine.wait_with_output().expect("its output");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// In the scripts: wait for a file of this name.
const AWAIT: &str = "await() { until [ -e $1 ]; do sleep 0.05; done; }; ";

#[test]
fn each_sees_what_the_other_has_closed() {
    let scratch = Scratch::new();
    let shared = scratch.put("shared", "from the host\n");
    let script = format!(
        "{AWAIT} cat shared; echo from the machine > shared; await one; cat shared; echo more >> shared; await two; cat shared"
    );
    let machine = start(&scratch, &script);
    wait_for(&shared, "from the machine\n");
    fs::write(&shared, "the host again, longer than before\n").expect("written");
    scratch.put("one", "");
    wait_for(&shared, "the host again, longer than before\nmore\n");
    // Put in its place by a rename, as editors do.
    fs::rename(scratch.put("other", "another file\n"), &shared).expect("renamed");
    scratch.put("two", "");
    assert_eq!(end(machine), "from the host\nthe host again, longer than before\nanother file\n");
}

#[test]
fn what_is_synced_is_outside() {
    let scratch = Scratch::new();
    let script = "exec python3 -c '
import mmap, os, time
file = open(\"file\", \"wb+\", buffering=0)
file.write(b\"a\" * 10000)
os.fsync(file.fileno())
open(\"synced\", \"w\").write(\"yes\")
while not os.path.exists(\"go\"): time.sleep(0.05)
map = mmap.mmap(file.fileno(), 10000)
map[5000:5003] = b\"map\"
map.flush()
open(\"flushed\", \"w\").write(\"yes\")
while not os.path.exists(\"go2\"): time.sleep(0.05)
file.seek(9999); file.write(b\"end\")
os.rename(\"file\", \"renamed\")
'";
    let machine = start(&scratch, script);
    wait_for(&scratch.file("synced"), "yes");
    assert_eq!(fs::read(scratch.file("file")).expect("the file"), [b'a'; 10000]);
    scratch.put("go", "");
    wait_for(&scratch.file("flushed"), "yes");
    assert_eq!(&fs::read(scratch.file("file")).expect("the file")[4999..5004], b"amapa");
    scratch.put("go2", "");
    end(machine);
    let last = fs::read(scratch.file("renamed")).expect("the file");
    assert_eq!((last.len(), &last[9998..]), (10002, &b"aend"[..]));
}

#[test]
fn large_files_survive_little_memory() {
    let scratch = Scratch::new();
    let script = "dd if=/dev/urandom of=big bs=1M count=64 2>/dev/null; sha256sum big; cp big copy; rm big; sha256sum copy";
    let hafez = Hafez::memory("24M").option("--rw").option(scratch.path()).dir(scratch.path());
    let said = hafez.run(&["sh", "-c", script]).good().text();
    let sums: Vec<&str> = said.split_whitespace().step_by(2).collect();
    assert_eq!(sums[0], sums[1]);
    let outside = hafez_tests::host(&["sha256sum", "copy"], None, scratch.path()).good().text();
    assert!(outside.starts_with(sums[0]), "{outside} {said}");
    assert!(!scratch.file("big").exists());
}

#[test]
fn a_removed_file_lives_on_while_it_is_open() {
    let scratch = Scratch::new();
    let program = "
import os
fd = os.open('gone', os.O_RDWR | os.O_CREAT)
os.write(fd, b'x' * 5000)
os.unlink('gone')
print(os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.path.exists('gone'))
os.write(fd, b'y')
os.fsync(fd)
print(os.fstat(fd).st_size, os.pread(fd, 2, 4999))
os.mkdir('dir')
dir = os.open('dir', os.O_RDONLY)
os.rmdir('dir')
print(os.fstat(dir).st_nlink)
";
    let hafez = Hafez::memory("64M").option("--rw").option(scratch.path()).dir(scratch.path());
    let said = hafez.run(&["python3", "-c", program]).good().text();
    assert_eq!(said, "0 5000 False\n5001 b'xy'\n0\n");
    assert_eq!(fs::read_dir(scratch.path()).expect("the directory").count(), 0);
}

#[test]
fn fifos_and_sockets_are_the_machines_own() {
    let scratch = Scratch::new();
    let script = "
        mkfifo pipe && (echo through > pipe & cat pipe); test -p pipe && mv pipe other && ls && mkdir d && mkfifo d/p && ! rmdir d 2>/dev/null &&
        rm d/p other && rmdir d && python3 -c '
import socket, os
server = socket.socket(socket.AF_UNIX); server.bind(\"sock\"); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect(\"sock\")
peer, _ = server.accept(); client.sendall(b\"hello\"); print(peer.recv(9), os.listdir(\".\"))
os.unlink(\"sock\")' && ls";
    let hafez = Hafez::memory("64M").option("--rw").option(scratch.path()).dir(scratch.path());
    assert_eq!(hafez.run(&["sh", "-c", script]).good().text(), "through\nother\nb'hello' ['sock']\n");
    assert_eq!(fs::read_dir(scratch.path()).expect("the directory").count(), 0);
}
