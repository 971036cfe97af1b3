//! People who want more than is theirs, with the real `redbutton`.

use anyhow::{Result, ensure};
use hw_tests::fleet::Fleet;

use crate::wire::*;

/// Two sites with a slice each: dan develops princeton's, peter is mit's PI.
fn two_sites() -> Result<Fleet> {
    let fleet = controller()?;
    fleet.site("mit")?;
    fleet.slice("mit_chord")?;
    fleet.person("dan", &["--role", "developer", "--slice", "princeton_codeen"])?;
    fleet.person("peter", &["--role", "pi", "--site", "mit"])?;
    Ok(fleet)
}

#[test]
fn an_order_s_id_is_no_key_to_it() -> Result<()> {
    let fleet = two_sites()?;
    let (code, order) = fleet.json("alice", &["kill-slice", "mit_chord", "--reason", "worm"])?;
    ensure!(code == 0, "{order}");
    let id = order["order"]["id"].as_str().or(order["id"].as_str());
    let id = id.ok_or_else(|| anyhow::anyhow!("no id in {order}"))?.to_owned();
    let nothing = uuid::Uuid::now_v7().to_string();
    for verb in ["show", "watch"] {
        // The one that is there and not dan's looks like the one that is not there.
        let answers: Vec<String> = [&id, &nothing]
            .iter()
            .map(|guess| {
                let output = fleet.redbutton("dan", &["order", verb, guess])?;
                ensure!(!output.status.success(), "order {verb} {guess} was shown to dan");
                let said = String::from_utf8_lossy(&output.stderr).replace(*guess, "ID");
                Ok(format!("{:?} {said}", output.status.code()))
            })
            .collect::<Result<_>>()?;
        ensure!(answers[0] == answers[1], "{answers:?}");
        ensure!(!answers[0].contains("mit"), "{answers:?}");
    }
    // Nor can its hold be lifted by whoever has learned its number.
    let output = fleet.redbutton("dan", &["slice", "release", "mit_chord", "--reason", "mine"])?;
    ensure!(!output.status.success(), "dan released another site's slice");
    let (code, seen) = fleet.json("dan", &["order", "ls"])?;
    ensure!(code == 0 && !seen.to_string().contains("mit_chord"), "{seen}");
    support_presses(&fleet)
}

#[test]
fn a_pi_does_not_rise_through_a_slice_of_another_site() -> Result<()> {
    let fleet = two_sites()?;
    for grant in [
        &[
            "people",
            "grant",
            "peter",
            "--role",
            "developer",
            "--slice",
            "princeton_codeen",
        ][..],
        &["people", "grant", "peter", "--role", "pi", "--site", "princeton"],
        &[
            "people",
            "grant",
            "peter",
            "--role",
            "site-admin",
            "--site",
            "mit",
        ],
        &["people", "grant", "peter", "--role", "support"],
        &["people", "grant", "dan", "--role", "support"],
        &["people", "grant", "dan", "--role", "pi", "--site", "mit"],
        &["people", "add", "mallory", "--role", "support"],
        &[
            "people",
            "add",
            "mallory",
            "--role",
            "developer",
            "--slice",
            "princeton_codeen",
        ],
        // Names that only begin like a slice of his.
        &[
            "people",
            "grant",
            "dan",
            "--role",
            "developer",
            "--slice",
            "mit2_chord",
        ],
        &["people", "revoke", "alice", "--role", "support"],
        &["slice", "add", "princeton_mine", "--contact", "peter@mit.example"],
        &["slice", "kill", "princeton_codeen", "--reason", "mine"],
    ] {
        let output = fleet.redbutton("peter", grant)?;
        ensure!(
            !output.status.success(),
            "{grant:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    let (_, peter) = fleet.json("alice", &["people", "show", "peter"])?;
    let text = peter.to_string();
    ensure!(
        !text.contains("princeton") && !text.contains("support") && !text.contains("site-admin"),
        "{text}"
    );
    // What is his he may: the control.
    let mine = [
        "people",
        "grant",
        "dan",
        "--role",
        "developer",
        "--slice",
        "mit_chord",
    ];
    fleet.ask("peter", &mine)?;
    // Refusals are in the audit with his name.
    let audit = fleet.ask("alice", &["--json", "audit", "log", "--person", "peter"])?;
    let refused = audit
        .lines()
        .filter(|line| line.contains("\"outcome\":\"refused\""))
        .count();
    ensure!(refused >= 12, "{refused} refusals: {audit}");
    support_presses(&fleet)
}
