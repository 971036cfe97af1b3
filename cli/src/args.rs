//! The command line: what may be typed, checked before anything is sent. The doc comments are the help texts and
//! the manual pages.

mod direct;
mod keys;
mod press;
mod rollout;
mod tokens;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use proto::{InviteId, OrderId, PersonName, ProposalId, SiteName, SliceName};

pub(crate) use direct::with_port;
pub use direct::{BreakglassCommand, DirectTarget, KitCommand, KitExport};
pub use keys::{InviteArgs, LoginArgs, RemoveArgs, RevokeKeysArgs};
pub(crate) use press::reason;
pub use press::{
    ApproveArgs, KillAll, NodeTarget, PressArgs, ReleaseNode, ReleaseSlice, SliceTarget, StopAll, StopNode,
    Waiting,
};
pub use rollout::{Program, RolloutCommand, StartRollout, SteerRollout};
pub use tokens::{EnrollNode, RekeyNode, TokenArgs};
pub use values::{Address, FirstGrant, GrantArgs, NodeRef, RoleWord, WitnessArg, seconds};

/// Stop a runaway slice everywhere at once, and hold proof.
///
/// Exit codes: 0 dead everywhere; 2 pending or offline; 3 partial or respawning; 4 failed; 5 refused; 64 usage.
/// The worst node counts.
#[derive(Debug, Parser)]
#[command(name = "redbutton", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Your credentials, as `redbutton login` writes them [default: ~/.config/redbutton/bundle]
    #[arg(long, global = true, value_name = "PATH", env = "REDBUTTON_BUNDLE")]
    pub bundle: Option<PathBuf>,
    /// Dial this controller instead of those in the bundle (port 7443 unless given)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub controller: Option<Address>,
    /// Do it at this node itself, without the controller: by name or UUID, at HOST if neither a kit nor DNS knows where
    #[arg(long, global = true, value_name = "NODE[@HOST[:PORT]]", conflicts_with_all = ["controller", "server_name"])]
    pub direct: Option<DirectTarget>,
    /// The kit [default: ~/.config/redbutton/kit]
    #[arg(long, global = true, value_name = "PATH", env = "REDBUTTON_KIT")]
    pub kit: Option<PathBuf>,
    /// The kit's passphrase is the first line of this file, instead of being asked for
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "REDBUTTON_KIT_PASSPHRASE_FILE"
    )]
    pub passphrase_file: Option<PathBuf>,
    /// The name that the controller's certificate must carry, where it is not the host that is dialled
    #[arg(long, global = true, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Print JSON: one document, or one a line for `order watch`, `node logs` and `audit log`
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pub json: bool,
    /// Give up on the controller after this many seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: std::time::Duration,
    /// Return as soon as the order is durable, without waiting for the nodes
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pub no_wait: bool,
    /// Say nothing but the result
    #[arg(long, short, global = true, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Kill a slice on every node: the short form of `slice kill`
    KillSlice(SliceTarget),
    /// Kill every slice on every node, and let none start until released; a second person must approve
    KillAll(KillAll),
    /// Power off every node; a second person must approve
    StopAll(StopAll),
    /// Agree to what another person proposed
    Approve(ApproveArgs),
    /// What waits for a second person
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// Slices: see, kill, freeze, release
    #[command(subcommand)]
    Slice(SliceCommand),
    /// Nodes: see, kill, freeze, release, reboot, stop
    #[command(subcommand)]
    Node(NodeCommand),
    /// Orders: what was asked of the fleet, and what became of it
    #[command(subcommand)]
    Order(OrderCommand),
    /// Use an invite, or renew your certificate
    Login(LoginArgs),
    /// Let somebody in: a one-time invite for a new person, or one more key for one who is there
    Invite(InviteArgs),
    /// Who you are to the controller, and what you may do
    Whoami,
    /// A long-lived certificate that is good at nodes alone, for the day on which the controller is gone
    #[command(subcommand)]
    Breakglass(BreakglassCommand),
    /// What to take along for the day on which the controller is gone
    #[command(subcommand)]
    Kit(KitCommand),
    /// Sites: institutions that host nodes
    #[command(subcommand)]
    Site(SiteCommand),
    /// People and their roles
    #[command(subcommand)]
    People(PeopleCommand),
    /// Other versions of the node manager, brought to the nodes in waves
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// The audit trail: read, export, verify
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Agree, with your key, that a backup of the controller may take over; two support people must
    SignRestore {
        /// As `redbutton-controller backup` wrote it
        backup: PathBuf,
        /// Where your agreement goes; it must not exist
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print completions for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// Made if it is not there
        directory: PathBuf,
    },
}

