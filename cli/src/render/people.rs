//! People as text.

use super::{LINE, cell, fields, name, table};
use crate::text;
use crate::view::people::{Grant, Person, WhoAmI};
use crate::when::Time;

pub(super) fn grants(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "no role".to_owned();
    }
    grants
        .iter()
        .map(|grant| cell(&grant.text()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// `people ls`
pub(crate) fn people(people: &[Person], width: u16) -> String {
    if people.is_empty() {
        return "nobody\n".to_owned();
    }
    let rows = people
        .iter()
        .map(|person| {
            vec![
                name(&person.name),
                text::line(&grants(&person.grants), 200),
                cell(person.email.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    table(&["PERSON", "ROLES", "EMAIL"], &[], rows, width)
}

/// `people show`, and what changing a person returns.
pub(crate) fn person(person: &Person, now: Time) -> String {
    fields(&[
        ("person", person.name.clone()),
        ("name", person.full_name.clone().unwrap_or_default()),
        ("email", person.email.clone().unwrap_or_default()),
        ("roles", grants(&person.grants)),
        ("since", person.created_at.both(now)),
    ])
}

/// `whoami`
pub(crate) fn whoami(who: &WhoAmI, now: Time) -> String {
    let expires = who.certificate_expires_at;
    let mut page = fields(&[
        ("person", who.person.name.clone()),
        ("name", who.person.full_name.clone().unwrap_or_default()),
        ("roles", grants(&who.person.grants)),
        ("certificate", format!("valid until {}", expires.both(now))),
        ("controller", who.controller_version.clone().unwrap_or_default()),
        (
            "epoch",
            who.version.map(|version| version.text()).unwrap_or_default(),
        ),
    ]);
    for alarm in &who.alarms {
        page.push_str(&format!("\nALARM: {}\n", text::line(alarm, LINE)));
    }
    if !who.may.is_empty() {
        page.push_str("\nyou may\n");
        for line in &who.may {
            page.push_str(&format!("  {}\n", text::line(line, LINE)));
        }
    }
    page
}
