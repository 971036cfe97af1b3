//! The menu that people and scripts walk through. Pure but for the [`Panel`] that it switches.

use std::fmt::Write as _;

use super::super::Login;
use super::super::model::{DeviceFaults, Switch};
use super::super::panel::{Panel, Row};
use super::keys::Key;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    User,
    Password,
    Main,
    DeviceManager,
    Outlets,
    Outlet(u16),
    Control(u16),
    /// `None` cancels what is pending.
    Confirm(u16, Option<Switch>),
    Continue(u16),
}

const CONFIRM: &str = "\r\n        Enter 'YES' to continue or <ENTER> to cancel : ";

/// Where one client is.
#[derive(Debug)]
pub(super) struct Menu {
    page: Page,
    user: String,
    tries: u8,
    odd: bool,
}

impl Menu {
    /// A client at the door. Whether the prompts are the usual ones stays as it is for the connection.
    pub(super) fn new(faults: &DeviceFaults) -> Self {
        Self {
            page: Page::User,
            user: String::new(),
            tries: 0,
            odd: faults.wrong_prompt,
        }
    }

    /// The first thing that a client sees.
    pub(super) fn greeting(&self) -> String {
        format!("\r\n{}", self.prompt())
    }

    /// Whether what is typed now is not to be shown.
    pub(super) fn is_secret(&self) -> bool {
        self.page == Page::Password
    }

    /// What follows: what is shown, and whether the connection goes on.
    pub(super) fn press(
        &mut self,
        key: &Key,
        panel: &dyn Panel,
        login: &Login,
        faults: &DeviceFaults,
    ) -> (String, bool) {
        let mut text = String::new();
        let line = match key {
            Key::Line(line) => line.trim(),
            Key::Escape => {
                self.back();
                return (self.show(panel), true);
            }
        };
        match self.page {
            Page::User => {
                line.clone_into(&mut self.user);
                self.page = Page::Password;
            }
            Page::Password => {
                if !faults.refuses_login && login.admits(&self.user, line) {
                    self.page = Page::Main;
                } else {
                    self.tries += 1;
                    self.page = Page::User;
                    text += "\r\nLogin failed.\r\n";
                    if self.tries == 3 {
                        return (text, false);
                    }
                }
            }
            Page::Main if line == "4" => return ("\r\nConnection Closed - Bye\r\n".to_owned(), false),
            Page::Main if line == "1" => self.page = Page::DeviceManager,
            Page::DeviceManager if line == "3" => self.page = Page::Outlets,
            Page::Outlets => {
                // The number after the last outlet is all of them.
                let last = panel.outlets().len() + 1;
                if let Some(number) = number(line).filter(|n| usize::from(*n) <= last) {
                    self.page = Page::Outlet(number);
                }
            }
            Page::Outlet(number) if line == "1" => self.page = Page::Control(number),
            Page::Control(outlet) => match number(line) {
                Some(1 | 4) => self.page = Page::Confirm(outlet, Some(Switch::On)),
                Some(2 | 5) => self.page = Page::Confirm(outlet, Some(Switch::Off)),
                Some(3 | 6) => self.page = Page::Confirm(outlet, Some(Switch::Reboot)),
                Some(7) => self.page = Page::Confirm(outlet, None),
                _ => {}
            },
            Page::Confirm(outlet, command) => {
                if line == "YES" {
                    text += if run(panel, outlet, command) {
                        "\r\n        Command successfully issued.\r\n"
                    } else {
                        "\r\n        Command failed.\r\n"
                    };
                    self.page = Page::Continue(outlet);
                } else {
                    self.page = Page::Control(outlet);
                }
            }
            Page::Continue(outlet) => self.page = Page::Control(outlet),
            Page::Main | Page::DeviceManager | Page::Outlet(_) => {}
        }
        text += &self.show(panel);
        (text, true)
    }

