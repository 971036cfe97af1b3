//! The power of a lab: each site has a strip, each node a BMC and one outlet, all spoken to as real ones are.
//!
//! | what | address, inside the lab's network | speaks |
//! |---|---|---|
//! | strip of the first, third … site | `10.77.0.51`, `.53` …, port 23 | telnet, APC's menus |
//! | strip of the second, fourth … site | `10.77.0.52`, `.54` …, port 161 | SNMP, APC's tables |
//! | BMC of node N (from 1) | `10.77.0.(100+N)`, port 623 | IPMI 2.0 lanplus, serial over LAN |
//! | the same BMC | port 8000 | Redfish, where sushy-tools is installed |
//!
//! Which outlet feeds which node, and what is wrong with them, is the room's ([`lab::power::model`]): swapped, stuck,
//! dead, slow, mute. The devices' user and password are in [`USER`] and [`PASSWORD`]: it is a toy network.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lab::console::{self, Front};
use lab::machine::Guest;
use lab::power::model::{MachineId, Outlet, Restore, StripId, Wiring};
use lab::power::{IpmiBmc, Login, Machine, RedfishBmc, Room, Serial, SnmpPdu, TelnetPdu, spawn};

use super::Lab;

/// Whom every device of a lab lets in; the read community of a strip that speaks SNMP.
pub const USER: &str = "operator";
/// With this password, or write community.
pub const PASSWORD: &str = "lab-secret";

/// Outlets of a strip.
const OUTLETS: u16 = 8;
/// Where a BMC speaks Redfish.
pub const REDFISH: u16 = 8000;

/// Strips and BMCs of a lab. Dropped, they are gone; the nodes keep the state they are in.
pub struct Power {
    room: Arc<Room>,
    outlets: Vec<Outlet>,
    machines: Vec<MachineId>,
    strips: Vec<StripId>,
    _fronts: Fronts,
}

#[derive(Default)]
struct Fronts {
    telnet: Vec<TelnetPdu>,
    snmp: Vec<SnmpPdu>,
    ipmi: Vec<IpmiBmc>,
    redfish: Vec<RedfishBmc>,
    serial: Vec<Front>,
}

/// A guest as its board knows it.
struct Board {
    name: String,
    guest: Arc<Guest>,
}

impl Machine for Board {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_on(&self) -> Result<bool> {
        self.guest.is_on()
    }

    fn power_on(&self) -> Result<()> {
        self.guest.power_on()
    }

    fn power_off(&self) -> Result<()> {
        self.guest.power_off()
    }

    fn reset(&self) -> Result<()> {
        self.guest.reset()
    }

    fn nmi(&self) -> Result<()> {
        self.guest.nmi()
    }

    fn soft_off(&self) -> Result<()> {
        self.guest.press_power()
    }
}

/// Address of the strip of the site with this number, from 0.
#[must_use]
pub fn strip(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 51 + u8::try_from(site).unwrap_or(40))
}

/// Address of the BMC of the node with this index.
#[must_use]
pub fn bmc(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 101 + u8::try_from(index).unwrap_or(100))
}

/// Why there can be no power front ends here; `None` when there can.
#[must_use]
pub fn unable() -> Option<String> {
    IpmiBmc::missing()
}

impl Power {
    /// Plugs every node of the lab in, in the order of their indices: the first node of a site into outlet 1. What
    /// happens when the mains return is `restore`.
    ///
    /// # Errors
    /// When a front end does not start, or a site has more nodes than outlets.
    pub fn start(lab: &Lab, sites: &[&str], restore: Restore) -> Result<Self> {
        let mut wiring = Wiring::default();
        let strips: Vec<StripId> = sites
            .iter()
            .map(|site| wiring.strip(&format!("pdu-{site}"), OUTLETS))
            .collect();
        let mut next = vec![0; sites.len()];
        let (mut outlets, mut machines) = (Vec::new(), Vec::new());
        let mut boards: Vec<Arc<dyn Machine>> = Vec::new();
        for node in lab.nodes() {
            let site = sites
                .iter()
                .position(|site| *site == node.site())
                .with_context(|| format!("{} is at {}, which has no strip", node.name(), node.site()))?;
            next[site] += 1;
            ensure!(
                next[site] <= OUTLETS,
                "{} has more nodes than outlets",
                node.site()
            );
            let outlet = strips[site].outlet(next[site]);
            outlets.push(outlet);
            machines.push(wiring.machine(node.name(), &[outlet], restore)?);
            boards.push(Arc::new(Board {
                name: node.name().to_owned(),
                guest: Arc::clone(node.guest()),
            }));
        }
        let room = Room::new(wiring, boards)?;
        let fronts = lab
            .net()
            .enter(|| Fronts::open(lab, &room, &strips, &machines))??;
        Ok(Self {
            room,
            outlets,
            machines,
            strips,
            _fronts: fronts,
        })
    }

    /// The room: relays, faults, and what happened in it.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// The outlet that feeds node `index`.
    #[must_use]
    pub fn outlet(&self, index: usize) -> Outlet {
        self.outlets[index]
    }

    /// Node `index` as the room knows it.
    #[must_use]
    pub fn machine(&self, index: usize) -> MachineId {
        self.machines[index]
    }

    /// The strip of a site, by the site's place in the list.
    #[must_use]
    pub fn strip(&self, site: usize) -> StripId {
        self.strips[site]
    }
}

impl Fronts {
    /// Inside the lab's network.
    fn open(lab: &Lab, room: &Arc<Room>, strips: &[StripId], machines: &[MachineId]) -> Result<Self> {
        let mut fronts = Self::default();
        for (number, id) in strips.iter().enumerate() {
            let address = strip(number);
            own(address)?;
            let login = Login::new(USER, PASSWORD);
            if number % 2 == 0 {
                let listener = TcpListener::bind((address, 23)).context("the strip's telnet port")?;
                fronts.telnet.push(TelnetPdu::start(room, *id, login, listener)?);
            } else {
                let socket = UdpSocket::bind((address, 161)).context("the strip's SNMP port")?;
                fronts
                    .snmp
                    .push(SnmpPdu::start(room, *id, &login, socket, &spawn)?);
            }
        }
        let python = RedfishBmc::python();
        for (index, id) in machines.iter().enumerate() {
            let address = bmc(index);
            own(address)?;
            let login = Login::new(USER, PASSWORD);
            let serial = console::raw(lab.at(index).console(), TcpListener::bind((address, 0))?)?;
            let behind = serial.address().context("a console front without an address")?;
            fronts.serial.push(serial);
            let socket = UdpSocket::bind((address, 623)).context("the BMC's port")?;
            let ipmi = IpmiBmc::start(room, *id, &login, Some(Serial::Tcp(behind)), socket, &spawn)?;
            fronts.ipmi.push(ipmi);
            if let Some(python) = &python {
                let listener = TcpListener::bind((address, REDFISH)).context("the BMC's Redfish port")?;
                fronts
                    .redfish
                    .push(RedfishBmc::start(room, *id, &login, listener, python, &spawn)?);
            }
        }
        Ok(fronts)
    }
}

/// Gives this network namespace one more address.
fn own(address: Ipv4Addr) -> Result<()> {
    let done = Command::new("ip")
        .args([
            "address",
            "replace",
            &format!("{address}/32"),
            "dev",
            lab::net::HOST_INTERFACE,
        ])
        .status()
        .context("ip (Debian package iproute2)")?;
    ensure!(done.success(), "ip address replace {address}: {done}");
    Ok(())
}
