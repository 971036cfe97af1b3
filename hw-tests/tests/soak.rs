//! The soaks for a few steps each, so that they are known to work when somebody wants one for hours.

use std::process::Command;

use anyhow::Result;
use hw_tests::fleet::{program, unable};

#[test]
fn soak_kill_agrees_after_a_few_steps() -> Result<()> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let output = Command::new(program("soak-kill")?)
        .args(["--steps", "60", "--nodes", "20", "--seed", "7"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("soak-kill: ") && last.contains(" checks=1 "),
        "{said}"
    );
    Ok(())
}
