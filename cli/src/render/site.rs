//! Sites as text.

use super::{cell, fields, list, name, table};
use crate::view::site::Site;

/// `site ls`
pub(crate) fn sites(sites: &[Site], width: u16) -> String {
    if sites.is_empty() {
        return "no sites\n".to_owned();
    }
    let rows = sites
        .iter()
        .map(|site| {
            vec![
                name(&site.name),
                site.nodes.to_string(),
                site.attached.to_string(),
                site.slices.to_string(),
                cell(site.full_name.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    table(
        &["SITE", "NODES", "ATTACHED", "SLICES", "NAME"],
        &[1, 2, 3],
        rows,
        width,
    )
}

/// `site show`
pub(crate) fn site(site: &Site) -> String {
    fields(&[
        ("site", site.name.clone()),
        ("name", site.full_name.clone().unwrap_or_default()),
        ("abuse contact", site.abuse_contact.clone().unwrap_or_default()),
        ("nodes", format!("{}, {} attached", site.nodes, site.attached)),
        ("slices", site.slices.to_string()),
        ("PIs", list(&site.pis)),
        ("site admins", list(&site.admins)),
    ])
}
