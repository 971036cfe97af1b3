use std::fs;
use std::path::Path;

use audit::{Draft, Outcome, verify_lines};
use proptest::prelude::*;

use super::*;

fn draft(n: u64, outcome: Outcome) -> Draft {
    Draft {
        at_ms: i64::try_from(n).expect("small"),
        version: proto::Version::default(),
        person: Some("dave".parse().expect("valid")),
        role: None,
        action: "kill-sliver".into(),
        target: "princeton_codeen".into(),
        reason: format!("reason {n}"),
        evidence: String::new(),
        outcome,
        detail: String::new(),
        order: None,
    }
}

fn add(diary: &Diary, n: u64) -> Written {
    diary
        .write(draft(n, Outcome::Allowed))
        .blocking_recv()
        .expect("answered")
}

fn entries(dir: &Path) -> u64 {
    let file = fs::File::open(dir.join("diary")).expect("there");
    verify_lines(std::io::BufReader::new(file), None, &[])
        .expect("a chain")
        .entries
}

fn read(diary: &Diary, from: u64, limit: usize) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    let entries = runtime.block_on(diary.read(from, limit)).expect("readable");
    entries.iter().map(|entry| entry.sequence).collect()
}

#[test]
fn what_was_answered_is_on_disk_and_the_chain_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    for start in 0..3_u64 {
        let diary = Diary::open(dir.path()).expect("a thread");
        for n in 0..5 {
            let written = add(&diary, n);
            assert_eq!(written.not_durable, "");
            assert_eq!(written.head, Some(diary.head()));
            assert_eq!(entries(dir.path()), start * 5 + n + 1, "read while it is written");
        }
        assert_eq!(
            read(&diary, 4, 3),
            if start == 0 { vec![4, 5] } else { vec![4, 5, 6] }
        );
    }
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let dir = tempfile::tempdir().expect("temp dir");
    let diary = Diary::open(dir.path()).expect("a thread");
    add(&diary, 1);
    let one = fs::read(dir.path().join("diary")).expect("there");
    add(&diary, 2);
    let two = fs::read(dir.path().join("diary")).expect("there");
    drop(diary);
    for cut in one.len()..two.len() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("diary"), &two[..cut]).expect("writable");
        let diary = Diary::open(dir.path()).expect("a thread");
        assert_eq!(diary.head().sequence, 1, "cut at {cut}");
        assert_eq!(add(&diary, 3).not_durable, "");
        assert_eq!(entries(dir.path()), 2);
    }
}

#[test]
fn a_broken_chain_is_set_aside_and_the_new_one_says_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    let diary = Diary::open(dir.path()).expect("a thread");
    for n in 0..4 {
        add(&diary, n);
    }
    drop(diary);
    let path = dir.path().join("diary");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, text.replace("reason 1", "reason 7")).expect("writable");
    let diary = Diary::open(dir.path()).expect("a thread");
    add(&diary, 9);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    let first = runtime.block_on(diary.read(1, 10)).expect("readable");
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].said.action, "diary-lost");
    assert!(
        first[0].said.detail.contains("was edited"),
        "{}",
        first[0].said.detail
    );
    assert!(dir.path().join("diary.broken-1").exists());
}

#[test]
fn a_disk_that_refuses_is_said_and_what_waited_follows() {
    let dir = tempfile::tempdir().expect("temp dir");
    let missing = dir.path().join("not-there-yet");
    let diary = Diary::open(&missing).expect("a thread");
    for n in 0..3 {
        let written = add(&diary, n);
        assert!(
            written.head.is_some() && !written.not_durable.is_empty(),
            "{written:?}"
        );
    }
    assert_eq!(read(&diary, 1, 10), [1, 2, 3], "what waits is shown");
    assert!(diary.trouble().contains("not-there-yet"));
    fs::create_dir(&missing).expect("writable");
    assert_eq!(add(&diary, 3).not_durable, "");
    assert_eq!((entries(&missing), diary.trouble().as_str()), (4, ""));
}

#[test]
fn refusals_do_not_crowd_out_what_was_done() {
    let dir = tempfile::tempdir().expect("temp dir");
    let diary = Diary::open(dir.path()).expect("a thread");
    add(&diary, 1);
    let len = fs::metadata(dir.path().join("diary")).expect("there").len();
    let head = Head::GENESIS;
    // A chain of the size at which refusals end, written at once.
    let mut text = Vec::new();
    let mut last = head;
    let wide = |n| Draft {
        detail: "d".repeat(4_000),
        ..draft(n, Outcome::Refused)
    };
    while (text.len() as u64) < REFUSALS_UNTIL {
        let entry = audit::seal(&last, wide(last.sequence));
        last = entry.head();
        audit::lines::write(&mut text, &entry).expect("memory");
    }
    drop(diary);
    fs::write(dir.path().join("diary"), text).expect("writable");
    let diary = Diary::open(dir.path()).expect("a thread");
    assert_eq!(diary.head(), last);
    let refused = diary
        .write(draft(1, Outcome::Refused))
        .blocking_recv()
        .expect("answered");
    assert!(
        refused.head.is_none() && refused.not_durable.contains("full"),
        "{refused:?}"
    );
    assert_eq!(add(&diary, 2).not_durable, "");
    assert!(len > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn opening_a_diary_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), lines in 0usize..3) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut text = Vec::new();
        let mut head = Head::GENESIS;
        for n in 0..lines {
            let entry = audit::seal(&head, draft(n as u64, Outcome::Done));
            head = entry.head();
            audit::lines::write(&mut text, &entry).expect("memory");
        }
        text.extend(bytes);
        fs::write(dir.path().join("diary"), text).expect("writable");
        let diary = Diary::open(dir.path()).expect("a thread");
        prop_assert_eq!(add(&diary, 1).not_durable, "");
        prop_assert!(entries(dir.path()) >= 1);
    }
}
