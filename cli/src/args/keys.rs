//! Arguments about who gets in and who no longer does.

use std::path::PathBuf;

use clap::Args;
use proto::PersonName;

use super::FirstGrant;

/// `redbutton login …`
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The invite; without one your certificate is renewed
    pub invite: Option<PathBuf>,
    /// Replace a bundle of somebody else; its key is gone then
    #[arg(long, requires = "invite")]
    pub force: bool,
    /// Use this key of your ssh-agent instead of making one: its comment or SHA256:… fingerprint
    #[arg(long, requires = "invite", value_name = "KEY")]
    pub ssh_agent: Option<String>,
}

/// `redbutton invite …`
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// Whom, lower case. Somebody who is there gets one more key and no role
    pub person: PersonName,
    /// Where the invite goes; nothing may stand there. Hand it over in private: whoever has it can use it
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// Their full name
    #[arg(long, default_value = "")]
    pub full_name: String,
    /// Their e-mail address
    #[arg(long, default_value = "")]
    pub email: String,
    /// What they will be
    #[command(flatten)]
    pub first: FirstGrant,
    /// Hours until it ends
    #[arg(long, default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..=720), value_name = "N")]
    pub hours: u32,
    /// Its use revokes the person's older keys
    #[arg(long, conflicts_with = "role")]
    pub rekey: bool,
}

/// `redbutton people revoke-keys …`
#[derive(Debug, Args)]
pub struct RevokeKeysArgs {
    /// Whose; yours unless given
    pub person: Option<PersonName>,
    /// Only this one: a fingerprint, or its first 8 digits or more. Otherwise all but the one that you use now
    #[arg(long, value_name = "FINGERPRINT")]
    pub key: Option<String>,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `redbutton people remove …`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Whom. The name stays theirs; an invite and a role let them in again
    pub person: PersonName,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    pub reason: String,
}
