//! A hash and a head: how they look as text.

use std::fmt;
use std::str::FromStr;

/// SHA-256 of an entry; as text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

/// Why something is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not 32 bytes.
    #[error("hash is {0} bytes long, expected 32")]
    Length(usize),
    /// Not 64 lower-case hexadecimal digits.
    #[error("hash {0:?} is malformed: expected 64 lower-case hexadecimal digits")]
    Text(
        /// What was given, cut to 80 characters.
        String,
    ),
}

impl Hash {
    /// What the first entry names as the one before.
    pub const ZERO: Hash = Hash([0; 32]);

    /// Wraps bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = HashError;
    fn try_from(bytes: &[u8]) -> Result<Hash, HashError> {
        bytes
            .try_into()
            .map(Hash)
            .map_err(|_| HashError::Length(bytes.len()))
    }
}

impl FromStr for Hash {
    type Err = HashError;
    fn from_str(text: &str) -> Result<Hash, HashError> {
        let malformed = || HashError::Text(text.chars().take(80).collect());
        let digit = |b: u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(malformed()),
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(malformed());
        };
        if pairs.len() != 32 {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Hash(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Where a chain stands: its last entry. As text `42:HASH`, which is what a witness keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Sequence of the last entry; 0: none yet.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Why a text is not a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not `SEQUENCE:HASH`.
    #[error("audit head {0:?} is malformed: expected SEQUENCE:HASH")]
    Form(
        /// What was given, cut to 80 characters.
        String,
    ),
    /// The part after the colon.
    #[error("audit head")]
    Hash(#[from] HashError),
}

impl Head {
    /// Of a chain without entries.
    pub const GENESIS: Head = Head {
        sequence: 0,
        hash: Hash::ZERO,
    };
}

impl Default for Head {
    fn default() -> Head {
        Head::GENESIS
    }
}

impl FromStr for Head {
    type Err = HeadError;
    fn from_str(text: &str) -> Result<Head, HeadError> {
        let form = || HeadError::Form(text.chars().take(80).collect());
        let (sequence, hash) = text.split_once(':').ok_or_else(form)?;
        // `parse` alone would take a sign.
        if !sequence.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        Ok(Head {
            sequence: sequence.parse().map_err(|_| form())?,
            hash: hash.parse()?,
        })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_prints_what_it_parses() {
        let text = format!("42:{}", "0123456789abcdef".repeat(4));
        assert_eq!(text.parse::<Head>().expect("valid").to_string(), text);
        assert_eq!(Head::GENESIS.to_string(), format!("0:{}", "0".repeat(64)));
    }

    #[test]
    fn anything_else_is_refused() {
        let hash = "0".repeat(64);
        for bad in [
            String::new(),
            hash.clone(),
            format!(":{hash}"),
            format!("+1:{hash}"),
            format!("-1:{hash}"),
            format!("18446744073709551616:{hash}"),
            format!("1:{hash}0"),
            format!("1:{}", &hash[1..]),
            format!("1:{}A", &hash[1..]),
            format!("1:{}é", &hash[2..]),
        ] {
            assert!(bad.parse::<Head>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(
            Hash::try_from([0u8; 31].as_slice())
                .expect_err("short")
                .to_string(),
            "hash is 31 bytes long, expected 32"
        );
    }
}
