//! Secrets at rest: sealed files, and the key that seals them.
//!
//! ```text
//!   $CREDENTIALS_DIRECTORY/redbutton-seal (systemd; by systemd-creds also bound to the TPM)
//!   or else DIR/seal.key, mode 0600 ─▶ SealingKey ─HKDF─▶ AES-256-GCM
//!   file: "RBSEAL" ‖ version ‖ key id (8) ‖ length ‖ purpose ‖ nonce (12) ‖ ciphertext ‖ tag (16)
//!         └──────────── all of it before the ciphertext is authenticated with it ────────────┘   (as hexadecimal text)
//! ```
//! Invariants: a sealed file opens only under its own key and for its own purpose, whole and unchanged; nothing of
//! key or plaintext is ever in an error or in `Debug`; what is replaced is replaced whole.
//!
//! What it does not do: hide anything from root on the machine while the controller runs, nor from whoever has both
//! the directory and `seal.key`: a file beside what it seals protects copies that leave it out (backups do), and a
//! stolen disk only with a credential.
//!
//! The version is that of the layout above; readers refuse any other.

mod key;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroize;

pub use key::{CREDENTIAL, KeySource, SealingKey};

use crate::pki::FileError;

const MAGIC: &[u8; 6] = b"RBSEAL";
const VERSION: u8 = 1;
const ID: usize = 8;
const TAG: usize = 16;
/// Bytes in a line of the text form.
const LINE: usize = 32;
/// Longest plaintext.
const MAX: usize = 1 << 20;

/// Why something is not sealed or opened. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key's file.
    #[error("{path}: {message}", path = path.display())]
    Key {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is no key at all.
    #[error(
        "{dir} has no sealing key: neither the systemd credential {CREDENTIAL} (run this where the service runs, or with CREDENTIALS_DIRECTORY set to its credentials) nor {dir}/seal.key",
        dir = dir.display()
    )]
    NoKey {
        /// The state directory.
        dir: std::path::PathBuf,
    },
    /// Not a sealed file.
    #[error("not a sealed file")]
    Form,
    /// Of another layout.
    #[error("sealed in layout {got}, this program reads {VERSION}")]
    Version {
        /// In the file.
        got: u8,
    },
    /// Sealed for something else: files were swapped.
    #[error("sealed as {got:?}, expected {expected:?}")]
    Purpose {
        /// In the file.
        got: String,
        /// What was wanted.
        expected: String,
    },
    /// Sealed under a key that we do not have.
    #[error("sealed under key {got}, we have {have}")]
    OtherKey {
        /// Its id, in the file.
        got: String,
        /// Ids of ours.
        have: String,
    },
    /// Changed or cut.
    #[error("sealed file is damaged or was changed")]
    Damaged,
    /// Longer than anything that we seal.
    #[error("{got} bytes are too many to seal, at most {MAX}")]
    TooLong {
        /// How many.
        got: usize,
    },
    /// The machine gives no random numbers, or the library refuses.
    #[error("encryption failed")]
    Crypto,
}

/// Bytes that are shown to nobody and wiped when dropped.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes them.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("(secret)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SealingKey {
    /// Seals under this key, for one purpose: `pki`. Two seals of the same bytes differ.
    ///
    /// # Errors
    /// When they are too many, or there is no randomness.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        if plain.len() > MAX {
            return Err(SealError::TooLong { got: plain.len() });
        }
        let length = u8::try_from(purpose.len()).map_err(|_| SealError::Form)?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError::Crypto)?;
        let mut sealed = Vec::with_capacity(64 + purpose.len() + plain.len());
        sealed.extend_from_slice(MAGIC);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.id());
        sealed.push(length);
        sealed.extend_from_slice(purpose.as_bytes());
        sealed.extend_from_slice(&nonce);
        let mut secret = plain.to_vec();
        let tag = cipher(self)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&sealed),
                &mut secret,
            )
            .map_err(|_| SealError::Crypto)?;
        sealed.extend_from_slice(&secret);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what was sealed under this key for this purpose.
    ///
    /// # Errors
    /// Says what does not fit, and nothing of the content.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        let header = Header::read(sealed)?;
        if header.key != self.id() {
            return Err(SealError::OtherKey {
                got: hex(&header.key),
                have: hex(&self.id()),
            });
        }
        if header.purpose != purpose.as_bytes() {
            return Err(SealError::Purpose {
                got: String::from_utf8_lossy(header.purpose).into_owned(),
                expected: purpose.to_owned(),
            });
        }
        let mut content = header.content.to_vec();
        let plain = cipher(self)?
            .open_in_place(
                Nonce::assume_unique_for_key(header.nonce),
                Aad::from(header.before),
                &mut content,
            )
            .map_err(|_| SealError::Damaged)?
            .len();
        content.truncate(plain);
        Ok(Secret(content))
    }
}

