//! Sites.

use proto::v1;
use serde::Serialize;

use super::some;

/// One institution.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) full_name: Option<String>,
    pub(crate) abuse_contact: Option<String>,
    pub(crate) nodes: u32,
    pub(crate) attached: u32,
    pub(crate) slices: u32,
    pub(crate) pis: Vec<String>,
    pub(crate) admins: Vec<String>,
}

impl From<v1::Site> for Site {
    fn from(wire: v1::Site) -> Self {
        let v1::Site {
            name,
            full_name,
            abuse_contact,
            nodes,
            attached,
            slices,
            pis,
            admins,
        } = wire;
        Self {
            name,
            full_name: some(full_name),
            abuse_contact: some(abuse_contact),
            nodes,
            attached,
            slices,
            pis,
            admins,
        }
    }
}

/// `site ls`
#[derive(Debug, Serialize)]
pub(crate) struct Sites {
    pub(crate) sites: Vec<Site>,
}
