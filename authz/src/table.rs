//! The table of DESIGN.md, “Who may do what”, a line a row: for each action a cell for each role, and the kinds
//! of targets it takes. What a cell means for a target is `Cell::needs`: the grants that would do. Deciding and
//! explaining both come from there, so that they cannot drift apart.
//!
//! Rows that DESIGN.md's table does not have, because it has nobody below support in them: `create-site` and
//! `create-slice`, `roll-out` and `steer-rollout`. `see-person` and `see-site` are the contacts of its first row.

use proto::{PersonName, Role, SiteName, SliceName};

use crate::target::Kind;
use crate::{Action, Grant, Target};

/// What a role may aim an action at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Nothing.
    Never,
    /// Slices one belongs to.
    Own,
    /// Slices of one's site.
    SiteSlices,
    /// Nodes of one's site, what runs there, and the site.
    SiteNodes,
    /// Slices and nodes of one's site.
    Sites,
    /// People and sites that one has to do with.
    Contacts,
    /// Holds that one set oneself, as a developer, on own slices.
    HoldsTheySet,
    /// Developers' and PIs' holds on the site's slices.
    HoldsOnSiteSlices,
    /// Site admins' holds on the site's nodes.
    HoldsOnSiteNodes,
    /// Loans between slices of one's site.
    SiteLoans,
    /// Developers into the site's slices.
    Developers,
    /// What one did oneself, and own slices.
    OwnActions,
    /// Everything.
    All,
    /// Everything, once a second person agrees.
    TwoPeople,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The row's words, for people.
    pub(crate) text: &'static str,
    cells: [Cell; 4],
    /// What the action can be aimed at at all.
    pub(crate) takes: &'static [Kind],
}

impl Row {
    pub(crate) const fn cell(&self, role: Role) -> Cell {
        let [developer, pi, site_admin, support] = self.cells;
        match role {
            Role::Developer => developer,
            Role::Pi => pi,
            Role::SiteAdmin => site_admin,
            Role::Support => support,
        }
    }
}

