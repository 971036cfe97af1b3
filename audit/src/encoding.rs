//! The bytes under the hash. An entry's hash is SHA-256 over these, one after the other, integers big-endian:
//!
//! | field | bytes |
//! |---|---|
//! | domain | the 21 ASCII bytes `redbutton audit entry`, then one byte 0 |
//! | encoding version | one byte: 1 |
//! | sequence | u64 |
//! | previous | the 32 bytes of the hash of the entry before; zeros in entry 1 |
//! | at_ms | i64, two's complement, milliseconds since 1970 |
//! | incarnation, epoch | u64, u64 |
//! | person, role, action, target, reason, evidence, outcome, detail, order | each: u32 length in bytes, then that many bytes of UTF-8 |
//!
//! Absent (person, role, order) is the empty text; none of the three can be empty otherwise. Roles are
//! `developer`, `pi`, `site-admin`, `support`; outcomes `allowed`, `refused`, `failed`, `done`; an order is a
//! UUID, 36 characters, lower case. The file's fields (`lines.rs`) have the same names, so that a dozen lines of
//! any language recompute it; `tests/golden.rs` has hashes made by another program.
//!
//! Versioning: entries are never encoded again, so an encoding is never changed. A new field makes version 2,
//! which starts at an entry and is tried where version 1 does not match.

use proto::Role;
use sha2::{Digest, Sha256};

use crate::entry::{Draft, Outcome};
use crate::hash::Hash;

const DOMAIN: &[u8] = b"redbutton audit entry\0";
const VERSION: u8 = 1;

pub(crate) fn hash(sequence: u64, previous: &Hash, said: &Draft) -> Hash {
    // Exhaustive: a new field cannot be forgotten here.
    let Draft {
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
    } = said;
    let order = order.map(|order| order.to_string()).unwrap_or_default();

    let mut sha = Sha256::new();
    sha.update(DOMAIN);
    sha.update([VERSION]);
    sha.update(sequence.to_be_bytes());
    sha.update(previous.as_bytes());
    sha.update(at_ms.to_be_bytes());
    sha.update(version.incarnation.to_be_bytes());
    sha.update(version.epoch.to_be_bytes());
    for text in [
        person.as_ref().map_or("", |person| person.as_str()),
        role.map_or("", Role::as_str),
        action,
        target,
        reason,
        evidence,
        Outcome::as_str(*outcome),
        detail,
        &order,
    ] {
        // Texts are at most kilobytes: sealed ones are cut, read ones come from bounded lines and messages. A
        // longer one than u32 can say gets a length that no honest encoder writes.
        sha.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        sha.update(text.as_bytes());
    }
    Hash::new(sha.finalize().into())
}
