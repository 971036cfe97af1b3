//! What follows from the kind of an order. The words themselves are the store's: they are kept on disk.

use proto::HoldKind;

use super::{Reach, Wish};
use crate::store::OrderKind;

impl OrderKind {
    /// The kind of a wish; `None` for what stops every slice at a site or freezes all of them, which is not built.
    #[must_use]
    pub fn of(wish: &Wish) -> Option<OrderKind> {
        Some(match wish {
            Wish::Hold { slice, reach, kind } => match (slice, reach, kind) {
                (None, Reach::Fleet, HoldKind::Suspend) => OrderKind::StopEverySlice,
                (None, Reach::Fleet | Reach::Site(_), _) => return None,
                (None, Reach::Node(_), HoldKind::Suspend) => OrderKind::KillNode,
                (None, Reach::Node(_), HoldKind::Freeze) => OrderKind::FreezeNode,
                (Some(_), Reach::Node(_), HoldKind::Suspend) => OrderKind::KillSliver,
                (Some(_), Reach::Node(_), HoldKind::Freeze) => OrderKind::FreezeSliver,
                (Some(_), Reach::Fleet | Reach::Site(_), HoldKind::Suspend) => OrderKind::KillSlice,
                (Some(_), Reach::Fleet | Reach::Site(_), HoldKind::Freeze) => OrderKind::FreezeSlice,
            },
            Wish::Release(_) => OrderKind::Release,
            Wish::Reboot { .. } => OrderKind::RebootNode,
            Wish::Stop { .. } => OrderKind::StopNode,
            Wish::StopEveryNode { .. } => OrderKind::StopEveryNode,
        })
    }

    /// Whether it sets a hold.
    #[must_use]
    pub const fn imposes(self) -> bool {
        self.kills()
            || matches!(
                self,
                OrderKind::FreezeSlice | OrderKind::FreezeSliver | OrderKind::FreezeNode
            )
    }

    /// Whether processes are to die.
    #[must_use]
    pub const fn kills(self) -> bool {
        matches!(
            self,
            OrderKind::KillSlice | OrderKind::KillSliver | OrderKind::KillNode | OrderKind::StopEverySlice
        )
    }

    /// Whether machines are to be powered off.
    #[must_use]
    pub const fn halts(self) -> bool {
        matches!(self, OrderKind::StopNode | OrderKind::StopEveryNode)
    }
}
