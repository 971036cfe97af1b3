//! What can be asked for. Each action has one stable name: it stands in audit entries, orders and policy
//! snapshots, so a name is never changed nor used again for something else.

use std::fmt;
use std::str::FromStr;

/// A name that is no action. Refuse it: an action that this program does not know is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown action {0:?}")]
pub struct UnknownAction(
    /// What was given, cut to 80 characters.
    pub String,
);

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a person can ask for; in the order of DESIGN.md's table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $variant,)*
        }

        impl Action {
            /// Every action, in the order of the table.
            pub const ALL: &[Action] = &[$(Action::$variant,)*];

            /// The stable machine name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Action::$variant => $name,)*
                }
            }
        }

        impl FromStr for Action {
            type Err = UnknownAction;
            fn from_str(name: &str) -> Result<Self, UnknownAction> {
                match name {
                    $($name => Ok(Action::$variant),)*
                    _ => Err(UnknownAction(name.chars().take(80).collect())),
                }
            }
        }
    };
}

actions! {
    /// Who am I, and what may I do. Anyone.
    WhoAmI = "whoami",
    /// Check an audit file. Anyone who has the file.
    VerifyAudit = "verify-audit",

    /// See a slice, its people to contact and its holds.
    SeeSlice = "see-slice",
    /// See what a slice, or a node, uses.
    SeeUsage = "see-usage",
    /// See flows of a slice, or of a node.
    SeeFlows = "see-flows",
    /// See a person: name, address, roles.
    SeePerson = "see-person",
    /// See a site and whom to contact there.
    SeeSite = "see-site",

    /// See a node's health.
    SeeNode = "see-node",
    /// See processes: of one sliver, or of the whole node.
    SeeProcesses = "see-processes",
    /// See the tail of a node's journal.
    SeeJournal = "see-journal",

    /// Read a node's console.
    ReadConsole = "read-console",
    /// Type on a node's console.
    WriteConsole = "write-console",

    /// Kill a slice everywhere; aimed at a slice at one site it counts as [`Action::KillSliver`].
    KillSlice = "kill-slice",
    /// Freeze a slice everywhere; aimed at a slice at one site it counts as [`Action::FreezeSliver`].
    FreezeSlice = "freeze-slice",
    /// Kill one sliver on one node, or on every node of one site.
    KillSliver = "kill-sliver",
    /// Freeze one sliver on one node, or on every node of one site.
    FreezeSliver = "freeze-sliver",
    /// Release a hold, on a slice or on a node.
    Release = "release",
    /// Hold a node (safe boot): nothing starts, what runs is frozen.
    FreezeNode = "freeze-node",
    /// Kill every sliver on a node.
    KillNode = "kill-node",

    /// Reboot a node through its agent.
    RebootNode = "reboot-node",
    /// POD: ask whether the listener is there.
    PodProbe = "pod-probe",
    /// POD: everything but the reboot.
    PodDryRun = "pod-dry-run",
    /// POD: reboot.
    PodReboot = "pod-reboot",
    /// POD: kill every sliver below Redbutton's own root.
    PodKillSlivers = "pod-kill-slivers",
    /// POD: crash and dump.
    PodCrash = "pod-crash",
    /// Halt a node. The caller refuses it without a commissioned outlet unless there need be no way back.
    StopNode = "stop-node",

    /// Ask a node's outlets for their state.
    PowerStatus = "power-status",
    /// Power a node on.
    PowerOn = "power-on",
    /// Power a node off.
    PowerOff = "power-off",
    /// Power a node off and on.
    PowerCycle = "power-cycle",
    /// Add a power control unit.
    AddPcu = "add-pcu",
    /// Say which node hangs on which outlet.
    EditOutlets = "edit-outlets",
    /// Prove by a test that an outlet switches its node.
    CommissionPcu = "commission-pcu",

    /// Lower a slice's limits.
    LowerLimits = "lower-limits",
    /// Set a slice's limits within its site's allocation (which the caller checks).
    SetLimits = "set-limits",
    /// Lend one slice's share to another of the same site.
    LendLimits = "lend-limits",
    /// Set a slice's limits beyond its site's allocation.
    ExceedAllocation = "exceed-allocation",
    /// Set what all slivers of a node may take together.
    SetNodeCaps = "set-node-caps",
    /// Refuse ports and prefixes on a node, at a site or for a slice.
    SetTrafficPolicy = "set-traffic-policy",

    /// See rules over flows and usage.
    SeeRules = "see-rules",
    /// Propose a rule.
    ProposeRule = "propose-rule",
    /// Write or change a rule.
    EditRule = "edit-rule",
    /// Let a rule act by itself.
    ArmRule = "arm-rule",

    /// See what the ladder does for a node.
    SeeLadder = "see-ladder",
    /// Pause the ladder.
    PauseLadder = "pause-ladder",
    /// Declare a maintenance window.
    SetMaintenance = "set-maintenance",

    /// Invite a person, with the roles they shall have.
    Invite = "invite",
    /// Give a role or take one away.
    SetRole = "set-role",
    /// Create a site.
    CreateSite = "create-site",
    /// Create a slice.
    CreateSlice = "create-slice",

    /// Enrol a node.
    EnrolNode = "enrol-node",
    /// Revoke a node.
    RevokeNode = "revoke-node",
    /// Give a node new keys.
    RekeyNode = "rekey-node",
    /// Set a site's gateway.
    SetGateway = "set-gateway",

    /// Read the audit: one entry, or with the fleet as target all of it.
    ReadAudit = "read-audit",

    /// Bring another version of our own programs to the nodes.
    RollOut = "roll-out",
    /// Put programs onto the shelf; look at rollouts, pause, resume, abort them and take them back.
    SteerRollout = "steer-rollout",
    /// Rotate the CA.
    RotateCa = "rotate-ca",
    /// Rotate the keys that nodes obey in a POD.
    RotatePodKeys = "rotate-pod-keys",
    /// Restore a database backup.
    Restore = "restore",
    /// Issue long-lived, direct-only certificates.
    IssueBreakglass = "issue-breakglass",
    /// Stop every slice on every node.
    StopEverySlice = "stop-every-slice",
    /// Stop every node.
    StopEveryNode = "stop-every-node",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
