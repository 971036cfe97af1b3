//! A stock gRPC client in another language drives the controller: Python's grpcio and server reflection, no stub.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use hw_tests::fleet::{Fleet, unable};

/// The interpreter with grpcio and grpcio-reflection: the one that `cargo xtask test` made, or the system's.
fn python() -> Option<PathBuf> {
    let made = std::env::var_os("REDBUTTON_PYTHON").map(PathBuf::from);
    made.into_iter().chain([PathBuf::from("python3")]).find(|python| {
        Command::new(python)
            .args(["-c", "import grpc, grpc_reflection, tomllib"])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

#[test]
fn python_presses_the_button_through_reflection() -> Result<()> {
    if let Some(reason) = unable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let Some(python) = python() else {
        println!(
            "skipped: no Python with grpcio, grpcio-reflection and tomllib; `cargo xtask test` installs it"
        );
        return Ok(());
    };
    let mut fleet = Fleet::start()?;
    fleet.site("princeton")?;
    fleet.slice("princeton_codeen")?;
    let index = fleet.node("planet1", "princeton", "")?;
    fleet.at(index).exec("princeton_codeen", &["/bin/sleep", "600"])?;

    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/press.py"))
        .arg(fleet.bundle("alice"))
        .args(["princeton_codeen", "pressed from Python"])
        .output()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).context("press.py's document")?;
    assert_eq!(said["person"], "alice");
    assert_eq!(said["nodes"]["planet1"], "OUTCOME_KILLED", "{said}");
    assert_eq!((&said["created"], &said["durable"]), (&true.into(), &true.into()));
    assert_eq!(
        said["again"]["created"], false,
        "the same key made a second order"
    );
    assert_eq!(said["again"]["order"], said["order"]);
    let services: Vec<&str> = said["services"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| s.as_str())
        .collect();
    for service in [
        "redbutton.v1.Orders",
        "redbutton.v1.Audit",
        "grpc.health.v1.Health",
    ] {
        assert!(services.contains(&service), "{service} is not in {services:?}");
    }
    assert!(fleet.at(index).processes("princeton_codeen").is_empty());
    Ok(())
}
