//! What a node says about itself: never believed for authority, always bounded before it is kept.

use prost::Message;
use proto::v1::{NodeReport, SliverActivity, SoftwareState, Witnessed};
use proto::{BootId, HoldId, NodeId, SliceName, Version};

use super::clones::Boots;

/// Slivers, and ids of holds, that a report may name; a node has a few dozen.
const MAX_SLIVERS: usize = 4_096;
/// Capabilities and refused cgroups that a report may name.
const MAX_LINES: usize = 256;
/// Bytes of a report that are kept.
const MAX_REPORT: usize = 256 << 10;
/// Bytes of what a node witnessed: a head, and a few pairs of them.
const MAX_WITNESSED: usize = 128 << 10;
/// Bytes of one text in a report.
const MAX_TEXT: usize = 1_024;

/// One sliver in the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliverFact {
    pub(crate) slice: SliceName,
    pub(crate) activity: SliverActivity,
}

/// What is known of a node.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) boot: Option<BootId>,
    boots: Boots,
    /// The node's clock minus ours when it last said.
    pub(crate) clock_skew_ms: Option<i64>,
    pub(crate) last_seen_ms: Option<i64>,
    pub(crate) reported_at_ms: Option<i64>,
    /// The last report, encoded; empty: not since the start.
    pub(crate) report: Box<[u8]>,
    pub(crate) slivers: Box<[SliverFact]>,
    /// Holds that stand on the node and that nobody here knows.
    pub(crate) strange_holds: Box<[HoldId]>,
    /// Why the node did not take the holds that it was sent; empty: it did.
    pub(crate) refusal: Box<str>,
    /// Whether it keeps a policy at all: a node of an earlier release does not know what that is.
    pub(crate) keeps_policy: bool,
    /// The version of the policy that it decides by on its own.
    pub(crate) policy: Option<Version>,
}

impl Facts {
    pub(crate) fn known(boot: Option<BootId>, last_seen_ms: Option<i64>) -> Self {
        Self {
            boot,
            boots: Boots::known(boot),
            last_seen_ms,
            ..Self::default()
        }
    }

    /// Takes the first report of the link of this number. Another boot that this one took turns with: two machines
    /// share one identity.
    pub(crate) fn meet(&mut self, report: &Checked, link: u64, at_ms: i64) -> Option<BootId> {
        let twin = self.boots.observe(report.boot, link);
        self.boot = Some(report.boot);
        self.learn(report, at_ms);
        twin
    }

    /// The node has a new key: one machine again.
    pub(crate) fn absolve(&mut self) {
        self.boots.forget();
    }

    /// Takes a checked report of the boot that is known.
    pub(crate) fn learn(&mut self, report: &Checked, at_ms: i64) {
        // Nodes that do not say what time it is are not in 1970.
        let clock = Some(report.report.clock_ms).filter(|clock| *clock != 0);
        self.clock_skew_ms = clock
            .map(|clock| clock.saturating_sub(at_ms))
            .or(self.clock_skew_ms);
        self.last_seen_ms = Some(at_ms);
        self.reported_at_ms = Some(at_ms);
        self.policy = report.report.policy_version.map(Version::from);
        let policy = |capability: &proto::v1::Capability| capability.name == proto::POLICY_CAPABILITY;
        self.keeps_policy = report.report.capabilities.iter().any(policy);
        self.report = report.report.encode_to_vec().into();
        let slivers = report.report.slivers.iter().filter_map(|sliver| {
            Some(SliverFact {
                slice: sliver.slice.parse().ok()?,
                activity: sliver.activity(),
            })
        });
        let slivers: Vec<_> = slivers.collect();
        if *self.slivers != *slivers {
            self.slivers = slivers.into();
        }
    }

    /// The last report in full.
    pub(crate) fn report(&self) -> Option<NodeReport> {
        if self.report.is_empty() {
            None
        } else {
            NodeReport::decode(&*self.report).ok()
        }
    }

    /// The slices that have processes here, each once.
    pub(crate) fn running(&self) -> impl Iterator<Item = &SliverFact> {
        self.slivers
            .iter()
            .filter(|sliver| matches!(sliver.activity, SliverActivity::Running | SliverActivity::Frozen))
    }
}

/// A report that may be kept.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// Without what it witnessed.
    pub(crate) report: NodeReport,
    pub(crate) witnessed: Option<Witnessed>,
    pub(crate) boot: BootId,
    pub(crate) holds: Vec<HoldId>,
}

/// Why a report is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("report speaks for node {got:?}, the certificate for {expected}")]
    Node { got: String, expected: NodeId },
    #[error("report: {0}")]
    Boot(proto::IdError),
    #[error("report speaks protocol {0}, at least 1 is needed")]
    Protocol(u32),
}

pub(crate) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

fn bound(software: &mut SoftwareState) {
    for text in [
        &mut software.version,
        &mut software.architecture,
        &mut software.left_why,
        &mut software.refused,
    ] {
        cut(text, MAX_TEXT);
    }
    software.sha256.truncate(32);
    software.left_sha256.truncate(32);
}

