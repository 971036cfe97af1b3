-- What waits, or waited, for a second person. The terms are what is signed and agreed to; they never change.
-- That it has expired follows from expires_at_ms, that it is void from incarnation.
CREATE TABLE proposals (
    id             BLOB PRIMARY KEY CHECK (length(id) = 16),
    key            TEXT NOT NULL,
    incarnation    INTEGER NOT NULL,
    person         TEXT NOT NULL,
    role           TEXT NOT NULL,
    act            TEXT NOT NULL, -- JSON
    reason         TEXT NOT NULL,
    evidence       TEXT NOT NULL,
    proposed_at_ms INTEGER NOT NULL,
    expires_at_ms  INTEGER NOT NULL,
    digest         BLOB NOT NULL CHECK (length(digest) = 32),
    signature      BLOB NOT NULL CHECK (length(signature) = 72), -- by the controller's signer, over the terms
    state          TEXT NOT NULL CHECK (state IN ('open', 'withdrawn', 'approved', 'done', 'failed')),
    approver       TEXT,
    approved_at_ms INTEGER,
    approval       BLOB CHECK (length(approval) = 72), -- the signer's, over who agreed to which terms, and when
    order_id       BLOB,
    outcome        TEXT NOT NULL DEFAULT '',
    UNIQUE (person, key),
    CHECK ((approver IS NULL) = (approved_at_ms IS NULL) AND (approver IS NULL) = (approval IS NULL)),
    CHECK (state IN ('open', 'withdrawn') OR approver IS NOT NULL)
) STRICT;
CREATE INDEX proposals_unfinished ON proposals (state) WHERE state IN ('open', 'approved');

CREATE TRIGGER proposals_stay BEFORE DELETE ON proposals
BEGIN SELECT RAISE(ABORT, 'proposals are never deleted'); END;
CREATE TRIGGER proposals_keep_their_terms BEFORE UPDATE ON proposals
WHEN OLD.id IS NOT NEW.id OR OLD.key IS NOT NEW.key OR OLD.incarnation IS NOT NEW.incarnation
  OR OLD.person IS NOT NEW.person OR OLD.role IS NOT NEW.role OR OLD.act IS NOT NEW.act
  OR OLD.reason IS NOT NEW.reason OR OLD.evidence IS NOT NEW.evidence
  OR OLD.proposed_at_ms IS NOT NEW.proposed_at_ms OR OLD.expires_at_ms IS NOT NEW.expires_at_ms
  OR OLD.digest IS NOT NEW.digest OR OLD.signature IS NOT NEW.signature
BEGIN SELECT RAISE(ABORT, 'the terms of a proposal never change'); END;
CREATE TRIGGER proposals_only_go_on BEFORE UPDATE ON proposals
WHEN NOT (OLD.state IS NEW.state
  OR (OLD.state = 'open' AND NEW.state IN ('withdrawn', 'approved'))
  OR (OLD.state = 'approved' AND NEW.state IN ('done', 'failed')))
BEGIN SELECT RAISE(ABORT, 'a proposal never goes back'); END;
