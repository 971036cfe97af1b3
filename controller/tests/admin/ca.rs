//! `redbutton-controller ca`, and the move of a state directory of the version before: the real program, killed at
//! each step. Afterwards everything is as before the change or as after it, and the next start goes on.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use controller::admin::{Init, init};
use controller::pki::Authority;
use proto::bundle::Bundle;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{now, wish};

/// Runs the program on a state directory; dead at `crash_at` if that is given.
fn run(dir: &Path, arguments: &[&str], crash_at: Option<&str>, credentials: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton-controller"));
    command.arg("--state").arg(dir).args(arguments);
    command
        .env_remove("REDBUTTON_CRASH_AT")
        .env_remove("CREDENTIALS_DIRECTORY")
        .env("RUST_LOG", "warn");
    if let Some(point) = crash_at {
        command.env("REDBUTTON_CRASH_AT", point);
    }
    if let Some(credentials) = credentials {
        command.env("CREDENTIALS_DIRECTORY", credentials);
    }
    let output = command.output().expect("starts");
    if crash_at.is_some() {
        assert!(output.status.code().is_none(), "it did not crash: {output:?}");
    } else {
        assert!(output.status.success(), "{output:?}");
    }
    for secret in secrets(dir) {
        for said in [&output.stdout, &output.stderr] {
            assert!(
                !String::from_utf8_lossy(said).contains(&secret),
                "a secret was shown"
            );
        }
    }
    output
}

/// What must never be shown.
fn secrets(dir: &Path) -> Vec<String> {
    ["seal.key", "ca.key", "controller.key"]
        .iter()
        .filter_map(|name| fs::read_to_string(dir.join(name)).ok())
        .filter_map(|text| {
            text.lines()
                .find(|line| !line.starts_with('-'))
                .map(ToOwned::to_owned)
        })
        .collect()
}

fn golden() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state-v1");
    for entry in fs::read_dir(from).expect("the fixture") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() {
            fs::copy(entry.path(), place.path().join(entry.file_name())).expect("a file");
        }
    }
    place
}

/// Whole: it opens, no key stands in clear, the roots for everybody are those that issue, old bundles lead to them.
fn is_whole(dir: &Path) {
    let authority = Authority::open(dir, now()).expect("opens");
    for name in ["ca.key", "controller.key", "signer.key"] {
        assert!(!dir.join(name).exists(), "{name}");
    }
    let roots = fs::read_to_string(dir.join("ca.pem")).expect("there");
    assert_eq!(roots, authority.view().roots_pem());
    let bundle = include_str!("../golden/state-v1/bundles/n1.bundle");
    let bundle = Bundle::parse(bundle).expect("a bundle");
    let leaf = CertificateDer::from_pem_slice(bundle.certificate.as_bytes()).expect("PEM");
    assert!(trust::Roots::from_pem(&roots).expect("roots").vouch_for(&[leaf]));
    let temporary = fs::read_dir(dir)
        .expect("a directory")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".new"))
        .collect::<Vec<_>>();
    assert_eq!(temporary, [""; 0]);
}

#[test]
fn a_move_that_was_cut_down_anywhere_goes_on_at_the_next_start() {
    for point in [
        "controller.migrate-before-sealed",
        "controller.migrate-after-sealed",
        "controller.pki-after-roots",
        "controller.pki-between-removals",
    ] {
        let place = golden();
        run(place.path(), &["ca", "status"], Some(point), None);
        let status = run(place.path(), &["ca", "status"], None, None);
        let status = String::from_utf8_lossy(&status.stdout);
        assert!(
            status.contains("issuing") && status.contains("seal.key, mode 0600"),
            "{point}: {status}"
        );
        is_whole(place.path());
    }
}

#[tokio::test]
async fn a_step_that_was_cut_down_was_taken_or_not() {
    for (step, point, taken) in [
        (
            &["ca", "rotate-issuing"][..],
            "controller.pki-before-sealed",
            false,
        ),
        (&["ca", "rotate-issuing"], "controller.pki-after-sealed", true),
        (&["ca", "root", "add"], "controller.pki-before-sealed", false),
        (&["ca", "root", "add"], "controller.pki-after-sealed", true),
        (&["ca", "root", "add"], "controller.pki-after-roots", true),
    ] {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("state");
        init(&wish(&dir), now()).await.expect("made");
        let state = |dir: &Path| {
            let view = Authority::open(dir, now()).expect("opens").view();
            (view.roots().len(), view.controller().0.to_owned())
        };
        let before = state(&dir);
        run(&dir, step, Some(point), None);
        let after = state(&dir);
        assert_eq!(before != after, taken, "{step:?} at {point}");
        let roots = fs::read_to_string(dir.join("ca.pem")).expect("there");
        assert_eq!(roots.matches("BEGIN").count(), after.0, "{step:?} at {point}");
        run(&dir, &["ca", "rotate-issuing"], None, None);
    }
}

#[tokio::test]
async fn a_credential_takes_over_from_the_file_also_across_a_crash() {
    for crash in [None, Some("controller.reseal-after-sealed")] {
        let place = tempfile::tempdir().expect("a directory");
        let (dir, credentials) = (place.path().join("state"), place.path().join("credentials"));
        let done = init(
            &Init {
                bundles: true,
                ..wish(&dir)
            },
            now(),
        )
        .await
        .expect("made");
        assert!(done.to_string().contains("seal.key, mode 0600"), "{done}");
        fs::create_dir(&credentials).expect("a directory");
        fs::write(credentials.join("redbutton-seal"), [7; 32]).expect("written");
        if crash.is_some() {
            run(&dir, &["ca", "status"], crash, Some(&credentials));
        }
        let status = run(&dir, &["ca", "status"], None, Some(&credentials));
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(
            status.contains("sealed with the systemd credential redbutton-seal"),
            "{status}"
        );
        assert!(!dir.join("seal.key").exists());
        // Without it nothing opens, and the error says what is missing.
        let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton-controller"));
        command
            .arg("--state")
            .arg(&dir)
            .args(["ca", "status"])
            .env_remove("CREDENTIALS_DIRECTORY");
        let refused = command.output().expect("starts");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("has no sealing key"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_step_that_would_cut_somebody_off_says_whom() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("state");
    init(&wish(&dir), now()).await.expect("made");
    run(&dir, &["ca", "root", "add"], None, None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_redbutton-controller"));
    let refused = command
        .arg("--state")
        .arg(&dir)
        .args(["ca", "root", "switch"])
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("would cut off 2: person alice, person bob"),
        "{said}"
    );
    let status = run(&dir, &["ca", "status"], None, None);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("0 of 2 trust the newest root; not: person alice"),
        "{status}"
    );
    run(&dir, &["ca", "root", "retire"], None, None);
}
