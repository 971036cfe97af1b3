//! Crashes at every byte, flipped bits, missing ends, full disks.

use proptest::prelude::*;
use proto::{Hold, HoldId, HoldKind, Role, Scope, Version};

use super::*;

const SLOT: usize = 64 << 10;

fn state(epoch: u64) -> State {
    let mut state = State::default();
    state
        .witness(Version {
            incarnation: 1,
            epoch,
        })
        .expect("rising");
    let hold = Hold {
        id: HoldId::from_uuid(uuid::Uuid::from_u128(u128::from(epoch))),
        slice: Some("a_b".parse().expect("valid")),
        scope: Scope::Fleet,
        kind: HoldKind::Suspend,
        holder: "alice".parse().expect("valid"),
        role: Role::Support,
        reason: "x".repeat(epoch as usize * 7),
        evidence: String::new(),
        set_at_ms: 0,
        version: Version {
            incarnation: 1,
            epoch,
        },
    };
    state.holds.impose(hold).expect("fits");
    state
}

/// A directory whose file holds `state(1)` and then, in both copies, `state(2)`.
fn settled() -> (tempfile::TempDir, StateFile) {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut file = StateFile::create(dir.path(), SLOT, &state(1).encode()).expect("writable");
    file.write(&state(2).encode()).expect("writable");
    file.finish().expect("writable");
    (dir, file)
}

fn reload(dir: &Path) -> Loaded {
    load(dir, SLOT, 7)
}

#[test]
fn a_first_start_is_an_empty_set_with_the_space_really_taken() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().expect("temp dir");
    let loaded = reload(dir.path());
    assert_eq!((loaded.state, loaded.note), (State::default(), None));
    let data = loaded.file.expect("writable").file.metadata().expect("open");
    assert_eq!(data.len(), 2 * SLOT as u64);
    assert!(
        data.blocks() * 512 >= 2 * SLOT as u64,
        "only {} blocks",
        data.blocks()
    );
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_crash_at_any_byte_leaves_the_old_or_the_new_state() {
    let (dir, mut file) = settled();
    let path = dir.path().join(NAME);
    let before = fs::read(&path).expect("readable");
    file.write(&state(3).encode()).expect("writable");
    let first = fs::read(&path).expect("readable");
    file.finish().expect("writable");
    let second = fs::read(&path).expect("readable");
    let len = HEADER + state(3).encode().len();
    assert_ne!(before[..SLOT], first[..SLOT], "copy A is written first");
    assert_eq!(before[SLOT..], first[SLOT..], "copy B waits");

    for cut in 0..=len {
        // The bytes before the cut reached the disk, those after it did not; and the other way round.
        let mut torn = before.clone();
        torn[..cut].copy_from_slice(&first[..cut]);
        fs::write(&path, &torn).expect("writable");
        let got = reload(dir.path()).state;
        assert_eq!(
            got,
            if cut == len { state(3) } else { state(2) },
            "copy A torn at {cut}"
        );

        let mut torn = first.clone();
        torn[SLOT..SLOT + cut].copy_from_slice(&second[SLOT..SLOT + cut]);
        fs::write(&path, &torn).expect("writable");
        assert_eq!(reload(dir.path()).state, state(3), "copy B torn at {cut}");
        assert_eq!(
            fs::read(&path).expect("readable"),
            second,
            "the torn copy is rewritten"
        );
    }
}

#[test]
fn a_write_never_goes_into_the_only_good_copy() {
    let (dir, mut file) = settled();
    // Copy B could not follow: A alone holds state 3.
    file.write(&state(3).encode()).expect("writable");
    assert_eq!(file.good, [Some(3), Some(2)]);
    let a = fs::read(dir.path().join(NAME)).expect("readable")[..SLOT].to_vec();
    file.write(&state(4).encode()).expect("writable");
    assert_eq!(
        fs::read(dir.path().join(NAME)).expect("readable")[..SLOT],
        a[..],
        "A was not touched"
    );
    assert_eq!(reload(dir.path()).state, state(4));
}

