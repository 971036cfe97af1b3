//! The lab: the real daemons together, on real cgroups and real kernels, with real certificates.
//!
//! - [`fleet`] starts `redbutton-controller` and `redbutton-nodemgr` as a person would, one folder a fleet,
//!   and takes everything down again, also after a panic;
//! - [`lab`] puts node managers into virtual machines with a kernel, a console, disks and power of their own, and
//!   breaks them; [`resident`] is the same for a person to play with, [`story`] the demo in it;
//! - [`agents`] are simulated node managers over the real link, thousands in one process;
//! - [`incident`] replays the incidents of PDN-03-015 on them;
//! - [`sleepers`] are processes to be killed, by the thousand;
//! - [`ssh`] is the peer that people use today;
//! - [`previous`] finds the programs of the release before;
//! - [`measure`] reads clocks and memory of other processes, and makes percentiles.
//!
//! Nothing depends on this package. Its tests need root and a cgroup2 mount and say so when they skip.

pub mod agents;
pub mod fleet;
pub mod incident;
pub mod lab;
pub mod measure;
pub mod previous;
pub mod resident;
pub mod sleepers;
pub mod ssh;
pub mod story;
