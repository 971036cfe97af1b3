//! Processes that a test needs and no shell can be: this test binary, started again with a role.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::cgroup::Sliver;

/// Names the role to the second process.
const ROLE: &str = "REDBUTTON_TEST_ROLE";
/// The cgroup it is about, below the mount.
const CGROUP: &str = "REDBUTTON_TEST_CGROUP";

/// Starts the role; `arguments` are environment variables. It moves itself into the sliver if its role says so.
pub(super) fn start(role: &str, sliver: &Sliver, arguments: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "kill::tests::helper::plays_a_role",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, role)
        .env(CGROUP, sliver.path())
        .envs(arguments.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a second process")
}

pub(super) fn cgroup() -> PathBuf {
    std::env::var_os(CGROUP).expect("started by `start`").into()
}

/// Ends the second process with its answer. Nothing of it needs a destructor, and under the filter none may run.
#[expect(
    clippy::disallowed_methods,
    reason = "a process that was made to answer by its exit status"
)]
pub(crate) fn leave(code: i32) -> ! {
    std::process::exit(code)
}

#[test]
#[ignore = "not a test: started again by others"]
fn plays_a_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("threads") => threads(),
        Ok("sealed") => super::sealed::kill_under_the_filter(),
        Ok("sealed-open") => super::sealed::open_under_the_filter(),
        Ok("prepare") => crate::prepare::tests::prepare_and_look(),
        Ok("starved") => super::sealed::kill_without_descriptors(),
        _ => println!("skipped: nobody asked for a role"),
    }
}

/// Four threads asleep, in the sliver.
fn threads() {
    let mount = crate::cgroup::Mount::discover("/proc/self/mountinfo".as_ref()).expect("a mount");
    let sliver = Sliver::open(&mount, &cgroup()).expect("a sliver");
    sliver
        .enter(i32::try_from(std::process::id()).expect("a pid"))
        .expect("moved");
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(std::thread::park)).collect();
    for thread in threads {
        thread.join().expect("never");
    }
}
