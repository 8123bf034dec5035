//! The network: programs that speak to each other inside, servers inside that the outside reaches, programs inside that reach out.
//!
//! The ignored ones take minutes under emulation; `cargo xtask test --all` runs them.

use hafez_tests::{Hafez, Scratch, guest};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A program of `tests/programs`, where the machine sees it, and anybody may read it.
fn program(name: &str, scratch: &Scratch) -> String {
    use std::os::unix::fs::PermissionsExt;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name);
    let place = scratch.put(name, std::fs::read(source).expect("the program"));
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), all).expect("a directory for all");
    place.to_str().expect("a plain path").into()
}

/// A port of this computer that nobody has just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

/// A machine with a server in it; ended when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Runs a shell script inside that prints "ready" when its server on port 7000 takes connections.
    fn start(memory: &str, script: &str) -> Server {
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:7000");
        let mut command = Hafez::with(&["-m", memory, "-p", &publish]).command(&["/bin/sh", "-c", script]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a run");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        // Whatever else it says is not to stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let server = Server { child, port };
        assert!(ready, "the server did not begin");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output(command: &mut Command) -> String {
    let done = command.output().expect("a program of this computer");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn python_speaks_over_sockets() {
    let scratch = Scratch::new();
    Hafez::memory("64M").same(&["python3", &program("sockets.py", &scratch)]);
}

#[test]
fn thousands_are_watched_at_once() {
    let scratch = Scratch::new();
    Hafez::memory("64M").same(&["python3", &program("watching.py", &scratch)]);
}

#[test]
fn groups_and_tables() {
    let scratch = Scratch::new();
    let outcome = Hafez::memory("64M").run(&["python3", &program("groups.py", &scratch)]).good();
    let expected = "b'to the group'\nb'to all' 10.0.2.15\nb'six' [(52, (7,))]\nleft\n\
                    0100007F 0A 00000000\n0100007F 01 00000000\n0100007F 01 00000005\n";
    assert_eq!(outcome.text(), expected);
}

/// Descriptors under way count for who sent them, and come to an end.
#[test]
fn descriptors_under_way_are_bounded() {
    let script = "import os, resource, socket, array
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
if os.getuid() == 0: os.setuid(65534)
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
ring, held = socket.socketpair()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [ring.fileno()] * 10))]
def fill():
    sent = 0
    try:
        while sent < 100:
            a.sendmsg([b'x'], rights, socket.MSG_DONTWAIT)
            sent += 1
    except OSError as e:
        return sent, os.strerror(e.errno)
print(fill())
for fd in socket.recv_fds(b, 1, 10)[1]: os.close(fd)
print(fill())
b.close()
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
print(fill())";
    Hafez::memory("64M").same(&["python3", "-c", script]);
}

#[test]
fn the_ways_are_told() {
    let outcome =
        Hafez::memory("64M").run(&["/bin/sh", "-c", "ip -br addr; ip route; ip route get 1.1.1.1; ip rule"]);
    let text = outcome.good().text();
    for line in [
        "lo               UNKNOWN        127.0.0.1/8 ::1/128 ",
        "eth0             UP             10.0.2.15/24 fec0::5054:ff:fe12:3456/64 ",
        "default via 10.0.2.2 dev eth0 ",
        "10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15 ",
        "32766:\tfrom all lookup main",
    ] {
        assert!(text.lines().any(|l| l.trim_end() == line.trim_end()), "{line:?} in\n{text}");
    }
    assert!(text.contains("1.1.1.1 via 10.0.2.2 dev eth0"), "{text}");
}

/// Sockets that only each other hold: a machine that kept them would be full long before the end.
#[test]
fn rings_of_sockets_are_let_go() {
    let script = "import socket, array
def send(by, *what):
    by.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w.fileno() for w in what]))])
for i in range(5000):
    a, b = socket.socketpair()
    send(a, a); send(b, b, a)
    a.close(); b.close()
a, b = socket.socketpair(); c, d = socket.socketpair()
send(a, d); d.close(); send(c, a)
_, files, _, _ = socket.recv_fds(b, 10, 1)
print(socket.recv_fds(socket.socket(fileno=files[0]), 10, 1)[0])";
    assert_eq!(Hafez::memory("24M").run(&["python3", "-c", script]).good().text(), "b'x'\n");
}

