//! The telnet PDU over a real socket, with every fault, and with the real powerman where it is installed.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use proptest::prelude::*;

use super::super::Machine as _;
use super::super::model::{Point, Switch};
use super::super::panel::{Panel, Row};
use super::super::testing::{Fixture, eventually, fixture, powerman::Powerman};
use super::*;

const NOTHING: [&str; 0] = [];

fn pdu(f: &Fixture) -> TelnetPdu {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    TelnetPdu::start(&f.room, f.strip, Login::new("apc", "sekret"), listener).unwrap()
}

struct Client {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    fn new(pdu: &TelnetPdu) -> Self {
        let stream = TcpStream::connect(pdu.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self {
            stream,
            seen: Vec::new(),
        }
    }

    /// Everything up to and with `text`; `None` when the connection ends before.
    fn until(&mut self, text: &str) -> Option<String> {
        loop {
            let found = self.seen.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let rest = self.seen.split_off(at + text.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.seen, rest)).unwrap());
            }
            let mut buffer = [0; 512];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(got) => self.seen.extend_from_slice(&buffer[..got]),
                Err(error) => panic!("no {text:?} but {error} after {:?}", self.seen),
            }
        }
    }

    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn log_in(&mut self, password: &str) {
        self.until("User Name : ").unwrap();
        self.send("apc\r\n");
        self.until("Password  : ").unwrap();
        self.send(&format!("{password}\r\n"));
    }

    fn walk_to_outlets(&mut self) -> String {
        self.log_in("sekret");
        self.until("\r\n> ").unwrap();
        self.send("1\r\n");
        self.until("\r\n> ").unwrap();
        self.send("3\r\n");
        self.until("\r\n> ").unwrap()
    }

    fn switch(&mut self, outlet: u16, command: u16) -> String {
        for line in [outlet, 1] {
            self.send(&format!("{line}\r\n"));
            self.until("\r\n> ").unwrap();
        }
        self.send(&format!("{command}\r\n"));
        self.until("to cancel : ").unwrap();
        self.send("YES\r\n");
        let answer = self.until("to continue...").unwrap();
        self.send("\r\n");
        self.until("\r\n> ").unwrap();
        self.send("\x1b\x1b");
        self.until("\r\n> ").unwrap();
        self.until("\r\n> ").unwrap();
        answer
    }

    fn list(&mut self) -> String {
        self.send("\r\n");
        self.until("\r\n> ").unwrap()
    }
}

#[test]
fn two_clients_see_the_same_relays() {
    let f = fixture();
    let pdu = pdu(&f);
    let (mut one, mut other) = (Client::new(&pdu), Client::new(&pdu));
    let list = one.walk_to_outlets();
    assert!(list.contains("1- n1                       ON\r\n"), "{list}");
    assert!(list.contains("9- ALL"), "{list}");
    other.walk_to_outlets();
    assert!(one.switch(1, 2).contains("successfully"));
    assert_eq!(f.machines[0].took(), ["off"]);
    let list = other.list();
    assert!(list.contains("1- n1                       OFF\r\n"), "{list}");
    assert!(other.switch(1, 1).contains("successfully"));
    assert_eq!(f.machines[0].took(), ["on"]);
    assert!(one.switch(9, 3).contains("successfully"));
    eventually("n1 is rebooted", || {
        f.room.relay(f.strip.outlet(1)) && f.machines[0].is_on().unwrap()
    });
    eventually("all are on again", || {
        (1..=8).all(|n| f.room.relay(f.strip.outlet(n)))
    });
    assert_eq!(f.machines[1].took(), ["off"], "its policy is to stay off");
    one.send("\x1b\x1b");
    one.until("\r\n> ").unwrap();
    one.until("\r\n> ").unwrap();
    one.send("4\r\n");
    assert!(one.until("Bye\r\n").is_some() && one.until("more").is_none());
}

#[test]
fn nothing_is_switched_without_a_yes() {
    let f = fixture();
    let pdu = pdu(&f);
    let mut client = Client::new(&pdu);
    client.walk_to_outlets();
    for line in ["1\r\n", "1\r\n"] {
        client.send(line);
        client.until("\r\n> ").unwrap();
    }
    for no in ["\r\n", "yes\r\n", "\x1b"] {
        client.send("2\r\n");
        client.until("to cancel : ").unwrap();
        client.send(no);
        client.until("\r\n> ").unwrap();
    }
    assert!(f.room.relay(f.strip.outlet(1)));
    assert_eq!(f.machines[0].took(), NOTHING);
}

#[test]
fn a_wrong_password_is_refused_three_times_and_then_hung_up_on() {
    let f = fixture();
    let pdu = pdu(&f);
    let mut client = Client::new(&pdu);
    for _ in 0..3 {
        client.log_in("wrong");
        client.until("Login failed").unwrap();
    }
    assert_eq!(client.until("User Name"), None);
    f.device(|device| device.refuses_login = true);
    let mut client = Client::new(&pdu);
    client.log_in("sekret");
    client.until("Login failed").unwrap();
}

