//! Values on the command line that the contracts do not define themselves.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::{IdError, NodeId, NodeName, PEOPLE_PORT, Role, SiteName, SliceName};

/// A node, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRef {
    /// By UUID.
    Id(NodeId),
    /// By name; a name never looks like a UUID.
    Name(NodeName),
}

impl FromStr for NodeRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.parse() {
            Ok(id) => Ok(NodeRef::Id(id)),
            Err(_) => text.parse().map(NodeRef::Name),
        }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeRef::Id(id) => id.fmt(f),
            NodeRef::Name(name) => name.fmt(f),
        }
    }
}

/// Where a controller listens: `host`, `host:port`, `192.0.2.1:7443` or `[2001:db8::1]:7443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {got:?} is malformed: expected HOST, HOST:PORT or [IPV6]:PORT")]
pub struct AddressError {
    got: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError {
            got: text.chars().take(80).collect(),
        };
        let port = |port: &str| match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(error()),
        };
        let (host, port) = if let Some(inside) = text.strip_prefix('[') {
            let (host, rest) = inside.split_once(']').ok_or_else(error)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| error())?;
            match rest.strip_prefix(':') {
                Some(number) => (host, port(number)?),
                None if rest.is_empty() => (host, PEOPLE_PORT),
                None => return Err(error()),
            }
        } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
            (text, PEOPLE_PORT)
        } else {
            match text.split_once(':') {
                Some((host, number)) => (host, port(number)?),
                None => (text, PEOPLE_PORT),
            }
        };
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
            return Err(error());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Seconds, whole or with a fraction, from 0.1 to a day.
///
/// # Errors
/// A text for people when it is no such number.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let error = || "expected seconds from 0.1 to 86400".to_owned();
    let seconds: f64 = text.parse().map_err(|_| error())?;
    if !(0.1..=86_400.0).contains(&seconds) {
        return Err(error());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A role, as people type it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleWord {
    /// Works on a slice; needs --slice
    Developer,
    /// Answers for a site's slices; needs --site
    Pi,
    /// Looks after a site's nodes; needs --site
    SiteAdmin,
    /// Looks after everything
    Support,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Developer => Role::Developer,
            RoleWord::Pi => Role::Pi,
            RoleWord::SiteAdmin => Role::SiteAdmin,
            RoleWord::Support => Role::Support,
        }
    }
}

/// A role and where it counts.
#[derive(Debug, Clone, Args)]
pub struct GrantArgs {
    /// The role
    #[arg(long, value_enum)]
    pub role: RoleWord,
    /// The slice, for developers
    #[arg(long)]
    pub slice: Option<SliceName>,
    /// The site, for PIs and site admins
    #[arg(long)]
    pub site: Option<SiteName>,
}

impl GrantArgs {
    /// Whether the role has the place that it needs, and no other.
    ///
    /// # Errors
    /// A text for people.
    pub fn check(&self) -> Result<(), String> {
        let role = Role::from(self.role);
        let (wants_slice, wants_site) = match role {
            Role::Developer => (true, false),
            Role::Pi | Role::SiteAdmin => (false, true),
            Role::Support => (false, false),
        };
        if wants_slice != self.slice.is_some() {
            let verb = if wants_slice { "needs" } else { "takes no" };
            return Err(format!("role {role} {verb} --slice"));
        }
        if wants_site != self.site.is_some() {
            let verb = if wants_site { "needs" } else { "takes no" };
            return Err(format!("role {role} {verb} --site"));
        }
        Ok(())
    }
}

/// A first role, or none.
#[derive(Debug, Clone, Args)]
pub struct FirstGrant {
    /// A first role
    #[arg(long, value_enum)]
    pub role: Option<RoleWord>,
    /// The slice, for developers
    #[arg(long, requires = "role")]
    pub slice: Option<SliceName>,
    /// The site, for PIs and site admins
    #[arg(long, requires = "role")]
    pub site: Option<SiteName>,
}

impl FirstGrant {
    /// The role, if one was given.
    #[must_use]
    pub fn grant(self) -> Option<GrantArgs> {
        let FirstGrant { role, slice, site } = self;
        role.map(|role| GrantArgs { role, slice, site })
    }
}

/// A witness on the command line: a head, or a file of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessArg {
    /// As it was written down.
    Head(audit::Head),
    /// As `audit witness` wrote it.
    File(std::path::PathBuf),
}

impl WitnessArg {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            // What begins like a head is meant as one.
            Some((sequence, _)) if !sequence.is_empty() && sequence.bytes().all(|b| b.is_ascii_digit()) => {
                let head = text.parse().map(WitnessArg::Head);
                head.map_err(
                    |error: audit::HeadError| match std::error::Error::source(&error) {
                        Some(cause) => format!("{error}: {cause}"),
                        None => error.to_string(),
                    },
                )
            }
            _ => Ok(WitnessArg::File(text.into())),
        }
    }
}
