//! Bytes under a passphrase.
//!
//! ```text
//! "RBKIT\n" │ version 1 │ memory KiB u32 │ passes u32 │ lanes u32 │ salt 16 │ nonce 12 │ ciphertext │ tag 16
//! └──────────────────────── authenticated with the ciphertext ────────────────────────┘
//! ```
//! Big-endian. Argon2id version 0x13 (RFC 9106) makes the key, AES-256-GCM seals. The parameters stand in the file
//! so that they can be raised; a reader takes none that would take its machine. Not the age format: its crate
//! brings a hundred others, translations among them; this is two primitives that everybody has.
//! The version is that of the layout; readers refuse another one.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::Passphrase;

const MAGIC: &[u8; 6] = b"RBKIT\n";
const VERSION: u8 = 1;
const SALT: usize = 16;
const HEADER: usize = MAGIC.len() + 1 + 3 * 4 + SALT + NONCE_LEN;

/// What making the key costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    /// KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

/// RFC 9106, section 4, the second recommended option: for a laptop.
const COST: Cost = Cost {
    memory: 64 << 10,
    passes: 3,
    lanes: 4,
};
/// More than that no honest file asks for.
const MOST: Cost = Cost {
    memory: 1 << 20,
    passes: 16,
    lanes: 16,
};

/// Why bytes are not sealed or opened. Says nothing of what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealedError {
    #[error("it is no kit, or cut off")]
    Malformed,
    #[error("it has version {0} of the file format, this program reads {VERSION}")]
    Version(u8),
    #[error("the passphrase is wrong, or the file was changed")]
    Wrong,
    #[error("it cannot be sealed: no randomness or no memory")]
    Seal,
}

fn key(passphrase: &Passphrase, salt: &[u8], cost: Cost) -> Option<LessSafeKey> {
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).ok()?;
    let mut key = Zeroizing::new([0_u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose(), salt, &mut *key)
        .ok()?;
    UnboundKey::new(&AES_256_GCM, &*key).map(LessSafeKey::new).ok()
}

pub(super) fn seal(plain: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>, SealedError> {
    let mut salt = [0; SALT];
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut salt).map_err(|_| SealedError::Seal)?;
    rand::fill(&mut nonce).map_err(|_| SealedError::Seal)?;
    let mut header = Vec::with_capacity(HEADER + plain.len() + 16);
    header.extend_from_slice(MAGIC);
    header.push(VERSION);
    for number in [COST.memory, COST.passes, COST.lanes] {
        header.extend_from_slice(&number.to_be_bytes());
    }
    header.extend_from_slice(&salt);
    header.extend_from_slice(&nonce);
    let key = key(passphrase, &salt, COST).ok_or(SealedError::Seal)?;
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(&header[..]),
        &mut sealed,
    )
    .map_err(|_| SealedError::Seal)?;
    header.append(&mut sealed);
    Ok(header)
}

/// The parts of a file: cost, salt, nonce, and where the ciphertext begins.
fn parts(bytes: &[u8]) -> Result<(Cost, [u8; SALT], [u8; NONCE_LEN]), SealedError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(SealedError::Malformed)?;
    let (version, rest) = rest.split_first().ok_or(SealedError::Malformed)?;
    if *version != VERSION {
        return Err(SealedError::Version(*version));
    }
    let mut numbers = [0_u32; 3];
    let mut rest = rest;
    for number in &mut numbers {
        let (four, after) = rest.split_first_chunk::<4>().ok_or(SealedError::Malformed)?;
        *number = u32::from_be_bytes(*four);
        rest = after;
    }
    let (salt, rest) = rest.split_first_chunk::<SALT>().ok_or(SealedError::Malformed)?;
    let (nonce, _) = rest
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(SealedError::Malformed)?;
    let [memory, passes, lanes] = numbers;
    let cost = Cost {
        memory,
        passes,
        lanes,
    };
    if memory > MOST.memory || passes > MOST.passes || lanes > MOST.lanes {
        return Err(SealedError::Malformed);
    }
    Ok((cost, *salt, *nonce))
}

pub(super) fn open(bytes: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, SealedError> {
    let (cost, salt, nonce) = parts(bytes)?;
    let key = key(passphrase, &salt, cost).ok_or(SealedError::Malformed)?;
    let (header, sealed) = bytes.split_at(HEADER);
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let plain = key
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(header),
            &mut sealed,
        )
        .map_err(|_| SealedError::Wrong)?
        .len();
    sealed.truncate(plain);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_passphrase_opens_it_and_only_unchanged() {
        let (right, wrong) = (
            Passphrase::new("correct horse battery"),
            Passphrase::new("correct horse battery "),
        );
        let sealed = seal(b"where the nodes are", &right).expect("sealed");
        assert!(!sealed.windows(5).any(|window| window == b"where"));
        assert_eq!(&**open(&sealed, &right).expect("opened"), b"where the nodes are");
        assert_eq!(open(&sealed, &wrong).expect_err("wrong"), SealedError::Wrong);
        for at in [HEADER - 1, HEADER, sealed.len() - 1, MAGIC.len() + 13] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(
                open(&changed, &right).expect_err("changed"),
                SealedError::Wrong,
                "at {at}"
            );
        }
        let mut newer = sealed.clone();
        newer[MAGIC.len()] = 2;
        assert_eq!(open(&newer, &right).expect_err("newer"), SealedError::Version(2));
        assert_eq!(
            open(&sealed[..HEADER - 1], &right).expect_err("cut"),
            SealedError::Malformed
        );
        assert_eq!(
            open(&sealed[..sealed.len() - 1], &right).expect_err("cut"),
            SealedError::Wrong
        );
    }

    #[test]
    fn a_file_that_asks_for_the_whole_machine_is_refused() {
        let passphrase = Passphrase::new("correct horse battery");
        let mut sealed = seal(b"x", &passphrase).expect("sealed");
        sealed[MAGIC.len() + 1] = 0xff;
        assert_eq!(
            open(&sealed, &passphrase).expect_err("4 TiB"),
            SealedError::Malformed
        );
    }

    proptest! {
        #[test]
        fn reading_a_kit_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), whole in any::<bool>()) {
            let mut file = Vec::new();
            if whole {
                file.extend_from_slice(MAGIC);
                file.push(VERSION);
            }
            file.extend(bytes);
            let _ = parts(&file);
        }
    }
}