impl SealingKey {
    /// As [`SealingKey::seal`], as a text: hexadecimal, in lines. What copies a state directory copies texts.
    ///
    /// # Errors
    /// As [`SealingKey::seal`].
    pub fn seal_text(&self, purpose: &str, plain: &[u8]) -> Result<String, SealError> {
        let sealed = self.seal(purpose, plain)?;
        Ok(sealed.chunks(LINE).map(|line| hex(line) + "\n").collect())
    }

    /// As [`SealingKey::open`], of a text.
    ///
    /// # Errors
    /// As [`SealingKey::open`].
    pub fn open_text(&self, purpose: &str, text: &str) -> Result<Secret, SealError> {
        self.open(purpose, &unhex(text).ok_or(SealError::Form)?)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        })
        .collect()
}

/// The id of the key that a file is sealed under, 16 hexadecimal digits.
///
/// # Errors
/// When it is no sealed file.
pub fn sealed_under(text: &str) -> Result<String, SealError> {
    let sealed = unhex(text).ok_or(SealError::Form)?;
    Ok(hex(&Header::read(&sealed)?.key))
}

struct Header<'a> {
    key: [u8; ID],
    purpose: &'a [u8],
    nonce: [u8; NONCE_LEN],
    before: &'a [u8],
    content: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(sealed: &'a [u8]) -> Result<Self, SealError> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::Form)?;
        let (version, rest) = rest.split_first().ok_or(SealError::Form)?;
        if *version != VERSION {
            return Err(SealError::Version { got: *version });
        }
        let (key, rest) = rest.split_first_chunk::<ID>().ok_or(SealError::Form)?;
        let (length, rest) = rest.split_first().ok_or(SealError::Form)?;
        let (purpose, rest) = rest
            .split_at_checked((*length).into())
            .ok_or(SealError::Damaged)?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged)?;
        if content.len() < TAG || content.len() > MAX + TAG {
            return Err(SealError::Damaged);
        }
        Ok(Self {
            key: *key,
            purpose,
            nonce: *nonce,
            before: &sealed[..sealed.len() - content.len()],
            content,
        })
    }
}

fn cipher(key: &SealingKey) -> Result<LessSafeKey, SealError> {
    let secret = key.cipher_key();
    UnboundKey::new(&AES_256_GCM, secret.expose())
        .map(LessSafeKey::new)
        .map_err(|_| SealError::Crypto)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::of_bytes(&[byte; 32], KeySource::File("/x/seal.key".into())).expect("long enough")
    }

    #[test]
    fn only_its_own_key_and_purpose_open_it() {
        let sealed = key(1).seal("pki", b"the root").expect("sealed");
        assert!(!sealed.windows(8).any(|window| window == b"the root"));
        assert_eq!(key(1).open("pki", &sealed).expect("opened").expose(), b"the root");
        assert!(matches!(
            key(2).open("pki", &sealed),
            Err(SealError::OtherKey { .. })
        ));
        assert!(matches!(
            key(1).open("signer", &sealed),
            Err(SealError::Purpose { .. })
        ));
        assert_ne!(
            key(1).seal("pki", b"the root").expect("sealed"),
            sealed,
            "two seals of one text are alike"
        );
        let text = key(1).seal_text("pki", b"the root").expect("sealed");
        assert_eq!(sealed_under(&text).expect("a sealed file").len(), 16);
        let opened = key(1).open_text("pki", &text).expect("opened");
        assert_eq!(opened.expose(), b"the root");
        assert!(matches!(
            key(1).open_text("pki", &text[..9]),
            Err(SealError::Form)
        ));
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let secret = Secret::new(b"very secret".to_vec());
        let shown = format!("{secret:?} {:?} {}", key(0x5a), key(0x5a).source());
        assert!(!shown.contains("very") && !shown.contains("5a5a"), "{shown}");
        let sealed = key(1).seal("pki", b"very secret").expect("sealed");
        for error in [
            key(2).open("pki", &sealed).expect_err("another key"),
            key(1).open("pki", &sealed[..30]).expect_err("cut"),
            key(1).open("other", &sealed).expect_err("another purpose"),
        ] {
            assert!(!format!("{error} {error:?}").contains("very"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), with in 1_u8..) {
            let mut sealed = key(1).seal("pki", b"the root").expect("sealed");
            let at = at.index(sealed.len());
            sealed[at] ^= with;
            prop_assert!(key(1).open("pki", &sealed).is_err());
        }

        #[test]
        fn opening_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
            if prefix {
                let whole = key(1).seal("pki", b"x").expect("sealed");
                let keep = bytes.len() % 40;
                bytes.splice(0..0, whole[..keep.min(whole.len())].iter().copied());
            }
            prop_assert!(key(1).open("pki", &bytes).is_err());
            let _ = sealed_under(&hex(&bytes));
            let _ = sealed_under(&String::from_utf8_lossy(&bytes));
        }
    }
}
