//! What waits for a second person.

use async_trait::async_trait;
use proto::{OrderId, PersonName, ProposalId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::fault::Fail;
use super::{SqliteStore, audit, row};
use crate::approvals::{Digest, Life, Terms};
use crate::store::proposals::{Approval, ProposalRecord, ProposalStore, Proposed};
use crate::store::{Note, Result, StoreError};

const PROPOSAL: &str = "SELECT id, key, incarnation, person, role, act, reason, evidence, proposed_at_ms, \
                        expires_at_ms, digest, signature, state, approver, approved_at_ms, approval, order_id, outcome \
                        FROM proposals";

#[async_trait]
impl ProposalStore for SqliteStore {
    async fn propose(&self, proposal: &ProposalRecord, note: Note) -> Result<Proposed> {
        let mut tx = self.write().await?;
        let done = propose(tx.conn(), proposal, note)
            .await
            .map_err(|e| self.fault(e))?;
        if let Proposed::Existing(_) = done {
            return Ok(done);
        }
        self.commit(tx, done).await
    }
    async fn proposal(&self, id: ProposalId) -> Result<ProposalRecord> {
        let mut conn = self.read().await?;
        get(&mut conn, id).await.map_err(|e| self.fault(e))
    }
    async fn proposal_by_key(&self, person: &PersonName, key: &str) -> Result<Option<ProposalRecord>> {
        let mut conn = self.read().await?;
        by_key(&mut conn, person, key).await.map_err(|e| self.fault(e))
    }
    async fn proposals(&self, unfinished: bool, limit: u32) -> Result<Vec<ProposalRecord>> {
        let mut conn = self.read().await?;
        list(&mut conn, unfinished, limit)
            .await
            .map_err(|e| self.fault(e))
    }
    async fn approve_proposal(&self, id: ProposalId, approval: &Approval, note: Note) -> Result<bool> {
        let Approval { by, at_ms, signature } = approval;
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE proposals SET state = 'approved', approver = ?, approved_at_ms = ?, approval = ? \
             WHERE id = ? AND state = 'open'",
        )
        .bind(by.to_string())
        .bind(*at_ms)
        .bind(signature.clone())
        .bind(row::blob(id.uuid()))
        .execute(tx.conn())
        .await
        .map_err(|e| self.fault(e.into()))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        audit::append(tx.conn(), note).await.map_err(|e| self.fault(e))?;
        crate::crash::point("controller.before-approval");
        self.commit(tx, true).await
    }
    async fn withdraw_proposal(&self, id: ProposalId, outcome: &str, note: Note) -> Result<bool> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE proposals SET state = 'withdrawn', outcome = ? WHERE id = ? AND state = 'open'",
        )
        .bind(outcome.to_owned())
        .bind(row::blob(id.uuid()))
        .execute(tx.conn())
        .await
        .map_err(|e| self.fault(e.into()))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        audit::append(tx.conn(), note).await.map_err(|e| self.fault(e))?;
        self.commit(tx, true).await
    }
    async fn finish_proposal(
        &self,
        id: ProposalId,
        done: bool,
        order: Option<OrderId>,
        outcome: &str,
        note: Option<Note>,
    ) -> Result<bool> {
        let mut tx = self.write().await?;
        let changed = sqlx::query(
            "UPDATE proposals SET state = ?, order_id = ?, outcome = ? WHERE id = ? AND state = 'approved'",
        )
        .bind(if done { "done" } else { "failed" })
        .bind(order.map(|order| row::blob(order.uuid())))
        .bind(outcome.to_owned())
        .bind(row::blob(id.uuid()))
        .execute(tx.conn())
        .await
        .map_err(|e| self.fault(e.into()))?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(note) = note {
            audit::append(tx.conn(), note).await.map_err(|e| self.fault(e))?;
        }
        self.commit(tx, true).await
    }
    async fn support_since(&self, person: &PersonName) -> Result<Option<i64>> {
        let mut conn = self.read().await?;
        let found = sqlx::query("SELECT granted_at_ms FROM grants WHERE person = ? AND role = 'support'")
            .bind(person.to_string())
            .fetch_optional(&mut *conn)
            .await
            .and_then(|found| found.map(|found| found.try_get("granted_at_ms")).transpose());
        found.map_err(|e| self.fault(e.into()))
    }
    async fn supporters(&self) -> Result<Vec<PersonName>> {
        let mut conn = self.read().await?;
        let found = sqlx::query("SELECT person FROM grants WHERE role = 'support' ORDER BY person")
            .fetch_all(&mut *conn)
            .await
            .and_then(|found| found.iter().map(|found| row::parse(found, "person")).collect());
        found.map_err(|e| self.fault(e.into()))
    }
}

