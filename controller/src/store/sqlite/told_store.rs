//! [`Told`] in SQLite.

use async_trait::async_trait;
use audit::Head;
use proto::{HoldId, NodeId};

use super::{SqliteStore, told};
use crate::store::{Exemption, ImportedHold, Note, Result, SignedRelease, Told, ToldRelease};

#[async_trait]
impl Told for SqliteStore {
    async fn import_holds(&self, holds: &[(ImportedHold, Note)]) -> Result<()> {
        write!(self, told::import_holds(holds))
    }
    async fn tell_releases(&self, releases: &[(ToldRelease, Note)]) -> Result<()> {
        write!(self, told::tell_releases(releases))
    }
    async fn releases_among(&self, ids: &[HoldId]) -> Result<Vec<SignedRelease>> {
        read!(self, told::releases_among(ids))
    }
    async fn exempt(&self, exemption: &Exemption, note: Note) -> Result<bool> {
        write!(self, told::exempt(exemption, note))
    }
    async fn exemptions(&self) -> Result<Vec<Exemption>> {
        read!(self, told::exemptions())
    }
    async fn diaries(&self) -> Result<Vec<(NodeId, Head)>> {
        read!(self, told::diaries())
    }
    async fn tell_diary(&self, node: NodeId, head: Head, notes: Vec<Note>) -> Result<()> {
        write!(self, told::tell_diary(node, head, notes))
    }
}
