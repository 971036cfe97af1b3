//! The command line, and the configuration with it on top.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use controller::{Config, ConfigError};
use proto::{NodeName, PersonName, SiteName};

/// The centre of Redbutton: people, orders, audit.
#[derive(Debug, Parser)]
#[command(name = "redbutton-controller", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file.
    #[arg(
        long,
        short,
        global = true,
        default_value = "/etc/redbutton/controller.toml",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// State directory, instead of the configuration's.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The file, with the command line on top of it. Only the default place may be empty.
    pub(crate) fn configuration(&self) -> Result<Config, ConfigError> {
        let default = Path::new("/etc/redbutton/controller.toml");
        let mut config = if self.config == default && !default.exists() {
            Config::default()
        } else {
            Config::load(&self.config)?
        };
        if let Some(state) = &self.state {
            config.state.clone_from(state);
        }
        if let Command::Serve(ServeArgs { people, daemons, .. }) = &self.command {
            config.people.listen = people.unwrap_or(config.people.listen);
            config.daemons.listen = daemons.unwrap_or(config.daemons.listen);
        }
        Ok(config)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new controller: CA, database, invites of the first two support people.
    Init(InitArgs),
    /// Make an invite for a person who exists; also while the controller serves. `redbutton invite` needs no root.
    Invite(InviteArgs),
    /// Make a bundle for a person or a node; also while the controller serves.
    #[command(subcommand)]
    Issue(Issue),
    /// The CA: how it stands, a new issuing CA, a new root; also while the controller serves.
    #[command(subcommand)]
    Ca(Ca),
    /// Programs for nodes; also while the controller serves.
    #[command(subcommand)]
    Software(SoftwareCommand),
    /// Serve people and nodes.
    Serve(ServeArgs),
    /// Copy the database; also while the controller serves.
    Backup {
        /// The copy; nothing may stand there.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        /// Also copy keys and certificates, to a file of their own: keep it in another place.
        #[arg(long, value_name = "FILE")]
        secrets: Option<PathBuf>,
    },
    /// Put a copy in the place of the database; a new incarnation begins. Needs two support people.
    Restore(RestoreArgs),
}

/// A restore.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// As `backup` wrote it.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "in_place",
        conflicts_with = "in_place"
    )]
    pub(crate) from: Option<PathBuf>,
    /// The database that is in place: an earlier copy that somebody put there by hand.
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Keys and certificates that are missing, as `backup --secrets` wrote them.
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// As `redbutton sign-restore` wrote it; twice, by two support people.
    #[arg(long = "approval", value_name = "FILE", conflicts_with = "alone")]
    pub(crate) approvals: Vec<PathBuf>,
    /// Without a second person, because only one is left. It stands so in the audit.
    #[arg(long, requires = "reason")]
    pub(crate) alone: bool,
    /// Why alone.
    #[arg(long, value_name = "TEXT", requires = "alone")]
    pub(crate) reason: Option<String>,
}

/// The CA.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Roots, their stages, who has what a change of roots needs.
    Status,
    /// Put a new issuing CA in the place of the one there is. Done by itself when half its life is over.
    RotateIssuing,
    /// Change the root: add, wait until everybody has it, switch, wait, retire.
    #[command(subcommand)]
    Root(Root),
}

/// A step of a change of roots.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Root {
    /// Make a new root; it is handed out with every renewal from now on.
    Add,
    /// Issue below the new root; refused while somebody does not trust it.
    Switch,
    /// Trust the old root no more; refused while somebody has no certificate below the new one. Before the switch:
    /// take the new root back.
    Retire,
}

/// A new controller.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A DNS name or IP address under which the controller is reached; again for each.
    #[arg(long = "name", required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// A support person; at least two.
    #[arg(long, required = true, value_name = "PERSON")]
    pub(crate) support: Vec<PersonName>,
    /// Where people dial, HOST:PORT, instead of every name with port 7443; again for each.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) people: Vec<String>,
    /// Where daemons dial, HOST:PORT, instead of every name with port 7444; again for each.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) daemons: Vec<String>,
    /// Leave ready bundles with long-lived certificates instead of invites: for tests and trials.
    #[arg(long)]
    pub(crate) bundles: bool,
}

/// An invite.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// Who; they exist, and get one more key.
    pub(crate) name: PersonName,
    /// Where the invite goes; nothing may stand there.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Where to dial, HOST:PORT, instead of what init recorded; again for each.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Vec<String>,
    /// Days until it ends.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=30), value_name = "N")]
    pub(crate) days: Option<u16>,
    /// Its use revokes their older keys.
    #[arg(long)]
    pub(crate) rekey: bool,
}

/// A bundle.
#[derive(Debug, Subcommand)]
pub(crate) enum Issue {
    /// For a person whom support has created.
    Person {
        /// Who.
        name: PersonName,
        /// Where the bundle goes; nothing may stand there.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        /// Where to dial, HOST:PORT, instead of what init recorded; again for each.
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<String>,
        /// Days until it ends.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
        days: Option<u16>,
    },
    /// For a node; it is enrolled if it is new.
    Node {
        /// Its DNS name.
        name: NodeName,
        /// Its site; required for a new node.
        #[arg(long, value_name = "SITE")]
        site: Option<SiteName>,
        /// Where the bundle goes; nothing may stand there.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        /// Where to dial, HOST:PORT, instead of what init recorded; again for each.
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<String>,
        /// Days until it ends.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
        days: Option<u16>,
    },
    /// For a person, good at nodes alone and for long: for the day on which this controller is gone.
    Breakglass {
        /// Who.
        name: PersonName,
        /// Days until it ends.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=365), value_name = "N")]
        days: u16,
        /// Where the bundle goes; nothing may stand there.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        /// As `redbutton breakglass request` wrote it: the key stays with its holder. Otherwise it is made here.
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
    },
}

/// Programs for nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum SoftwareCommand {
    /// Put a program onto the shelf; `redbutton rollout start` brings it to nodes.
    Add {
        /// A redbutton-nodemgr for some architecture.
        file: PathBuf,
    },
}

/// Serving.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen for people, instead of the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) people: Option<std::net::SocketAddr>,
    /// Where to listen for daemons, instead of the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) daemons: Option<std::net::SocketAddr>,
    /// Written once both ports listen: the line that also goes to standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}
