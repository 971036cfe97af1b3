//! Whatever is done to a chain, by somebody who makes every hash after it anew: a head that was kept from before, of
//! the place where it was done or of any later one, gives it away. A head from before that place cannot.

use audit::{Draft, Entry, Fault, Head, Outcome, seal, verify};
use proptest::prelude::*;
use proptest::sample::Index;
use proto::Version;

fn said(text: &str) -> Draft {
    Draft {
        at_ms: 1,
        version: Version {
            incarnation: 1,
            epoch: 1,
        },
        person: Some("alice".parse().expect("valid")),
        role: None,
        action: "kill-slice".into(),
        target: text.into(),
        reason: String::new(),
        evidence: String::new(),
        outcome: Outcome::Allowed,
        detail: String::new(),
        order: None,
    }
}

fn chain(said: impl IntoIterator<Item = Draft>) -> Vec<Entry> {
    let mut head = Head::GENESIS;
    let seal = |said| {
        let entry = seal(&head, said);
        head = entry.head();
        entry
    };
    said.into_iter().map(seal).collect()
}

/// What somebody does to the entries before making all hashes anew.
#[derive(Debug, Clone)]
enum Deed {
    Edit(Index),
    Remove(Index),
    Swap(Index, Index),
    Insert(Index),
    CutTail(Index),
    /// Everything from here on is something else, of this length.
    ReplaceTail(Index, usize),
    Append,
}

fn deeds() -> impl Strategy<Value = Deed> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Deed::Edit),
        at().prop_map(Deed::Remove),
        (at(), at()).prop_map(|(a, b)| Deed::Swap(a, b)),
        at().prop_map(Deed::Insert),
        at().prop_map(Deed::CutTail),
        (at(), 0..12usize).prop_map(|(at, length)| Deed::ReplaceTail(at, length)),
        Just(Deed::Append),
    ]
}

fn commit(said: &mut Vec<Draft>, deed: &Deed) {
    let forged = || crate::said("forged");
    let len = said.len();
    match deed {
        Deed::Append => said.push(forged()),
        Deed::Insert(at) => said.insert(at.index(len + 1), forged()),
        _ if said.is_empty() => {}
        Deed::Edit(at) => said[at.index(len)].reason.push('!'),
        Deed::Remove(at) => drop(said.remove(at.index(len))),
        Deed::Swap(a, b) => said.swap(a.index(len), b.index(len)),
        Deed::CutTail(at) => said.truncate(at.index(len)),
        Deed::ReplaceTail(at, length) => {
            said.truncate(at.index(len));
            said.extend((0..*length).map(|_| forged()));
        }
    }
}

proptest! {
    #[test]
    fn a_head_from_before_gives_every_deed_away(
        length in 1..12usize,
        deeds in prop::collection::vec(deeds(), 1..5),
        witness in any::<Index>(),
    ) {
        let honest = chain((0..length).map(|n| said(&n.to_string())));
        let mut texts: Vec<Draft> = honest.iter().map(|entry| entry.said.clone()).collect();
        for deed in &deeds {
            commit(&mut texts, deed);
        }
        let anew = chain(texts);
        prop_assert!(verify(&anew, None, &[]).is_ok(), "in itself it is a chain");
        // The first place that is not what it was.
        let same = honest.iter().zip(&anew).take_while(|(old, new)| old == new).count();
        let witness = honest[witness.index(length)].head();
        let found = verify(&anew, None, &[witness]);
        if usize::try_from(witness.sequence).expect("small") <= same {
            prop_assert!(found.is_ok(), "nothing was done up to {}", witness.sequence);
        } else {
            let told = matches!(found, Err(Fault::Rewritten { .. } | Fault::Cut { .. }));
            prop_assert!(told, "{deeds:?}: {found:?}");
        }
    }

    /// Who does not make the hashes anew is found without any witness.
    #[test]
    fn a_deed_with_the_old_hashes_needs_no_witness(length in 2..12usize, at in any::<Index>(), other in any::<Index>(), which in 0..4) {
        let honest = chain((0..length).map(|n| said(&n.to_string())));
        let mut entries = honest.clone();
        let (at, other) = (at.index(length), other.index(length));
        match which {
            0 => entries[at].said.target.push('!'),
            1 => drop(entries.remove(at)),
            2 => entries.swap(at, other),
            _ => entries.insert(at, honest[other].clone()),
        }
        // A tail that was cut off, and what did not change, are the two that it cannot tell.
        prop_assume!(!honest.starts_with(&entries));
        prop_assert!(verify(&entries, None, &[]).is_err());
    }
}
