use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use super::super::hub::Offset;
use super::*;

const CAP: Duration = Duration::from_secs(30);

struct Guest {
    dir: tempfile::TempDir,
    console: Console,
    port: UnixStream,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("con")).unwrap();
        let console = Console::attach("n1", &dir.path().join("con"), &dir.path().join("con.log")).unwrap();
        let port = listener.accept().unwrap().0;
        port.set_read_timeout(Some(CAP)).unwrap();
        Self { dir, console, port }
    }

    fn says(&mut self, bytes: &[u8]) {
        self.port.write_all(bytes).unwrap();
    }

    fn hears(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.port.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// A client that has been admitted: what the guest says from now on reaches it.
fn join(front: &Front) -> TcpStream {
    let before = front.clients();
    let client = TcpStream::connect(front.address().unwrap()).unwrap();
    client.set_read_timeout(Some(CAP)).unwrap();
    until(|| front.clients() > before);
    client
}

fn until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + CAP;
    while !so() {
        assert!(Instant::now() < deadline, "did not become so within {CAP:?}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn read(client: &mut impl Read, count: usize) -> Vec<u8> {
    let mut got = vec![0; count];
    client.read_exact(&mut got).unwrap();
    got
}

/// A terminal whose reads have a cap.
struct Patient<'a>(&'a fs::File);

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert!(
            wait([(self.0.as_fd(), PollFlags::POLLIN)], Some(CAP))[0],
            "nothing came within {CAP:?}"
        );
        self.0.read(buffer)
    }
}

/// A real client program with its standard streams in our hands; ended when dropped.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn types(&mut self, bytes: &[u8]) {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    fn shows(&mut self, count: usize) -> Vec<u8> {
        read(self.0.stdout.as_mut().unwrap(), count)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    if missing {
        println!("skipped: no {program} here");
    }
    missing
}

