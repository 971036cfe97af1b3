//! Nodes with kernels of their own: what only a machine that really goes down can show.
//!
//! Every test makes its own lab and says `skipped: REASON` where none can run (no root, no tap, no QEMU, no image).

mod faults;
mod full;
mod lives;
mod pod;
mod power;
mod resident;
mod wires;
