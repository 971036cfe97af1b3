//! The link over loopback, with real certificates and real TLS.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod clocks;
mod flood;
mod odd_names;
mod redial;
mod trust;