#[test]
fn several_readers_see_the_same_and_all_may_type() {
    let mut guest = Guest::new();
    let front = raw(&guest.console, listener()).unwrap();
    let (mut a, mut b) = (join(&front), join(&front));
    guest.says(b"\xff\r\0login: ");
    assert_eq!(read(&mut a, 10), b"\xff\r\0login: ");
    assert_eq!(read(&mut b, 10), b"\xff\r\0login: ");
    a.write_all(b"root\r").unwrap();
    guest.hears(b"root\r");
    b.write_all(b"\xff\0").unwrap();
    guest.hears(b"\xff\0");
    drop(a);
    until(|| front.clients() == 1);
    drop(front);
    assert_eq!(b.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn curl_is_a_telnet_client() {
    if missing("curl") {
        return;
    }
    let mut guest = Guest::new();
    let front = telnet(&guest.console, listener()).unwrap();
    let url = format!("telnet://{}", front.address().unwrap());
    let mut curl = Program::start(Command::new("curl").args(["-s", "-N", "-m", "30", &url]));
    until(|| front.clients() == 1);
    curl.types(b"root\n");
    // This curl reads its input blocking, between looks at the network: with open input it shows nothing.
    drop(curl.0.stdin.take());
    guest.hears(b"root\n");
    guest.says(b"n1 \xff login:\r\n");
    assert_eq!(curl.shows(13), b"n1 \xff login:\r\n");
}

#[test]
fn a_python_telnet_client_reads_types_and_sends_a_break() {
    if missing("python3") {
        return;
    }
    let mut guest = Guest::new();
    let front = telnet(&guest.console, listener()).unwrap();
    let (told, breaks) = std::sync::mpsc::channel();
    front.on_break(Box::new(move || told.send(()).unwrap()));
    let program = "import sys, telnetlib as t
c = t.Telnet('127.0.0.1', int(sys.argv[1]), 30)
def see(what): assert what in c.read_until(what, 30), what
see(b'login: '); c.write(b'root\\r\\n')
see(b'# '); c.get_socket().sendall(t.IAC + t.BRK + t.IAC + t.AYT)
see(b'is here'); print('all seen', flush=True)
sys.stdin.read()";
    let has_it = Command::new("python3")
        .args(["-W", "ignore", "-c", "import telnetlib"])
        .output()
        .unwrap();
    if !has_it.status.success() {
        println!("skipped: this python3 has no telnetlib any more");
        return;
    }
    let port = front.address().unwrap().port().to_string();
    let mut python = Program::start(Command::new("python3").args(["-W", "ignore", "-c", program, &port]));
    until(|| front.clients() == 1);
    guest.says(b"n1 login: ");
    guest.hears(b"root\r");
    guest.says(b"root\r\n# ");
    breaks.recv_timeout(CAP).unwrap();
    assert_eq!(python.shows(8), b"all seen");
}

#[test]
fn a_com_port_client_is_told_when_the_guest_goes_and_comes() {
    let guest = Guest::new();
    let front = telnet(&guest.console, listener()).unwrap();
    let mut client = join(&front);
    assert_eq!(read(&mut client, 6), [255, 251, 1, 255, 251, 3]);
    client
        .write_all(&[255, 251, 44, 255, 250, 44, 11, 255, 255, 255, 240])
        .unwrap();
    assert_eq!(read(&mut client, 9), [255, 253, 44, 255, 251, 0, 255, 253, 0]);
    assert_eq!(read(&mut client, 7), [255, 250, 44, 107, 0xb0, 255, 240]);
    assert_eq!(read(&mut client, 8), [255, 250, 44, 111, 255, 255, 255, 240]);
    assert_eq!(read(&mut client, 7), [255, 250, 44, 107, 0xb0, 255, 240]);
    std::fs::remove_file(guest.dir.path().join("con")).unwrap();
    drop(guest.port);
    assert_eq!(read(&mut client, 7), [255, 250, 44, 107, 0x0b, 255, 240]);
    let _listener = UnixListener::bind(guest.dir.path().join("con")).unwrap();
    assert_eq!(read(&mut client, 7), [255, 250, 44, 107, 0xbb, 255, 240]);
}

#[test]
fn a_client_that_does_not_read_stalls_nobody() {
    let mut guest = Guest::new();
    let front = raw(&guest.console, listener()).unwrap();
    let mut lazy = join(&front);
    let mut eager = join(&front);
    let reader = thread::spawn(move || read_to_the_end(&mut eager));
    // More than the kernel and the hub hold together; that this returns is the point.
    let block = vec![b'.'; 1 << 20];
    for _ in 0..48 {
        guest.says(&block);
    }
    guest.says(b"THE END");
    guest.console.wait_for(Offset::START, "THE END", CAP).unwrap();
    assert!(read_to_the_end(&mut lazy) < 48 << 20, "the lazy one got all");
    reader.join().unwrap();
}

/// How many bytes came until and with the last words.
fn read_to_the_end(client: &mut TcpStream) -> usize {
    let mut got = Vec::new();
    while !got.ends_with(b"THE END") {
        let mut buffer = vec![0; 1 << 16];
        let count = client.read(&mut buffer).unwrap();
        assert_ne!(count, 0);
        got.extend_from_slice(&buffer[..count]);
    }
    got.len()
}

#[test]
fn a_unix_front_is_a_socket_that_goes_with_it() {
    let mut guest = Guest::new();
    let path = guest.dir.path().join("front");
    let front = unix(&guest.console, &path).unwrap();
    assert!(unix(&guest.console, &path).is_err(), "the path is taken");
    let mut client = UnixStream::connect(&path).unwrap();
    until(|| front.clients() == 1);
    guest.says(b"hello");
    assert_eq!(read(&mut client, 5), b"hello");
    client.write_all(b"hi").unwrap();
    guest.hears(b"hi");
    drop(front);
    assert!(!path.exists());
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_pty_front_is_a_raw_terminal_that_can_be_opened_again() {
    let mut guest = Guest::new();
    let pty = pty(&guest.console).unwrap();
    for _ in 0..2 {
        let mut terminal = open_terminal(pty.path()).unwrap();
        guest.says(b"a\r\n\x03\x04");
        assert_eq!(read(&mut Patient(&terminal), 5), b"a\r\n\x03\x04");
        terminal.write_all(b"\x03root\r").unwrap();
        guest.hears(b"\x03root\r");
    }
    let terminal = open_terminal(pty.path()).unwrap();
    pty.faults().drop_after(1);
    guest.says(b"more");
    // A terminal that was hung up reads as ended or broken, for ever.
    until(|| matches!(Patient(&terminal).read(&mut [0; 64]), Ok(0) | Err(_)));
}

#[test]
fn a_mute_front_passes_nothing_either_way_and_wakes_up_again() {
    let mut guest = Guest::new();
    let front = telnet(&guest.console, listener()).unwrap();
    front.faults().mute(true);
    let mut client = join(&front);
    let since = guest.console.mark();
    client.write_all(b"lost\r\n").unwrap();
    guest.says(b"unheard");
    guest.console.wait_for(since, "unheard", CAP).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.read(&mut [0; 1]).is_err(), "no offer and no byte came");
    client.set_read_timeout(Some(CAP)).unwrap();
    front.faults().mute(false);
    guest.says(b"heard");
    assert_eq!(read(&mut client, 5), b"heard");
    client.write_all(b"typed").unwrap();
    guest.hears(b"typed");
}

#[test]
fn a_connection_is_dropped_after_so_many_bytes_and_a_new_one_too() {
    let mut guest = Guest::new();
    let front = raw(&guest.console, listener()).unwrap();
    front.faults().drop_after(5);
    for _ in 0..2 {
        let mut client = join(&front);
        guest.says(b"0123456789");
        assert_eq!(read(&mut client, 5), b"01234");
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        until(|| front.clients() == 0);
    }
    front.faults().drop_after(None);
    let mut client = join(&front);
    guest.says(b"0123456789");
    assert_eq!(read(&mut client, 10), b"0123456789");
}

#[test]
fn garbage_is_as_long_as_the_truth_and_slow_is_all_of_it() {
    let mut guest = Guest::new();
    let front = raw(&guest.console, listener()).unwrap();
    let mut client = join(&front);
    front.faults().garbage(true);
    guest.says(&[b'a'; 64]);
    let noise = read(&mut client, 64);
    assert!(
        noise.iter().filter(|byte| **byte == b'a').count() < 32,
        "{noise:?}"
    );
    front.faults().garbage(false);
    front.faults().slow(200);
    guest.says(b"slow, but complete");
    assert_eq!(read(&mut client, 18), b"slow, but complete");
    front.faults().slow(10);
    guest.says(b"never seen whole");
    drop(front);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 16, "{rest:?}");
}

#[test]
fn too_many_clients_are_sent_away() {
    let mut guest = Guest::new();
    let front = raw(&guest.console, listener()).unwrap();
    let mut clients: Vec<_> = (0..CLIENT_BOUND).map(|_| join(&front)).collect();
    let mut surplus = TcpStream::connect(front.address().unwrap()).unwrap();
    surplus.set_read_timeout(Some(CAP)).unwrap();
    assert_eq!(surplus.read(&mut [0; 1]).unwrap(), 0);
    clients.pop();
    until(|| front.clients() < CLIENT_BOUND);
    let mut client = join(&front);
    guest.says(b"x");
    assert_eq!(read(&mut client, 1), b"x");
}