#[test]
fn a_flipped_bit_in_one_copy_costs_nothing() {
    let (dir, _file) = settled();
    let path = dir.path().join(NAME);
    let good = fs::read(&path).expect("readable");
    let len = HEADER + state(2).encode().len();
    for at in (0..len).chain(SLOT..SLOT + len) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).expect("writable");
        let loaded = reload(dir.path());
        assert_eq!(loaded.state, state(2), "bit at {at}");
        // The last word of the header is not used.
        assert_eq!(
            loaded.note.is_some(),
            at % SLOT < HEADER - 4 || at % SLOT >= HEADER,
            "bit at {at}"
        );
    }
}

#[test]
fn when_both_copies_are_broken_nothing_may_start_and_the_file_is_kept() {
    let (dir, _file) = settled();
    let path = dir.path().join(NAME);
    let mut bad = fs::read(&path).expect("readable");
    bad[HEADER] ^= 1;
    bad[SLOT + HEADER] ^= 1;
    fs::write(&path, &bad).expect("writable");
    let loaded = reload(dir.path());
    assert!(
        loaded.state.locked.contains("corrupt: copy A: checksum"),
        "{}",
        loaded.state.locked
    );
    assert!(
        loaded.state.next_uid > super::super::FIRST_UID,
        "the lost uids are not given to others"
    );
    assert_eq!(fs::read(dir.path().join("holds.corrupt-1")).expect("kept"), bad);
    let again = reload(dir.path());
    assert_eq!(again.state, loaded.state, "still locked after a restart");
    assert!(!dir.path().join("holds.corrupt-2").exists());
}

#[test]
fn a_missing_end_keeps_copy_a_and_an_empty_file_is_corrupt() {
    let (dir, _file) = settled();
    let path = dir.path().join(NAME);
    let good = fs::read(&path).expect("readable");
    let len = HEADER + state(2).encode().len();
    for keep in [
        len,
        len + 1,
        SLOT - 1,
        SLOT,
        SLOT + HEADER,
        SLOT + len - 1,
        2 * SLOT - 1,
    ] {
        fs::write(&path, &good[..keep]).expect("writable");
        let loaded = reload(dir.path());
        assert_eq!(loaded.state, state(2), "{keep} bytes kept");
        assert_eq!(fs::read(&path).expect("readable").len(), 2 * SLOT);
    }
    for keep in [0, 1, HEADER - 1, HEADER, len - 1] {
        fs::write(&path, &good[..keep]).expect("writable");
        let loaded = reload(dir.path());
        assert!(!loaded.state.locked.is_empty(), "{keep} bytes kept");
        assert!(loaded.state.holds.is_empty());
    }
    assert!(dir.path().join("holds.corrupt-5").exists());
}

#[test]
fn asides_are_bounded() {
    let dir = tempfile::tempdir().expect("temp dir");
    for _ in 0..15 {
        fs::write(dir.path().join(NAME), b"rubbish").expect("writable");
        assert!(!reload(dir.path()).state.locked.is_empty());
    }
    let asides = fs::read_dir(dir.path()).expect("readable").count() - 1;
    assert_eq!(asides, ASIDE_KEPT as usize);
}

#[test]
fn another_configured_size_keeps_the_state() {
    let (dir, mut file) = settled();
    file.write(&state(3).encode()).expect("writable");
    let bigger = load(dir.path(), 2 * SLOT, 7);
    assert_eq!(bigger.state, state(3));
    assert_eq!(
        fs::metadata(dir.path().join(NAME)).expect("there").len(),
        4 * SLOT as u64
    );
    let smaller = load(dir.path(), SLOT, 7);
    assert_eq!(smaller.state, state(3));
    assert!(smaller.file.is_ok());
}

#[test]
fn a_state_that_outgrows_its_copy_is_refused_and_the_old_one_stands() {
    let (dir, mut file) = settled();
    let error = file.write(&vec![0; SLOT]).expect_err("too big");
    assert!(matches!(error, FileError::Full { slot: SLOT, .. }), "{error}");
    assert_eq!(reload(dir.path()).state, state(2));
}

