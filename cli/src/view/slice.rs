//! Slices, and where they run.

use proto::v1;
use serde::Serialize;

use super::hold::Hold;
use super::node::Sliver;
use super::some;

/// One experiment or service.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Slice {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) description: Option<String>,
    pub(crate) contacts: Vec<String>,
    pub(crate) developers: Vec<String>,
    pub(crate) pis: Vec<String>,
    pub(crate) running_on: u32,
    pub(crate) frozen_on: u32,
    pub(crate) holds: u32,
}

impl From<v1::Slice> for Slice {
    fn from(wire: v1::Slice) -> Self {
        let v1::Slice {
            name,
            site,
            description,
            contacts,
            developers,
            pis,
            running_on,
            frozen_on,
            holds,
        } = wire;
        Self {
            name,
            site,
            description: some(description),
            contacts,
            developers,
            pis,
            running_on,
            frozen_on,
            holds,
        }
    }
}

/// `slice ls`
#[derive(Debug, Serialize)]
pub(crate) struct Slices {
    pub(crate) slices: Vec<Slice>,
}

/// `slice show`
#[derive(Debug, Serialize)]
pub(crate) struct SliceDetail {
    pub(crate) slice: Slice,
    pub(crate) holds: Vec<Hold>,
    pub(crate) slivers: Vec<SliverOnNode>,
}

/// A sliver and its node.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SliverOnNode {
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) site: String,
    pub(crate) sliver: Option<Sliver>,
}

impl From<v1::SliverOnNode> for SliverOnNode {
    fn from(wire: v1::SliverOnNode) -> Self {
        let v1::SliverOnNode {
            node,
            node_name,
            site,
            sliver,
        } = wire;
        Self {
            node,
            node_name,
            site,
            sliver: sliver.map(Sliver::from),
        }
    }
}
