//! The incidents of PDN-03-015 as tests, one for each replay ([`hw_tests::incident`]), named after it. One that
//! shows less than its row asks for says `partial: …`; `cargo xtask test` lists it.

use anyhow::Result;
use hw_tests::incident::as_test;

/// Each replay, with the number of its row.
macro_rules! incidents {
    ($($(#[$doc:meta])+ $name:ident = $number:literal;)+) => {
        $(
            $(#[$doc])+
            #[test]
            fn $name() -> Result<()> {
                as_test($number, stringify!($name))
            }
        )+
    };
}

incidents! {
    /// 30 Dec 2002, “Cron hangage”
    cron_hangage = 8;
    /// 29 Jan 2003, “nodes rebooted”
    nodes_rebooted = 14;
    /// 24 Apr 2003, “DOS attack”, and 1 May 2003, “2 DOS”
    dos_attack = 23;
    /// 15 and 27 May 2003, “TCP Port Probe”
    tcp_port_probe = 26;
}
