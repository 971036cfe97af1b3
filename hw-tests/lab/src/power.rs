//! Power for lab machines, behind the front ends that real machine rooms have.
//!
//! ```text
//!  ipmitool ──► ipmi_sim ───────┐                      ┌─► Machine (QMP, by the lab)
//!  curl ──────► Redfish ────────┤  Room: wiring, state │
//!  snmpset ───► snmpd ──────────┼─► and faults, pure ──┼─► Machine
//!  powerman ──► telnet menu ────┘  (model)             └─► ...
//! ```
//!
//! - A front end does what its protocol says and nothing else; what a command does to which machine is decided in
//!   [`model`] alone, so that a swapped or stuck outlet is one in every protocol.
//! - Sockets are opened and programs started in the constructors, in the calling thread: call them inside the
//!   network namespace that the device is to be in. Everything ends when the front end is dropped.
//! - Passwords never stand in a command line; files with them are readable by root only.
//!
//! It does not know how a machine is switched: that is the [`Machine`] trait, which the lab implements.

mod desk;
mod ipmi;
mod login;
mod machine;
pub mod model;
mod panel;
mod process;
mod redfish;
mod relay;
mod room;
mod server;
mod snmp;
mod telnet;

pub use ipmi::{IpmiBmc, Serial};
pub use login::Login;
pub use machine::Machine;
pub use process::{Spawner, spawn};
pub use redfish::RedfishBmc;
pub use room::Room;
pub use snmp::SnmpPdu;
pub use telnet::TelnetPdu;

/// The Debian packages that the front ends run: OpenIPMI's simulator, Net-SNMP's agent, and Perl's core, which every Debian has.
pub const PACKAGES: &[&str] = &["openipmi", "perl-base", "snmpd"];

/// What the Redfish service needs from PyPI, in a virtual environment whose interpreter is `$REDBUTTON_LAB_PYTHON`.
pub const PYTHON: &[&str] = &["sushy-tools==2.2.0"];

/// The Debian packages whose clients the tests of this module use, as a person would.
pub const TEST_PACKAGES: &[&str] = &["curl", "ipmitool", "powerman", "snmp"];

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
