use std::net::TcpListener;
use std::time::Duration;

use super::*;
use crate::cgroup::testing::until;

struct Fake {
    root: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().expect("a directory"),
        }
    }

    fn process(&self, pid: i32, comm: &[u8], command_line: &[u8]) {
        let directory = self.root.path().join(pid.to_string());
        fs::create_dir_all(directory.join("task").join(pid.to_string())).expect("made");
        let mut stat = format!("{pid} (").into_bytes();
        stat.extend(comm);
        stat.extend(b") S 7 1 1 0 -1 0 0 0 0 0 100 50 0 0 20 0 1 0 1 1 256 0");
        let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).expect("written");
        write("stat", &stat);
        write("status", b"Name:\tUid:\\n\nUid:\t1000\t0\t0\t0\n");
        write("cmdline", command_line);
        write("cgroup", b"1:name=systemd:/x\n0::/machine.slice/a\n");
    }

    fn proc(&self) -> Proc {
        Proc::at(self.root.path())
    }
}

#[test]
fn a_hostile_process_is_described_and_harmless() {
    let fake = Fake::new();
    fake.process(
        42,
        b") R 1 (",
        &[b"\x1b[31m\xff".repeat(200), b"\0x\0".to_vec()].concat(),
    );
    let process = fake.proc().read(42).expect("described");
    assert_eq!(
        (process.comm.as_str(), process.state, process.ppid, process.uid),
        (") R 1 (", 'S', 7, 1000)
    );
    assert!(
        process.command_line.len() <= 256 && !process.command_line.contains('\x1b'),
        "{process:?}"
    );
    assert_eq!(
        (process.files, process.sockets),
        (None, None),
        "there is no fd directory: unknown, not 0"
    );
    assert_eq!(process.cgroup, Path::new("machine.slice/a"));
    assert_eq!(
        (process.resident_kib, process.cpu_ms),
        (256 * fake.proc().page_kib, 1500 * 100 / fake.proc().ticks)
    );
    let wire = proto::v1::Process::from(process);
    assert_eq!(
        (wire.state.as_str(), wire.cgroup.as_str(), wire.slice.as_str()),
        ("S", "machine.slice/a", "")
    );
}

#[test]
fn the_vanished_are_left_out_and_bounds_are_said() {
    let fake = Fake::new();
    for pid in [10, 20, 30] {
        fake.process(pid, b"x", b"x");
    }
    fs::create_dir(fake.root.path().join("self")).expect("made");
    let proc = fake.proc();
    assert_eq!(proc.pids().expect("listed"), [10, 20, 30]);
    assert!(matches!(proc.read(11), Err(ProcError::Gone { pid: 11 })));
    let listing = proc.list(&[10, 11, 20, 30], 10, None);
    assert_eq!(
        listing
            .processes
            .iter()
            .map(|process| process.pid)
            .collect::<Vec<_>>(),
        [10, 20, 30]
    );
    assert_eq!(listing.incomplete, "");
    let listing = proc.list(&[10, 20, 30], 2, None);
    assert_eq!(
        (listing.processes.len(), listing.incomplete.as_str()),
        (2, "1 more processes than the 2 asked for")
    );
    let listing = proc.list(&[10, 20, 30], 9, Some(Instant::now()));
    assert_eq!(
        (listing.processes.len(), listing.incomplete.as_str()),
        (0, "3 processes not read in time")
    );
    fs::write(fake.root.path().join("20/stat"), "nonsense").expect("written");
    let listing = proc.list(&[10, 20, 30], 9, Some(Instant::now() + Duration::from_secs(60)));
    assert_eq!(listing.processes.len(), 2);
    assert!(
        listing.incomplete.starts_with("cannot read stat of process 20"),
        "{}",
        listing.incomplete
    );
}

#[test]
fn a_thread_that_is_stuck_makes_its_process_stuck() {
    let fake = Fake::new();
    fake.process(5, b"x", b"");
    assert!(!fake.proc().is_stuck(5).expect("read"));
    let thread = fake.root.path().join("5/task/6");
    fs::create_dir(&thread).expect("made");
    fs::write(thread.join("stat"), "6 (x) D 1 0 0 0 0 0 0 0 0 0 0 0").expect("written");
    assert!(fake.proc().is_stuck(5).expect("read"));
}

#[test]
fn this_process_describes_itself() {
    let own = i32::try_from(std::process::id()).expect("a pid");
    let proc = Proc::at(Path::new("/proc"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let process = proc.read(own).expect("described");
    assert!(
        process.sockets.is_some_and(|sockets| sockets > 0) && process.files > process.sockets,
        "{process:?}"
    );
    assert!(
        process.resident_kib > 0 && process.command_line.contains("nodemgr"),
        "{process:?}"
    );
    assert_eq!(process.uid, nix::unistd::getuid().as_raw());
    assert_eq!(
        proc.parent(own).expect("a parent"),
        nix::unistd::getppid().as_raw()
    );
    drop(listener);
    let mut child = std::process::Command::new("true").spawn().expect("a process");
    let pid = i32::try_from(child.id()).expect("a pid");
    until("it is a zombie", || {
        proc.state(pid).is_ok_and(|state| state == 'Z')
    });
    assert_eq!(
        proc.home(pid).expect("a zombie keeps it"),
        proc.home(own).expect("a home")
    );
    child.wait().expect("reaped");
    assert!(matches!(proc.state(pid), Err(ProcError::Gone { .. })));
}
