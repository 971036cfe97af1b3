//! Between rows and checked types. What does not fit is an error of the column: the database is corrupt.

use std::fmt::Display;
use std::str::FromStr;

use proto::{Role, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, Result, Row};
use uuid::Uuid;

use crate::store::{PageRequest, StoreError};

pub(super) fn misfit(column: &str, why: impl Display) -> Error {
    Error::ColumnDecode {
        index: column.to_owned(),
        source: why.to_string().into(),
    }
}

/// A text with a grammar.
pub(super) fn parse<T: FromStr<Err: Display>>(row: &SqliteRow, column: &str) -> Result<T> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|e| misfit(column, e))
}

/// A text with a grammar, or NULL.
pub(super) fn parse_opt<T: FromStr<Err: Display>>(row: &SqliteRow, column: &str) -> Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|e| misfit(column, e)))
        .transpose()
}

/// A UUID: `uuid(&row, "id").map(NodeId::from_uuid)`.
pub(super) fn uuid(row: &SqliteRow, column: &str) -> Result<Uuid> {
    let bytes: &[u8] = row.try_get(column)?;
    Uuid::from_slice(bytes).map_err(|e| misfit(column, e))
}

/// A UUID or NULL.
pub(super) fn uuid_opt(row: &SqliteRow, column: &str) -> Result<Option<Uuid>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes
        .map(|bytes| Uuid::from_slice(bytes).map_err(|e| misfit(column, e)))
        .transpose()
}

/// How a UUID is bound.
pub(super) fn blob(uuid: Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

/// UUIDs as one JSON array: `IN (SELECT unhex(value) FROM json_each(?))`.
pub(super) fn hex_list(uuids: impl IntoIterator<Item = Uuid>) -> String {
    to_json(
        &uuids
            .into_iter()
            .map(|uuid| uuid.simple().to_string())
            .collect::<Vec<_>>(),
    )
}

/// Texts as one JSON array: `IN (SELECT value FROM json_each(?))`.
pub(super) fn text_list<T: ToString>(texts: impl IntoIterator<Item = T>) -> String {
    to_json(&texts.into_iter().map(|text| text.to_string()).collect::<Vec<_>>())
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|e| misfit(column, e))
}

/// What goes into a JSON column.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our types have text keys and no failing serializer")
}

/// A number that cannot be negative.
pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u32> {
    let n: i64 = row.try_get(column)?;
    u32::try_from(n).map_err(|e| misfit(column, e))
}

/// SQLite's integers are signed. Bit for bit, so that also a version that a hostile node made up comes back as it
/// was; ours stay far below the sign.
pub(super) const fn signed(n: u64) -> i64 {
    n.cast_signed()
}

/// The way back.
pub(super) fn unsigned(row: &SqliteRow, column: &str) -> Result<u64> {
    row.try_get(column).map(i64::cast_unsigned)
}

/// Two columns that make a version.
pub(super) fn version(row: &SqliteRow, incarnation: &str, epoch: &str) -> Result<Version> {
    Ok(Version {
        incarnation: unsigned(row, incarnation)?,
        epoch: unsigned(row, epoch)?,
    })
}

/// A role's word.
pub(super) fn role(row: &SqliteRow, column: &str) -> Result<Role> {
    role_opt(row, column)?.ok_or_else(|| misfit(column, "no role"))
}

/// A role's word or NULL.
pub(super) fn role_opt(row: &SqliteRow, column: &str) -> Result<Option<Role>> {
    let word: Option<&str> = row.try_get(column)?;
    word.map(|word| {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| misfit(column, format_args!("role {word:?} is unknown")))
    })
    .transpose()
}

/// The name after which a page of a list by name begins; empty: at its start.
pub(super) fn after_name<T: FromStr>(page: &PageRequest) -> std::result::Result<&str, StoreError> {
    match page.token.as_str() {
        "" => Ok(""),
        token if token.parse::<T>().is_ok() => Ok(token),
        token => Err(StoreError::invalid(
            "page token",
            token,
            "the token that the page before gave",
        )),
    }
}

/// Cuts one row too many off again; its presence means that there is a next page.
pub(super) fn cut<T>(mut items: Vec<T>, rows: u32, token: impl Fn(&T) -> String) -> crate::store::Page<T> {
    let rows = rows as usize;
    let more = items.len() > rows;
    items.truncate(rows);
    let next = if more {
        items.last().map(token).unwrap_or_default()
    } else {
        String::new()
    };
    crate::store::Page { items, next }
}

/// A statement over many rows has one of these sizes, so that each is prepared once and then found in the cache.
const SIZES: [usize; 4] = [512, 64, 8, 1];

/// Cuts rows into parts of [`SIZES`].
pub(super) fn chunks<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rest.len())?;
        let (chunk, left) = rest.split_at(size);
        rest = left;
        Some(chunk)
    })
}

/// `(?,?),(?,?)` for so many rows of so many columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    vec![row; rows].join(",")
}
