//! The network between nodes and controller, made bad.

use std::time::Duration;

use ::lab::net::{Impairment, Where};
use anyhow::{Result, ensure};
use hw_tests::lab;

const SLICE: &str = "princeton_codeen";
const PRESS: &[&str] = &["kill-slice", SLICE, "--reason", "floods"];

#[test]
fn the_button_works_over_a_wire_that_loses_delays_duplicates_and_reorders() -> Result<()> {
    lab::test(&["princeton"], |lab| {
        lab.fleet.slice(SLICE)?;
        let index = lab.node("planet1", "princeton")?;
        lab.at(index).exec(SLICE, "sleep 1000")?;
        lab.net().impair(
            &Where::port("planet1"),
            &Impairment {
                loss: 0.05,
                delay: Duration::from_millis(30),
                jitter: Duration::from_millis(10),
                duplicate: 0.05,
                reorder: 0.05,
                ..Impairment::default()
            },
        )?;
        let (code, order) = lab.fleet.json("alice", PRESS)?;
        ensure!(code == 0 || code == 2, "{order}");
        hw_tests::fleet::wait_for("a dead slice", || {
            (lab.at(index).processes(SLICE).ok()? == 0).then_some(())
        })
    })
}

#[test]
fn a_site_that_is_cut_off_obeys_when_it_is_back_and_the_other_obeys_at_once() -> Result<()> {
    lab::test(&["princeton", "berkeley"], |lab| {
        lab.fleet.slice(SLICE)?;
        let (near, far) = (
            lab.node("planet1", "princeton")?,
            lab.node("planet2", "berkeley")?,
        );
        for index in [near, far] {
            lab.at(index).exec(SLICE, "sleep 1000")?;
        }
        lab.net().cut(&Where::uplink("berkeley"))?;
        lab.fleet.away("planet2")?;
        let (code, order) = lab.fleet.json("alice", PRESS)?;
        ensure!(code == 2, "{order}");
        ensure!(lab.at(near).processes(SLICE)? == 0);
        ensure!(lab.at(far).processes(SLICE)? == 1, "it cannot know yet");
        lab.net().heal(&Where::uplink("berkeley"))?;
        hw_tests::fleet::wait_for("a dead slice at berkeley", || {
            (lab.at(far).processes(SLICE).ok()? == 0).then_some(())
        })
    })
}
