//! Views as text: pure, the time and the width are arguments. Whatever comes from elsewhere goes through
//! [`cell`], which bounds it and makes control characters visible.

pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod hold;
pub(crate) mod keys;
pub(crate) mod kit;
pub(crate) mod node;
pub(crate) mod order;
pub(crate) mod people;
pub(crate) mod rollout;
pub(crate) mod site;
pub(crate) mod slice;

#[cfg(test)]
mod tests;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use crate::text;

/// Longest text in one cell of a table, characters.
const CELL: usize = 120;
/// Names in the first column of a table are kept whole up to this width.
const WHOLE_NAME: u16 = 34;
/// Longest text on a line of its own, characters.
pub(crate) const LINE: usize = 300;

/// A text from elsewhere, for a cell.
pub(crate) fn cell(text: &str) -> String {
    text::line(text, CELL)
}

/// A name in a table, cut so that the other columns have room.
pub(crate) fn name(text: &str) -> String {
    text::line(text, 32)
}

/// A number, or `-` where it is not known.
pub(crate) fn number<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "-".to_owned(), |n| n.to_string())
}

/// Rows below a header, without lines: easy to read, easy to cut. Columns in `right` are aligned to the right.
/// Every cell is already clean.
pub(crate) fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>, width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .force_no_tty()
        .set_header(header.to_vec())
        .add_rows(rows);
    let names = table.column_max_content_widths().first().copied().unwrap_or(0);
    for (at, column) in table.column_iter_mut().enumerate() {
        let last = at + 1 == header.len();
        if at == 0 && !last {
            // A name broken in two can be neither found nor copied: other columns give way first.
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
                names.min(WHOLE_NAME) + 2,
            )));
        }
        if right.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
            // A number before words needs the wider gap.
            let gap = if last {
                0
            } else if right.contains(&(at + 1)) {
                1
            } else {
                2
            };
            column.set_padding((0, gap));
        } else {
            column.set_padding((0, if last { 0 } else { 2 }));
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// `label  value` lines, the labels in one column; nothing for values that are empty.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let wide = fields.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (label, value) in fields {
        if !value.is_empty() {
            text.push_str(&format!("{label:wide$}  {}\n", text::line(value, LINE)));
        }
    }
    text
}

/// A heading above a part of a page; `what` is its content, or says that there is none.
pub(crate) fn part(heading: &str, what: &str, none: &str) -> String {
    if what.is_empty() {
        format!("\n{heading}: {none}\n")
    } else {
        format!("\n{heading}\n{what}")
    }
}

/// Texts with commas between.
pub(crate) fn list(texts: &[String]) -> String {
    texts.iter().map(|text| cell(text)).collect::<Vec<_>>().join(", ")
}
