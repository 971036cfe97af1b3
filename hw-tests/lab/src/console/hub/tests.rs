use std::os::unix::net::UnixListener;

use super::*;

const CAP: Duration = Duration::from_secs(20);

/// A guest without a computer: the other end of the chardev.
struct Guest {
    dir: tempfile::TempDir,
    listener: UnixListener,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("con")).unwrap();
        Self { dir, listener }
    }

    fn attach(&self) -> (Console, UnixStream) {
        let console = Console::attach(
            "n1",
            &self.dir.path().join("con"),
            &self.dir.path().join("con.log"),
        )
        .unwrap();
        let (port, _) = self.listener.accept().unwrap();
        (console, port)
    }
}

#[test]
fn a_line_is_found_whether_it_came_before_or_comes_in_pieces() {
    let guest = Guest::new();
    let (console, mut port) = guest.attach();
    assert!(console.is_connected());
    port.write_all(b"[    1.0] Linux\r\nREADY n1\r\n").unwrap();
    let line = console.wait_for(Offset::START, "READY", CAP).unwrap();
    assert_eq!(
        (line.text.as_str(), line.at.bytes(), line.end.bytes()),
        ("READY n1", 17, 22)
    );
    let again = console.wait_for(Offset::START, "READY", CAP).unwrap();
    assert_eq!(again.at, line.at);

    let since = console.mark();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| console.wait_any(since, &["panic", "login: "], CAP).unwrap());
        for byte in b"n1 login: " {
            port.write_all(&[*byte]).unwrap();
        }
        let (which, line) = waiting.join().unwrap();
        assert_eq!((which, line.text.as_str()), (1, "n1 login: "));
    });
    assert_eq!(console.text_since(since), "n1 login: ");
    assert_eq!(console.tail(2), "READY n1\nn1 login: ");
}

#[test]
fn what_does_not_come_is_an_error_that_shows_the_last_50_lines() {
    let guest = Guest::new();
    let (console, mut port) = guest.attach();
    for line in 0..100 {
        port.write_all(format!("line {line} \x1b[31m\n").as_bytes())
            .unwrap();
    }
    console.wait_for(Offset::START, "line 99", CAP).unwrap();
    let error = console
        .wait_for(Offset::START, "never", Duration::from_millis(20))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"never\"") && error.contains("console n1") && error.contains("; connected"),
        "{error}"
    );
    assert!(
        error.contains("line 50 ") && !error.contains("line 49 "),
        "{error}"
    );
    assert!(!error.contains('\x1b'), "{error}");
    assert!(console.wait_any(Offset::START, &[], CAP).is_err());
    assert!(console.wait_for(Offset::START, "", CAP).is_err());
}

#[test]
fn typing_reaches_the_guest_and_a_guest_that_does_not_read_is_told() {
    let guest = Guest::new();
    let (console, mut port) = guest.attach();
    console.write(b"root\n").unwrap();
    let mut got = [0; 5];
    port.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"root\n");
    // A front's way: what does not fit is lost, and nobody waits.
    console.hub().offer(&vec![b'x'; 8 << 20]);
    drop(port);
    drop(guest);
    while console.is_connected() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let error = format!("{:#}", console.write(b"x").unwrap_err());
    assert!(error.contains("no guest is connected"), "{error}");
}

#[test]
fn offsets_go_on_when_qemu_restarts() {
    let guest = Guest::new();
    let (console, mut port) = guest.attach();
    port.write_all(b"first\n").unwrap();
    let first = console.wait_for(Offset::START, "first\n", CAP).unwrap();
    let Guest { dir, listener } = guest;
    drop((port, listener));
    std::fs::remove_file(dir.path().join("con")).unwrap();
    let listener = UnixListener::bind(dir.path().join("con")).unwrap();
    let (mut port, _) = listener.accept().unwrap();
    console.wait_connected(2, CAP).unwrap();
    port.write_all(b"second\n").unwrap();
    let second = console.wait_for(first.end, "second\n", CAP).unwrap();
    assert_eq!(second.at, first.end);
    assert_eq!(std::fs::read_to_string(console.log()).unwrap(), "first\nsecond\n");
    assert!(console.wait_connected(3, Duration::from_millis(20)).is_err());
}

#[test]
fn a_slow_reader_loses_its_oldest_bytes_and_never_stalls_the_guest() {
    let guest = Guest::new();
    let (console, mut port) = guest.attach();
    let mut slow = console.subscribe().unwrap();
    assert_eq!(slow.read(Duration::ZERO), None);
    // Four times of what is kept, while nobody reads: that this returns is the point.
    let block: Vec<u8> = (0u8..=255).cycle().take(KEPT).collect();
    for _ in 0..4 {
        port.write_all(&block).unwrap();
    }
    port.write_all(b"end").unwrap();
    console.wait_for(Offset::START, "end", CAP).unwrap();
    let chunk = slow.read(CAP).unwrap();
    assert_eq!(chunk.lost + chunk.bytes.len() as u64, 4 * KEPT as u64 + 3);
    assert!(chunk.bytes.len() >= KEPT && chunk.bytes.ends_with(b"end"));
    assert_eq!(slow.at(), console.mark());
    assert_eq!(slow.read(Duration::ZERO), None);
    port.write_all(b"more").unwrap();
    assert_eq!(
        slow.read(CAP),
        Some(Chunk {
            lost: 0,
            bytes: b"more".to_vec()
        })
    );
    assert_eq!(
        std::fs::metadata(console.log()).unwrap().len(),
        4 * KEPT as u64 + 7
    );
}

#[test]
fn attaching_to_what_can_never_be_is_an_error_and_to_what_is_not_there_yet_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("con.log");
    assert!(Console::attach("n1", &dir.path().join("x".repeat(108)), &log).is_err());
    assert!(Console::attach("n1", &dir.path().join("con"), &dir.path().join("no/con.log")).is_err());
    let console = Console::attach("n1", &dir.path().join("con"), &log).unwrap();
    assert!(!console.is_connected());
    let listener = UnixListener::bind(dir.path().join("con")).unwrap();
    let (port, _) = listener.accept().unwrap();
    console.wait_connected(1, CAP).unwrap();
    // Dropping ends the connection and the thread: the guest sees the end of file.
    drop(console);
    assert_eq!((&port).read(&mut [0; 1]).unwrap(), 0);
}
