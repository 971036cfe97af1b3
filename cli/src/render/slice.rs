//! Slices as text.

use super::{cell, fields, list, name, number, part, table};
use crate::text;
use crate::view::slice::{Slice, SliceDetail, SliverOnNode};
use crate::when::Time;

/// Slivers listed by `slice show` before the rest is only counted.
const MOST_SLIVERS: usize = 200;

/// `slice ls`
pub(crate) fn slices(slices: &[Slice], width: u16) -> String {
    if slices.is_empty() {
        return "no slices\n".to_owned();
    }
    let rows = slices
        .iter()
        .map(|slice| {
            vec![
                text::line(&slice.name, 63),
                slice.running_on.to_string(),
                slice.frozen_on.to_string(),
                slice.holds.to_string(),
                cell(slice.contacts.first().map_or("-", String::as_str)),
            ]
        })
        .collect();
    table(
        &["SLICE", "RUNNING ON", "FROZEN ON", "HOLDS", "CONTACT"],
        &[1, 2, 3],
        rows,
        width,
    )
}

/// `slice show`
pub(crate) fn detail(detail: &SliceDetail, now: Time, width: u16) -> String {
    let SliceDetail {
        slice,
        holds,
        slivers,
    } = detail;
    let mut page = fields(&[
        ("slice", slice.name.clone()),
        ("site", slice.site.clone()),
        ("about", slice.description.clone().unwrap_or_default()),
        ("contact", or_nobody(&slice.contacts)),
        ("developers", or_nobody(&slice.developers)),
        ("PIs", or_nobody(&slice.pis)),
        (
            "runs on",
            format!(
                "{}, frozen on {}",
                text::count(slice.running_on.into(), "node", "nodes"),
                text::count(slice.frozen_on.into(), "node", "nodes")
            ),
        ),
    ]);
    page.push_str(&part(
        "holds",
        &super::hold::holds(holds, &[], now, width),
        "none",
    ));
    page.push_str(&part("slivers", &on_nodes(slivers, width), "none reported"));
    page
}

fn or_nobody(people: &[String]) -> String {
    if people.is_empty() {
        "nobody".to_owned()
    } else {
        list(people)
    }
}

fn on_nodes(slivers: &[SliverOnNode], width: u16) -> String {
    if slivers.is_empty() {
        return String::new();
    }
    let rows = slivers
        .iter()
        .take(MOST_SLIVERS)
        .map(|on| {
            let sliver = on.sliver.as_ref();
            vec![
                name(&on.node_name),
                name(&on.site),
                sliver.map_or("-", |s| s.activity.text()).to_owned(),
                number(sliver.and_then(|s| s.processes)),
                sliver.map_or_else(|| "-".to_owned(), |s| cell(&s.cgroup)),
            ]
        })
        .collect();
    let mut page = table(
        &["NODE", "SITE", "STATE", "PROCESSES", "CGROUP"],
        &[3],
        rows,
        width,
    );
    if slivers.len() > MOST_SLIVERS {
        page.push_str(&format!(
            "and {} more (--json has them all)\n",
            slivers.len() - MOST_SLIVERS
        ));
    }
    page
}