#[test]
fn interfaces_and_name_servers() {
    let script = "import socket; print(socket.if_nameindex(), socket.gethostbyname('localhost'))";
    let outcome = Hafez::memory("64M").run(&["python3", "-c", script]).good();
    assert_eq!(outcome.text(), "[(1, 'lo'), (2, 'eth0')] 127.0.0.1\n");
    // Name servers on this computer's own loopback are out of reach inside: the network's answers for them.
    let scratch = Scratch::new();
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir(scratch.file(dir)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", scratch.file("bin/busybox")).expect("a copy");
    for (here, inside) in [("127.0.0.53", "10.0.2.3"), ("192.0.2.1", "192.0.2.1")] {
        scratch.put("etc/resolv.conf", format!("nameserver {here}\n"));
        let machine = Hafez::memory("32M").option("--root").option(scratch.path()).option("-w").option("/");
        let text = machine.run(&["/bin/busybox", "cat", "/etc/resolv.conf"]).good().text();
        assert!(text.lines().any(|line| line == format!("nameserver {inside}")), "{text}");
    }
}

#[test]
fn anything_done_to_sockets_harms_nobody() {
    let fuzz = guest("sockets");
    let fuzz = fuzz.to_str().expect("a plain path");
    for seed in ["1", "2"] {
        let outcome = Hafez::memory("16M").run(&[fuzz, seed, "60000"]);
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "alive\n"), "seed {seed}: {outcome:?}");
    }
}

