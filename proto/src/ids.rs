//! Identifiers and their grammar. Each parses from text, prints the same text, and says what is wrong.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// The kind of identifier.
        what: &'static str,
    },
    /// Longer than the grammar allows.
    #[error("{what} is {len} bytes long, at most {max} are allowed")]
    TooLong {
        /// The kind of identifier.
        what: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Does not follow the grammar.
    #[error("{what} {got:?} is malformed: expected {expected}")]
    Malformed {
        /// The kind of identifier.
        what: &'static str,
        /// What was given, cut to 80 characters.
        got: String,
        /// The grammar, for people.
        expected: &'static str,
    },
}

fn malformed(what: &'static str, got: &str, expected: &'static str) -> IdError {
    IdError::Malformed {
        what,
        got: got.chars().take(80).collect(),
        expected,
    }
}

fn bounded(what: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    match text.len() {
        0 => Err(IdError::Empty { what }),
        len if len > max => Err(IdError::TooLong { what, len, max }),
        _ => Ok(()),
    }
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                bounded($what, text, $max)?;
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(malformed($what, text, $expected)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_id!(
    /// A slice, `site_name`: `princeton_codeen`. The part before the first `_` is the site's login base.
    SliceName, "slice name", 63, "site_name of lower-case letters, digits and underscores",
    |text| match text.split_once('_') {
        Some((site, rest)) => {
            !site.is_empty()
                && !rest.is_empty()
                && site.bytes().all(lower_or_digit)
                && rest.bytes().all(|b| lower_or_digit(b) || b == b'_')
        }
        None => false,
    }
);

impl SliceName {
    /// The login base of the site that the slice belongs to.
    #[must_use]
    pub fn site(&self) -> SiteName {
        let base = self.0.split('_').next().unwrap_or_default();
        SiteName(base.into())
    }
}

text_id!(
    /// A site's login base: `princeton`.
    SiteName, "site name", 61, "lower-case letters and digits",
    |text| text.bytes().all(lower_or_digit)
);

text_id!(
    /// A person: `alice`, `robert.adams`.
    PersonName, "person name", 63, "a lower-case letter, then lower-case letters, digits, dots or hyphens",
    |text| text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(|b| lower_or_digit(b) || b == b'.' || b == b'-')
);

text_id!(
    /// A node's name, as in DNS: `planetlab-1.cs.princeton.edu`.
    NodeName, "node name", 253, "labels of lower-case letters, digits and hyphens, joined by dots",
    |text| text.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| lower_or_digit(b) || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    }) && Uuid::try_parse(text).is_err()
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that was made elsewhere.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            #[must_use]
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                bounded($what, text, 36)?;
                match Uuid::try_parse(text) {
                    Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
                    _ => Err(malformed($what, text, "a UUID of 36 characters")),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hyphenated())
            }
        }
    };
}

uuid_id!(
    /// One Linux machine, for as long as it is enrolled.
    NodeId, "node id"
);
uuid_id!(
    /// What somebody asked for.
    OrderId, "order id"
);
uuid_id!(
    /// One reason why something may not run.
    HoldId, "hold id"
);
uuid_id!(
    /// What waits for a second person.
    ProposalId, "proposal id"
);
uuid_id!(
    /// A one-time invite of a person, or join token of a node.
    InviteId, "invite id"
);
uuid_id!(
    /// `/proc/sys/kernel/random/boot_id`: another one after every boot.
    BootId, "boot id"
);

impl NodeId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl InviteId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl OrderId {
    /// A new id; later ids sort after earlier ones.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for OrderId {
    fn default() -> Self {
        Self::new()
    }
}

impl HoldId {
    /// A new id; later ids sort after earlier ones.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl ProposalId {
    /// A new id; later ids sort after earlier ones.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for ProposalId {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for HoldId {
    fn default() -> Self {
        Self::new()
    }
}

/// The controller's clock of decisions: ordered by incarnation, then epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// One for each life of the database.
    pub incarnation: u64,
    /// Rises with every decision.
    pub epoch: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slice_names_follow_the_grammar() {
        for good in ["princeton_codeen", "a_b", "p2_a_b_c", "0_0"] {
            assert_eq!(good.parse::<SliceName>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            "princeton",
            "_x",
            "x_",
            "Princeton_x",
            "a-b_c",
            "a_b/../c",
            "a_b\n",
            "ä_b",
        ] {
            assert!(bad.parse::<SliceName>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(
            "princeton_a_b"
                .parse::<SliceName>()
                .expect("valid")
                .site()
                .as_str(),
            "princeton"
        );
    }

    #[test]
    fn errors_name_the_thing() {
        let long = format!("a_{}", "b".repeat(62));
        assert_eq!(
            long.parse::<SliceName>().expect_err("too long").to_string(),
            "slice name is 64 bytes long, at most 63 are allowed"
        );
        assert_eq!(
            "Codeen".parse::<SliceName>().expect_err("malformed").to_string(),
            "slice name \"Codeen\" is malformed: expected site_name of lower-case letters, digits and underscores"
        );
        assert_eq!(
            "".parse::<NodeId>().expect_err("empty").to_string(),
            "node id is empty"
        );
    }

    #[test]
    fn a_node_name_is_never_a_node_id() {
        assert!(
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
                .parse::<NodeName>()
                .is_err()
        );
        assert!("6ba7b8109dad11d180b400c04fd430c8".parse::<NodeName>().is_err());
        assert!("planetlab-1.cs.princeton.edu".parse::<NodeName>().is_ok());
        for bad in ["-a", "a-", "a..b", "a.", ".", "A"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn uuids_have_one_spelling() {
        assert!("6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse::<NodeId>().is_ok());
        assert!("6ba7b8109dad11d180b400c04fd430c8".parse::<NodeId>().is_err());
        assert!(
            "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}"
                .parse::<NodeId>()
                .is_err()
        );
    }

    proptest! {
        /// The hand-written check is the regular expression of DESIGN.md, `^[a-z0-9]+_[a-z0-9_]+$`.
        #[test]
        fn slice_grammar_is_the_regular_expression(text in "[a-z0-9_A-Z/.]{0,70}") {
            let naive = text.len() <= 63 && text.find('_').is_some_and(|at| {
                at > 0 && at + 1 < text.len()
                    && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
            });
            prop_assert_eq!(text.parse::<SliceName>().is_ok(), naive);
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<SliceName>().map(|s| s.site());
            let _ = text.parse::<SiteName>();
            let _ = text.parse::<PersonName>();
            let _ = text.parse::<NodeName>();
            let _ = text.parse::<NodeId>();
        }
    }
}
