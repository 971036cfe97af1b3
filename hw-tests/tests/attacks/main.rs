//! What attackers try, against the real programs in processes of their own. `docs/threat-model.md` names these tests.
//!
//! Every attack is bounded by its own count, stays on loopback, and ends with the same question: does support still
//! press? The attackers' clients ([`wire`]) are made by hand: a good library refuses to say most of this.

mod certificates;
mod floods;
mod nodes;
mod paths;
mod people;
mod places;
mod secrets;
mod storm;
mod wire;
