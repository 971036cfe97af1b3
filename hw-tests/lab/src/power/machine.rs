//! What a power front end needs a machine to be able to do.

use anyhow::Result;

use super::model::Deed;

/// A machine as its board and its mains see it.
///
/// Calls come from one thread for each machine, except [`Machine::is_on`], which comes from any. Each must come back
/// within seconds: whoever pressed the button is waiting, and [`Room`](super::Room) waits for the last one on Drop.
pub trait Machine: Send + Sync {
    /// The name that the wiring knows it by.
    fn name(&self) -> &str;

    /// Whether it is powered.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn is_on(&self) -> Result<bool>;

    /// Powers it on.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn power_on(&self) -> Result<()>;

    /// Takes its power away at once.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn power_off(&self) -> Result<()>;

    /// Resets it.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn reset(&self) -> Result<()>;

    /// Sends it a non-maskable interrupt.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn nmi(&self) -> Result<()>;

    /// Presses its power button for a moment, so that the system shuts down if it listens.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn soft_off(&self) -> Result<()>;
}

/// Does it.
pub(super) fn perform(machine: &dyn Machine, deed: Deed) -> Result<()> {
    match deed {
        Deed::On => machine.power_on(),
        Deed::Off => machine.power_off(),
        Deed::SoftOff => machine.soft_off(),
        Deed::Reset => machine.reset(),
        Deed::Nmi => machine.nmi(),
    }
}
