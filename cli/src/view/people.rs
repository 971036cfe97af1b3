//! People, and what they may do.

use proto::v1;
use serde::Serialize;

use super::{Role, Version, some};
use crate::when::Time;

/// One person.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) full_name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) created_at: Time,
}

impl From<v1::Person> for Person {
    fn from(wire: v1::Person) -> Self {
        let v1::Person {
            name,
            full_name,
            email,
            grants,
            created_at_ms,
        } = wire;
        Self {
            name,
            full_name: some(full_name),
            email: some(email),
            grants: grants.into_iter().map(Grant::from).collect(),
            created_at: Time(created_at_ms),
        }
    }
}

/// A role and where it counts.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Grant {
    pub(crate) role: Role,
    pub(crate) slice: Option<String>,
    pub(crate) site: Option<String>,
}

impl From<v1::Grant> for Grant {
    fn from(wire: v1::Grant) -> Self {
        let v1::Grant { role, slice, site } = wire;
        Self {
            role: Role::from_wire(role),
            slice: some(slice),
            site: some(site),
        }
    }
}

impl Grant {
    /// `PI of princeton`, `developer of princeton_codeen`, `support`.
    pub(crate) fn text(&self) -> String {
        match self.slice.as_ref().or(self.site.as_ref()) {
            Some(place) => format!("{} of {place}", self.role.text()),
            None => self.role.text().to_owned(),
        }
    }
}

/// `people ls`
#[derive(Debug, Serialize)]
pub(crate) struct People {
    pub(crate) people: Vec<Person>,
}

/// `whoami`
#[derive(Debug, Serialize)]
pub(crate) struct WhoAmI {
    pub(crate) person: Person,
    pub(crate) certificate_expires_at: Time,
    pub(crate) version: Option<Version>,
    pub(crate) controller_version: Option<String>,
    pub(crate) may: Vec<String>,
    /// What is wrong with the controller itself.
    pub(crate) alarms: Vec<String>,
}
