//! Who asks: a person and what they were granted.

use std::fmt;

use proto::{PersonName, Role, SiteName, SliceName};

/// A person and everything they were granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Actor {
    /// From the certificate, never from a message.
    pub name: PersonName,
    /// In any order; repetition changes nothing.
    pub grants: Vec<Grant>,
}

/// A role and where it counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// Works on this slice.
    Developer(SliceName),
    /// Answers for the slices of this site.
    Pi(SiteName),
    /// Looks after the nodes of this site.
    SiteAdmin(SiteName),
    /// Looks after everything.
    Support,
}

/// Why a role and a place make no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the role {role} needs {needs}")]
pub struct GrantError {
    /// The role given.
    pub role: Role,
    /// What goes with it.
    pub needs: &'static str,
}

impl Grant {
    /// Puts a grant together from a row of a table or a message. Exactly what belongs to the role must be there.
    ///
    /// # Errors
    /// Names what the role needs when something is missing or too much.
    pub fn from_parts(
        role: Role,
        slice: Option<SliceName>,
        site: Option<SiteName>,
    ) -> Result<Grant, GrantError> {
        match (role, slice, site) {
            (Role::Developer, Some(slice), None) => Ok(Grant::Developer(slice)),
            (Role::Pi, None, Some(site)) => Ok(Grant::Pi(site)),
            (Role::SiteAdmin, None, Some(site)) => Ok(Grant::SiteAdmin(site)),
            (Role::Support, None, None) => Ok(Grant::Support),
            (Role::Developer, ..) => Err(GrantError {
                role,
                needs: "a slice and no site",
            }),
            (Role::Pi | Role::SiteAdmin, ..) => Err(GrantError {
                role,
                needs: "a site and no slice",
            }),
            (Role::Support, ..) => Err(GrantError {
                role,
                needs: "neither slice nor site",
            }),
        }
    }

    /// The role alone.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Grant::Developer(_) => Role::Developer,
            Grant::Pi(_) => Role::Pi,
            Grant::SiteAdmin(_) => Role::SiteAdmin,
            Grant::Support => Role::Support,
        }
    }

    /// The slice of a developer.
    #[must_use]
    pub const fn slice(&self) -> Option<&SliceName> {
        match self {
            Grant::Developer(slice) => Some(slice),
            Grant::Pi(_) | Grant::SiteAdmin(_) | Grant::Support => None,
        }
    }

    /// The site of a PI or site admin.
    #[must_use]
    pub const fn site(&self) -> Option<&SiteName> {
        match self {
            Grant::Pi(site) | Grant::SiteAdmin(site) => Some(site),
            Grant::Developer(_) | Grant::Support => None,
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::Developer(slice) => write!(f, "developer of {slice}"),
            Grant::Pi(site) => write!(f, "PI of {site}"),
            Grant::SiteAdmin(site) => write!(f, "site admin of {site}"),
            Grant::Support => f.write_str("support"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_takes_exactly_what_belongs_to_its_role() {
        let slice: SliceName = "princeton_codeen".parse().expect("valid");
        let site: SiteName = "princeton".parse().expect("valid");
        for role in Role::ALL {
            for slice in [None, Some(slice.clone())] {
                for site in [None, Some(site.clone())] {
                    let wanted = match role {
                        Role::Developer => (true, false),
                        Role::Pi | Role::SiteAdmin => (false, true),
                        Role::Support => (false, false),
                    };
                    let fits = (slice.is_some(), site.is_some()) == wanted;
                    let made = Grant::from_parts(role, slice.clone(), site.clone());
                    assert_eq!(made.is_ok(), fits, "{role} {slice:?} {site:?}");
                    if let Ok(grant) = made {
                        assert_eq!(
                            (grant.role(), grant.slice(), grant.site()),
                            (role, slice.as_ref(), site.as_ref())
                        );
                    }
                }
            }
        }
        assert_eq!(
            Grant::from_parts(Role::Developer, None, None)
                .expect_err("no slice")
                .to_string(),
            "the role developer needs a slice and no site"
        );
    }
}
