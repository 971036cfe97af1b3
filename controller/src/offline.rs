//! `init`, `invite`, `issue`, `software`, `backup`, `restore`: from arguments to wishes.

use std::path::PathBuf;

use controller::admin::rotation::{self, Step};
use controller::admin::{
    Added, AdminError, Init, Initialised, InvitePerson, InvitedPerson, IssueBreakglass, IssueNode,
    IssuePerson, IssuedBundle, add_software, init as make, invite_person, issue_breakglass, issue_node,
    issue_person,
};
use controller::recovery::{self, BackedUp, Backup, RecoveryError, Restore, Restored, Source};
use time::{Duration, OffsetDateTime};

use crate::args::{Ca, InitArgs, InviteArgs, Issue, RestoreArgs, Root, SoftwareCommand};

pub(crate) async fn software(which: SoftwareCommand, dir: PathBuf) -> Result<Added, AdminError> {
    let SoftwareCommand::Add { file } = which;
    add_software(&dir, file, OffsetDateTime::now_utc()).await
}

pub(crate) async fn init(args: InitArgs, dir: PathBuf) -> Result<Initialised, AdminError> {
    let InitArgs {
        names,
        support,
        people,
        daemons,
        bundles,
    } = args;
    make(
        &Init {
            dir,
            names,
            support,
            people,
            daemons,
            bundles,
        },
        OffsetDateTime::now_utc(),
    )
    .await
}

pub(crate) async fn invite(args: InviteArgs, dir: PathBuf) -> Result<InvitedPerson, AdminError> {
    let InviteArgs {
        name,
        out,
        address,
        days,
        rekey,
    } = args;
    invite_person(
        &InvitePerson {
            dir,
            name,
            out,
            addresses: address,
            life: days.map(|days| Duration::days(days.into())),
            rekey,
        },
        OffsetDateTime::now_utc(),
    )
    .await
}

pub(crate) async fn issue(issue: Issue, dir: PathBuf) -> Result<IssuedBundle, AdminError> {
    let now = OffsetDateTime::now_utc();
    let life = |days: Option<u16>| days.map(|days| Duration::days(days.into()));
    match issue {
        Issue::Person {
            name,
            out,
            address,
            days,
        } => {
            issue_person(
                &IssuePerson {
                    dir,
                    name,
                    out,
                    addresses: address,
                    life: life(days),
                },
                now,
            )
            .await
        }
        Issue::Breakglass {
            name,
            days,
            out,
            request,
        } => {
            issue_breakglass(
                &IssueBreakglass {
                    dir,
                    name,
                    out,
                    life: Duration::days(days.into()),
                    request,
                },
                now,
            )
            .await
        }
        Issue::Node {
            name,
            site,
            out,
            address,
            days,
        } => {
            issue_node(
                &IssueNode {
                    dir,
                    name,
                    site,
                    out,
                    addresses: address,
                    life: life(days),
                },
                now,
            )
            .await
        }
    }
}

pub(crate) async fn ca(wish: Ca, dir: PathBuf, grace: std::time::Duration) -> Result<String, AdminError> {
    let now = OffsetDateTime::now_utc();
    let step = match wish {
        Ca::Status => return Ok(rotation::status(&dir, grace, now).await?.to_string()),
        Ca::RotateIssuing => Step::RotateIssuing,
        Ca::Root(Root::Add) => Step::AddRoot,
        Ca::Root(Root::Switch) => Step::SwitchRoot,
        Ca::Root(Root::Retire) => Step::RetireRoot,
    };
    rotation::step_offline(&dir, step, grace, now).await
}

pub(crate) async fn backup(
    out: PathBuf,
    secrets: Option<PathBuf>,
    dir: PathBuf,
) -> Result<BackedUp, RecoveryError> {
    recovery::backup(&Backup { dir, out, secrets }, OffsetDateTime::now_utc()).await
}

pub(crate) async fn restore(args: RestoreArgs, dir: PathBuf) -> Result<Restored, RecoveryError> {
    let RestoreArgs {
        from,
        in_place: _,
        secrets,
        approvals,
        alone: _,
        reason,
    } = args;
    let wish = Restore {
        dir,
        source: from.map_or(Source::InPlace, Source::Backup),
        secrets,
        approvals,
        alone: reason,
    };
    recovery::restore(&wish, OffsetDateTime::now_utc()).await
}
