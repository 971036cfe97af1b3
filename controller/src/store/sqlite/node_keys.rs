//! Nodes that are shut out or not believed, and who trusts which root.

use proto::NodeId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use trust::Spki;

use super::fault::Fail;
use super::{audit, invites, keys, nodes, row};
use crate::store::{InviteSelection, KeySelection, KeyTrust, NodeRecord, Note, RevokedNode, Trusted};

pub(super) async fn revoke(
    conn: &mut SqliteConnection,
    node: NodeId,
    why: &str,
    note: Note,
) -> Result<RevokedNode, Fail> {
    nodes::get(conn, node).await?;
    let (by, at_ms) = (note.draft.person.clone(), note.draft.at_ms);
    sqlx::query("UPDATE nodes SET revoked_at_ms = ifnull(revoked_at_ms, ?) WHERE id = ?")
        .bind(at_ms)
        .bind(row::blob(node.uuid()))
        .execute(&mut *conn)
        .await?;
    let keys = keys::revoke_rows(conn, &KeySelection::Node(node), why, by.as_ref(), at_ms).await?;
    invites::void_rows(conn, &InviteSelection::ForNode(node), why, at_ms).await?;
    audit::append(conn, note).await?;
    Ok(RevokedNode {
        node: nodes::get(conn, node).await?,
        keys,
    })
}

pub(super) async fn quarantine(
    conn: &mut SqliteConnection,
    node: NodeId,
    why: &str,
    note: Note,
) -> Result<NodeRecord, Fail> {
    let there = nodes::get(conn, node).await?;
    if there.quarantined.is_some() {
        return Ok(there);
    }
    sqlx::query("UPDATE nodes SET quarantined_at_ms = ?, quarantined_why = ? WHERE id = ?")
        .bind(note.draft.at_ms)
        .bind(why.to_owned())
        .bind(row::blob(node.uuid()))
        .execute(&mut *conn)
        .await?;
    audit::append(conn, note).await?;
    nodes::get(conn, node).await
}

/// A node that has a new key is one machine again, and welcome.
pub(super) async fn absolve(conn: &mut SqliteConnection, node: NodeId) -> Result<(), Fail> {
    sqlx::query(
        "UPDATE nodes SET revoked_at_ms = NULL, quarantined_at_ms = NULL, quarantined_why = NULL WHERE id = ?",
    )
    .bind(row::blob(node.uuid()))
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn note_trust(
    conn: &mut SqliteConnection,
    spki: Spki,
    trusted: &Trusted,
) -> Result<(), Fail> {
    let roots: Vec<u8> = trusted.roots.iter().flat_map(|root| *root.as_bytes()).collect();
    sqlx::query("UPDATE keys SET root = ?, roots = ? WHERE spki = ?")
        .bind(keys::blob(trusted.root))
        .bind(roots)
        .bind(keys::blob(spki))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn key_trust(conn: &mut SqliteConnection) -> Result<Vec<KeyTrust>, Fail> {
    let found = sqlx::query(
        "SELECT spki, person, node, role, certificate_expires_at_ms, root, roots FROM keys WHERE revoked_at_ms IS NULL \
         ORDER BY person, node, enrolled_at_ms",
    )
    .fetch_all(conn)
    .await?;
    Ok(found.iter().map(trust_of).collect::<sqlx::Result<_>>()?)
}

fn trust_of(found: &SqliteRow) -> sqlx::Result<KeyTrust> {
    let roots: Option<&[u8]> = found.try_get("roots")?;
    let roots = roots.map(|bytes| {
        bytes
            .chunks_exact(32)
            .filter_map(|root| root.try_into().ok().map(Spki::new))
            .collect()
    });
    let root = keys::spki_opt(found, "root")?;
    Ok(KeyTrust {
        spki: keys::spki(found, "spki")?,
        holder: keys::holder(found)?,
        certificate_expires_at_ms: found.try_get("certificate_expires_at_ms")?,
        trusted: root.zip(roots).map(|(root, roots)| Trusted { root, roots }),
    })
}

pub(super) async fn keyless(conn: &mut SqliteConnection) -> Result<Vec<String>, Fail> {
    let found = sqlx::query(
        "SELECT 'node ' || n.name AS who FROM nodes n WHERE n.revoked_at_ms IS NULL AND NOT EXISTS \
         (SELECT 1 FROM keys k WHERE k.node = n.id AND k.revoked_at_ms IS NULL) \
         UNION ALL \
         SELECT 'person ' || p.name FROM people p WHERE EXISTS (SELECT 1 FROM grants g WHERE g.person = p.name) \
         AND NOT EXISTS (SELECT 1 FROM keys k WHERE k.person = p.name AND k.revoked_at_ms IS NULL)",
    )
    .fetch_all(conn)
    .await?;
    Ok(found
        .iter()
        .map(|row| row.try_get("who"))
        .collect::<sqlx::Result<_>>()?)
}
