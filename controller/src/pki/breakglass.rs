//! Certificates for the day on which the controller is gone: long-lived, and good at nodes alone.

use proto::{Identity, PersonName};
use rcgen::ExtendedKeyUsagePurpose;
use time::{Duration, OffsetDateTime};

use super::{Ca, Certified, PkiError, Requested};

/// Longest life of one.
pub const BREAKGLASS_MOST: Duration = Duration::days(365);

impl Ca {
    /// A breakglass certificate for the key that its holder made: `redbutton://breakglass/NAME`, which the
    /// controller's doors do not know.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn certify_breakglass(
        &self,
        name: &PersonName,
        requested: &Requested,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Certified, PkiError> {
        let identity = Identity::Breakglass(name.clone());
        let usage = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let life = life.min(BREAKGLASS_MOST);
        let (chain, expires) = self.certify_key(&identity, requested.key(), Vec::new(), usage, life, now)?;
        Ok(Certified {
            identity,
            chain,
            expires,
        })
    }
}
