-- Whom keys speak for, the invites by which they come, and who vouched for whom.

-- Never deleted: a key that was revoked must not come back as a new one. `person` and `node` are no references: a
-- revocation is kept also of somebody whom a restored backup does not know.
CREATE TABLE keys (
    spki                      BLOB PRIMARY KEY CHECK (length(spki) = 32), -- SHA-256 of the SubjectPublicKeyInfo
    person                    TEXT,
    node                      BLOB CHECK (length(node) = 16),
    role                      TEXT, -- a node's: which daemon
    enrolled_at_ms            INTEGER NOT NULL,
    enrolled_by               TEXT, -- who invited; NULL: root on the controller's machine
    certificate_expires_at_ms INTEGER NOT NULL, -- the latest one's
    last_used_ms              INTEGER,
    revoked_at_ms             INTEGER, -- NULL: good
    revoked_by                TEXT, -- NULL: root or the system
    revoked_why               TEXT,
    CHECK ((person IS NULL) <> (node IS NULL) AND (node IS NULL) = (role IS NULL)),
    CHECK ((revoked_at_ms IS NULL) = (revoked_why IS NULL))
) STRICT;
CREATE INDEX keys_by_person ON keys (person, enrolled_at_ms) WHERE person IS NOT NULL;
CREATE INDEX keys_by_node ON keys (node, enrolled_at_ms) WHERE node IS NOT NULL;
CREATE INDEX keys_revoked ON keys (certificate_expires_at_ms) WHERE revoked_at_ms IS NOT NULL;

CREATE TRIGGER keys_stay BEFORE DELETE ON keys
BEGIN SELECT RAISE(ABORT, 'keys are never deleted'); END;
CREATE TRIGGER keys_keep_their_holder BEFORE UPDATE ON keys
WHEN OLD.spki IS NOT NEW.spki OR OLD.person IS NOT NEW.person OR OLD.node IS NOT NEW.node OR OLD.role IS NOT NEW.role
BEGIN SELECT RAISE(ABORT, 'a key speaks for one holder for ever'); END;
CREATE TRIGGER keys_stay_revoked BEFORE UPDATE ON keys
WHEN OLD.revoked_at_ms IS NOT NULL AND OLD.revoked_at_ms IS NOT NEW.revoked_at_ms
BEGIN SELECT RAISE(ABORT, 'a revoked key stays revoked'); END;

-- One-time invites of people and join tokens of nodes.
CREATE TABLE invites (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    spki          BLOB NOT NULL UNIQUE CHECK (length(spki) = 32), -- the invite's own key
    person        TEXT,
    full_name     TEXT,
    email         TEXT,
    grants        TEXT, -- JSON. New: what they get. Not new: what they may have at most when it is used
    node          BLOB CHECK (length(node) = 16),
    node_name     TEXT,
    site          TEXT,
    is_new        INTEGER NOT NULL CHECK (is_new IN (0, 1)), -- the person or node is made by its use
    rekey         INTEGER NOT NULL CHECK (rekey IN (0, 1)), -- its use revokes the holder's older keys
    created_by    TEXT, -- NULL: root on the controller's machine
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    incarnation   INTEGER NOT NULL, -- void in any other
    used_at_ms    INTEGER,
    used_spki     BLOB CHECK (length(used_spki) = 32),
    voided_at_ms  INTEGER,
    voided_why    TEXT,
    CHECK ((person IS NULL) <> (node IS NULL) AND (person IS NULL) = (grants IS NULL)),
    CHECK ((node IS NULL) = (node_name IS NULL) AND (node IS NULL) = (site IS NULL)),
    CHECK (NOT (is_new AND rekey)),
    CHECK ((used_at_ms IS NULL) = (used_spki IS NULL) AND (voided_at_ms IS NULL) = (voided_why IS NULL))
) STRICT;
CREATE INDEX invites_open ON invites (expires_at_ms) WHERE used_at_ms IS NULL AND voided_at_ms IS NULL;
CREATE INDEX invites_by_creator ON invites (created_by)
    WHERE created_by IS NOT NULL AND used_at_ms IS NULL AND voided_at_ms IS NULL;
CREATE INDEX invites_by_person ON invites (person)
    WHERE person IS NOT NULL AND used_at_ms IS NULL AND voided_at_ms IS NULL;

CREATE TRIGGER invites_stay BEFORE DELETE ON invites
BEGIN SELECT RAISE(ABORT, 'invites are never deleted'); END;
CREATE TRIGGER invites_are_used_once BEFORE UPDATE ON invites
WHEN OLD.used_at_ms IS NOT NULL AND (OLD.used_at_ms IS NOT NEW.used_at_ms OR OLD.used_spki IS NOT NEW.used_spki)
BEGIN SELECT RAISE(ABORT, 'an invite is used once'); END;
CREATE TRIGGER invites_stay_void BEFORE UPDATE ON invites
WHEN OLD.voided_at_ms IS NOT NULL AND OLD.voided_at_ms IS NOT NEW.voided_at_ms
BEGIN SELECT RAISE(ABORT, 'a void invite stays void'); END;

-- Who owes what to whom: two people with a fresh tie cannot approve for each other. `init` ties nobody.
CREATE TABLE ties (
    person TEXT NOT NULL, -- was invited, promoted or re-keyed
    by     TEXT NOT NULL,
    kind   TEXT NOT NULL CHECK (kind IN ('invited', 'promoted', 'rekeyed')),
    at_ms  INTEGER NOT NULL
) STRICT;
CREATE INDEX ties_between ON ties (person, by, at_ms);
CREATE TRIGGER ties_stay BEFORE DELETE ON ties
BEGIN SELECT RAISE(ABORT, 'ties are never deleted'); END;
CREATE TRIGGER ties_are_not_changed BEFORE UPDATE ON ties
BEGIN SELECT RAISE(ABORT, 'ties are never changed'); END;