/// `redbutton slice …`
#[derive(Debug, Subcommand)]
pub enum SliceCommand {
    /// List slices
    Ls {
        /// Only slices of this site
        #[arg(long)]
        site: Option<SiteName>,
    },
    /// Show a slice: people to contact, where it runs, what holds it
    Show {
        /// site_name, as in princeton_codeen
        slice: SliceName,
    },
    /// Register a slice
    Add {
        /// site_name, as in princeton_codeen
        slice: SliceName,
        /// What it does, in a sentence
        #[arg(long, default_value = "")]
        description: String,
        /// An e-mail address to contact; repeat for several
        #[arg(long = "contact", value_name = "EMAIL")]
        contacts: Vec<String>,
    },
    /// Kill every process of a slice and let none start until released
    Kill(SliceTarget),
    /// Freeze a slice: its processes stay, stopped, until released
    Freeze(SliceTarget),
    /// Lift holds on a slice. It restarts nothing
    Release(ReleaseSlice),
    /// List what holds a slice
    Holds {
        /// site_name, as in princeton_codeen
        slice: SliceName,
    },
}

/// `redbutton node …`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls {
        /// Only nodes of this site
        #[arg(long)]
        site: Option<SiteName>,
        /// Only nodes on which this slice runs
        #[arg(long)]
        slice: Option<SliceName>,
    },
    /// Show a node: health, slivers, what holds it, what its kernel can enforce
    Show {
        /// Name or UUID
        node: NodeRef,
    },
    /// List processes on a node
    Ps {
        /// Name or UUID
        node: NodeRef,
        /// Only processes of this slice
        #[arg(long)]
        slice: Option<SliceName>,
        /// At most this many
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show the tail of a node's journal
    Logs {
        /// Name or UUID
        node: NodeRef,
        /// At most this many lines
        #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        lines: u32,
        /// Only this systemd unit
        #[arg(long, short)]
        unit: Option<String>,
    },
    /// Kill every sliver on a node and let none start until released
    Kill(NodeTarget),
    /// Freeze every sliver on a node until released
    Freeze(NodeTarget),
    /// Lift holds on a node itself. It restarts nothing
    Release(ReleaseNode),
    /// Reboot a node; proven when it comes back with another boot id
    Reboot(NodeTarget),
    /// Make a one-time join token for a machine that is to become a node
    Enroll(EnrollNode),
    /// Make a one-time join token for a node that is there: a new key, the older ones revoked, quarantine over
    Rekey(RekeyNode),
    /// Revoke a node's keys: cut at once, and refused until re-keyed
    Revoke {
        /// Name or UUID
        node: NodeRef,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Power a node off; refused where nothing could power it on again
    Stop(StopNode),
}

/// `redbutton order …`
#[derive(Debug, Subcommand)]
pub enum OrderCommand {
    /// List orders, newest first
    Ls {
        /// Only orders on this slice
        #[arg(long)]
        slice: Option<SliceName>,
        /// Only orders that are not closed
        #[arg(long)]
        open: bool,
        /// At most this many
        #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show an order and its proof, node by node
    Show {
        /// As `order ls` prints it
        order: OrderId,
        /// List every node, however many are well
        #[arg(long)]
        all: bool,
    },
    /// Follow an order until its last node is proven
    Watch {
        /// As `order ls` prints it
        order: OrderId,
        /// End once every attached node has answered; nodes that are away are not waited for
        #[arg(long)]
        until_settled: bool,
        /// End after this many seconds in any case
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<std::time::Duration>,
        /// List every node, however many are well
        #[arg(long)]
        all: bool,
    },
}

/// `redbutton approvals …`
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// List what waits for a second person, newest first
    Ls {
        /// Also what is over
        #[arg(long)]
        all: bool,
    },
    /// Show a proposal: what it would do, to whom, and who could approve it
    Show {
        /// As `approvals ls` prints it
        proposal: ProposalId,
    },
    /// Take a proposal back
    Withdraw {
        /// As `approvals ls` prints it
        proposal: ProposalId,
        /// Why
        #[arg(long, short, default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// `redbutton site …`
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// List sites
    Ls,
    /// Show a site
    Show {
        /// Its login base, as in princeton
        site: SiteName,
    },
    /// Register a site
    Add {
        /// Its login base, as in princeton
        site: SiteName,
        /// Its full name
        #[arg(long, default_value = "")]
        full_name: String,
        /// Where complaints about its nodes go
        #[arg(long, value_name = "EMAIL", default_value = "")]
        abuse_contact: String,
    },
}

/// `redbutton people …`
#[derive(Debug, Subcommand)]
pub enum PeopleCommand {
    /// List people
    Ls {
        /// Only people with a role at this site
        #[arg(long)]
        site: Option<SiteName>,
    },
    /// Show a person
    Show {
        /// As in their certificate
        person: PersonName,
    },
    /// Register a person
    Add {
        /// Lower case, as their certificate will say
        person: PersonName,
        /// Their full name
        #[arg(long, default_value = "")]
        full_name: String,
        /// Their e-mail address
        #[arg(long, default_value = "")]
        email: String,
        /// A first role
        #[command(flatten)]
        first: FirstGrant,
    },
    /// Give a person a role
    Grant {
        /// Whom
        person: PersonName,
        /// What
        #[command(flatten)]
        grant: GrantArgs,
    },
    /// Take a role from a person
    Revoke {
        /// From whom
        person: PersonName,
        /// What
        #[command(flatten)]
        grant: GrantArgs,
    },
    /// List the keys of a person
    Keys {
        /// Whose; yours unless given
        person: Option<PersonName>,
    },
    /// Revoke keys at once: a stolen laptop, a lost key. Their connections are cut
    RevokeKeys(RevokeKeysArgs),
    /// Take everything from a person at once: roles, keys, open invites
    Remove(RemoveArgs),
    /// List open invites
    Invites,
    /// Take an open invite back
    VoidInvite {
        /// As `people invites` prints it
        invite: InviteId,
    },
}

/// `redbutton audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show entries, newest first
    Log {
        /// At most this many
        #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Only what this person did
        #[arg(long)]
        person: Option<PersonName>,
        /// Only what was aimed at this
        #[arg(long)]
        target: Option<String>,
        /// Only what belongs to this order
        #[arg(long)]
        order: Option<OrderId>,
    },
    /// Collect the heads of the audit that nodes have kept, for `audit verify`
    Witness {
        /// The file; it must not exist
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check an exported file offline: no controller needed
    Verify(VerifyArgs),
    /// Write the chain to a file, or to stdout, for `audit verify`
    Export {
        /// From this entry on
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
        /// The file; it must not exist
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// `redbutton audit verify …`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// As `audit export` wrote it
    pub file: PathBuf,
    /// A head that somebody else kept, or a file of them as `audit witness` writes it; the chain must contain them.
    /// Repeat for several
    #[arg(long = "witness", value_name = "SEQUENCE:HASH|FILE", value_parser = WitnessArg::parse)]
    pub witnesses: Vec<WitnessArg>,
    /// The controller's roots, PEM: every head in a witness file must be signed under one of them
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The head just before a file that does not begin with entry 1
    #[arg(long, value_name = "SEQUENCE:HASH")]
    pub start: Option<audit::Head>,
}

#[cfg(test)]
mod tests;