#[test]
fn a_newer_format_locks_rather_than_guesses() {
    let (dir, _file) = settled();
    let path = dir.path().join(NAME);
    let mut newer = fs::read(&path).expect("readable");
    (newer[8], newer[SLOT + 8]) = (3, 3);
    fs::write(&path, &newer).expect("writable");
    assert!(
        reload(dir.path())
            .state
            .locked
            .contains("format 3, this program reads 1 to 2")
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_said_and_does_not_stop_us() {
    let loaded = load(Path::new("/proc/self/no-such-directory"), SLOT, 7);
    assert!(loaded.file.is_err());
    assert_eq!(loaded.state, State::default());
}

#[test]
fn a_full_disk_cannot_stop_a_write() {
    let Some(disk) = crate::testing::SmallDisk::new(1 << 20) else {
        return;
    };
    let mut file = StateFile::create(disk.path(), SLOT, &state(1).encode()).expect("room at first");
    disk.fill();
    file.write(&state(2).encode())
        .expect("the space was taken before");
    file.finish().expect("the space was taken before");
    assert_eq!(reload(disk.path()).state, state(2));
    let error = StateFile::create(disk.path(), SLOT, &state(3).encode()).expect_err("full");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(reload(disk.path()).state, state(2), "the old file still stands");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Rubbish in, no panic, and never a state that was not written.
    #[test]
    fn arbitrary_bytes_never_become_a_state(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(choose(&bytes, SLOT).is_err());
        prop_assert!(choose(&bytes, 1024).is_err());
    }

    /// Damage to real images: what comes out is one of the states that were written, or nothing.
    #[test]
    fn damaged_images_give_a_written_state_or_none(
        damage in prop::collection::vec((0..2usize, 0..600usize, any::<u8>()), 1..8),
        cut in 0..3000usize,
    ) {
        let slot = 1024;
        let mut image = frame(5, &state(2).encode());
        image.resize(slot, 0);
        image.extend(frame(4, &state(1).encode()));
        image.resize(2 * slot, 0);
        for (copy, at, byte) in damage {
            image[copy * slot + at] = byte;
        }
        image.truncate(cut);
        if let Ok(found) = choose(&image, slot) {
            prop_assert!(found.state == state(2) || found.state == state(1), "{:?}", found.state);
        }
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = State::decode(&bytes);
    }
}

/// One copy of a file of format 1, as the program wrote it that knew no other. Do not change this test: nodes have
/// such files.
const FORMAT_1: &str = "5242484f4c44530a010000006e0000000500000000000000b962ef27000000000a040801100312570a24303030303030\
    30302d303030302d303030302d303030302d3030303030303030303030331203615f621a02080120022a05616c696365\
    30043a157878787878787878787878787878787878787878785204080110031a090a03615f621080897a2081897a";

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

#[test]
fn a_file_of_format_1_is_read_and_written_again_as_2() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join(NAME);
    let copy = bytes_of(FORMAT_1);
    let mut image = vec![0; 2 * SLOT];
    image[..copy.len()].copy_from_slice(&copy);
    image[SLOT..SLOT + copy.len()].copy_from_slice(&copy);
    fs::write(&path, &image).expect("writable");
    let expected = {
        let mut state = state(3);
        state.uid(&"a_b".parse().expect("valid")).expect("plenty");
        state
    };
    let loaded = reload(dir.path());
    assert_eq!(loaded.state, expected);
    assert!(loaded.note.expect("said").ends_with("format 1, now 2"));
    let now = fs::read(&path).expect("readable");
    assert_eq!((now.len(), now[8], now[SLOT + 8]), (2 * SLOT, 2, 2));
    let again = reload(dir.path());
    assert_eq!((again.state, again.note), (expected.clone(), None));

    // Torn in the middle of it: one copy of each format, whichever came first.
    for (keep, other) in [(0, SLOT), (SLOT, 0)] {
        let mut torn = image.clone();
        torn[keep..keep + SLOT].copy_from_slice(&now[keep..keep + SLOT]);
        torn[other + HEADER] ^= 1;
        fs::write(&path, &torn).expect("writable");
        assert_eq!(reload(dir.path()).state, expected);
    }
}
