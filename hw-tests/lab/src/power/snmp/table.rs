//! The outlets as APC's PowerNet MIB has them, and Net-SNMP's `pass_persist` protocol. Pure but for the panel.
//!
//! Two tables, since devices of both ages are about: the MasterSwitch's (`sPDUOutletCtl`) and the rack PDU's
//! (`rPDUOutletControlOutletCommand`), with a status string and the identity that clients ask for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::model::Switch;
use super::super::panel::Panel;

/// The part of the tree that is ours: APC's products.
pub(super) const ROOT: &str = ".1.3.6.1.4.1.318.1.1";

const PREFIX: [u32; 9] = [1, 3, 6, 1, 4, 1, 318, 1, 1];

/// Longer names than any of ours are none of ours.
const NAME: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Integer(i64),
    Text(String),
}

/// What a write to an object does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// 1 on, 2 off, 3 reboot.
    MasterSwitch(u16),
    /// The same, and 4 to 6 for the delayed ones, which are not delayed here, and 7 to cancel.
    RackPdu(u16),
}

type Table = BTreeMap<Vec<u32>, (Value, Option<Writes>)>;

fn table(panel: &dyn Panel) -> Table {
    let mut table = Table::new();
    let mut put = |name: &[u32], value: Value, writes: Option<Writes>| {
        table.insert([&PREFIX, name].concat(), (value, writes));
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let outlets = panel.outlets();
    let count = i64::try_from(outlets.len()).unwrap_or(i64::MAX);
    let states: Vec<&str> = outlets.iter().map(|o| if o.on { "On" } else { "Off" }).collect();
    // sPDUMasterState, sPDUOutletControlTableSize; rPDUIdent: name, model, number of outlets.
    put(&[4, 2, 2, 0], text(&states.join(" ")), None);
    put(&[4, 4, 1, 0], Value::Integer(count), None);
    put(&[12, 1, 1, 0], text(panel.name()), None);
    put(&[12, 1, 5, 0], text("AP7900"), None);
    put(&[12, 1, 8, 0], Value::Integer(count), None);
    for (number, outlet) in (1u16..).zip(&outlets) {
        let index = u32::from(number);
        let state = Value::Integer(if outlet.on { 1 } else { 2 });
        let pending = Value::Integer(if outlet.moving { 1 } else { 2 });
        // sPDUOutletControlEntry: index, pending, ctl, name.
        let row = |column| [4, 4, 2, 1, column, index];
        put(&row(1), Value::Integer(index.into()), None);
        put(&row(2), pending.clone(), None);
        put(&row(3), state.clone(), Some(Writes::MasterSwitch(number)));
        put(&row(4), text(&outlet.label), None);
        // rPDUOutletControlEntry: index, name, phase, command.
        let row = |column| [12, 3, 3, 1, 1, column, index];
        put(&row(1), Value::Integer(index.into()), None);
        put(&row(2), text(&outlet.label), None);
        put(&row(3), Value::Integer(1), None);
        put(&row(4), state.clone(), Some(Writes::RackPdu(number)));
        // rPDUOutletStatusEntry: index, name, phase, state, pending.
        let row = |column| [12, 3, 5, 1, 1, column, index];
        put(&row(1), Value::Integer(index.into()), None);
        put(&row(2), text(&outlet.label), None);
        put(&row(3), Value::Integer(1), None);
        put(&row(4), state, None);
        put(&row(5), pending, None);
    }
    table
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Within {
    #[default]
    Start,
    Get,
    GetNext,
    SetName,
    SetValue(String),
}

/// A conversation with snmpd: a command and its arguments come on lines of their own.
#[derive(Debug, Default)]
pub(super) struct Pass {
    within: Within,
}

impl Pass {
    /// The next line; what is to be answered, if anything.
    pub(super) fn line(&mut self, line: &str, panel: &dyn Panel) -> String {
        match std::mem::take(&mut self.within) {
            Within::Start => match line.trim() {
                "PING" => return "PONG\n".to_owned(),
                "get" => self.within = Within::Get,
                "getnext" => self.within = Within::GetNext,
                "set" => self.within = Within::SetName,
                // snmpd sends an empty line after a value.
                _ => {}
            },
            Within::Get => {
                let table = table(panel);
                let found = parse(line).and_then(|name| table.get_key_value(&name));
                return found.map_or_else(none, |(name, (value, _))| show(name, value));
            }
            Within::GetNext => {
                use std::ops::Bound::{Excluded, Unbounded};

                let table = table(panel);
                let found = parse(line).and_then(|name| table.range((Excluded(name), Unbounded)).next());
                return found.map_or_else(none, |(name, (value, _))| show(name, value));
            }
            Within::SetName => self.within = Within::SetValue(line.to_owned()),
            Within::SetValue(name) => return format!("{}\n", set(&name, line, panel)),
        }
        String::new()
    }
}

fn none() -> String {
    "NONE\n".to_owned()
}

fn parse(name: &str) -> Option<Vec<u32>> {
    let name = name.trim();
    let numbers = name.strip_prefix('.').unwrap_or(name).split('.');
    let numbers: Vec<u32> = numbers
        .take(NAME + 1)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    (numbers.len() <= NAME).then_some(numbers)
}

fn show(name: &[u32], value: &Value) -> String {
    let mut text = String::new();
    for number in name {
        let _ = write!(text, ".{number}");
    }
    match value {
        Value::Integer(number) => text + &format!("\ninteger\n{number}\n"),
        // A line break in it would be a line of the protocol.
        Value::Text(value) => text + &format!("\nstring\n{}\n", value.replace(['\r', '\n'], " ")),
    }
}

/// Net-SNMP's words for what went wrong.
fn set(name: &str, value: &str, panel: &dyn Panel) -> &'static str {
    let found = parse(name).and_then(|name| table(panel).remove(&name));
    let Some((_, Some(writes))) = found else {
        return "not-writable";
    };
    let Some(number) = value.trim().strip_prefix("integer ") else {
        return "wrong-type";
    };
    let (outlet, switch) = match (writes, number.trim()) {
        (Writes::MasterSwitch(outlet) | Writes::RackPdu(outlet), "1") => (outlet, Switch::On),
        (Writes::MasterSwitch(outlet) | Writes::RackPdu(outlet), "2") => (outlet, Switch::Off),
        (Writes::MasterSwitch(outlet) | Writes::RackPdu(outlet), "3") => (outlet, Switch::Reboot),
        (Writes::RackPdu(outlet), "4") => (outlet, Switch::On),
        (Writes::RackPdu(outlet), "5") => (outlet, Switch::Off),
        (Writes::RackPdu(outlet), "6") => (outlet, Switch::Reboot),
        // Nothing is ever delayed, so there is nothing to cancel.
        (Writes::RackPdu(_), "7") => return "DONE",
        _ => return "wrong-value",
    };
    if panel.switch(outlet, switch) {
        "DONE"
    } else {
        "inconsistent-value"
    }
}
