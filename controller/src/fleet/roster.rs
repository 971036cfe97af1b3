//! The nodes that are enrolled, each with a small number that stands for it everywhere else in memory.

use std::collections::HashMap;
use std::sync::Arc;

use proto::{NodeId, NodeName, Scope, SiteName, Version};

use crate::orders::{NodeIndex, NodeRef};
use crate::store::NodeRecord;

/// An enrolled node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique for ever.
    pub id: NodeId,
    /// Unique.
    pub name: NodeName,
    /// Where it stands.
    pub site: SiteName,
    /// Orders of this version and later ones concern it.
    pub enrolled: Version,
}

impl Member {
    /// Whether an order of this version and scope concerns it.
    #[must_use]
    pub fn concerns(&self, scope: &Scope, version: Version) -> bool {
        let here = match scope {
            Scope::Fleet => true,
            Scope::Site(site) => *site == self.site,
            Scope::Node(node) => *node == self.id,
        };
        here && self.enrolled <= version
    }
}

/// The nodes, by number, id and name.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    members: Vec<Arc<Member>>,
    by_id: HashMap<NodeId, NodeIndex>,
    by_name: HashMap<NodeName, NodeIndex>,
}

impl Roster {
    /// Adds a node; `None` when it is known.
    pub(crate) fn add(&mut self, node: &NodeRecord) -> Option<NodeIndex> {
        if self.by_id.contains_key(&node.id) {
            return None;
        }
        let index = NodeIndex::try_from(self.members.len()).ok()?;
        let NodeRecord {
            id,
            name,
            site,
            enrolled,
            ..
        } = node.clone();
        self.by_id.insert(id, index);
        self.by_name.insert(name.clone(), index);
        self.members.push(Arc::new(Member {
            id,
            name,
            site,
            enrolled,
        }));
        Some(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn get(&self, index: NodeIndex) -> Option<&Arc<Member>> {
        self.members.get(index as usize)
    }

    pub(crate) fn index(&self, id: NodeId) -> Option<NodeIndex> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn find(&self, node: &NodeRef) -> Option<NodeIndex> {
        match node {
            NodeRef::Id(id) => self.by_id.get(id),
            NodeRef::Name(name) => self.by_name.get(name),
        }
        .copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Arc<Member>)> {
        (0..).zip(&self.members)
    }
}
