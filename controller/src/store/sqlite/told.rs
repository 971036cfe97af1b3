//! What nodes told.

use audit::{Hash, Head};
use proto::canonical::Signature;
use proto::{HoldId, NodeId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{audit as chain, holds, row};
use crate::store::told::MAX_EXEMPTIONS;
use crate::store::{Exemption, ImportedHold, Note, SignedRelease, StoreError, ToldRelease};

async fn must_be_there(conn: &mut SqliteConnection, node: NodeId) -> Result<(), Fail> {
    let there = sqlx::query("SELECT 1 FROM nodes WHERE id = ?")
        .bind(row::blob(node.uuid()))
        .fetch_optional(conn)
        .await?;
    match there {
        Some(_) => Ok(()),
        None => Err(StoreError::not_found("node", &node).into()),
    }
}

pub(super) async fn import_holds(
    conn: &mut SqliteConnection,
    imports: &[(ImportedHold, Note)],
) -> Result<(), Fail> {
    for (import, note) in imports {
        holds::import(&mut *conn, import, note.clone()).await?;
    }
    Ok(())
}

pub(super) async fn tell_releases(
    conn: &mut SqliteConnection,
    releases: &[(ToldRelease, Note)],
) -> Result<(), Fail> {
    for (told, note) in releases {
        tell_release(&mut *conn, told, note.clone()).await?;
    }
    Ok(())
}

async fn tell_release(conn: &mut SqliteConnection, told: &ToldRelease, note: Note) -> Result<(), Fail> {
    let ToldRelease { release, node, at_ms } = told;
    must_be_there(conn, *node).await?;
    if !holds::released_among(conn, &[release.hold]).await?.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO told_releases (hold, incarnation, epoch, signature, node, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(row::blob(release.hold.uuid()))
    .bind(row::signed(release.version.incarnation))
    .bind(row::signed(release.version.epoch))
    .bind(release.signature.to_vec())
    .bind(row::blob(node.uuid()))
    .bind(*at_ms)
    .execute(&mut *conn)
    .await?;
    chain::append(conn, note).await?;
    Ok(())
}

pub(super) async fn releases_among(
    conn: &mut SqliteConnection,
    ids: &[HoldId],
) -> Result<Vec<SignedRelease>, Fail> {
    let sql = "SELECT id, released_incarnation AS incarnation, released_epoch AS epoch, \
               release_signature AS signature FROM holds WHERE release_signature IS NOT NULL \
               AND id IN (SELECT unhex(value) FROM json_each(?1)) \
               UNION ALL SELECT hold, incarnation, epoch, signature FROM told_releases \
               WHERE hold IN (SELECT unhex(value) FROM json_each(?1)) \
               AND hold NOT IN (SELECT id FROM holds WHERE release_signature IS NOT NULL)";
    let found = sqlx::query(sql)
        .bind(row::hex_list(ids.iter().map(HoldId::uuid)))
        .fetch_all(conn)
        .await?;
    let release = |found: &SqliteRow| {
        Ok(SignedRelease {
            hold: row::uuid(found, "id").map(HoldId::from_uuid)?,
            version: row::version(found, "incarnation", "epoch")?,
            signature: signature(found, "signature")?
                .ok_or_else(|| row::misfit("signature", "it is NULL"))?,
        })
    };
    Ok(found.iter().map(release).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn exempt(
    conn: &mut SqliteConnection,
    exemption: &Exemption,
    note: Note,
) -> Result<bool, Fail> {
    let Exemption {
        hold,
        node,
        person,
        role,
        at_ms,
    } = exemption;
    must_be_there(conn, *node).await?;
    let known: u32 = sqlx::query_scalar("SELECT count(*) FROM exemptions WHERE node = ?")
        .bind(row::blob(node.uuid()))
        .fetch_one(&mut *conn)
        .await?;
    let done = sqlx::query(
        "INSERT INTO exemptions (hold, node, person, role, at_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(row::blob(hold.uuid()))
    .bind(row::blob(node.uuid()))
    .bind(person.to_string())
    .bind(role.as_str())
    .bind(*at_ms)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    if known >= MAX_EXEMPTIONS {
        let hold = hold.to_string();
        return Err(StoreError::invalid("exemption", &hold, "no more than 4,096 of one node").into());
    }
    chain::append(conn, note).await?;
    Ok(true)
}

pub(super) async fn exemptions(conn: &mut SqliteConnection) -> Result<Vec<Exemption>, Fail> {
    let sql = "SELECT * FROM exemptions WHERE hold NOT IN (SELECT hold FROM told_releases) \
               AND hold NOT IN (SELECT id FROM holds WHERE released_by IS NOT NULL) ORDER BY hold, node";
    let found = sqlx::query(sql).fetch_all(conn).await?;
    let exemption = |found: &SqliteRow| {
        Ok(Exemption {
            hold: row::uuid(found, "hold").map(HoldId::from_uuid)?,
            node: row::uuid(found, "node").map(NodeId::from_uuid)?,
            person: row::parse(found, "person")?,
            role: row::role(found, "role")?,
            at_ms: found.try_get("at_ms")?,
        })
    };
    Ok(found.iter().map(exemption).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn diaries(conn: &mut SqliteConnection) -> Result<Vec<(NodeId, Head)>, Fail> {
    let found = sqlx::query("SELECT node, sequence, hash FROM told_diaries")
        .fetch_all(conn)
        .await?;
    let diary = |found: &SqliteRow| {
        let hash: &[u8] = found.try_get("hash")?;
        let hash: [u8; 32] = hash.try_into().map_err(|e| row::misfit("hash", e))?;
        let head = Head {
            sequence: row::unsigned(found, "sequence")?,
            hash: Hash::new(hash),
        };
        Ok((row::uuid(found, "node").map(NodeId::from_uuid)?, head))
    };
    Ok(found.iter().map(diary).collect::<sqlx::Result<_>>()?)
}

pub(super) async fn tell_diary(
    conn: &mut SqliteConnection,
    node: NodeId,
    head: Head,
    notes: Vec<Note>,
) -> Result<(), Fail> {
    must_be_there(conn, node).await?;
    for note in notes {
        chain::append(&mut *conn, note).await?;
    }
    sqlx::query(
        "INSERT INTO told_diaries (node, sequence, hash) VALUES (?, ?, ?) ON CONFLICT (node) DO UPDATE \
         SET sequence = excluded.sequence, hash = excluded.hash",
    )
    .bind(row::blob(node.uuid()))
    .bind(row::signed(head.sequence))
    .bind(head.hash.as_bytes().to_vec())
    .execute(conn)
    .await?;
    Ok(())
}

/// A signature or NULL.
pub(super) fn signature(found: &SqliteRow, column: &str) -> sqlx::Result<Option<Signature>> {
    let bytes: Option<&[u8]> = found.try_get(column)?;
    bytes
        .map(|bytes| bytes.try_into().map_err(|e| row::misfit(column, e)))
        .transpose()
}