    fn back(&mut self) {
        self.page = match self.page {
            Page::User | Page::Password => Page::User,
            Page::Main | Page::DeviceManager => Page::Main,
            Page::Outlets => Page::DeviceManager,
            Page::Outlet(_) => Page::Outlets,
            Page::Control(outlet) => Page::Outlet(outlet),
            Page::Confirm(outlet, _) | Page::Continue(outlet) => Page::Control(outlet),
        };
    }

    fn prompt(&self) -> &'static str {
        match (self.page, self.odd) {
            (Page::User, false) => "\rUser Name : ",
            (Page::User, true) => "\rLogin: ",
            (Page::Password, false) => "\rPassword  : ",
            (Page::Password, true) => "\rSecret: ",
            (Page::Confirm(..), false) => CONFIRM,
            (Page::Confirm(..), true) => "\r\nReally [y/N]? ",
            (Page::Continue(_), false) => "        Press <ENTER> to continue...",
            (Page::Continue(_), true) => "-- more --",
            (_, false) => "> ",
            (_, true) => "apc:",
        }
    }

    fn show(&self, panel: &dyn Panel) -> String {
        let mut text = match self.page {
            Page::Main => menu("Control Console", &MAIN),
            Page::DeviceManager => menu("Device Manager", &DEVICE_MANAGER),
            Page::Outlets => {
                let mut items: Vec<String> = panel.outlets().iter().map(item).collect();
                items.push("ALL Accessible Outlets".to_owned());
                menu(&format!("Outlets of {}", panel.name()), &items)
            }
            Page::Outlet(number) => menu(&format!("Outlet {number}"), &OUTLET),
            Page::Control(number) => menu(&format!("Control Outlet {number}"), &CONTROL),
            Page::User | Page::Password | Page::Confirm(..) | Page::Continue(_) => String::new(),
        };
        text += if text.is_empty() { "" } else { "\r\n" };
        text + self.prompt()
    }
}

const MAIN: [&str; 4] = ["Device Manager", "Network", "System", "Logout"];
const DEVICE_MANAGER: [&str; 3] = [
    "Load Management",
    "Power Supply Status",
    "Outlet Control/Configuration",
];
const OUTLET: [&str; 2] = ["Control Outlet", "Configure Outlet"];
const CONTROL: [&str; 7] = [
    "Immediate On",
    "Immediate Off",
    "Immediate Reboot",
    "Delayed On",
    "Delayed Off",
    "Delayed Reboot",
    "Cancel",
];

fn menu(title: &str, items: &[impl AsRef<str>]) -> String {
    let mut text = format!("\r\n------- {title} {}\r\n\r\n", "-".repeat(40));
    for (index, item) in items.iter().enumerate() {
        let _ = write!(text, "     {}- {}\r\n", index + 1, item.as_ref());
    }
    text + "\r\n     <ESC>- Back, <ENTER>- Refresh\r\n"
}

/// The star means that there is something still to come.
fn item(row: &Row) -> String {
    let state = if row.on { "ON" } else { "OFF" };
    // Scripts look for ON and OFF: a machine's name in capitals could be taken for one.
    let label = row.label.to_lowercase();
    format!("{label:24} {state}{}", if row.moving { "*" } else { "" })
}

/// From 1; nothing else is a number here.
fn number(line: &str) -> Option<u16> {
    line.parse().ok().filter(|number| *number > 0)
}

fn run(panel: &dyn Panel, outlet: u16, command: Option<Switch>) -> bool {
    let Some(switch) = command else {
        // Nothing is ever delayed, so there is nothing to cancel.
        return true;
    };
    let last = u16::try_from(panel.outlets().len()).unwrap_or(u16::MAX);
    if outlet > last {
        // No short cut: every outlet is switched, whatever became of the ones before.
        return (1..=last).filter(|number| !panel.switch(*number, switch)).count() == 0;
    }
    panel.switch(outlet, switch)
}
