//! Whatever is done to a chain is found, and named by the entry where it was done.

use audit::{Draft, Entry, Fault, Hash, Head, Outcome, Verifier, lines, seal, verify};
use proptest::option::of;
use proptest::prelude::*;
use proto::{OrderId, PersonName, Role, Version};

fn people() -> impl Strategy<Value = PersonName> {
    "[a-z][a-z0-9.-]{0,8}".prop_map(|name| name.parse().expect("follows the grammar"))
}

fn orders() -> impl Strategy<Value = OrderId> {
    any::<u128>().prop_map(|bits| {
        let hex = format!("{bits:032x}");
        let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        id.parse().expect("36 characters")
    })
}

fn drafts() -> impl Strategy<Value = Draft> {
    let who = (
        of(people()),
        of(prop::sample::select(&Role::ALL[..])),
        of(orders()),
    );
    let when = (any::<i64>(), any::<u64>(), any::<u64>());
    let texts = [".{0,12}", ".{0,12}", "\\PC{0,12}", ".{0,12}", ".{0,12}"];
    (who, when, texts, prop::sample::select(&Outcome::ALL[..])).prop_map(|(who, when, texts, outcome)| {
        let (person, role, order) = who;
        let (at_ms, incarnation, epoch) = when;
        let [action, target, reason, evidence, detail] = texts;
        let version = Version { incarnation, epoch };
        Draft {
            at_ms,
            version,
            person,
            role,
            action,
            target,
            reason,
            evidence,
            outcome,
            detail,
            order,
        }
    })
}

fn chain(start: Head, drafts: Vec<Draft>) -> Vec<Entry> {
    let mut head = start;
    drafts
        .into_iter()
        .map(|draft| {
            let entry = seal(&head, draft);
            head = entry.head();
            entry
        })
        .collect()
}

fn chains(least: usize) -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(drafts(), least..8).prop_map(|drafts| chain(Head::GENESIS, drafts))
}

/// Changes one field of an entry; there are as many edits as fields, `sequence` apart.
const EDITS: usize = 14;
fn edit(entry: &mut Entry, which: usize) {
    let said = &mut entry.said;
    let flip = |hash: Hash| {
        let mut bytes = *hash.as_bytes();
        bytes[31] ^= 1;
        Hash::new(bytes)
    };
    match which {
        0 => said.at_ms = said.at_ms.wrapping_add(1),
        1 => said.version.incarnation = said.version.incarnation.wrapping_add(1),
        2 => said.version.epoch = said.version.epoch.wrapping_add(1),
        3 => {
            said.person = match said.person {
                Some(_) => None,
                None => Some("mallory".parse().expect("valid")),
            }
        }
        4 => {
            said.role = match said.role {
                Some(Role::Support) => None,
                _ => Some(Role::Support),
            }
        }
        5 => said.action.push('x'),
        6 => said.target.push('x'),
        7 => said.reason.push('x'),
        8 => said.evidence.push('x'),
        9 => {
            said.outcome = match said.outcome {
                Outcome::Refused => Outcome::Allowed,
                _ => Outcome::Refused,
            }
        }
        10 => said.detail.push('x'),
        11 => {
            said.order = match said.order {
                Some(_) => None,
                None => Some(OrderId::new()),
            }
        }
        12 => entry.previous = flip(entry.previous),
        _ => entry.hash = flip(entry.hash),
    }
}

