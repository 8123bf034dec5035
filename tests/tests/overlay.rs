//! `--overlay`: the root looks writable, and nothing of it ever reaches the host.

use hafez_tests::{Hafez, Outcome, Scratch, host};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A shell script, run inside with an overlay, in a directory of the host's.
#[track_caller]
fn inside(scratch: &Scratch, memory: &str, script: &str) -> Outcome {
    Hafez::memory(memory).option("--overlay").dir(scratch.path()).run(&["sh", "-c", script])
}

/// What stands in a directory: names, sizes, times, contents.
fn picture(scratch: &Scratch) -> String {
    let script = "find . -printf '%p %y %s %T@ %m %n\\n' | sort; find . -type f | sort | xargs cat";
    host(&["sh", "-c", script], None, scratch.path()).good().text()
}

#[test]
fn changes_stay_inside() {
    let scratch = Scratch::new();
    scratch.put("file", "as it was\n");
    fs::create_dir_all(scratch.file("dir/sub")).expect("a directory");
    scratch.put("dir/one", "1\n");
    scratch.put("dir/sub/deep", "deep\n");
    let before = picture(&scratch);
    let script = "
        echo more >> file && cat file && echo new > made && rm dir/one && ls dir &&
        mv dir moved && cat moved/sub/deep && ! ls dir 2>/dev/null && mkdir dir && ls -A dir &&
        chmod 600 file && stat -c %a file && ln -s made soft && cat soft && rm -r moved && ls";
    let done = inside(&scratch, "64M", script);
    assert_eq!(done.text(), "as it was\nmore\nsub\ndeep\n600\nnew\ndir\nfile\nmade\nsoft\n", "{done:?}");
    assert_eq!(done.code, 0);
    assert_eq!(picture(&scratch), before);
    // The next machine knows nothing of it either.
    assert_eq!(inside(&scratch, "64M", "cat file; ls").text(), "as it was\ndir\nfile\n");
}

#[test]
fn the_root_itself_can_be_written() {
    let scratch = Scratch::new();
    let script = "echo 10.0.0.1 nowhere >> /etc/hosts && tail -1 /etc/hosts && mkdir /srv/x && touch /usr/bin/y && ls /srv";
    let done = inside(&scratch, "64M", script);
    assert!(done.code == 0 && done.text().starts_with("10.0.0.1 nowhere\n"), "{done:?}");
    assert!(!fs::exists("/srv/x").expect("an answer") && !fs::exists("/usr/bin/y").expect("an answer"));
    // Without it the root is read-only, as ever.
    assert_ne!(Hafez::memory("64M").run(&["touch", "/usr/bin/y"]).code, 0);
}

#[test]
fn all_names_of_a_file_see_its_changes() {
    let scratch = Scratch::new();
    let first = scratch.put("first", "old\n");
    fs::hard_link(&first, scratch.file("second")).expect("a second name");
    let script = "
        exec 3<first; echo new > second; cat first; cat <&3;
        stat -c %h first; rm first; stat -c %h second; cat second; ln second third; stat -c %h third
        test $(stat -c %i second) = $(stat -c %i third) && echo same";
    let done = inside(&scratch, "64M", script);
    assert_eq!(done.text(), "new\nnew\n2\n1\nnew\n2\nsame\n", "{done:?}");
    assert_eq!(fs::read_to_string(&first).expect("the file"), "old\n");
    assert_eq!(first.metadata().expect("the file").nlink(), 2);
}

#[test]
fn a_shared_mapping_sees_what_is_written() {
    let scratch = Scratch::new();
    scratch.put("data", "0123456789".repeat(1000));
    let program = "
import mmap, os
reader = open('data', 'rb', buffering=0)
seen = mmap.mmap(reader.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(seen[:4], reader.read(3))
with open('data', 'r+b', buffering=0) as writer:
    writer.write(b'CHANGED')
    print(seen[:8], reader.read(5))
    map = mmap.mmap(writer.fileno(), 0)
    map[9000:9003] = b'end'
    print(seen[8998:9004], os.pread(reader.fileno(), 5, 8999))
    writer.truncate(9002)
    print(os.path.getsize('data'), len(reader.read()))
";
    let done = Hafez::memory("64M").option("--overlay").dir(scratch.path()).run(&["python3", "-c", program]);
    let expected = "b'0123' b'012'\nb'CHANGED7' b'NGED7'\nb'89end3' b'9end3'\n9002 8994\n";
    assert_eq!(done.text(), expected, "{done:?}");
    assert_eq!(scratch.file("data").metadata().expect("the file").size(), 10_000);
}

#[test]
fn writes_may_be_larger_than_memory() {
    let scratch = Scratch::new();
    let script = "
        dd if=/dev/urandom of=big bs=1M count=48 2>/dev/null && cp big copy && cmp big copy &&
        rm big && cp copy big && cmp big copy && du -m copy && rm big copy && df --output=target . | tail -1";
    let done = inside(&scratch, "32M", script);
    assert_eq!(done.text(), "48\tcopy\n/\n", "{done:?}");
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn directories_are_listed_once_and_whole() {
    let scratch = Scratch::new();
    for n in 0..200 {
        scratch.put(&format!("below{n}"), "x");
    }
    let script = "
        for n in $(seq 0 2 199); do rm below$n; done
        for n in $(seq 200 299); do : > new$n; done
        for n in $(seq 1 4 199); do mv below$n moved$n; done
        : > below0
        ls -f | sort | uniq -d; ls | wc -l; ls | grep -c below; ls | grep -c moved; rm -r ./*; ls -A | wc -l";
    let done = inside(&scratch, "64M", script);
    assert_eq!(done.text(), "201\n51\n50\n0\n", "{done:?}");
    assert_eq!(fs::read_dir(scratch.path()).expect("the directory").count(), 200);
}

#[test]
fn programs_build_and_install_in_it() {
    let scratch = Scratch::new();
    scratch.put("hello.c", "#include <stdio.h>\nint main(void) { puts(\"installed\"); return 0; }\n");
    scratch.put(
        "Makefile",
        "hello: hello.c\n\t$(CC) -o $@ $<\ninstall: hello\n\tinstall hello /usr/local/bin/hafez-hello\n",
    );
    let script = "make -s install && cd / && hafez-hello && rm /usr/local/bin/hafez-hello && git init -q /root/repo && cd /root/repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one && git log --oneline | wc -l";
    let done = inside(&scratch, "64M", script);
    assert_eq!(done.text(), "installed\n1\n", "{done:?}");
    assert!(!fs::exists("/usr/local/bin/hafez-hello").expect("an answer"));
}
