//! Whom a certificate speaks for: one URI among its subject alternative names.

use std::fmt;
use std::str::FromStr;

use crate::{IdError, InviteId, NodeId, PersonName};

/// What a daemon may register as. A stolen key of one role cannot act as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonRole {
    /// `redbutton-nodemgr`, serves `Slivers`.
    NodeManager,
}

impl DaemonRole {
    /// The word in the certificate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DaemonRole::NodeManager => "nodemgr",
        }
    }
}

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// `redbutton://controller`
    Controller,
    /// `redbutton://person/alice`
    Person(PersonName),
    /// `redbutton://breakglass/alice`: alice, at nodes directly and nowhere else.
    Breakglass(PersonName),
    /// `redbutton://node/6ba7b810-…/nodemgr`
    Daemon(NodeId, DaemonRole),
    /// `redbutton://invite/6ba7b810-…`: may have one key certified, once, and nothing else.
    Invite(InviteId),
    /// `redbutton://signer`: makes the controller's statements; no connection is ever its.
    Signer,
}

/// Why a URI names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not one of the forms.
    #[error(
        "certificate name {0:?} is not redbutton://controller, redbutton://person/NAME, redbutton://breakglass/NAME, redbutton://node/UUID/ROLE, redbutton://invite/UUID or redbutton://signer"
    )]
    Form(String),
    /// The right form, a wrong name in it.
    #[error("certificate name {uri:?}")]
    Name {
        /// The whole URI.
        uri: String,
        /// What is wrong with the name.
        #[source]
        source: IdError,
    },
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let shown = || uri.chars().take(120).collect::<String>();
        let form = || IdentityError::Form(shown());
        let name = |source| IdentityError::Name { uri: shown(), source };
        let rest = uri.strip_prefix("redbutton://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let identity = match (parts.next(), parts.next(), parts.next()) {
            (Some("controller"), None, None) => Identity::Controller,
            (Some("signer"), None, None) => Identity::Signer,
            (Some("invite"), Some(invite), None) => Identity::Invite(invite.parse().map_err(name)?),
            (Some("person"), Some(person), None) => Identity::Person(person.parse().map_err(name)?),
            (Some("breakglass"), Some(person), None) => Identity::Breakglass(person.parse().map_err(name)?),
            (Some("node"), Some(node), Some("nodemgr")) => {
                Identity::Daemon(node.parse().map_err(name)?, DaemonRole::NodeManager)
            }
            _ => return Err(form()),
        };
        if parts.next().is_some() {
            Err(form())
        } else {
            Ok(identity)
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Controller => f.write_str("redbutton://controller"),
            Identity::Signer => f.write_str("redbutton://signer"),
            Identity::Invite(invite) => write!(f, "redbutton://invite/{invite}"),
            Identity::Person(name) => write!(f, "redbutton://person/{name}"),
            Identity::Breakglass(name) => write!(f, "redbutton://breakglass/{name}"),
            Identity::Daemon(node, role) => write!(f, "redbutton://node/{node}/{}", role.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_print_what_they_parse() {
        for uri in [
            "redbutton://controller",
            "redbutton://signer",
            "redbutton://invite/6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "redbutton://person/alice",
            "redbutton://breakglass/alice",
            "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8/nodemgr",
        ] {
            assert_eq!(uri.parse::<Identity>().expect(uri).to_string(), uri);
        }
    }

    #[test]
    fn anything_else_names_nobody() {
        for uri in [
            "",
            "redbutton://",
            "redbutton://controller/",
            "redbutton://controller/x",
            "redbutton://signer/x",
            "redbutton://invite",
            "redbutton://invite/alice",
            "redbutton://person/",
            "redbutton://person/Alice",
            "redbutton://person/alice/nodemgr",
            "redbutton://breakglass",
            "redbutton://breakglass/Alice",
            "redbutton://breakglass/alice/x",
            "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8/flow-auditor",
            "redbutton://node/6ba7b810-9dad-11d1-80b4-00c04fd430c8/nodemgr/x",
            "https://person/alice",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri:?} was accepted");
        }
    }
}