proptest! {
    #[test]
    fn a_true_chain_verifies(entries in chains(0), cut in any::<prop::sample::Index>()) {
        let last = entries.last().map_or(Head::GENESIS, Entry::head);
        let witnesses: Vec<Head> = entries.iter().rev().map(Entry::head).collect();
        let whole = verify(&entries, None, &witnesses).expect("true");
        prop_assert_eq!((whole.entries, whole.head), (entries.len() as u64, last));
        prop_assert_eq!((whole.witnesses, whole.before_start), (entries.len(), 0));

        // A part of it, after a known head.
        let at = cut.index(entries.len() + 1);
        let start = if at == 0 { Head::GENESIS } else { entries[at - 1].head() };
        let part = verify(&entries[at..], Some(start), &witnesses).expect("true");
        prop_assert_eq!(part.head, last);
        prop_assert_eq!(part.entries as usize, entries.len() - at);
        prop_assert_eq!(part.before_start, at.saturating_sub(1));
    }

    #[test]
    fn any_edit_is_found(entries in chains(1), at in any::<prop::sample::Index>(), which in 0..EDITS) {
        let at = at.index(entries.len());
        let mut entries = entries;
        edit(&mut entries[at], which);
        let found = verify(&entries, None, &[]).expect_err("edited");
        prop_assert!(matches!(found, Fault::Edited { sequence, .. } if sequence == at as u64 + 1), "{found}");
    }

    /// Who edits and makes the hash anew is found at the entry after; at the last entry only a witness tells.
    #[test]
    fn an_edit_with_a_new_hash_is_found(entries in chains(1), at in any::<prop::sample::Index>(), which in 0..12usize) {
        let at = at.index(entries.len());
        let witness = entries[at].head();
        let mut entries = entries;
        edit(&mut entries[at], which);
        entries[at].hash = entries[at].computed_hash();
        let sequence = at as u64 + 1;
        if at + 1 < entries.len() {
            let found = verify(&entries, None, &[]).expect_err("edited");
            prop_assert!(matches!(found, Fault::Previous { sequence: s, .. } if s == sequence + 1), "{found}");
        }
        let found = verify(&entries, None, &[witness]).expect_err("witnessed");
        prop_assert!(matches!(found, Fault::Rewritten { sequence: s, .. } if s == sequence), "{found}");
    }

    #[test]
    fn a_chain_made_anew_is_found_by_a_witness(entries in chains(1), at in any::<prop::sample::Index>(), keep in any::<prop::sample::Index>()) {
        let at = at.index(entries.len());
        let mut said: Vec<Draft> = entries.iter().map(|entry| entry.said.clone()).collect();
        said[at].reason.push('x');
        let anew = chain(Head::GENESIS, said);
        prop_assert!(verify(&anew, None, &[]).is_ok(), "in itself it is a chain");
        let witness = entries[at + keep.index(entries.len() - at)].head();
        let found = verify(&anew, None, &[witness]).expect_err("witnessed");
        prop_assert!(matches!(found, Fault::Rewritten { sequence, .. } if sequence == witness.sequence), "{found}");
    }

    #[test]
    fn a_missing_entry_is_found(entries in chains(2), at in any::<prop::sample::Index>()) {
        let at = at.index(entries.len() - 1);
        let mut entries = entries;
        entries.remove(at);
        let missing = at as u64 + 1;
        prop_assert_eq!(verify(&entries, None, &[]), Err(Fault::Gap { missing, found: missing + 1 }));
    }

    #[test]
    fn a_renumbered_gap_is_found(entries in chains(3), at in any::<prop::sample::Index>()) {
        let at = at.index(entries.len() - 1);
        let mut entries = entries;
        entries.remove(at);
        for entry in &mut entries[at..] {
            entry.sequence -= 1;
        }
        let found = verify(&entries, None, &[]).expect_err("renumbered");
        prop_assert!(matches!(found, Fault::Edited { sequence, .. } if sequence == at as u64 + 1), "{found}");
    }

    #[test]
    fn a_swap_is_found(entries in chains(2), one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
        let (one, other) = (one.index(entries.len()), other.index(entries.len()));
        prop_assume!(one != other);
        let (first, second) = (one.min(other), one.max(other));
        let mut entries = entries;
        entries.swap(first, second);
        prop_assert_eq!(
            verify(&entries, None, &[]),
            Err(Fault::Reordered { moved: first as u64 + 1, found: second as u64 + 1 })
        );
    }

    #[test]
    fn a_repeated_entry_is_found(entries in chains(1), at in any::<prop::sample::Index>()) {
        let at = at.index(entries.len());
        let mut entries = entries;
        entries.insert(at + 1, entries[at].clone());
        prop_assert_eq!(
            verify(&entries, None, &[]),
            Err(Fault::Repeated { expected: at as u64 + 2, found: at as u64 + 1 })
        );
    }

    #[test]
    fn a_cut_tail_is_found_by_a_witness(entries in chains(1), at in any::<prop::sample::Index>()) {
        let left = at.index(entries.len());
        let witness = entries[entries.len() - 1].head();
        prop_assert_eq!(
            verify(&entries[..left], None, &[witness]),
            Err(Fault::Cut { last: left as u64, witnessed: witness.sequence })
        );
        prop_assert!(verify(&entries[..left], None, &[]).is_ok(), "nothing else tells");
    }

    #[test]
    fn a_wrong_start_is_found(entries in chains(1)) {
        let other = Head { sequence: 0, hash: Hash::new([1; 32]) };
        let found = verify(&entries, Some(other), &[]).expect_err("another start");
        prop_assert!(matches!(found, Fault::Previous { sequence: 1, .. }), "{found}");
    }

    /// Neighbouring texts cannot trade bytes: the lengths are under the hash.
    #[test]
    fn texts_do_not_run_together(said in drafts(), moved in "[a-z]{1,5}") {
        let mut left = said.clone();
        left.reason.push_str(&moved);
        let mut right = said;
        right.evidence.insert_str(0, &moved);
        prop_assert_ne!(seal(&Head::GENESIS, left).hash, seal(&Head::GENESIS, right).hash);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However long its texts, an entry is sealed and its line can be read again.
    #[test]
    fn long_texts_are_cut(said in drafts(), unit in prop::sample::select(vec!["\u{1}", "x", "ß", "€", "😀", "\""]), times in 3_990usize..20_000) {
        let long = unit.repeat(times);
        let said = Draft { action: long.clone(), target: long.clone(), reason: long.clone(), evidence: long.clone(), detail: long, ..said };
        let entry = seal(&Head::GENESIS, said);
        prop_assert_eq!(entry.said.reason.chars().count(), Entry::MAX_TEXT);
        prop_assert!(entry.said.reason.ends_with('…'));
        prop_assert!(entry.said.detail.chars().count() <= Entry::MAX_DETAIL);
        let mut line = Vec::new();
        lines::write(&mut line, &entry).expect("memory");
        prop_assert!(line.len() <= lines::MAX_LINE_BYTES, "{}", line.len());
        prop_assert_eq!(lines::parse(1, &line).expect("reads"), entry);
    }
}

#[test]
fn texts_within_the_limits_are_not_touched() {
    let text = "😀".repeat(Entry::MAX_TEXT);
    let detail = "😀".repeat(Entry::MAX_DETAIL);
    let said = Draft {
        at_ms: 0,
        version: Version::default(),
        person: None,
        role: None,
        action: text.clone(),
        target: text.clone(),
        reason: text.clone(),
        evidence: text,
        outcome: Outcome::Done,
        detail,
        order: None,
    };
    assert_eq!(seal(&Head::GENESIS, said.clone()).said, said);
}

#[test]
fn the_end_of_the_numbers_is_no_wrap_around() {
    let full = Head {
        sequence: u64::MAX,
        hash: Hash::ZERO,
    };
    let said = Draft {
        at_ms: 0,
        version: Version::default(),
        person: None,
        role: None,
        action: "x".into(),
        target: String::new(),
        reason: String::new(),
        evidence: String::new(),
        outcome: Outcome::Done,
        detail: String::new(),
        order: None,
    };
    let entry = seal(&full, said);
    assert_eq!(entry.sequence, u64::MAX);
    assert_eq!(
        verify([&entry], Some(full), &[]),
        Err(Fault::Full { last: u64::MAX })
    );
}

#[test]
fn witnesses_that_disagree_cannot_both_be_right() {
    let one = Head {
        sequence: 0,
        hash: Hash::new([1; 32]),
    };
    assert!(matches!(
        verify([], None, &[Head::GENESIS, one]),
        Err(Fault::Rewritten { sequence: 0, .. })
    ));
    let mut verifier = Verifier::new(Some(one), &[one]);
    assert_eq!(verifier.fault(), None);
    verifier = Verifier::new(Some(one), &[Head::GENESIS]);
    assert!(verifier.fault().is_some());
}

#[test]
fn faults_are_told_to_people() {
    let zero = Hash::ZERO;
    for (fault, says) in [
        (
            Fault::Gap { missing: 5, found: 8 },
            "audit entry 5 is missing: entry 8 stands in its place".to_owned(),
        ),
        (
            Fault::Cut {
                last: 4,
                witnessed: 9,
            },
            "the audit was cut: it ends with entry 4, entry 9 was witnessed".into(),
        ),
        (
            Fault::Edited {
                sequence: 3,
                recorded: zero,
                computed: zero,
            },
            format!("audit entry 3 was edited: its hash is {zero}, its content makes {zero}"),
        ),
    ] {
        assert_eq!(fault.to_string(), says);
    }
}
