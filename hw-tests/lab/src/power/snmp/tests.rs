//! The SNMP PDU, driven by the real snmpget and snmpset.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::Machine as _;
use super::super::model::{Point, Switch};
use super::super::panel::{Panel, Row};
use super::super::spawn;
use super::super::testing::{Fixture, eventually, fixture};
use super::*;

const CTL: &str = ".1.3.6.1.4.1.318.1.1.4.4.2.1.3";
const COMMAND: &str = ".1.3.6.1.4.1.318.1.1.12.3.3.1.1.4";

/// Says why and is true when something is missing.
fn cannot() -> bool {
    let client = (!Path::new("/usr/bin/snmpget").exists())
        .then(|| "/usr/bin/snmpget is missing (apt-get install snmp)".to_owned());
    let reason = SnmpPdu::missing().or(client);
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

/// A client with the community in its configuration, as it should not stand in a command line.
struct Client {
    folder: TempDir,
    address: SocketAddr,
}

impl Client {
    fn new(pdu: &SnmpPdu, community: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("defVersion 2c\ndefCommunity {community}\n");
        write_private(&folder.path().join("snmp.conf"), &config, 0o600).unwrap();
        Self {
            folder,
            address: pdu.address(),
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(format!("/usr/bin/{program}"))
            .args(["-On", "-t", "1", "-r", "2", &format!("udp:{}", self.address)])
            .args(arguments)
            .env("SNMPCONFPATH", self.folder.path())
            .env("SNMP_PERSISTENT_DIR", self.folder.path())
            .env("MIBS", "")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    fn get(&self, name: &str) -> Result<String, String> {
        let line = self.run("snmpget", &[name])?;
        Ok(line.split_once(" = ").unwrap().1.to_owned())
    }

    fn set(&self, name: &str, value: &str) -> Result<String, String> {
        self.run("snmpset", &[name, "i", value])
    }
}

fn pdu(f: &Fixture) -> SnmpPdu {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    SnmpPdu::start(&f.room, f.strip, &Login::new("looker", "sekret"), front, &spawn).unwrap()
}

#[test]
fn snmpset_switches_by_both_tables() {
    if cannot() {
        return;
    }
    let f = fixture();
    let pdu = pdu(&f);
    let client = Client::new(&pdu, "sekret");
    assert_eq!(
        client.get(".1.3.6.1.2.1.1.2.0").unwrap(),
        format!("OID: {SYS_OBJECT_ID}")
    );
    assert_eq!(client.get(&format!("{CTL}.1")).unwrap(), "INTEGER: 1");
    client.set(&format!("{CTL}.1"), "2").unwrap();
    assert_eq!(f.machines[0].took(), ["off"]);
    assert_eq!(client.get(&format!("{CTL}.1")).unwrap(), "INTEGER: 2");
    assert_eq!(client.get(&format!("{COMMAND}.1")).unwrap(), "INTEGER: 2");
    assert_eq!(
        client.get(".1.3.6.1.4.1.318.1.1.4.2.2.0").unwrap(),
        "STRING: \"Off On On On On On On On\""
    );
    client.set(&format!("{COMMAND}.1"), "1").unwrap();
    assert_eq!(f.machines[0].took(), ["on"]);
    client.set(&format!("{COMMAND}.1"), "3").unwrap();
    eventually("n1 is back", || f.room.relay(f.strip.outlet(1)));
    eventually("n1 is on", || f.machines[0].is_on().unwrap());
    let walked = client.run("snmpwalk", &[ROOT]).unwrap();
    assert!(walked.contains(&format!("{CTL}.8 = INTEGER: 1")), "{walked}");
    assert!(walked.contains("STRING: \"n2\""), "{walked}");
    assert_eq!(walked.lines().count(), 5 + 8 * 13);
    assert_eq!(f.machines[1].took().len(), 0);
}

#[test]
fn what_cannot_be_set_is_refused() {
    if cannot() {
        return;
    }
    let f = fixture();
    let pdu = pdu(&f);
    let looker = Client::new(&pdu, "looker");
    assert_eq!(looker.get(&format!("{CTL}.1")).unwrap(), "INTEGER: 1");
    assert!(
        looker
            .set(&format!("{CTL}.1"), "2")
            .unwrap_err()
            .contains("noAccess")
    );
    let client = Client::new(&pdu, "sekret");
    let first = format!("{CTL}.1");
    assert!(client.set(&first, "4").unwrap_err().contains("wrongValue"));
    let typed = client.run("snmpset", &[&first, "s", "2"]).unwrap_err();
    assert!(typed.contains("wrongType"), "{typed}");
    let missing = client.set(&format!("{CTL}.9"), "2").unwrap_err();
    assert!(missing.contains("notWritable"), "{missing}");
    let stranger = Client::new(&pdu, "public").get(&first).unwrap_err();
    assert!(stranger.contains("Timeout"), "{stranger}");
    assert_eq!(f.machines[0].took().len(), 0);
}

#[test]
fn a_mute_or_unwilling_pdu_times_out_and_a_stuck_one_lies() {
    if cannot() {
        return;
    }
    let f = fixture();
    let pdu = pdu(&f);
    let client = Client::new(&pdu, "sekret");
    let first = format!("{CTL}.1");
    f.device(|device| device.mute = true);
    assert!(client.set(&first, "2").unwrap_err().contains("Timeout"));
    f.device(|device| device.refuses_login = true);
    assert!(client.set(&first, "2").unwrap_err().contains("Timeout"));
    f.device(|_| {});
    let point = Point::Outlet(f.strip.outlet(1));
    f.room.faults(|faults| faults.at(point).stuck = true).unwrap();
    client.set(&first, "2").unwrap();
    assert_eq!(client.get(&first).unwrap(), "INTEGER: 2");
    assert!(f.room.relay(f.strip.outlet(1)));
    assert_eq!(f.machines[0].took().len(), 0);
}

struct One;

impl Panel for One {
    fn name(&self) -> &str {
        "x"
    }

    fn outlets(&self) -> Vec<Row> {
        let label = "a\nb".to_owned();
        vec![Row {
            label,
            on: true,
            moving: false,
        }]
    }

    fn switch(&self, number: u16, _: Switch) -> bool {
        assert_eq!(number, 1);
        true
    }
}

proptest! {
    #[test]
    fn pass_persist_never_panics_whatever_the_lines_are(
        lines in proptest::collection::vec(
            prop_oneof![
                "\\PC{0,40}", "(\\.?[0-9]{1,12}){0,80}", Just("get".to_owned()), Just("getnext".to_owned()),
                Just("set".to_owned()), Just("PING".to_owned()), Just(ROOT.to_owned()), Just(format!("{CTL}.1")),
                "integer -?[0-9]{1,20}", Just(String::new()),
            ],
            0..40,
        ),
    ) {
        let mut pass = Pass::default();
        for line in lines {
            let answer = pass.line(&line, &One);
            // Nothing, one word, or a name, a type and a value: snmpd would take a fourth line for the next answer.
            prop_assert!([0, 1, 3].contains(&answer.lines().count()), "{:?}", answer);
        }
    }

    #[test]
    fn a_walk_ends(start in "[.0-9]{0,20}") {
        let (mut pass, mut at) = (Pass::default(), start);
        for _ in 0..=18 {
            prop_assert_eq!(pass.line("getnext", &One), "");
            let answer = pass.line(&at, &One);
            if answer == "NONE\n" {
                return Ok(());
            }
            at = answer.lines().next().unwrap().to_owned();
        }
        prop_assert!(false, "more steps than objects");
    }
}
