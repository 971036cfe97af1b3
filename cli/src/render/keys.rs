//! Keys and invites as text.

use super::people::grants;
use super::{cell, fields, name, table};
use crate::text;
use crate::view::keys::{Invite, Invited, Key, LoggedIn, Removed, Voided};
use crate::when::Time;

/// Digits of a fingerprint in a table: enough to name the key.
const DIGITS: usize = 16;

/// `login`
pub(crate) fn logged_in(view: &LoggedIn, now: Time) -> String {
    fields(&[
        ("person", view.person.clone()),
        (
            "certificate",
            format!("valid until {}", view.certificate_expires_at.both(now)),
        ),
        ("bundle", view.bundle.clone()),
    ])
}

/// `invite`
pub(crate) fn invited(view: &Invited, now: Time) -> String {
    let Invited { invite, file } = view;
    let gets = match (invite.newcomer, invite.rekey) {
        (true, _) => grants(&invite.grants),
        (false, false) => "one more key".to_owned(),
        (false, true) => "a key instead of the older ones".to_owned(),
    };
    let mut page = fields(&[
        ("invite", invite.id.clone()),
        ("person", invite.person.clone()),
        ("gets", gets),
        ("until", invite.expires_at.both(now)),
        ("file", file.clone()),
    ]);
    page.push_str(&format!(
        "\nhand the file over in private; {} then runs: redbutton login FILE\n",
        text::line(&invite.person, 100)
    ));
    page
}

/// `people invites`
pub(crate) fn invites(invites: &[Invite], now: Time, width: u16) -> String {
    if invites.is_empty() {
        return "no open invite\n".to_owned();
    }
    let rows = invites
        .iter()
        .map(|invite| {
            let gets = if invite.newcomer {
                grants(&invite.grants)
            } else {
                "a key".to_owned()
            };
            vec![
                name(&invite.id),
                name(&invite.person),
                text::line(&gets, 200),
                cell(invite.created_by.as_deref().unwrap_or("root")),
                cell(&invite.expires_at.age(now)),
            ]
        })
        .collect();
    table(&["INVITE", "PERSON", "GETS", "BY", "ENDS"], &[], rows, width)
}

/// `people void-invite`
pub(crate) fn voided(view: &Voided) -> String {
    let what = if view.voided {
        "is void"
    } else {
        "was used or void already"
    };
    format!("invite {} {what}\n", text::line(&view.invite, 100))
}

/// `people keys`, and what `people revoke-keys` revoked.
pub(crate) fn keys(keys: &[Key], now: Time, width: u16) -> String {
    if keys.is_empty() {
        return "no key\n".to_owned();
    }
    let rows = keys
        .iter()
        .map(|key| {
            let state = match (key.revoked_at.0 > 0, key.yours) {
                (true, _) => {
                    let by = key.revoked_by.as_deref().unwrap_or("root");
                    let why = key.revoked_why.as_deref().unwrap_or("no reason given");
                    format!("revoked {} by {by}: {why}", key.revoked_at.age(now))
                }
                (false, true) => "good, in use now".to_owned(),
                (false, false) => "good".to_owned(),
            };
            vec![
                name(&key.fingerprint.chars().take(DIGITS).collect::<String>()),
                text::line(&state, 200),
                cell(&key.last_used_at.age(now)),
                cell(&key.enrolled_at.age(now)),
                cell(key.enrolled_by.as_deref().unwrap_or("root")),
                cell(&key.certificate_expires_at.age(now)),
            ]
        })
        .collect();
    table(
        &["KEY", "STATE", "LAST USED", "ENROLLED", "BY", "CERTIFICATE ENDS"],
        &[],
        rows,
        width,
    )
}

/// `people remove`
pub(crate) fn removed(view: &Removed) -> String {
    format!(
        "{} has no role any more; {} keys revoked, {} invites void\n",
        text::line(&view.person, 100),
        view.revoked.len(),
        view.voided.len()
    )
}
