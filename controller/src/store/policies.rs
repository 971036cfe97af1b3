//! Which policy snapshot each site's nodes were last given.

use async_trait::async_trait;
use proto::{SiteName, Version};

use super::Result;

/// A snapshot that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// The nodes' site.
    pub site: SiteName,
    /// SHA-256 of the snapshot without version and time.
    pub content: [u8; 32],
    /// Its version.
    pub version: Version,
    /// Milliseconds since 1970.
    pub issued_at_ms: i64,
}

/// The part of the [`Store`](super::Store) about policies. Not audited: what they follow from is.
#[async_trait]
pub trait PolicyStore: Send + Sync + 'static {
    /// All of them.
    async fn policies(&self) -> Result<Vec<PolicyRecord>>;
    /// Notes new ones, in the place of those before.
    async fn save_policies(&self, records: &[PolicyRecord]) -> Result<()>;
}
