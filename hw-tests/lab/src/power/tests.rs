//! All front ends of one room at once, inside a network namespace that is not the one in which the test runs.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::model::Switch;
use super::testing::{eventually, fixture};
use super::*;

const IP: &str = "127.9.9.9";

/// Runs it in a thread of its own, in a new namespace with nothing but `lo`; false when that cannot be had here.
fn elsewhere(work: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                println!("skipped: no network namespaces here ({error})");
                return false;
            }
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            if !up.is_ok_and(|status| status.success()) {
                println!("skipped: `ip link set lo up` fails (apt-get install iproute2)");
                return false;
            }
            work();
            true
        });
        thread.join().unwrap()
    })
}

#[test]
fn front_ends_live_in_the_namespace_in_which_they_were_started() {
    if let Some(reason) = IpmiBmc::missing().or(SnmpPdu::missing()) {
        println!("skipped: {reason}");
        return;
    }
    let f = fixture();
    let login = Login::new("admin", "sekret");
    let (sender, receiver) = channel();
    let there = elsewhere(|| {
        // Well-known ports, as real devices have them: they are free in there, and closed out here.
        let telnet = TcpListener::bind((IP, 23)).unwrap();
        let pdu = TelnetPdu::start(&f.room, f.strip, login.clone(), telnet).unwrap();
        let bmcs: Vec<IpmiBmc> = (0..2)
            .map(|index| {
                let front = UdpSocket::bind((format!("127.9.9.{}", 10 + index), 623)).unwrap();
                IpmiBmc::start(&f.room, f.ids[index], &login, None, front, &spawn).unwrap()
            })
            .collect();
        let front = UdpSocket::bind((IP, 161)).unwrap();
        let snmp = SnmpPdu::start(&f.room, f.strip, &login, front, &spawn).unwrap();
        for bmc in &bmcs {
            let output = Command::new("ipmitool")
                .args(["-I", "lanplus", "-C", "3", "-U", "admin", "-E", "-H"])
                .args([&bmc.address().ip().to_string(), "chassis", "power", "reset"])
                .env("IPMI_PASSWORD", "sekret")
                .output();
            match output {
                Ok(output) => assert!(output.status.success(), "{output:?}"),
                Err(error) => println!("skipped in part: no ipmitool ({error})"),
            }
        }
        let reached = TcpStream::connect(pdu.address());
        assert!(reached.is_ok(), "{reached:?}");
        sender.send((pdu, bmcs, snmp)).unwrap();
    });
    if !there {
        return;
    }
    // The thread that started them has gone; they have not.
    let (pdu, bmcs, snmp) = receiver.recv().unwrap();
    assert!(TcpStream::connect_timeout(&pdu.address(), Duration::from_secs(5)).is_err());
    if std::path::Path::new("/usr/bin/ipmitool").exists() {
        assert_eq!(f.machines[0].took(), ["reset"]);
        assert_eq!(f.machines[1].took(), ["reset"]);
    }
    f.room.outlet(f.strip.outlet(2), Switch::Off).unwrap();
    assert_eq!(f.machines[1].took(), ["off"]);
    drop((pdu, bmcs, snmp));
}

#[test]
fn a_room_takes_only_the_machines_of_its_wiring() {
    let mut wiring = model::Wiring::default();
    wiring.machine("n1", &[], model::Restore::StayOff).unwrap();
    let error = Room::new(wiring, vec![testing::Recorder::new("n2")])
        .err()
        .unwrap();
    assert!(error.to_string().contains("[\"n1\"], got [\"n2\"]"), "{error}");
}

#[test]
fn a_slow_relay_moves_by_itself_and_the_log_tells_who_did_what() {
    let f = fixture();
    let outlet = f.strip.outlet(2);
    let point = model::Point::Outlet(outlet);
    f.room
        .faults(|faults| faults.at(point).slow = Duration::from_millis(30))
        .unwrap();
    f.room.outlet(outlet, Switch::Off).unwrap();
    eventually("the relay moves", || !f.room.mains(f.ids[1]));
    eventually("the machine follows", || !f.machines[1].is_on().unwrap());
    assert_eq!(f.room.log(), ["pdu1 outlet 2: Off"]);
    assert!(f.room.outlet(f.strip.outlet(9), Switch::Off).is_err());
}

#[test]
fn a_machine_whose_outlets_are_swapped_while_it_runs_is_the_one_that_goes_off() {
    let f = fixture();
    let (one, two) = (f.strip.outlet(1), f.strip.outlet(2));
    f.room.faults(|faults| faults.swap(one, two)).unwrap();
    f.room.outlet(one, Switch::Off).unwrap();
    assert_eq!(f.machines[1].took(), ["off"]);
    f.room.outlet(one, Switch::On).unwrap();
    assert!(f.room.mains(f.ids[1]));
    assert_eq!(f.machines[1].took().len(), 0, "its policy is to stay off");
    f.room.bmc(f.ids[1], model::Deed::On).unwrap();
    assert_eq!(f.machines[1].took(), ["on"]);
    assert_eq!(f.machines[0].took().len(), 0);
}