/// The row of an action aimed at a kind of target; `None`: open to anyone.
pub(crate) fn row(action: Action, kind: Kind) -> Option<Row> {
    use Action as A;
    use Cell::{
        All, Contacts, Developers, HoldsOnSiteNodes, HoldsOnSiteSlices, HoldsTheySet, Never, Own, OwnActions,
        SiteLoans, SiteNodes, SiteSlices, Sites, TwoPeople,
    };
    use Kind::{AuditEntry, Fleet, Hold, Loan, Node, Person, Site, Slice, SliceAtSite, Sliver};

    const RUNNING: &[Kind] = &[Slice, SliceAtSite, Sliver];
    const AT_SITE: &[Kind] = &[SliceAtSite, Sliver];
    const USAGE: &[Kind] = &[Slice, SliceAtSite, Sliver, Node, Site, Fleet];
    const RULES: &[Kind] = &[Slice, SliceAtSite, Site, Fleet];
    const NODES: &[Kind] = &[Node, Site, Fleet];

    // A slice at one site is the sliver row on each node of that site.
    let action = match (action, kind) {
        (A::KillSlice, SliceAtSite) => A::KillSliver,
        (A::FreezeSlice, SliceAtSite) => A::FreezeSliver,
        (other, _) => other,
    };
    let line = |text, developer, pi, site_admin, support, takes| {
        Some(Row {
            text,
            cells: [developer, pi, site_admin, support],
            takes,
        })
    };
    #[rustfmt::skip]
    let row = match action {
        //                                                                                       developer     PI                 site admin        support
        A::WhoAmI | A::VerifyAudit => None,
        A::SeeSlice => line("see slices and their contacts",                                     Own,          SiteSlices,        SiteNodes,        All,       RUNNING),
        A::SeeUsage | A::SeeFlows => line("see usage and flows",                                 Own,          SiteSlices,        SiteNodes,        All,       USAGE),
        A::SeePerson => line("see people",                                                       Contacts,     Contacts,          Contacts,         All,       &[Person]),
        A::SeeSite => line("see sites and their contacts",                                       Contacts,     Contacts,          Contacts,         All,       &[Site]),
        A::SeeNode | A::SeeJournal => line("see node health and journal tail",                   Never,        Never,             SiteNodes,        All,       &[Node]),
        A::SeeProcesses => line("see processes",                                                 Own,          SiteSlices,        SiteNodes,        All,       &[Sliver, Node]),
        A::ReadConsole => line("read a console",                                                 Never,        Never,             SiteNodes,        All,       &[Node]),
        A::WriteConsole => line("write to a console",                                            Never,        Never,             SiteNodes,        All,       &[Node]),
        A::KillSlice | A::FreezeSlice => line("kill or freeze a slice everywhere",               Own,          SiteSlices,        Never,            All,       &[Slice, SliceAtSite]),
        A::KillSliver | A::FreezeSliver => line("kill or freeze one sliver on one node",         Own,          SiteSlices,        SiteNodes,        All,       AT_SITE),
        A::Release => line("release a hold",                                                     HoldsTheySet, HoldsOnSiteSlices, HoldsOnSiteNodes, All,       &[Hold]),
        A::FreezeNode => line("hold a node (safe boot)",                                         Never,        Never,             SiteNodes,        All,       &[Node]),
        A::KillNode => line("kill every sliver on a node",                                       Never,        Never,             SiteNodes,        All,       &[Node]),
        A::RebootNode | A::PodProbe | A::PodDryRun | A::PodReboot | A::PodKillSlivers =>
            line("reboot a node; POD: probe, dry-run, reboot, kill-slivers",                     Never,        Never,             SiteNodes,        All,       &[Node]),
        A::PodCrash | A::StopNode => line("POD: crash (dump); halt a node",                      Never,        Never,             SiteNodes,        All,       &[Node]),
        A::PowerStatus => line("ask for power status",                                           Never,        Never,             SiteNodes,        All,       &[Node]),
        A::PowerOn | A::PowerOff | A::PowerCycle => line("switch power on, off, cycle",          Never,        Never,             SiteNodes,        All,       &[Node]),
        A::AddPcu => line("add a PCU",                                                           Never,        Never,             SiteNodes,        All,       &[Site]),
        A::EditOutlets | A::CommissionPcu => line("edit outlets, commission",                    Never,        Never,             SiteNodes,        All,       &[Node, Site]),
        A::LowerLimits => line("lower limits",                                                   Own,          SiteSlices,        Never,            All,       RUNNING),
        A::SetLimits => line("set limits within the site's allocation",                          Never,        SiteSlices,        Never,            All,       RUNNING),
        A::LendLimits => line("lend shares from slice to slice",                                 Never,        SiteLoans,         Never,            All,       &[Loan]),
        A::ExceedAllocation => line("set limits beyond a site's allocation",                     Never,        Never,             Never,            All,       RUNNING),
        A::SetNodeCaps => line("set node caps",                                                  Never,        Never,             SiteNodes,        All,       NODES),
        A::SetTrafficPolicy => line("set traffic policy",                                        Never,        Never,             SiteNodes,        All,       &[Slice, Node, Site, Fleet]),
        A::SeeRules => line("see rules",                                                         Own,          Sites,             Sites,            All,       RULES),
        A::ProposeRule => line("propose rules",                                                  Never,        Never,             Sites,            All,       RULES),
        A::EditRule => line("edit rules",                                                        Never,        Never,             Never,            All,       RULES),
        A::ArmRule => line("let rules act",                                                      Never,        Never,             Never,            All,       RULES),
        A::SeeLadder => line("see the ladder",                                                   Never,        Never,             SiteNodes,        All,       NODES),
        A::PauseLadder | A::SetMaintenance => line("pause the ladder, declare maintenance",      Never,        Never,             SiteNodes,        All,       NODES),
        A::Invite | A::SetRole => line("invite people, set roles",                               Never,        Developers,        Never,            All,       &[Person]),
        A::CreateSite => line("create sites",                                                    Never,        Never,             Never,            All,       &[Site]),
        A::CreateSlice => line("create slices",                                                  Never,        Never,             Never,            All,       &[Slice]),
        A::EnrolNode | A::RevokeNode | A::RekeyNode => line("enrol, revoke, re-key nodes",       Never,        Never,             SiteNodes,        All,       &[Node]),
        A::SetGateway => line("set a site's gateway",                                            Never,        Never,             SiteNodes,        All,       &[Site]),
        A::ReadAudit => line("read the audit",                                                   OwnActions,   SiteSlices,        SiteNodes,        All,       &[AuditEntry, Fleet]),
        A::RollOut => line("roll out our own programs",                                          Never,        Never,             Never,            TwoPeople, &[Fleet]),
        A::SteerRollout => line("steer rollouts",                                                Never,        Never,             Never,            All,       &[Fleet]),
        A::RotateCa => line("rotate the CA",                                                     Never,        Never,             Never,            TwoPeople, &[Fleet]),
        A::RotatePodKeys => line("rotate POD keys",                                              Never,        Never,             Never,            TwoPeople, &[Fleet]),
        A::Restore => line("restore a backup",                                                   Never,        Never,             Never,            TwoPeople, &[Fleet]),
        A::IssueBreakglass => line("issue breakglass certificates",                              Never,        Never,             Never,            TwoPeople, &[Person]),
        A::StopEverySlice => line("stop every slice",                                            Never,        Never,             Never,            TwoPeople, &[Fleet]),
        A::StopEveryNode => line("stop every node",                                              Never,        Never,             Never,            TwoPeople, &[Fleet]),
    };
    row
}

