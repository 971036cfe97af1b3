//! One node in one order, in one byte.
//!
//! ```text
//! bit   7        6..5   4       3..0
//!       absent   -      proven  0 waiting, 1 sent, else the outcome's number
//! ```

use proto::v1::Outcome;

use crate::store::OrderKind;

/// What a node said, checked against the kind of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// What became of it.
    pub outcome: Outcome,
    /// Nothing more is needed to believe it.
    pub proven: bool,
}

impl Said {
    /// Checks an answer. The error says why the node cannot mean it; such an answer counts as a failure.
    ///
    /// # Errors
    /// When the outcome is unknown, the controller's to say, or makes no sense for this kind of order.
    pub fn check(kind: OrderKind, outcome: i32, proven: bool) -> Result<Said, String> {
        let word =
            Outcome::try_from(outcome).map_err(|_| format!("answered with the unknown outcome {outcome}"))?;
        let sensible = match word {
            Outcome::Failed => true,
            // A freeze kills where another hold suspends.
            Outcome::Killed | Outcome::AlreadyDead | Outcome::Partial | Outcome::Respawning => kind.imposes(),
            Outcome::Frozen => kind.imposes() && !kind.kills(),
            Outcome::Released => kind == OrderKind::Release,
            Outcome::Accepted => kind == OrderKind::RebootNode || kind.halts(),
            Outcome::Unspecified
            | Outcome::Pending
            | Outcome::Offline
            | Outcome::Sent
            | Outcome::Superseded
            | Outcome::Rebooted => false,
        };
        if !sensible {
            return Err(format!("answered {} to {kind}", word.as_str_name()));
        }
        // Frozen and released are facts the moment they are read back; only death needs watching.
        let proven = match word {
            Outcome::Killed | Outcome::AlreadyDead => proven,
            Outcome::Frozen | Outcome::Released => true,
            _ => false,
        };
        Ok(Said {
            outcome: word,
            proven,
        })
    }
}

/// One node in one order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell(u8);

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut tuple = f.debug_tuple("Cell");
        match self.outcome() {
            _ if *self == Cell::ABSENT => tuple.field(&"absent"),
            None => tuple.field(&if *self == Cell::SENT { "sent" } else { "waiting" }),
            Some(outcome) => tuple.field(&outcome.as_str_name()).field(&self.is_proven()),
        };
        tuple.finish()
    }
}

impl Cell {
    const PROVEN: u8 = 1 << 4;
    const OUTCOME: u8 = 0x0f;

    /// The order does not concern the node.
    pub const ABSENT: Cell = Cell(1 << 7);
    /// Not handed over.
    pub const WAITING: Cell = Cell(0);
    /// Written to the link.
    pub const SENT: Cell = Cell(1);

    /// An answer, or a verdict of the controller. A verdict is its own proof, and a machine that was halted has
    /// nothing more to say than that it goes.
    #[must_use]
    pub fn answered(kind: OrderKind, said: Said) -> Cell {
        let proven = said.proven
            || matches!(said.outcome, Outcome::Superseded | Outcome::Rebooted)
            || (said.outcome == Outcome::Accepted && kind.halts());
        Cell::stored(said.outcome, proven)
    }

    /// What was recorded of it.
    #[must_use]
    pub fn stored(outcome: Outcome, proven: bool) -> Cell {
        // The outcomes that are answers have the numbers 4 to 13; waiting and sent use 0 and 1.
        let number = (outcome as i32 as u8) & Self::OUTCOME;
        Cell(number | if proven { Self::PROVEN } else { 0 })
    }

    /// Whether the node has answered, or the controller has decided.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        self.0 & Self::OUTCOME > 1
    }

    /// Whether the final proof is in, and nothing more is to come.
    #[must_use]
    pub const fn is_proven(self) -> bool {
        self.0 & Self::PROVEN != 0
    }

    /// The answer; `None` while there is none.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        if !self.is_answered() {
            return None;
        }
        Outcome::try_from(i32::from(self.0 & Self::OUTCOME)).ok()
    }

    /// What people see: waiting splits into pending and offline by whether the node is attached.
    #[must_use]
    pub fn shown(self, attached: bool) -> Outcome {
        match (self.outcome(), attached, self == Cell::SENT) {
            (Some(outcome), _, _) => outcome,
            (None, false, _) => Outcome::Offline,
            (None, true, true) => Outcome::Sent,
            (None, true, false) => Outcome::Pending,
        }
    }

    /// The cell after one more word about the node. The last word counts until the first proof, which stays.
    /// Three words add nothing: a failure after an answer (those who are dead stay dead), "already dead" after a
    /// kill but for its proof (`store::merge` says why), and anything after a failed release (the other holds of
    /// the same order answer on their own).
    #[must_use]
    pub fn merge(self, kind: OrderKind, said: Said) -> Cell {
        let next = Cell::answered(kind, said);
        match (self.outcome(), said.outcome) {
            (None, _) => next,
            (Some(_), _) if self.is_proven() => self,
            (Some(Outcome::Failed), _) if kind == OrderKind::Release => self,
            (Some(_), Outcome::Failed) => self,
            (Some(Outcome::Killed), Outcome::AlreadyDead) => Cell::stored(Outcome::Killed, said.proven),
            (Some(_), _) => next,
        }
    }
}
