//! Nodes as the controller sees them and as they report themselves.

use proto::v1;
use serde::Serialize;

use super::hold::Hold;
use super::{Version, some, words};
use crate::when::Time;

words! {
    /// What a sliver does.
    Activity from v1::SliverActivity {
        Empty = "empty",
        Running = "running",
        Frozen = "frozen",
    }
}

words! {
    /// How far a limit is enforced.
    Assurance from v1::Assurance {
        Exact = "exact",
        Bounded = "bounded",
        NotEnforced = "not enforced",
    }
}

/// One machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) attached: bool,
    pub(crate) last_seen: Time,
    pub(crate) boot_id: Option<String>,
    pub(crate) slivers: Option<u32>,
    pub(crate) load_one: Option<f64>,
    pub(crate) kernel: Option<String>,
    pub(crate) holds: u32,
    pub(crate) trouble: Option<String>,
    /// Its clock minus the controller's, milliseconds.
    pub(crate) clock_skew_ms: Option<i64>,
    /// When the certificate of its link ends.
    pub(crate) certificate_expires_at: Time,
    /// Two machines share its key.
    pub(crate) quarantined: bool,
    /// Shut out since then.
    pub(crate) revoked_at: Time,
    /// When the policy was issued by which it decides on its own.
    pub(crate) policy_issued_at: Time,
    /// Where it listens for people.
    pub(crate) direct_address: Option<String>,
    pub(crate) agent_version: Option<String>,
}

impl From<v1::Node> for Node {
    fn from(wire: v1::Node) -> Self {
        let v1::Node {
            id,
            name,
            site,
            attached,
            last_seen_ms,
            boot_id,
            slivers,
            load_one,
            kernel,
            holds,
            trouble,
            clock_skew_ms,
            certificate_expires_at_ms,
            quarantined,
            revoked_at_ms,
            policy_issued_at_ms,
            direct_address,
            agent_version,
        } = wire;
        Self {
            id,
            name,
            site,
            attached,
            last_seen: Time(last_seen_ms),
            boot_id: some(boot_id),
            slivers,
            load_one,
            kernel: some(kernel),
            holds,
            trouble: some(trouble),
            clock_skew_ms,
            certificate_expires_at: Time(certificate_expires_at_ms),
            quarantined,
            revoked_at: Time(revoked_at_ms),
            policy_issued_at: Time(policy_issued_at_ms),
            direct_address: some(direct_address),
            agent_version: some(agent_version),
        }
    }
}

/// `node ls`
#[derive(Debug, Serialize)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
}

/// `node show`
#[derive(Debug, Serialize)]
pub(crate) struct NodeDetail {
    pub(crate) node: Node,
    pub(crate) reported_at: Time,
    pub(crate) report: Option<Report>,
    pub(crate) holds: Vec<Hold>,
}

/// What a node says of itself.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) protocol: u32,
    pub(crate) agent_version: String,
    pub(crate) hostname: Option<String>,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) clock: Time,
    pub(crate) uptime_ms: u64,
    pub(crate) load: Option<Load>,
    pub(crate) memory_total_kib: Option<u64>,
    pub(crate) memory_available_kib: Option<u64>,
    pub(crate) files_allocated: Option<u64>,
    pub(crate) files_maximum: Option<u64>,
    pub(crate) processes: u32,
    pub(crate) seen: Option<Version>,
    pub(crate) holds: Vec<String>,
    pub(crate) configuration_hash: String,
    pub(crate) locked: Option<String>,
    pub(crate) restart_means: Option<String>,
    /// Fingerprint of the key that it dials with.
    pub(crate) key: Option<String>,
    pub(crate) software: Option<Software>,
    pub(crate) slivers: Vec<Sliver>,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) refused: Vec<RefusedCgroup>,
}

impl From<v1::NodeReport> for Report {
    fn from(wire: v1::NodeReport) -> Self {
        let v1::NodeReport {
            node: _,
            witnessed: _,
            protocol,
            agent_version,
            boot_id,
            kernel,
            clock_ms,
            uptime_ms,
            load,
            memory,
            files,
            processes,
            slivers,
            seen,
            holds,
            configuration_hash,
            capabilities,
            locked,
            refused,
            hostname,
            restart_means,
            // Told with the node.
            policy_issued_at_ms: _,
            policy_version: _,
            direct_address: _,
            key_spki,
            certificate_expires_at_ms: _,
            software,
            local_entries: _,
            tombstones: _,
        } = wire;
        Self {
            protocol,
            agent_version,
            hostname: some(hostname),
            boot_id,
            kernel,
            clock: Time(clock_ms),
            uptime_ms,
            load: load.map(Load::from),
            memory_total_kib: memory.map(|m| m.total_kib),
            memory_available_kib: memory.map(|m| m.available_kib),
            files_allocated: files.map(|f| f.allocated),
            files_maximum: files.map(|f| f.maximum),
            processes,
            seen: seen.map(Version::from),
            holds,
            configuration_hash,
            locked: some(locked),
            restart_means: some(restart_means),
            key: some(key_spki),
            software: software.map(Software::from),
            slivers: slivers.into_iter().map(Sliver::from).collect(),
            capabilities: capabilities
                .into_iter()
                .map(|c| Capability {
                    name: c.name,
                    assurance: Assurance::from_wire(c.assurance),
                    reason: some(c.reason),
                })
                .collect(),
            refused: refused
                .into_iter()
                .map(|r| RefusedCgroup {
                    cgroup: r.cgroup,
                    reason: r.reason,
                })
                .collect(),
        }
    }
}

