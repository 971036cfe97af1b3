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
    /// 19 Dec 2002, “E1000”, one node from each site
    e1000 = 5;
    /// 30 Dec 2002, “Cron hangage”
    cron_hangage = 8;
    /// 6 Jan 2003, “eating cycles”
    eating_cycles = 10;
    /// 29 Jan 2003, “nodes rebooted”
    nodes_rebooted = 14;
    /// 27 Feb 2003, “Berkeley offline”
    berkeley_offline = 15;
    /// 21 Mar 2003, “uiuc3” and “Nodes hanging”
    uiuc3 = 17;
    /// 7 Apr 2003, “sydney1”
    sydney1 = 19;
    /// 24 Apr 2003, “DOS attack”, and 1 May 2003, “2 DOS”
    dos_attack = 23;
    /// 15 and 27 May 2003, “TCP Port Probe”
    tcp_port_probe = 26;
    /// 10 Jun 2003, “Princeton oops”
    princeton_oops = 29;
    /// 22 May 2003, “Seattle bootCD”
    seattle_bootcd = 30;
}
