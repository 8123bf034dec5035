//! The main job, before the reader's eyes: real programs, each first on this computer as it is, then in a machine with less RAM than
//! they need; and the two results compared, byte by byte.

use crate::shell::step;
use crate::{Options, build};
use anyhow::{Context, Result, bail};
use hafez_tests::{Scratch, text};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

struct Act {
    title: &'static str,
    memory: &'static str,
    swap: &'static str,
    program: Vec<OsString>,
    /// Exit code of the program inside, if it is not to be that of the program outside: what memory running out gives.
    killed: bool,
}

const OBJECTS: &str = "\
import random
random.seed(7)
objects = [[i, str(i) * 3, (i, float(i))] for i in range(450000)]
digest = 0
for _ in range(225000):
    o = objects[random.randrange(len(objects))]
    assert o[1] == str(o[0]) * 3
    digest = (digest * 31 + o[0]) % 1000000007
print(len(objects), 'objects, digest', digest)
";

const DATABASE: &str = "\
create table item(id integer primary key, name text, price integer, kind integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
  insert into item select i, printf('item %d, number %d', i * 7919 % 200003, i), i * 7919 % 10007, i % 101 from n;
create index by_name on item(name);
create index by_price on item(price, kind);
select kind, count(*), sum(price) from item group by kind order by 3 desc limit 3;
select name from item where name > 'item 5' order by name limit 2;
pragma integrity_check;";

/// Bytes of text that `sort` sorts.
const TEXT: u64 = 64 << 20;

fn acts(guests: &Path) -> Vec<Act> {
    let words = |w: &[&str]| w.iter().map(OsString::from).collect::<Vec<_>>();
    let mut checker = vec![guests.join("overcommit").into_os_string()];
    checker.extend(words(&["96", "2"]));
    let mut hold = vec![guests.join("hold").into_os_string()];
    hold.push("200".into());
    vec![
        Act {
            title: "sort 64 MiB of this computer's own documentation and sources",
            memory: "64M",
            swap: "512M",
            program: words(&["sort", "-S", "256M", "text"]),
            killed: false,
        },
        Act {
            title: "python3: a list of 450,000 objects, read in random order",
            memory: "48M",
            swap: "384M",
            program: words(&["python3", "-c", OBJECTS]),
            killed: false,
        },
        Act {
            title: "sqlite3: an in-memory database with two indexes",
            memory: "20M",
            swap: "128M",
            program: words(&["sqlite3", ":memory:", DATABASE]),
            killed: false,
        },
        Act {
            title: "a checker that knows what every word must be, at four times the RAM",
            memory: "24M",
            swap: "128M",
            program: checker,
            killed: false,
        },
        Act {
            title: "and when there is truly no room: the one program is killed, and told why",
            memory: "32M",
            swap: "32M",
            program: hold,
            killed: true,
        },
    ]
}

pub fn run(options: &Options) -> Result<()> {
    let built = build::all(options)?;
    // Inside, `/tmp` is the machine's own; this place is seen from both sides.
    let scratch = Scratch::new();
    let guests = scratch.file("guests");
    std::fs::create_dir(&guests)?;
    for program in std::fs::read_dir(&built.guests)?.flatten() {
        std::fs::copy(program.path(), guests.join(program.file_name()))?;
    }
    step("collecting real text from this computer");
    text::collect(&scratch.file("text"), TEXT).context("cannot collect text")?;

    let start = Instant::now();
    let mut failed = 0;
    let acts = acts(&guests);
    for (number, act) in acts.iter().enumerate() {
        println!("\n── {} of {}: {}", number + 1, acts.len(), act.title);
        if !play(act, &built.hafez, &scratch)? {
            failed += 1;
        }
    }
    println!();
    if failed > 0 {
        bail!("{failed} of {} did not come out as they should", acts.len());
    }
    println!(
        "All as it should be, in {}: the same bytes and exit codes from a fraction of the memory.",
        duration(start.elapsed())
    );
    Ok(())
}

/// One program, outside and inside. Whether it came out right.
fn play(act: &Act, hafez: &Path, scratch: &Scratch) -> Result<bool> {
    let shown = shown(&act.program);
    let mut outside = Command::new(&act.program[0]);
    outside.args(&act.program[1..]);
    println!("   $ {shown}");
    let (outside, time) = watch(outside, scratch, "this computer as it is")?;
    println!("     this computer as it is: {}, {}", told(&outside), duration(time));

    let mut inside = Command::new(hafez);
    inside.args(["run", "-m", act.memory, "--swap", act.swap, "--"]).args(&act.program);
    println!("   $ hafez run -m {} --swap {} -- {shown}", act.memory, act.swap);
    let (inside, time) = watch(inside, scratch, "the machine")?;
    println!("     a machine with {}iB: {}, {}", act.memory, told(&inside), duration(time));
    for line in String::from_utf8_lossy(&inside.stderr).lines() {
        println!("     {line}");
    }

    let right = if act.killed {
        inside.status.code() == Some(137)
    } else {
        inside.status.code() == outside.status.code() && inside.stdout == outside.stdout
    };
    println!(
        "   {}",
        match (right, act.killed) {
            (true, false) => "✓ same bytes, same exit code",
            (true, true) => "✓ exit code 137, with an explanation, as containers have it",
            (false, _) => "✗ NOT THE SAME",
        }
    );
    Ok(right)
}

/// Runs `command` to its end, showing that time passes.
fn watch(mut command: Command, scratch: &Scratch, where_: &str) -> Result<(Output, Duration)> {
    command.current_dir(scratch.path()).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let (send, done) = channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let terminal = std::io::stdout().is_terminal();
    let output = loop {
        match done.recv_timeout(Duration::from_secs(1)) {
            Ok(output) => break output?,
            Err(RecvTimeoutError::Timeout) => {
                let passed = start.elapsed().as_secs();
                if terminal {
                    print!("\r     {where_}: {passed} s …");
                } else if passed.is_multiple_of(15) {
                    println!("     {where_}: {passed} s …");
                }
                std::io::stdout().flush()?;
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{shown} is lost"),
        }
    };
    if terminal {
        print!("\r\x1b[K");
    }
    Ok((output, start.elapsed()))
}

/// What a program printed, in short.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code().map_or("killed".into(), |c| format!("exit code {c}"));
    match (text.len(), text.lines().last()) {
        (1..200, Some(line)) => format!("{line:?}, {code}"),
        (n, _) => format!("{n} bytes, {code}"),
    }
}

fn shown(program: &[OsString]) -> String {
    let word = |w: &OsString| {
        let text = w.to_string_lossy().into_owned();
        let name = text.rsplit_once("/guests/").map_or(text.as_str(), |(_, name)| name).to_owned();
        if name.contains('\n') { "'…'".into() } else { name }
    };
    program.iter().map(word).collect::<Vec<String>>().join(" ")
}

fn duration(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