/// Which program speaks, and whether another one can take its place.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Software {
    /// Null: the one that came with the package.
    pub(crate) sha256: Option<String>,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) trial: bool,
    pub(crate) left_sha256: Option<String>,
    pub(crate) left_why: Option<String>,
    pub(crate) refused: Option<String>,
}

impl From<v1::SoftwareState> for Software {
    fn from(wire: v1::SoftwareState) -> Self {
        let v1::SoftwareState {
            sha256,
            version,
            architecture,
            trial,
            attempt: _,
            left_sha256,
            left_why,
            refused,
        } = wire;
        Self {
            sha256: some(super::hex(&sha256)),
            version,
            architecture,
            trial,
            left_sha256: some(super::hex(&left_sha256)),
            left_why: some(left_why),
            refused: some(refused),
        }
    }
}

/// Load averages and pressure (percent over ten seconds, null where unknown).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Load {
    pub(crate) one: f64,
    pub(crate) five: f64,
    pub(crate) fifteen: f64,
    pub(crate) cpu_some: Option<f64>,
    pub(crate) memory_some: Option<f64>,
    pub(crate) memory_full: Option<f64>,
    pub(crate) io_some: Option<f64>,
    pub(crate) io_full: Option<f64>,
}

impl From<v1::Load> for Load {
    fn from(wire: v1::Load) -> Self {
        let v1::Load {
            one,
            five,
            fifteen,
            cpu_some,
            memory_some,
            memory_full,
            io_some,
            io_full,
        } = wire;
        Self {
            one,
            five,
            fifteen,
            cpu_some,
            memory_some,
            memory_full,
            io_some,
            io_full,
        }
    }
}

/// One subtree of a slice.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sliver {
    pub(crate) slice: String,
    pub(crate) cgroup: String,
    pub(crate) activity: Activity,
    pub(crate) processes: Option<u32>,
    pub(crate) holds: Vec<String>,
    pub(crate) manager: Option<String>,
    pub(crate) respawns: u32,
    pub(crate) uid: Option<u32>,
}

impl From<v1::SliverState> for Sliver {
    fn from(wire: v1::SliverState) -> Self {
        let v1::SliverState {
            slice,
            cgroup,
            activity,
            processes,
            holds,
            manager,
            respawns,
            uid,
        } = wire;
        Self {
            slice,
            cgroup,
            activity: Activity::from_wire(activity),
            processes,
            holds,
            manager: some(manager),
            respawns,
            uid,
        }
    }
}

/// What this kernel gives.
#[derive(Debug, Serialize)]
pub(crate) struct Capability {
    pub(crate) name: String,
    pub(crate) assurance: Assurance,
    pub(crate) reason: Option<String>,
}

/// A cgroup that the guard refused.
#[derive(Debug, Serialize)]
pub(crate) struct RefusedCgroup {
    pub(crate) cgroup: String,
    pub(crate) reason: String,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) ppid: i32,
    pub(crate) uid: u32,
    pub(crate) state: String,
    pub(crate) comm: String,
    pub(crate) command_line: String,
    pub(crate) slice: Option<String>,
    pub(crate) cgroup: Option<String>,
    pub(crate) files: Option<u32>,
    pub(crate) sockets: Option<u32>,
    pub(crate) resident_kib: u64,
    pub(crate) cpu_ms: u64,
}

impl From<v1::Process> for Process {
    fn from(wire: v1::Process) -> Self {
        let v1::Process {
            pid,
            ppid,
            uid,
            comm,
            command_line,
            state,
            files,
            sockets,
            resident_kib,
            cpu_ms,
            slice,
            cgroup,
        } = wire;
        Self {
            pid,
            ppid,
            uid,
            state,
            comm,
            command_line,
            slice: some(slice),
            cgroup: some(cgroup),
            files,
            sockets,
            resident_kib,
            cpu_ms,
        }
    }
}

/// `node ps`
#[derive(Debug, Serialize)]
pub(crate) struct Processes {
    pub(crate) node: String,
    pub(crate) processes: Vec<Process>,
    pub(crate) truncated: bool,
}

/// One line of `node logs --json`.
#[derive(Debug, Serialize)]
pub(crate) struct LogLine<'a> {
    pub(crate) line: &'a str,
    pub(crate) source: &'a str,
}

/// `node enroll`, `node rekey`
#[derive(Debug, Serialize)]
pub(crate) struct Token {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) expires_at: Time,
    /// Where it is; `-`: it was written to standard output.
    pub(crate) file: String,
}

/// `node revoke`
#[derive(Debug, Serialize)]
pub(crate) struct Revoked {
    pub(crate) node: Node,
    pub(crate) keys: Vec<String>,
}
