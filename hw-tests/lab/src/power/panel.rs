//! A strip as its front ends show it.

use super::model::{StripId, Switch};
use super::room::Room;

/// One outlet.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) on: bool,
    pub(super) moving: bool,
}

/// What a strip's front end is about: outlets from 1.
pub(super) trait Panel {
    fn name(&self) -> &str;
    fn outlets(&self) -> Vec<Row>;
    /// Whether it could be done.
    fn switch(&self, number: u16, switch: Switch) -> bool;
}

/// A strip of a room.
pub(super) struct StripOf<'a> {
    pub(super) room: &'a Room,
    pub(super) strip: StripId,
}

impl Panel for StripOf<'_> {
    fn name(&self) -> &str {
        self.room.wiring().strip_name(self.strip)
    }

    fn outlets(&self) -> Vec<Row> {
        let row = |outlet| Row {
            label: self.room.wiring().label(outlet).unwrap_or("Outlet").to_owned(),
            on: self.room.says(outlet),
            moving: self.room.is_moving(outlet),
        };
        self.room.wiring().outlets(self.strip).map(row).collect()
    }

    fn switch(&self, number: u16, switch: Switch) -> bool {
        self.room.outlet(self.strip.outlet(number), switch).is_ok()
    }
}