/// A grant that would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Want {
    DeveloperOf(SliceName),
    /// Of any slice of the site.
    DeveloperAt(SiteName),
    /// Of any slice.
    Developer,
    PiOf(SiteName),
    SiteAdminOf(SiteName),
    Support,
}

impl Want {
    pub(crate) fn is_met_by(&self, grant: &Grant) -> bool {
        match (self, grant) {
            (Want::DeveloperOf(want), Grant::Developer(have)) => want == have,
            (Want::DeveloperAt(want), Grant::Developer(have)) => *want == have.site(),
            (Want::Developer, Grant::Developer(_)) | (Want::Support, Grant::Support) => true,
            (Want::PiOf(want), Grant::Pi(have)) | (Want::SiteAdminOf(want), Grant::SiteAdmin(have)) => {
                want == have
            }
            _ => false,
        }
    }
}

/// A grant that would do, held by one person only if so said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) want: Want,
    /// Only for this person, and why in a few words.
    pub(crate) only: Option<(PersonName, &'static str)>,
    /// A second person must agree.
    pub(crate) second: bool,
}

impl From<Want> for Need {
    fn from(want: Want) -> Need {
        Need {
            want,
            only: None,
            second: false,
        }
    }
}

impl Cell {
    /// The grants of this role that entitle to the target; none: no such grant exists.
    pub(crate) fn needs(self, role: Role, target: &Target) -> Vec<Need> {
        let of_site = |site: SiteName| match role {
            Role::Developer => Want::DeveloperAt(site),
            Role::Pi => Want::PiOf(site),
            Role::SiteAdmin => Want::SiteAdminOf(site),
            Role::Support => Want::Support,
        };
        let slice = target.slice();
        let nodes_of = target.nodes_of().cloned();
        let wants: Vec<Want> = match self {
            Cell::Never => vec![],
            Cell::All => vec![Want::Support],
            Cell::TwoPeople => {
                return vec![Need {
                    want: Want::Support,
                    only: None,
                    second: true,
                }];
            }
            Cell::Own => slice.cloned().map(Want::DeveloperOf).into_iter().collect(),
            Cell::SiteSlices => slice.map(|s| of_site(s.site())).into_iter().collect(),
            Cell::SiteNodes => nodes_of.map(of_site).into_iter().collect(),
            Cell::Sites => slice
                .map(SliceName::site)
                .into_iter()
                .chain(nodes_of)
                .map(of_site)
                .collect(),
            Cell::Contacts => contacts(role, target),
            Cell::SiteLoans => match target {
                Target::Loan { from, to } if from.site() == to.site() => vec![of_site(from.site())],
                _ => vec![],
            },
            Cell::Developers => match target {
                Target::Person { grants, .. } => one_site(grants).map(of_site).into_iter().collect(),
                _ => vec![],
            },
            Cell::HoldsTheySet => match (slice, target) {
                // As a developer: who set it as support and is no longer support does not undo it.
                (
                    Some(slice),
                    Target::Hold {
                        holder,
                        role: Role::Developer,
                        ..
                    },
                ) => {
                    let only = Some((holder.clone(), "who set it"));
                    return vec![Need {
                        want: Want::DeveloperOf(slice.clone()),
                        only,
                        second: false,
                    }];
                }
                _ => vec![],
            },
            Cell::HoldsOnSiteSlices => match (slice, target) {
                (
                    Some(slice),
                    Target::Hold {
                        role: Role::Developer | Role::Pi,
                        ..
                    },
                ) => vec![of_site(slice.site())],
                _ => vec![],
            },
            Cell::HoldsOnSiteNodes => match target {
                Target::Hold {
                    role: Role::SiteAdmin,
                    ..
                } => nodes_of.map(of_site).into_iter().collect(),
                _ => vec![],
            },
            Cell::OwnActions => {
                let mut needs: Vec<Need> = slice
                    .cloned()
                    .map(|slice| Want::DeveloperOf(slice).into())
                    .into_iter()
                    .collect();
                if let Target::AuditEntry {
                    person: Some(person), ..
                } = target
                {
                    let only = Some((person.clone(), "whose action it was"));
                    needs.push(Need {
                        want: Want::Developer,
                        only,
                        second: false,
                    });
                }
                return needs;
            }
        };
        wants.into_iter().map(Need::from).collect()
    }
}

