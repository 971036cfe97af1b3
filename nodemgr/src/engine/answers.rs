//! The shape of an answer: the worst of its slivers, words for people, and never more than a message takes. Pure.

use proto::v1::{self, Answer, Outcome};

/// Which of two outcomes the answer is about.
pub(super) fn badness(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Failed => 7,
        Outcome::Partial => 6,
        Outcome::Respawning => 5,
        Outcome::Killed => 4,
        Outcome::Frozen => 3,
        Outcome::Released => 2,
        Outcome::AlreadyDead => 1,
        _ => 0,
    }
}

/// Details are for people.
pub(super) fn bounded(mut text: String) -> String {
    const MOST: usize = 4_000;
    if text.len() > MOST {
        let cut = (0..=MOST)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push_str(" …");
    }
    text
}

/// Makes an answer fit into a message: first evidence goes, from the largest on, and its place says so.
pub(super) fn fit(mut answer: Answer) -> Answer {
    use prost::Message;
    const MOST: usize = proto::MAX_MESSAGE_BYTES - (64 << 10);
    while answer.encoded_len() > MOST {
        let size = |proof: &v1::SliverProof| proof.evidence.as_ref().map_or(0, |e| e.processes.len());
        match answer.slivers.iter_mut().max_by_key(|proof| size(proof)) {
            Some(proof) if size(proof) > 0 => {
                proof.evidence = Some(v1::Evidence {
                    processes: Vec::new(),
                    incomplete: format!("left out: {} processes did not fit into the answer", size(proof)),
                });
            }
            _ => {
                // Thousands of slivers: the worst are named, the number of all stands in the detail.
                let all = answer.slivers.len();
                answer
                    .slivers
                    .sort_by_key(|proof| std::cmp::Reverse(badness(proof.outcome())));
                answer.slivers.truncate(all / 2);
                answer.detail = bounded(format!(
                    "{all} slivers, the worst {} are listed; {}",
                    all / 2,
                    answer.detail
                ));
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_always_fits_into_a_message() {
        use prost::Message;
        let process = v1::Process {
            command_line: "x".repeat(256),
            cgroup: "c".repeat(200),
            ..Default::default()
        };
        let proof = |n: usize| v1::SliverProof {
            cgroup: format!("redbutton.slice/{n}"),
            outcome: if n == 7 { Outcome::Failed } else { Outcome::Killed }.into(),
            evidence: Some(v1::Evidence {
                processes: vec![process.clone(); 600],
                incomplete: String::new(),
            }),
            detail: "d".repeat(300),
            ..Default::default()
        };
        let few = fit(Answer {
            slivers: (0..12).map(proof).collect(),
            ..Default::default()
        });
        assert!(few.encoded_len() <= proto::MAX_MESSAGE_BYTES);
        assert_eq!(few.slivers.len(), 12);
        assert!(few.slivers.iter().any(|p| {
            p.evidence
                .as_ref()
                .is_some_and(|e| e.incomplete.starts_with("left out"))
        }));
        let many = fit(Answer {
            slivers: (0..6_000)
                .map(|n| v1::SliverProof {
                    evidence: None,
                    ..proof(n)
                })
                .collect(),
            ..Default::default()
        });
        assert!(many.encoded_len() <= proto::MAX_MESSAGE_BYTES);
        assert_eq!(many.slivers[0].outcome(), Outcome::Failed, "the worst stays");
        assert!(
            many.detail.starts_with("3000 slivers") || many.detail.starts_with("6000 slivers"),
            "{}",
            many.detail
        );
    }

    #[test]
    fn details_are_cut_between_characters() {
        let text = bounded("ä".repeat(4_000));
        assert!(text.ends_with(" …") && text.len() < 4_010);
    }
}