/// Checks who speaks and for which boot, and cuts what is too long.
pub(crate) fn check(mut report: NodeReport, expected: NodeId) -> Result<Checked, ReportError> {
    if report.node.parse() != Ok(expected) {
        cut(&mut report.node, 80);
        return Err(ReportError::Node {
            got: report.node,
            expected,
        });
    }
    if report.protocol == 0 {
        return Err(ReportError::Protocol(report.protocol));
    }
    let boot = report.boot_id.parse().map_err(ReportError::Boot)?;
    for text in [
        &mut report.agent_version,
        &mut report.kernel,
        &mut report.configuration_hash,
        &mut report.locked,
        &mut report.hostname,
        &mut report.restart_means,
        &mut report.direct_address,
    ] {
        cut(text, MAX_TEXT);
    }
    if let Some(software) = &mut report.software {
        bound(software);
    }
    // A kilobyte that most nodes share: kept apart, once for all of them.
    let witnessed = report
        .witnessed
        .take()
        .filter(|seen| seen.encoded_len() <= MAX_WITNESSED);
    report.slivers.truncate(MAX_SLIVERS);
    report.holds.truncate(MAX_SLIVERS);
    report.capabilities.truncate(MAX_LINES);
    report.refused.truncate(MAX_LINES);
    let holds = report.holds.iter().filter_map(|id| id.parse().ok()).collect();
    for shed in [
        |report: &mut NodeReport| report.refused.clear(),
        |report: &mut NodeReport| report.capabilities.clear(),
        |report: &mut NodeReport| report.slivers.iter_mut().for_each(|sliver| sliver.holds.clear()),
        |report: &mut NodeReport| report.holds.clear(),
        |report: &mut NodeReport| report.slivers.clear(),
    ] {
        if report.encoded_len() <= MAX_REPORT {
            break;
        }
        shed(&mut report);
    }
    Ok(Checked {
        report,
        witnessed,
        boot,
        holds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{RefusedCgroup, SliverState};

    fn report(node: NodeId, boot: u128) -> NodeReport {
        NodeReport {
            node: node.to_string(),
            protocol: 1,
            boot_id: BootId::from_uuid(uuid::Uuid::from_u128(boot)).to_string(),
            ..NodeReport::default()
        }
    }

    #[test]
    fn a_report_speaks_for_its_own_node_and_boot() {
        let (node, other) = (NodeId::random(), NodeId::random());
        assert!(check(report(node, 1), node).is_ok());
        assert!(matches!(
            check(report(other, 1), node),
            Err(ReportError::Node { .. })
        ));
        assert!(
            matches!(check(NodeReport { node: "x".repeat(10_000), ..report(node, 1) }, node),
            Err(ReportError::Node { got, .. }) if got.len() == 80)
        );
        assert!(matches!(
            check(
                NodeReport {
                    boot_id: "1".into(),
                    ..report(node, 1)
                },
                node
            ),
            Err(ReportError::Boot(_))
        ));
        assert!(matches!(
            check(
                NodeReport {
                    protocol: 0,
                    ..report(node, 1)
                },
                node
            ),
            Err(ReportError::Protocol(0))
        ));
    }

    #[test]
    fn a_hostile_report_is_cut() {
        let node = NodeId::random();
        let hostile = NodeReport {
            locked: "ä".repeat(100_000),
            refused: vec![
                RefusedCgroup {
                    cgroup: "c".repeat(2_000),
                    reason: "r".repeat(2_000)
                };
                1_000
            ],
            slivers: vec![
                SliverState {
                    slice: "a_b".into(),
                    cgroup: "c".repeat(100),
                    ..SliverState::default()
                };
                100_000
            ],
            holds: vec!["not an id".into(); 100_000],
            software: Some(SoftwareState {
                version: "v".repeat(100_000),
                left_why: "w".repeat(100_000),
                sha256: vec![1; 100_000],
                ..SoftwareState::default()
            }),
            ..report(node, 1)
        };
        let checked = check(hostile, node).expect("cut, not refused");
        assert!(
            checked.report.encoded_len() <= MAX_REPORT,
            "{}",
            checked.report.encoded_len()
        );
        assert!(checked.report.locked.len() <= MAX_TEXT && checked.holds.is_empty());
        let software = checked.report.software.expect("kept");
        assert!(software.version.len() <= MAX_TEXT && software.left_why.len() <= MAX_TEXT);
        assert_eq!(software.sha256.len(), 32);
    }

    #[test]
    fn alternating_boots_are_noticed_and_a_reboot_is_not_one() {
        let node = NodeId::random();
        let mut facts = Facts::default();
        let mut link = 0;
        let mut meet = |boot| {
            link += 1;
            let report = check(report(node, boot), node).expect("good");
            facts.meet(&report, link, 0).is_some()
        };
        assert!(!meet(1) && !meet(1) && !meet(2) && !meet(3));
        assert!(meet(2), "2, 3, 2");
    }

    #[test]
    fn a_wrong_clock_is_shown_and_a_silent_one_is_not() {
        let node = NodeId::random();
        let mut facts = Facts::default();
        facts.learn(&check(report(node, 1), node).expect("good"), 1_000_000);
        assert_eq!(facts.clock_skew_ms, None);
        for (clock_ms, skew) in [(1_000_250, 250), (1, -999_999), (i64::MIN, i64::MIN)] {
            let said = NodeReport {
                clock_ms,
                ..report(node, 1)
            };
            facts.learn(&check(said, node).expect("good"), 1_000_000);
            assert_eq!(facts.clock_skew_ms, Some(skew));
        }
    }
}