async fn propose(
    conn: &mut SqliteConnection,
    proposal: &ProposalRecord,
    note: Note,
) -> std::result::Result<Proposed, Fail> {
    let ProposalRecord {
        terms,
        key,
        digest,
        signature,
        life: _,
        approved: _,
        order: _,
        outcome: _,
    } = proposal;
    if let Some(existing) = by_key(conn, &terms.person, key).await? {
        return Ok(Proposed::Existing(existing));
    }
    let Terms {
        id,
        incarnation,
        person,
        role,
        act,
        reason,
        evidence,
        proposed_at_ms,
        expires_at_ms,
    } = terms;
    sqlx::query(
        "INSERT INTO proposals (id, key, incarnation, person, role, act, reason, evidence, proposed_at_ms, \
         expires_at_ms, digest, signature, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')",
    )
    .bind(row::blob(id.uuid()))
    .bind(key.clone())
    .bind(row::signed(*incarnation))
    .bind(person.to_string())
    .bind(role.as_str())
    .bind(row::to_json(act))
    .bind(reason.clone())
    .bind(evidence.clone())
    .bind(*proposed_at_ms)
    .bind(*expires_at_ms)
    .bind(digest.as_bytes().to_vec())
    .bind(signature.clone())
    .execute(&mut *conn)
    .await?;
    audit::append(conn, note).await?;
    Ok(Proposed::Created(get(conn, *id).await?))
}

async fn get(conn: &mut SqliteConnection, id: ProposalId) -> std::result::Result<ProposalRecord, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{PROPOSAL} WHERE id = ?")))
        .bind(row::blob(id.uuid()))
        .fetch_optional(conn)
        .await?;
    match found {
        Some(found) => Ok(record(&found)?),
        None => Err(StoreError::not_found("proposal", &id).into()),
    }
}

async fn by_key(
    conn: &mut SqliteConnection,
    person: &PersonName,
    key: &str,
) -> std::result::Result<Option<ProposalRecord>, Fail> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{PROPOSAL} WHERE person = ? AND key = ?"
    )))
    .bind(person.to_string())
    .bind(key.to_owned())
    .fetch_optional(conn)
    .await?;
    Ok(found.as_ref().map(record).transpose()?)
}

async fn list(
    conn: &mut SqliteConnection,
    unfinished: bool,
    limit: u32,
) -> std::result::Result<Vec<ProposalRecord>, Fail> {
    let which = if unfinished {
        "state IN ('open', 'approved')"
    } else {
        "TRUE"
    };
    // The ids are UUIDs of version 7: later ones sort after earlier ones.
    let sql = format!("{PROPOSAL} WHERE {which} ORDER BY id DESC LIMIT ?");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    Ok(found.iter().map(record).collect::<sqlx::Result<_>>()?)
}

fn record(found: &SqliteRow) -> sqlx::Result<ProposalRecord> {
    let misfit = |index: &str, source: &str| sqlx::Error::ColumnDecode {
        index: index.to_owned(),
        source: source.to_owned().into(),
    };
    let digest: &[u8] = found.try_get("digest")?;
    let approver: Option<PersonName> = row::parse_opt(found, "approver")?;
    let approved = match approver {
        None => None,
        Some(by) => Some(Approval {
            by,
            at_ms: found.try_get("approved_at_ms")?,
            signature: found.try_get("approval")?,
        }),
    };
    Ok(ProposalRecord {
        terms: Terms {
            id: row::uuid(found, "id").map(ProposalId::from_uuid)?,
            incarnation: row::unsigned(found, "incarnation")?,
            person: row::parse(found, "person")?,
            role: row::role(found, "role")?,
            act: row::json(found, "act")?,
            reason: found.try_get("reason")?,
            evidence: found.try_get("evidence")?,
            proposed_at_ms: found.try_get("proposed_at_ms")?,
            expires_at_ms: found.try_get("expires_at_ms")?,
        },
        key: found.try_get("key")?,
        digest: Digest::try_from(digest).map_err(|e| misfit("digest", &e.to_string()))?,
        signature: found.try_get("signature")?,
        life: match found.try_get::<&str, _>("state")? {
            "open" => Life::Open,
            "withdrawn" => Life::Withdrawn,
            "approved" => Life::Approved,
            "done" => Life::Done,
            "failed" => Life::Failed,
            other => return Err(misfit("state", other)),
        },
        approved,
        order: row::uuid_opt(found, "order_id")?.map(OrderId::from_uuid),
        outcome: found.try_get("outcome")?,
    })
}
