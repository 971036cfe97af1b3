//! A guest without an operating system: its power, as QEMU tells of it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lab::machine::{Boot, Config, Guest, unable};

const CAP: Duration = Duration::from_secs(60);

fn config(folder: &Path, boot: Option<Boot>) -> Config {
    Config {
        boot,
        off: true,
        ..Config::bare("bare", folder)
    }
}

#[test]
fn power_goes_off_and_on_and_a_reset_is_told() -> Result<()> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let guest = Guest::start(config(folder.path(), None))?;
    assert!(!guest.is_on()?, "-S means off");
    guest.power_on()?;
    assert!(guest.is_on()?);

    let since = guest.qmp().mark();
    guest.reset()?;
    let (event, after) = guest.qmp().wait_event(since, "RESET", CAP)?;
    assert_eq!(event.data["guest"], false, "pressed from outside");
    assert!(guest.is_on()?);

    guest.power_off()?;
    assert!(!guest.is_on()?);
    guest.qmp().wait_event(after, "STOP", CAP)?;
    guest.power_off()?;
    assert!(!guest.is_on()?, "off twice is off");
    guest.power_on()?;
    guest.power_on()?;
    assert!(guest.is_on()?, "on twice is on");
    Ok(())
}

#[test]
fn a_qemu_that_cannot_start_says_why() -> Result<()> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let absent = folder.path().join("absent");
    let boot = Boot {
        kernel: absent.clone(),
        initrd: absent,
        append: String::new(),
    };
    let Err(error) = Guest::start(config(folder.path(), Some(boot))) else {
        panic!("it started");
    };
    assert!(format!("{error:#}").contains("absent"), "{error:#}");
    Ok(())
}