/// Who has to do with a person or a site: developers with those of their slices and their slices' site, PIs with
/// everybody of their site and its slices, site admins with the PIs and admins of their site.
fn contacts(role: Role, target: &Target) -> Vec<Want> {
    let of_site = |site: &SiteName| match role {
        Role::Developer => Some(Want::DeveloperAt(site.clone())),
        Role::Pi => Some(Want::PiOf(site.clone())),
        Role::SiteAdmin => Some(Want::SiteAdminOf(site.clone())),
        Role::Support => None,
    };
    match target {
        Target::Site(site) => of_site(site).into_iter().collect(),
        Target::Person { grants, .. } => grants
            .iter()
            .filter_map(|grant| match (grant, role) {
                (Grant::Developer(slice), Role::Developer) => Some(Want::DeveloperOf(slice.clone())),
                (Grant::Developer(slice), Role::Pi) => Some(Want::PiOf(slice.site())),
                (Grant::Pi(site), _) => of_site(site),
                (Grant::SiteAdmin(site), Role::Pi | Role::SiteAdmin) => of_site(site),
                _ => None,
            })
            .collect(),
        _ => vec![],
    }
}

/// The one site whose slices these grants are developers of; `None` if there is any other grant, or none.
fn one_site(grants: &[Grant]) -> Option<SiteName> {
    let mut sites = grants.iter().map(|grant| grant.slice().map(SliceName::site));
    let first = sites.next()??;
    sites.all(|site| site.as_ref() == Some(&first)).then_some(first)
}
