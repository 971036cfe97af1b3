//! What we print, as structs of our own. `--json` prints exactly these: keys are stable, ids are strings, enums
//! are lower-case words, what is absent is null. Unknown enum numbers (a newer controller) become `unknown`.

pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod hold;
pub(crate) mod keys;
pub(crate) mod node;
pub(crate) mod order;
pub(crate) mod people;
pub(crate) mod rollout;
pub(crate) mod site;
pub(crate) mod slice;

use serde::Serialize;

/// An enum of the wire, as words: `text` for people, serde's for programs.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident from $wire:path { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$vdoc])* $variant,)*
            /// Unspecified, or newer than this program.
            Unknown,
        }

        impl $name {
            /// From the number on the wire.
            pub(crate) fn from_wire(number: i32) -> Self {
                match <$wire>::try_from(number) {
                    $(Ok(<$wire>::$variant) => $name::$variant,)*
                    _ => $name::Unknown,
                }
            }

            /// For people.
            pub(crate) const fn text(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                    $name::Unknown => "unknown",
                }
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The four classes of people.
    Role from proto::v1::Role {
        Developer = "developer",
        Pi = "PI",
        SiteAdmin = "site admin",
        Support = "support",
    }
}

/// (incarnation, epoch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Version {
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
}

impl Version {
    pub(crate) fn text(self) -> String {
        format!("{}.{}", self.incarnation, self.epoch)
    }
}

impl From<proto::v1::Version> for Version {
    fn from(wire: proto::v1::Version) -> Self {
        let proto::v1::Version { incarnation, epoch } = wire;
        Self { incarnation, epoch }
    }
}

/// Empty on the wire is absent here.
pub(crate) fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