/// `cat` for the network.
const ECHO: &str = "exec python3 -c '
import socket, threading
server = socket.create_server((\"\", 7000), backlog=64)
def serve(one):
    while data := one.recv(65536): one.sendall(data)
    one.shutdown(socket.SHUT_WR); one.close()
print(\"ready\", flush=True)
while True: threading.Thread(target=serve, args=(server.accept()[0],)).start()
'";

/// All at one moment. Were there no room for them to wait, each would try again after one second, three, seven: it took more than a minute.
#[test]
fn many_clients_from_outside_come_at_once() {
    let server = Server::start("64M", ECHO);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], server.port));
    let clients: Vec<_> = (0..100_u8)
        .map(|number| {
            std::thread::spawn(move || {
                let patience = std::time::Duration::from_secs(30);
                let mut stream = TcpStream::connect_timeout(&at, patience).expect("a connection");
                stream.set_read_timeout(Some(patience)).expect("a limit");
                stream.write_all(&[number]).expect("a byte goes out");
                let mut back = [0];
                stream.read_exact(&mut back).expect("and comes back");
                assert_eq!(back, [number]);
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
}

/// For as long as it takes to see a notification that is lost once in some hundred thousand frames; and nobody may have to
/// say his end twice.
#[test]
#[ignore = "long"]
fn nginx_never_falls_silent() {
    let scratch = Scratch::new();
    let root = scratch.path().to_str().expect("a plain path");
    scratch.put("page.txt", vec![b'x'; 800]);
    let configuration = scratch.put(
        "nginx.conf",
        "user root root; daemon off; worker_processes 1; error_log /tmp/error.log; pid /tmp/nginx.pid;
events { worker_connections 256; }
http { access_log off; keepalive_requests 100000; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5; server { listen 7000; root /tmp/page; } }",
    );
    let configuration = configuration.to_str().expect("a plain path");
    let script = format!(
        "mkdir /tmp/page; cp {root}/page.txt /tmp/page; nginx -c {configuration} &
until curl -sf -o /tmp/got http://127.0.0.1:7000/page.txt; do sleep 0.1; done; echo ready; wait"
    );
    let server = Server::start("64M", &script);
    let url = format!("http://127.0.0.1:{}/page.txt", server.port);
    for _ in 0..20 {
        for (options, requests) in [(&["-k"][..], "5000"), (&[], "2000")] {
            let many = ["-q", "-s", "20", "-n", requests, "-c", "50"];
            let report = output(Command::new("ab").args(many).args(options).arg(&url));
            assert!(report.contains("Failed requests:        0"), "{report}");
        }
    }
}

#[test]
fn many_clients_from_outside_speak_at_once() {
    let server = Server::start("64M", ECHO);
    let mut streams = Vec::new();
    for _ in 0..24 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
        stream.write_all(b"!").expect("a byte goes out");
        stream.read_exact(&mut [0]).expect("and comes back");
        streams.push(stream);
    }
    let clients = streams.into_iter().zip(0_u8..).map(|(mut stream, number)| {
        std::thread::spawn(move || {
            let sent: Vec<u8> = (0..50_000_u32).map(|i| (i >> 3) as u8 ^ number).collect();
            let mut back = stream.try_clone().expect("its other end");
            let bytes = sent.clone();
            let writer = std::thread::spawn(move || {
                stream.write_all(&bytes).expect("all goes out");
                stream.shutdown(std::net::Shutdown::Write).expect("an end");
            });
            let mut got = Vec::new();
            back.read_to_end(&mut got).expect("all comes back");
            writer.join().expect("the writer");
            assert!(got == sent, "{} bytes came back of {}", got.len(), sent.len());
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("a client"));
}

#[test]
fn the_inside_reaches_the_outside() {
    let host = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = host.local_addr().expect("its number").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = host.accept().expect("a connection");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("what it says");
        stream.write_all(&vec![7; 300_000]).expect("an answer");
        got
    });
    let script = format!(
        "import socket
one = socket.create_connection(('10.0.2.2', {port}))
one.sendall(b'x' * 200000); one.shutdown(socket.SHUT_WR)
total = 0
while data := one.recv(65536): total += len(data)
print(total)
try: socket.create_connection(('10.0.2.2', {}))
except ConnectionRefusedError: print('refused')",
        free_port()
    );
    let outcome = Hafez::memory("64M").run(&["python3", "-c", &script]).good();
    assert_eq!(outcome.text(), "300000\nrefused\n");
    assert_eq!(server.join().expect("the server").len(), 200_000);
}

#[test]
fn a_port_that_is_taken_is_said_before_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port();
    let publish = format!("127.0.0.1:{port}:80");
    let outcome = Hafez::with(&["-p", &publish]).run(&["true"]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.complaint().contains(&format!("port {port} of this computer")), "{outcome:?}");
}

/// A server, and its own benchmark beside it.
const REDIS: &str =
    "redis-server --port 7000 --bind 0.0.0.0 --protected-mode no --save '' --appendonly no > /tmp/log &
until redis-cli -p 7000 ping > /tmp/ping 2>&1 && grep -q PONG /tmp/ping; do sleep 0.1; done
";

#[test]
fn redis_with_its_benchmark_inside() {
    let bench = "redis-benchmark -p 7000 -c 20 -n 1000 -t ping,set,get,lpush,lrange_100 --csv > /tmp/csv || exit 1
cut -d, -f1 /tmp/csv; redis-cli -p 7000 set key value; redis-cli -p 7000 get key; redis-cli -p 7000 shutdown nosave; wait";
    let outcome = Hafez::memory("48M").run(&["/bin/sh", "-c", &format!("{REDIS}{bench}")]).good();
    let names: Vec<&str> = outcome.text().leak().lines().collect();
    assert_eq!(names.first(), Some(&"\"test\""), "{outcome:?}");
    assert!(names.len() >= 9 && names.ends_with(&["OK", "value"]), "{outcome:?}");
}

#[test]
fn redis_spoken_to_from_outside() {
    let server = Server::start("48M", &format!("{REDIS}echo ready; wait"));
    let cli = |words: &[&str]| {
        output(
            Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &server.port.to_string()]).args(words),
        )
    };
    assert_eq!(cli(&["set", "one", "value"]), "OK\n");
    assert_eq!(cli(&["get", "one"]), "value\n");
    assert_eq!(cli(&["eval", "return string.rep('x', 100000)", "0"]).len(), 100_001);
    assert_eq!(cli(&["incrby", "n", "41"]), "41\n");
}

#[test]
fn nginx_serves_ab_from_outside() {
    let scratch = Scratch::new();
    let page: Vec<u8> = (0..20_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
    scratch.put("page.txt", &page);
    let root = scratch.path().to_str().expect("a plain path");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|n| format!("{n}_temp_path /tmp/{n};"))
        .concat();
    let configuration = scratch.put(
        "nginx.conf",
        format!(
            "user root root; daemon off; worker_processes 2; error_log /tmp/error.log; pid /tmp/nginx.pid;
events {{ worker_connections 256; }}
http {{ access_log off; {temporary} server {{ listen 7000; root {root}; }} }}"
        ),
    );
    let configuration = configuration.to_str().expect("a plain path");
    let script = format!(
        "nginx -c {configuration} & until curl -s -o /tmp/got http://127.0.0.1:7000/page.txt; do sleep 0.1; done
cmp /tmp/got {root}/page.txt && echo ready; wait"
    );
    let server = Server::start("64M", &script);
    let url = format!("http://127.0.0.1:{}/page.txt", server.port);
    assert_eq!(output(Command::new("curl").args(["-s", &url])).into_bytes(), page);
    let report = output(Command::new("ab").args(["-q", "-n", "300", "-c", "20", &url]));
    for line in ["Complete requests:      300", "Failed requests:        0"] {
        assert!(report.contains(line) && !report.contains("Non-2xx"), "{report}");
    }
}

#[test]
#[ignore = "long"]
fn postgresql_from_nothing() {
    let scratch = Scratch::new();
    for memory in ["128M", "48M"] {
        Hafez::memory(memory).seconds(900).same(&["/bin/sh", &program("postgresql.sh", &scratch)]);
    }
}

#[test]
#[ignore = "long"]
fn anything_done_to_sockets_for_long() {
    let fuzz = guest("sockets");
    let fuzz = fuzz.to_str().expect("a plain path");
    for seed in ["11", "12", "13"] {
        let outcome = Hafez::memory("16M").seconds(900).run(&[fuzz, seed, "1000000"]);
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "alive\n"), "seed {seed}: {outcome:?}");
    }
}
