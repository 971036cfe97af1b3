//! A node's own audit, taken over into ours. By the node's word: so no person stands as the doer, their name is in
//! the detail, and an order's id as well.

use audit::{Draft, Entry, Hash, Head, Outcome};
use proto::v1::AuditEntry;
use proto::{SliceName, Version};

use super::{Fleet, Member};
use crate::store::{About, Note};

/// Why an entry does not follow the one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Broken {
    #[error("entry {got} follows entry {after}")]
    Sequence { after: u64, got: u64 },
    #[error("entry {0} does not carry the hash of the one before")]
    Previous(u64),
    #[error("entry {0} was changed after it was sealed")]
    Hash(u64),
    #[error("entry {0} is malformed")]
    Malformed(u64),
}

/// Reads an entry, and checks that it follows.
fn next(head: &Head, told: &AuditEntry) -> Result<Entry, Broken> {
    let sequence = told.sequence;
    let entry = read(told).ok_or(Broken::Malformed(sequence))?;
    if sequence != head.sequence.saturating_add(1) {
        return Err(Broken::Sequence {
            after: head.sequence,
            got: sequence,
        });
    }
    if entry.previous != head.hash {
        return Err(Broken::Previous(sequence));
    }
    if entry.computed_hash() != entry.hash {
        return Err(Broken::Hash(sequence));
    }
    Ok(entry)
}

fn read(told: &AuditEntry) -> Option<Entry> {
    let hash = |bytes: &[u8]| Some(Hash::new(bytes.try_into().ok()?));
    let short = |text: &String| (text.chars().count() <= Entry::MAX_DETAIL).then(|| text.clone());
    let role = match told.role {
        0 => None,
        _ => Some(told.role().checked().ok()?),
    };
    Some(Entry {
        sequence: told.sequence,
        said: Draft {
            at_ms: told.at_ms,
            version: told.version.map(Version::from).unwrap_or_default(),
            person: match told.person.as_str() {
                "" => None,
                person => Some(person.parse().ok()?),
            },
            role,
            action: short(&told.action)?,
            target: short(&told.target)?,
            reason: short(&told.reason)?,
            evidence: short(&told.evidence)?,
            outcome: told.outcome.parse().ok()?,
            detail: short(&told.detail)?,
            order: match told.order.as_str() {
                "" => None,
                order => Some(order.parse().ok()?),
            },
        },
        previous: hash(&told.previous)?,
        hash: hash(&told.hash)?,
    })
}

/// What our audit says of it.
fn as_ours(member: &Member, entry: Entry, version: Version) -> Note {
    let Entry { sequence, said, .. } = entry;
    let Draft {
        at_ms,
        version: _,
        person,
        role,
        action,
        target,
        reason,
        evidence,
        outcome,
        detail,
        order,
    } = said;
    let who = match (person, role) {
        (None, _) => String::new(),
        (Some(person), None) => format!(" by {person}"),
        (Some(person), Some(role)) => format!(" by {person} ({role})"),
    };
    let order = order.map(|order| format!(", order {order}")).unwrap_or_default();
    let slice: Option<SliceName> = target.split(' ').next().and_then(|word| word.parse().ok());
    Note {
        draft: Draft {
            at_ms,
            version,
            person: None,
            role: None,
            action: format!("direct-{action}"),
            target,
            reason,
            evidence,
            outcome,
            detail: format!(
                "told by node {}, its entry {sequence}{who}{order}: {detail}",
                member.name
            ),
            order: None,
        },
        about: About {
            slice,
            site: Some(member.site.clone()),
            node: Some(member.id),
        },
    }
}

impl Fleet {
    /// It has told more than it has now: the file was lost or rolled back. From its beginning.
    pub(super) async fn lost_diary(&self, member: &Member, head: Head, last: u64) -> Head {
        let why = format!("it ends at entry {last}, entry {} was told", head.sequence);
        self.note(self.broken(member, &why)).await;
        Head::default()
    }

    fn broken(&self, member: &Member, why: &str) -> Note {
        let detail = format!(
            "the diary of node {} does not continue what it told before: {why}",
            member.name
        );
        self.told_note(member, "import-diary", Outcome::Failed, detail, None)
    }