#[test]
fn a_device_that_does_nothing_says_that_it_did() {
    let f = fixture();
    let pdu = pdu(&f);
    f.device(|device| device.does_nothing = true);
    let mut client = Client::new(&pdu);
    client.walk_to_outlets();
    assert!(client.switch(1, 2).contains("successfully"));
    assert!(client.list().contains("1- n1                       ON"));
    assert_eq!(f.machines[0].took(), NOTHING);
}

#[test]
fn a_slow_relay_is_marked_until_it_moves() {
    let f = fixture();
    let pdu = pdu(&f);
    let point = Point::Outlet(f.strip.outlet(1));
    f.room
        .faults(|faults| faults.at(point).slow = Duration::from_secs(3600))
        .unwrap();
    let mut client = Client::new(&pdu);
    client.walk_to_outlets();
    assert!(client.switch(1, 2).contains("successfully"));
    assert!(client.list().contains("1- n1                       ON*"));
    assert!(f.room.relay(f.strip.outlet(1)));
}

#[test]
fn a_mute_device_answers_nothing_and_recovers() {
    let f = fixture();
    let pdu = pdu(&f);
    let mut client = Client::new(&pdu);
    client.walk_to_outlets();
    f.device(|device| device.mute = true);
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    client.send("\r\n");
    let mut buffer = [0; 64];
    let silence = client.stream.read(&mut buffer).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    f.device(|device| device.mute = false);
    client
        .stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    assert!(client.list().contains("1- n1"), "it is still at the list");
}

#[test]
fn other_prompts_garbage_and_a_dropped_dialogue() {
    let f = fixture();
    let pdu = pdu(&f);
    f.device(|device| device.wrong_prompt = true);
    Client::new(&pdu).until("Login: ").unwrap();
    f.device(|device| device.drops_after = Some(7));
    let mut client = Client::new(&pdu);
    assert_eq!(client.until("User Name"), None);
    assert_eq!(client.seen, b"\r\n\rUser");
    f.device(|device| (device.garbage, device.drops_after) = (true, Some(10)));
    let mut client = Client::new(&pdu);
    assert_eq!(client.until("User Name"), None);
    assert_eq!(client.seen.len(), 10);
    f.device(|device| device.slow = Duration::from_secs(3600));
    let _waiting = Client::new(&pdu);
    // Dropping the device must not wait for the hour.
}

#[test]
fn the_device_hangs_up_when_it_is_dropped() {
    let f = fixture();
    let pdu = pdu(&f);
    let mut client = Client::new(&pdu);
    client.walk_to_outlets();
    drop(pdu);
    assert_eq!(client.until("anything"), None);
}

#[test]
fn real_powerman_drives_the_telnet_pdu() {
    let f = fixture();
    // Its script has this password written into it.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let pdu = TelnetPdu::start(&f.room, f.strip, Login::new("apc", "apc"), listener).unwrap();
    let Some(powerman) = Powerman::start("apc7900", &pdu.address().to_string()) else {
        return;
    };
    eventually("both are on", || powerman.ask("--query-all") == "on: n[1-2]");
    assert!(powerman.ask("--off n1").contains("successfully"));
    assert_eq!(f.machines[0].took(), ["off"]);
    assert_eq!(f.machines[1].took(), NOTHING);
    assert_eq!(powerman.ask("--query-all"), "on: n2 off: n1");
    assert!(powerman.ask("--on n1").contains("successfully"));
    assert_eq!(f.machines[0].took(), ["on"]);
    assert_eq!(powerman.ask("--query-all"), "on: n[1-2]");
}

struct Nothing;

impl Panel for Nothing {
    fn name(&self) -> &str {
        "x"
    }

    fn outlets(&self) -> Vec<Row> {
        Vec::new()
    }

    fn switch(&self, _: u16, _: Switch) -> bool {
        false
    }
}

proptest! {
    #[test]
    fn the_telnet_menu_never_panics_whatever_is_typed(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                Just(b"apc\r\n".to_vec()), Just(b"1\r\n".to_vec()), Just(b"3\r\n".to_vec()),
                Just(b"65535\r".to_vec()), Just(b"YES\r\n".to_vec()), Just(b"\x1b".to_vec()),
                Just(b"\xff\xfa\x18\xff\xf0".to_vec()),
            ],
            0..40,
        ),
    ) {
        let faults = DeviceFaults::default();
        let (mut keys, mut menu) = (Keys::default(), Menu::new(&faults));
        for piece in pieces {
            for key in keys.feed(&piece) {
                if let Key::Line(line) = &key {
                    prop_assert!(line.len() <= keys::LINE);
                }
                menu.press(&key, &Nothing, &Login::new("apc", "apc"), &faults);
            }
        }
    }

    #[test]
    fn keys_do_not_depend_on_how_bytes_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        at in 0..80usize,
    ) {
        let whole = Keys::default().feed(&bytes);
        let (head, tail) = bytes.split_at(at.min(bytes.len()));
        let mut keys = Keys::default();
        let mut cut = keys.feed(head);
        cut.extend(keys.feed(tail));
        prop_assert_eq!(whole, cut);
    }
}
