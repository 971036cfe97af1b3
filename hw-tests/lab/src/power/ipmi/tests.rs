//! The BMC, driven by the real ipmitool.

use std::process::Child;
use std::time::Duration;

use super::super::model::{Point, PointFaults, Restore, Switch, Wiring};
use super::super::spawn;
use super::super::testing::qemu::Qemu;
use super::super::testing::{Fixture, eventually, fixture};
use super::super::{Login, Machine as _};
use super::*;

const NOTHING: [&str; 0] = [];
const TOOL: &str = "/usr/bin/ipmitool";

/// Says why and is true when something is missing.
fn cannot() -> bool {
    let tool = (!Path::new(TOOL).exists()).then(|| format!("{TOOL} is missing (apt-get install ipmitool)"));
    let reason = IpmiBmc::missing().or(tool);
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

fn start(room: &Arc<Room>, machine: MachineId, serial: Option<Serial>) -> IpmiBmc {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    IpmiBmc::start(
        room,
        machine,
        &Login::new("admin", "sekret"),
        serial,
        front,
        &spawn,
    )
    .unwrap()
}

fn tool(bmc: &IpmiBmc, password: &str, arguments: &str) -> Command {
    let mut command = Command::new(TOOL);
    let (ip, port) = (bmc.address().ip().to_string(), bmc.address().port().to_string());
    command.args([
        "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-U", "admin", "-E",
    ]);
    command.args(["-H", &ip, "-p", &port]).args(arguments.split(' '));
    command.env("IPMI_PASSWORD", password).stdin(Stdio::null());
    command
}

/// What it printed, when it was content.
fn ask(bmc: &IpmiBmc, password: &str, arguments: &str) -> Result<String, String> {
    let output = tool(bmc, password, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}

fn power(bmc: &IpmiBmc, what: &str) -> String {
    ask(bmc, "sekret", &format!("chassis power {what}")).unwrap()
}

fn bmc(f: &Fixture) -> IpmiBmc {
    start(&f.room, f.ids[0], None)
}

#[test]
fn ipmitool_does_everything_to_one_machine_and_nothing_to_the_other() {
    if cannot() {
        return;
    }
    let f = fixture();
    let bmc = bmc(&f);
    assert_eq!(power(&bmc, "status"), "Chassis Power is on");
    power(&bmc, "reset");
    assert_eq!(f.machines[0].took(), ["reset"]);
    power(&bmc, "off");
    assert_eq!(f.machines[0].took(), ["off"]);
    assert_eq!(power(&bmc, "status"), "Chassis Power is off");
    power(&bmc, "reset");
    assert_eq!(f.machines[0].took(), NOTHING, "there is nothing to reset");
    power(&bmc, "on");
    assert_eq!(f.machines[0].took(), ["on"]);
    power(&bmc, "cycle");
    eventually("it is on again", || f.machines[0].is_on().unwrap());
    assert_eq!(f.machines[0].took(), ["off", "on"]);
    let refused = ask(&bmc, "sekret", "chassis power diag").unwrap_err();
    assert!(refused.contains("Invalid data field"), "{refused}");
    assert_eq!(f.machines[0].took(), NOTHING);
    ask(&bmc, "sekret", "chassis bootdev pxe").unwrap();
    power(&bmc, "soft");
    assert_eq!(f.machines[0].took(), ["soft off"]);
    assert_eq!(f.machines[1].took(), NOTHING);
}

#[test]
fn a_wrong_password_an_unwilling_bmc_and_another_cipher_are_told_apart() {
    if cannot() {
        return;
    }
    let f = fixture();
    let bmc = bmc(&f);
    let refused = ask(&bmc, "wrong", "chassis power off").unwrap_err();
    assert!(refused.contains("RMCP+ session"), "{refused}");
    f.bmc(|device| device.refuses_login = true);
    let refused = ask(&bmc, "sekret", "-v chassis power off").unwrap_err();
    assert!(refused.contains("unauthorized name"), "{refused}");
    f.bmc(|_| {});
    assert_eq!(power(&bmc, "status"), "Chassis Power is on");
    // Debian 12's simulator has no SHA-256; a later one may.
    let mut other = tool(&bmc, "sekret", "chassis power status");
    let output = other.args(["-C", "17"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() || said.contains("invalid authentication algorithm"),
        "{said}"
    );
    assert_eq!(f.machines[0].took(), NOTHING);
}

#[test]
fn a_bmc_is_mute_without_mains_and_does_not_do_later_what_it_was_told_then() {
    if cannot() {
        return;
    }
    let f = fixture();
    let bmc = bmc(&f);
    assert_eq!(power(&bmc, "status"), "Chassis Power is on");
    f.bmc(|device| device.mute = true);
    ask(&bmc, "sekret", "chassis power off").unwrap_err();
    f.bmc(|_| {});
    f.room.outlet(f.strip.outlet(1), Switch::Off).unwrap();
    assert_eq!(f.machines[0].took(), ["off"]);
    ask(&bmc, "sekret", "chassis power reset").unwrap_err();
    f.room.outlet(f.strip.outlet(1), Switch::On).unwrap();
    assert_eq!(power(&bmc, "status"), "Chassis Power is on");
    assert_eq!(f.machines[0].took(), ["on"], "its policy is to be on");
}

#[test]
fn a_bmc_that_lies_or_is_stuck_says_that_all_is_well() {
    if cannot() {
        return;
    }
    let f = fixture();
    let bmc = bmc(&f);
    let point = Point::Bmc(f.ids[0]);
    f.room.faults(|faults| faults.at(point).stuck = true).unwrap();
    power(&bmc, "off");
    assert_eq!(power(&bmc, "status"), "Chassis Power is on");
    f.room
        .faults(|faults| faults.at(point).says = Some(false))
        .unwrap();
    assert_eq!(power(&bmc, "status"), "Chassis Power is off");
    assert_eq!(f.machines[0].took(), NOTHING);
    f.room
        .faults(|faults| *faults.at(point) = PointFaults::default())
        .unwrap();
    f.bmc(|device| device.garbage = true);
    ask(&bmc, "sekret", "chassis power off").unwrap_err();
    assert_eq!(f.machines[0].took(), NOTHING);
}

#[test]
fn a_password_that_would_break_the_configuration_is_refused() {
    if cannot() {
        return;
    }
    let f = fixture();
    for password in ["", "a\"b", "a\nb", "123456789012345678901"] {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let login = Login::new("admin", password);
        let error = IpmiBmc::start(&f.room, f.ids[0], &login, None, front, &spawn)
            .err()
            .unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("plain ASCII"), "{text}");
        assert!(password.is_empty() || !text.contains(password), "{text}");
    }
}

/// A person at `sol activate`.
struct Person {
    child: Child,
    said: std::sync::mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Person {
    /// `script` gives ipmitool the terminal that it wants.
    fn attach(bmc: &IpmiBmc) -> Self {
        let tool = tool(bmc, "sekret", "sol activate");
        let words: Vec<String> = std::iter::once(tool.get_program())
            .chain(tool.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut command = Command::new("script");
        command.args(["-qfec", &words.join(" "), "/dev/null"]);
        command.env("IPMI_PASSWORD", "sekret");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok(got) = out.read(&mut buffer) {
                if got == 0 || sender.send(buffer[..got].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut person = Self {
            child,
            said,
            seen: String::new(),
        };
        person.sees("SOL Session operational");
        person
    }

    fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.said.recv_timeout(Duration::from_secs(60)) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("no {text:?} but {error} after {:?}", self.seen),
            }
        }
    }

    fn types(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // The terminal goes with `script`, and ipmitool with the terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn real_ipmitool_switches_a_real_machine_and_shows_its_serial_line() {
    if cannot() {
        return;
    }
    let Some(qemu) = Qemu::start() else {
        return;
    };
    let mut wiring = Wiring::default();
    let strip = wiring.strip("pdu1", 1);
    let id = wiring
        .machine("n1", &[strip.outlet(1)], Restore::LastState)
        .unwrap();
    let room = Room::new(wiring, vec![qemu.clone()]).unwrap();
    let bmc = start(&room, id, Some(Serial::Unix(qemu.serial())));
    assert_eq!(power(&bmc, "status"), "Chassis Power is off");
    let mut person = Person::attach(&bmc);
    power(&bmc, "on");
    assert!(qemu.is_on().unwrap());
    person.sees("SeaBIOS");
    let before = qemu.resets();
    power(&bmc, "reset");
    eventually("QEMU is reset", || qemu.resets() > before);
    room.outlet(strip.outlet(1), Switch::Off).unwrap();
    assert!(!qemu.is_on().unwrap());
    room.outlet(strip.outlet(1), Switch::On).unwrap();
    assert!(qemu.is_on().unwrap(), "it was on when mains was cut");
    power(&bmc, "off");
    assert!(!qemu.is_on().unwrap());
}

#[test]
fn what_is_typed_at_sol_reaches_the_serial_line() {
    if cannot() {
        return;
    }
    let f = fixture();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |mut stream: Stream, _: &Ending| {
        let mut buffer = [0; 64];
        while let Ok(got @ 1..) = stream.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..got]).to_uppercase();
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    };
    let _machine = Server::start("test", Listener::Tcp(listener), Arc::new(serve)).unwrap();
    let bmc = start(&f.room, f.ids[0], Some(Serial::Tcp(address)));
    let mut person = Person::attach(&bmc);
    person.types("hello");
    person.sees("HELLO");
}
