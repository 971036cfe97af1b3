//! Starting slivers: what they become, and when they are refused.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use proto::HoldKind;
use proto::v1::Outcome;

use crate::support::{Door, Lab, Started, exec_command, obey, program};

#[test]
fn a_sliver_is_an_unprivileged_user_with_nothing_left() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let script = "cat /proc/self/status /proc/self/cgroup; echo env:; env; echo fds:; ls /proc/self/fd; \
        grep -E ' - cgroup2? ' /proc/self/mountinfo; \
        echo 0 > /sys/fs/cgroup/unified/cgroup.procs && echo escaped; echo ruid: $(id -u) $(id -g) $(id -G)";
    let out = exec_command(&lab, "princeton_codeen", script)
        .env("REDBUTTON_SECRET", "x")
        .env("KEPT", "y")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let field = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap_or_else(|| panic!("{name} in {text}"));
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid"), "2000000 2000000 2000000 2000000");
    assert_eq!(field("Gid"), "2000000 2000000 2000000 2000000");
    assert_eq!(field("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("ruid"), "2000000 2000000 2000000");
    assert!(
        text.contains(&format!("0::/{}/slivers/princeton_codeen", lab.name())),
        "{text}"
    );
    assert!(
        text.contains("KEPT=y") && !text.contains("REDBUTTON_SECRET"),
        "{text}"
    );
    assert!(!text.contains("escaped"), "{text}");
    let mounts: Vec<&str> = text.lines().filter(|l| l.contains(" - cgroup")).collect();
    assert!(!mounts.is_empty());
    for mount in mounts {
        let options = mount.split(' ').nth(5).expect("options");
        assert!(options.split(',').any(|o| o == "ro"), "writable: {mount}");
    }
    // The standard three, and the one with which ls reads the directory.
    let fds: Vec<&str> = text
        .lines()
        .skip_while(|l| *l != "fds:")
        .skip(1)
        .take_while(|l| l.parse::<u32>().is_ok())
        .collect();
    assert_eq!(fds.len(), 4, "{fds:?}");
}

#[test]
fn each_slice_has_a_user_of_its_own_and_keeps_it() {
    let Some(lab) = Lab::new() else { return };
    let uid = |slice: &str| {
        let out = exec_command(&lab, slice, "id -u").output().expect("runs");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    {
        let node = lab.start();
        let _door = Door::open(&node, &lab.config().socket);
        assert_eq!(
            (uid("a_b"), uid("a_c"), uid("a_b")),
            ("2000000".into(), "2000001".into(), "2000000".into())
        );
    }
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    assert_eq!(
        (uid("a_d"), uid("a_c")),
        ("2000002".into(), "2000001".into()),
        "kept over a restart"
    );
}

#[test]
fn a_held_slice_is_refused_with_the_holder_and_the_reason() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    for (held, kind) in [
        ("a_b", HoldKind::Suspend),
        ("a_b", HoldKind::Freeze),
        ("", HoldKind::Suspend),
    ] {
        let hold = lab.hold(held, kind);
        obey(&node, lab.impose(&hold));
        let out = exec_command(&lab, "a_b", "echo never").output().expect("runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(5), "{said}");
        assert!(out.stdout.is_empty());
        let what = if held.is_empty() {
            "every slice everywhere"
        } else {
            "slice a_b"
        };
        assert!(
            said.contains(&format!(
                "{what} is held: {kind} by alice (support): floods a bank [hold {}]",
                hold.id
            )),
            "{said}"
        );
        assert_eq!(obey(&node, lab.release(&hold)).outcome(), Outcome::Released);
        let out = exec_command(&lab, "a_b", "echo again").output().expect("runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "again\n");
    }
}

#[test]
fn who_may_not_start_is_refused_by_uid() {
    let Some(lab) = Lab::new() else { return };
    let node = lab.start_with(nodemgr::Config {
        exec_uids: vec![4711],
        ..lab.config()
    });
    let _door = Door::open(&node, &lab.config().socket);
    let out = exec_command(&lab, "a_b", "echo never").output().expect("runs");
    assert_eq!(out.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&out.stderr).contains("uid 0 may not start slivers"));
    assert!(!lab.sliver("a_b").exists());
    // Others do not even reach the socket: it is root's, 0600.
    let other = Command::new(program())
        .args(["exec", "--socket"])
        .arg(lab.config().socket)
        .args(["a_b", "--", "true"])
        .uid(65534)
        .stderr(Stdio::piped())
        .output();
    match other {
        Ok(out) => assert_eq!(
            out.status.code(),
            Some(4),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        ),
        // The build directory is root's alone: then the program cannot even be run.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

#[test]
fn failures_say_what_failed() {
    let Some(lab) = Lab::new() else { return };
    let socket = lab.config().socket;
    let run = |arguments: &[&str]| {
        let out = Command::new(program())
            .arg("exec")
            .arg("--socket")
            .arg(&socket)
            .args(arguments)
            .output()
            .expect("runs");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["a_b", "--", "true"]);
    assert_eq!(code, Some(4));
    assert!(
        said.contains("cannot ask the node manager at") && said.contains("nodemgr.sock"),
        "{said}"
    );
    let (code, said) = run(&["Codeen", "--", "true"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("slice name \"Codeen\" is malformed"), "{said}");
    assert_eq!(run(&["a_b"]).0, Some(64), "no command");
    let node = lab.start();
    let _door = Door::open(&node, &socket);
    let (code, said) = run(&["a_b", "--", "/nonexistent/program"]);
    assert_eq!(code, Some(127));
    assert!(said.contains("cannot run \"/nonexistent/program\""), "{said}");
}

#[test]
fn the_socket_bears_rubbish() {
    use std::io::{Read, Write};
    let Some(lab) = Lab::new() else { return };
    let node = lab.start();
    let _door = Door::open(&node, &lab.config().socket);
    let talk = |bytes: &[u8]| {
        let mut stream = std::os::unix::net::UnixStream::connect(lab.config().socket).expect("connects");
        stream.write_all(bytes).expect("writes");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(talk(b"").contains("cut off"));
    assert!(talk(b"{}\n").contains("missing field `slice`"));
    assert!(talk(b"{\"slice\":\"../x\"}\n").contains("malformed"));
    assert!(talk(&[b'x'; 9_000]).contains("longer than 8192 bytes"));
    assert!(talk(b"\xff\xfe\n").contains("failed"));
    let mut sleeper = Started::sleeper(&lab, "a_b");
    assert!(
        sleeper.child.try_wait().expect("waits").is_none(),
        "and still serves"
    );
}
