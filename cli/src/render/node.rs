//! Nodes as text.

use super::{cell, fields, name, number, part, table};
use crate::text;
use crate::view::node::{Assurance, Node, NodeDetail, Process, Report, Revoked, Sliver, Token};
use crate::when::{self, Time};

/// `node ls`
pub(crate) fn nodes(nodes: &[Node], now: Time, width: u16) -> String {
    if nodes.is_empty() {
        return "no nodes\n".to_owned();
    }
    let rows = nodes
        .iter()
        .map(|node| {
            let state = match (&node.trouble, node.attached) {
                (Some(trouble), _) => text::line(trouble, 60),
                (None, true) => "attached".to_owned(),
                (None, false) => format!("away, seen {}", node.last_seen.age(now)),
            };
            vec![
                name(&node.name),
                name(&node.site),
                state,
                number(node.slivers),
                node.load_one
                    .map_or_else(|| "-".to_owned(), |load| format!("{load:.1}")),
                node.holds.to_string(),
                cell(node.agent_version.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    table(
        &["NODE", "SITE", "STATE", "SLIVERS", "LOAD", "HOLDS", "VERSION"],
        &[3, 4, 5],
        rows,
        width,
    )
}

/// `node show`
pub(crate) fn detail(detail: &NodeDetail, now: Time, width: u16) -> String {
    let NodeDetail {
        node,
        reported_at,
        report,
        holds,
    } = detail;
    let state = if node.attached { "attached" } else { "away" };
    let mut page = fields(&[
        ("node", node.name.clone()),
        ("id", node.id.clone()),
        ("site", node.site.clone()),
        ("state", format!("{state}, seen {}", node.last_seen.both(now))),
        ("direct", direct(node, now)),
        ("trouble", node.trouble.clone().unwrap_or_default()),
        ("certificate", certificate(node, now)),
        ("clock", node.clock_skew_ms.map(skew).unwrap_or_default()),
    ]);
    page.push_str(&part(
        "holds on the node itself",
        &super::hold::holds(holds, &[], now, width),
        "none",
    ));
    match report {
        None => page.push_str("\nit has never reported\n"),
        Some(report) => {
            page.push_str(&format!("\nreported {}\n", reported_at.both(now)));
            page.push_str(&of_report(report, width));
        }
    }
    page
}

/// Where the node is reached without the controller, and how old what it then decides by is.
fn direct(node: &Node, now: Time) -> String {
    let policy = match node.policy_issued_at {
        Time(..=0) => "no policy: nobody may act directly".to_owned(),
        issued => format!("policy issued {}", issued.age(now)),
    };
    match &node.direct_address {
        Some(address) => format!("{}, {policy}", cell(address)),
        // A node of an earlier release, or one that listens nowhere.
        None if node.policy_issued_at.0 <= 0 => String::new(),
        None => format!("listens nowhere, {policy}"),
    }
}

fn certificate(node: &Node, now: Time) -> String {
    match (node.revoked_at.0, node.certificate_expires_at.0) {
        (0, 0) => String::new(),
        (0, _) => format!("good until {}", node.certificate_expires_at.both(now)),
        _ => format!("revoked {}", node.revoked_at.both(now)),
    }
}

/// Clocks that differ by less than a network may account for are not worth a line.
fn skew(ms: i64) -> String {
    let way = match ms {
        ..-1_000 => "behind",
        1_001.. => "ahead",
        _ => return String::new(),
    };
    format!("{} {way}", when::span(ms.unsigned_abs()))
}

/// `node enroll`, `node rekey`
pub(crate) fn token(view: &Token, now: Time) -> String {
    let Token {
        node,
        name,
        site,
        expires_at,
        file,
    } = view;
    let mut page = fields(&[
        ("node", name.clone()),
        ("id", node.clone()),
        ("site", site.clone()),
        ("token", file.clone()),
        ("until", expires_at.both(now)),
    ]);
    page.push_str(&format!(
        "\nit is used once, on the machine itself: redbutton-nodemgr join {}\n",
        text::line(file, 200)
    ));
    page
}

/// `node revoke`
pub(crate) fn revoked(view: &Revoked) -> String {
    let Revoked { node, keys } = view;
    let name = text::line(&node.name, 100);
    format!(
        "{name} is revoked: {}; it attaches no more\nto let the machine in again: redbutton node rekey {name}\n",
        text::count(keys.len() as u64, "key", "keys")
    )
}

fn of_report(report: &Report, width: u16) -> String {
    let locked = report
        .locked
        .as_ref()
        .map(|why| format!("NOTHING MAY START: {}", cell(why)));
    let gib = |kib: Option<u64>| {
        kib.map_or_else(
            || "-".to_owned(),
            |kib| format!("{:.1} GiB", kib as f64 / 1_048_576.0),
        )
    };
    let mut page = fields(&[
        ("locked", locked.unwrap_or_default()),
        ("kernel", report.kernel.clone()),
        ("hostname", report.hostname.clone().unwrap_or_default()),
        ("boot", report.boot_id.clone()),
        ("up", when::span(report.uptime_ms)),
        (
            "agent",
            format!("{} (protocol {})", cell(&report.agent_version), report.protocol),
        ),
        ("program", program(report)),
        ("left", left(report)),
        ("load", load(report)),
        ("pressure", pressure(report)),
        (
            "memory",
            format!(
                "{} of {} available",
                gib(report.memory_available_kib),
                gib(report.memory_total_kib)
            ),
        ),
        (
            "open files",
            format!(
                "{} of {}",
                number(report.files_allocated),
                number(report.files_maximum)
            ),
        ),
        ("processes", report.processes.to_string()),
        (
            "holds",
            text::count(report.holds.len() as u64, "hold on its disk", "holds on its disk"),
        ),
        (
            "seen",
            report
                .seen
                .map(|version| format!("epoch {}", version.text()))
                .unwrap_or_default(),
        ),
        ("restart", report.restart_means.clone().unwrap_or_default()),
        ("settings", report.configuration_hash.clone()),
        ("key", report.key.clone().unwrap_or_default()),
    ]);
    page.push_str(&part("slivers", &slivers(&report.slivers, width), "none"));
    let lacks: Vec<_> = report
        .capabilities
        .iter()
        .filter(|c| c.assurance != Assurance::Exact)
        .collect();
    if !lacks.is_empty() {
        let rows = lacks
            .iter()
            .map(|c| {
                let reason = c.reason.as_deref().unwrap_or("-");
                vec![name(&c.name), c.assurance.text().to_owned(), cell(reason)]
            })
            .collect();
        page.push_str("\nwhat this kernel does not give in full\n");
        page.push_str(&table(&["LIMIT", "STATE", "WHY"], &[], rows, width));
    }
    if !report.refused.is_empty() {
        let rows = report
            .refused
            .iter()
            .take(50)
            .map(|r| vec![cell(&r.cgroup), cell(&r.reason)])
            .collect();
        page.push_str("\ncgroups that must not be adopted\n");
        page.push_str(&table(&["CGROUP", "WHY"], &[], rows, width));
    }
    page
}

/// What runs, where it is not simply the package.
fn program(report: &Report) -> String {
    let Some(software) = &report.software else {
        return String::new();
    };
    let trial = if software.trial { ", on trial" } else { "" };
    match (&software.sha256, &software.refused) {
        (Some(sha256), _) => format!("rolled out, {sha256:.12} for {}{trial}", software.architecture),
        (None, Some(why)) => format!("from the package; no rollout: {why}"),
        (None, None) => "from the package".to_owned(),
    }
}

/// The program that it left last.
fn left(report: &Report) -> String {
    match &report.software {
        Some(crate::view::node::Software {
            left_sha256: Some(sha256),
            left_why: Some(why),
            ..
        }) => format!("{sha256:.12}: {why}"),
        _ => String::new(),
    }
}

fn load(report: &Report) -> String {
    report
        .load
        .as_ref()
        .map(|load| format!("{:.2} {:.2} {:.2}", load.one, load.five, load.fifteen))
        .unwrap_or_default()
}

fn pressure(report: &Report) -> String {
    let Some(load) = &report.load else {
        return String::new();
    };
    let percent = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.1}%"));
    format!(
        "cpu {}, memory {} (full {}), io {} (full {})",
        percent(load.cpu_some),
        percent(load.memory_some),
        percent(load.memory_full),
        percent(load.io_some),
        percent(load.io_full)
    )
}

fn slivers(slivers: &[Sliver], width: u16) -> String {
    if slivers.is_empty() {
        return String::new();
    }
    let rows = slivers
        .iter()
        .take(500)
        .map(|sliver| {
            vec![
                text::line(&sliver.slice, 40),
                sliver.activity.text().to_owned(),
                number(sliver.processes),
                sliver.holds.len().to_string(),
                name(sliver.manager.as_deref().unwrap_or("redbutton")),
                sliver.respawns.to_string(),
            ]
        })
        .collect();
    table(
        &["SLICE", "STATE", "PROCESSES", "HOLDS", "STARTED BY", "RESPAWNS"],
        &[2, 3, 5],
        rows,
        width,
    )
}

/// `node ps`
pub(crate) fn processes(processes: &[Process], truncated: bool, width: u16) -> String {
    if processes.is_empty() {
        return "no processes\n".to_owned();
    }
    let rows = processes
        .iter()
        .map(|process| {
            let command = if process.command_line.is_empty() {
                format!("[{}]", process.comm)
            } else {
                process.command_line.clone()
            };
            vec![
                process.pid.to_string(),
                process.uid.to_string(),
                text::line(&process.state, 2),
                when::span(process.cpu_ms),
                format!("{} MiB", process.resident_kib / 1024),
                name(process.slice.as_deref().unwrap_or("-")),
                text::line(&command, 80),
            ]
        })
        .collect();
    let mut page = table(
        &["PID", "UID", "S", "CPU", "MEMORY", "SLICE", "COMMAND"],
        &[0, 1, 3, 4],
        rows,
        width,
    );
    if truncated {
        page.push_str("more exist: --limit N\n");
    }
    page
}