    /// Takes over what follows `head`. `None`: there is no more now.
    pub(super) async fn take_diary(
        &self,
        member: &Member,
        mut head: Head,
        told: Vec<AuditEntry>,
    ) -> Option<Head> {
        let (mut notes, mut broken) = (Vec::new(), false);
        for one in &told {
            match next(&head, one) {
                Ok(entry) => {
                    head = entry.head();
                    notes.push(as_ours(member, entry, self.now()));
                }
                Err(error) => {
                    notes.push(self.broken(member, &error.to_string()));
                    // From its beginning, on the next link.
                    (head, broken) = (Head::default(), true);
                    break;
                }
            }
        }
        if notes.is_empty() {
            return None;
        }
        match self.store.tell_diary(member.id, head, notes).await {
            Ok(()) => {
                self.lock().diaries.insert(member.id, head);
            }
            Err(error) => {
                tracing::warn!(node = %member.name, %error, "diary not taken over");
                return None;
            }
        }
        (!broken).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(n: u64) -> Draft {
        Draft {
            at_ms: 5,
            version: Version::default(),
            person: Some("alice".parse().expect("valid")),
            role: Some(proto::Role::Support),
            action: "kill-sliver".into(),
            target: format!("princeton_codeen on n{n}"),
            reason: "floods".into(),
            evidence: String::new(),
            outcome: Outcome::Allowed,
            detail: "support may".into(),
            order: Some(proto::OrderId::new()),
        }
    }

    fn wire(entry: &Entry) -> AuditEntry {
        let said = entry.said.clone();
        AuditEntry {
            sequence: entry.sequence,
            at_ms: said.at_ms,
            person: said.person.map(String::from).unwrap_or_default(),
            role: said
                .role
                .map_or(proto::v1::Role::Unspecified, proto::v1::Role::from)
                .into(),
            action: said.action,
            target: said.target,
            reason: said.reason,
            evidence: said.evidence,
            outcome: said.outcome.to_string(),
            detail: said.detail,
            order: said.order.map(String::from).unwrap_or_default(),
            previous: entry.previous.as_bytes().to_vec(),
            hash: entry.hash.as_bytes().to_vec(),
            version: Some(said.version.into()),
        }
    }

    #[test]
    fn entries_follow_or_say_why_not() {
        let first = audit::seal(&Head::default(), draft(1));
        let second = audit::seal(&first.head(), draft(2));
        assert_eq!(next(&Head::default(), &wire(&first)), Ok(first.clone()));
        assert_eq!(next(&first.head(), &wire(&second)), Ok(second.clone()));
        assert_eq!(
            next(&Head::default(), &wire(&second)),
            Err(Broken::Sequence { after: 0, got: 2 })
        );
        let edited = AuditEntry {
            reason: "nothing".into(),
            ..wire(&second)
        };
        assert_eq!(next(&first.head(), &edited), Err(Broken::Hash(2)));
        let other = audit::seal(&Head::default(), draft(3));
        assert_eq!(next(&other.head(), &wire(&second)), Err(Broken::Previous(2)));
        let odd = AuditEntry {
            outcome: "perhaps".into(),
            ..wire(&second)
        };
        assert_eq!(next(&first.head(), &odd), Err(Broken::Malformed(2)));
    }

    proptest! {
        #[test]
        fn reading_never_panics(
            texts in prop::collection::vec(".{0,20}", 8),
            numbers in any::<(u64, i64, i32)>(),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let told = AuditEntry {
                sequence: numbers.0,
                at_ms: numbers.1,
                role: numbers.2,
                person: texts[0].clone(),
                action: texts[1].clone(),
                target: texts[2].clone(),
                reason: texts[3].clone(),
                evidence: texts[4].clone(),
                outcome: texts[5].clone(),
                detail: texts[6].clone(),
                order: texts[7].clone(),
                previous: bytes.clone(),
                hash: bytes,
                version: None,
            };
            prop_assert!(next(&Head::default(), &told).is_err());
        }
    }
}
