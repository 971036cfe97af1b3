//! A process that cannot die: it writes to a file system that somebody froze.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Outcome, Plan};
use super::{engine, quick, reap};
use crate::cgroup::testing::{Ground, until};

/// A small ext4 on a loop device; thawed and unmounted when dropped.
struct Disk {
    _top: tempfile::TempDir,
    at: PathBuf,
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr)))
    }
}

impl Disk {
    fn new() -> Result<Self, String> {
        let top = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, at) = (top.path().join("image"), top.path().join("at"));
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(16 << 20).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &at])?;
        Ok(Self { _top: top, at })
    }

    fn freeze(&self) -> Result<(), String> {
        run("fsfreeze", &["--freeze".as_ref(), &self.at])
    }

    fn thaw(&self) -> Result<(), String> {
        run("fsfreeze", &["--unfreeze".as_ref(), &self.at])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.thaw();
        until("the disk can be unmounted", || run("umount", &[&self.at]).is_ok());
    }
}

#[test]
fn a_process_in_d_state_is_partial_and_said() {
    let Some(ground) = Ground::new() else { return };
    let disk = match Disk::new().and_then(|disk| disk.freeze().map(|()| disk)) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no file system that can be frozen: {why}"),
    };
    let sliver = Arc::new(ground.sliver("stuck"));
    let script = format!(
        "sleep 1000 & exec dd if=/dev/zero of={}/file bs=4096 count=1",
        disk.at.display()
    );
    let child = ground.shell(sliver.path(), &script);
    let proc = crate::procfs::Proc::at(Path::new("/proc"));
    let stuck = i32::try_from(child.id()).expect("a pid");
    // By name too: a shell is in D for a moment when it starts a program.
    until("the writer is stuck", || {
        proc.read(stuck)
            .is_ok_and(|dd| dd.comm == "dd" && dd.state == 'D')
    });

    let guard = ground.guard(&[]);
    let plan = Plan {
        kill: Duration::from_millis(300),
        ..quick()
    };
    let report = engine()
        .kill(&[Arc::clone(&sliver)], &guard, &plan)
        .pop()
        .expect("a report");
    assert_eq!(
        (report.outcome, report.stuck, report.killed),
        (Outcome::Partial, Some(1), Some(2)),
        "{report:?}"
    );
    assert_eq!(report.detail, "1 processes remain, 1 in D state");
    assert!(report.kill_us >= 300_000, "{report:?}");

    disk.thaw().expect("thawed");
    until("the pending kill takes it", || {
        !sliver.events().expect("events").populated
    });
    let report = engine().kill(&[sliver], &guard, &plan).pop().expect("a report");
    assert_eq!(
        report.outcome,
        Outcome::AlreadyDead,
        "a repeated order finds it dead"
    );
    reap(child);
}
