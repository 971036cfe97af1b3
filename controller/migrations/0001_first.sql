-- The controller's memory, version 1. Identifiers are 16-byte UUIDs or the names of DESIGN.md; times are
-- milliseconds since 1970; `outcome` is the number of redbutton.v1.Outcome.

-- One row. Every epoch up to and including reserved_epoch has been handed out.
CREATE TABLE meta (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    incarnation    INTEGER NOT NULL,
    reserved_epoch INTEGER NOT NULL
) STRICT;
INSERT INTO meta (id, incarnation, reserved_epoch) VALUES (1, 1, 0);

CREATE TABLE sites (
    name          TEXT PRIMARY KEY,
    full_name     TEXT NOT NULL,
    abuse_contact TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE slices (
    name          TEXT PRIMARY KEY,
    site          TEXT NOT NULL REFERENCES sites (name),
    description   TEXT NOT NULL,
    contacts      TEXT NOT NULL, -- JSON array of texts
    created_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX slices_by_site ON slices (site, name);

CREATE TABLE people (
    name          TEXT PRIMARY KEY,
    full_name     TEXT NOT NULL,
    email         TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE grants (
    person        TEXT NOT NULL REFERENCES people (name),
    role          TEXT NOT NULL,
    slice         TEXT REFERENCES slices (name),
    site          TEXT REFERENCES sites (name),
    granted_by    TEXT NOT NULL,
    granted_at_ms INTEGER NOT NULL,
    CHECK (CASE role
        WHEN 'developer'  THEN slice IS NOT NULL AND site IS NULL
        WHEN 'pi'         THEN slice IS NULL AND site IS NOT NULL
        WHEN 'site-admin' THEN slice IS NULL AND site IS NOT NULL
        WHEN 'support'    THEN slice IS NULL AND site IS NULL
        ELSE FALSE END)
) STRICT;
CREATE UNIQUE INDEX grants_once ON grants (person, role, ifnull(slice, ''), ifnull(site, ''));
CREATE INDEX grants_by_slice ON grants (slice) WHERE slice IS NOT NULL;
CREATE INDEX grants_by_site ON grants (site) WHERE site IS NOT NULL;

-- An order reaches the nodes whose enrolled version is not above its own.
CREATE TABLE nodes (
    id                   BLOB PRIMARY KEY CHECK (length(id) = 16),
    name                 TEXT NOT NULL UNIQUE,
    site                 TEXT NOT NULL REFERENCES sites (name),
    enrolled_incarnation INTEGER NOT NULL,
    enrolled_epoch       INTEGER NOT NULL,
    enrolled_at_ms       INTEGER NOT NULL,
    boot_id              BLOB,
    last_seen_ms         INTEGER
) STRICT;
CREATE INDEX nodes_by_site ON nodes (site, name);
CREATE INDEX nodes_by_enrolment ON nodes (enrolled_incarnation, enrolled_epoch);

-- Apart from nodes: large, and rewritten often.
CREATE TABLE node_reports (
    node   BLOB PRIMARY KEY REFERENCES nodes (id),
    at_ms  INTEGER NOT NULL,
    report BLOB NOT NULL -- redbutton.v1.NodeReport
) STRICT;

CREATE TABLE orders (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    key           TEXT NOT NULL,
    person        TEXT NOT NULL,
    role          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    slice         TEXT,
    slice_site    TEXT, -- follows from slice; here for the index
    scope         TEXT NOT NULL, -- JSON
    at_site       TEXT, -- the scope's site, or the site of its node; NULL: the fleet
    target        TEXT NOT NULL,
    reason        TEXT NOT NULL,
    evidence      TEXT NOT NULL,
    pressed_at_ms INTEGER NOT NULL,
    incarnation   INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    wish          TEXT NOT NULL, -- JSON
    state         INTEGER NOT NULL CHECK (state IN (1, 2, 3)), -- open, answered, closed
    nodes         INTEGER NOT NULL, -- how many it reaches; fixed at the commit
    proven        INTEGER NOT NULL,
    counts        TEXT NOT NULL, -- JSON array: how many nodes, by outcome number
    UNIQUE (person, key),
    UNIQUE (incarnation, epoch)
) STRICT;
CREATE INDEX orders_not_closed ON orders (incarnation, epoch) WHERE state < 3;
CREATE INDEX orders_by_slice ON orders (slice, incarnation, epoch) WHERE slice IS NOT NULL;

CREATE TABLE results (
    order_id       BLOB NOT NULL REFERENCES orders (id),
    node           BLOB NOT NULL REFERENCES nodes (id),
    outcome        INTEGER NOT NULL CHECK (outcome BETWEEN 4 AND 13),
    proven         INTEGER NOT NULL CHECK (proven IN (0, 1)),
    answered_at_ms INTEGER NOT NULL,
    answer         BLOB, -- redbutton.v1.Answer; NULL: the controller decided
    PRIMARY KEY (order_id, node)
) STRICT;

-- Never deleted: a node that returns after months must learn what was released meanwhile.
CREATE TABLE holds (
    id                   BLOB PRIMARY KEY CHECK (length(id) = 16),
    slice                TEXT,
    scope                TEXT NOT NULL, -- JSON
    kind                 TEXT NOT NULL CHECK (kind IN ('freeze', 'suspend')),
    holder               TEXT NOT NULL,
    role                 TEXT NOT NULL,
    reason               TEXT NOT NULL,
    evidence             TEXT NOT NULL,
    set_at_ms            INTEGER NOT NULL,
    incarnation          INTEGER NOT NULL,
    epoch                INTEGER NOT NULL,
    set_by               BLOB REFERENCES orders (id), -- NULL: a node brought it
    imported_from        BLOB REFERENCES nodes (id),
    released_by          BLOB REFERENCES orders (id), -- NULL: it stands
    released_person      TEXT,
    released_at_ms       INTEGER,
    released_incarnation INTEGER,
    released_epoch       INTEGER,
    CHECK (set_by IS NOT NULL OR imported_from IS NOT NULL),
    CHECK ((released_by IS NULL) = (released_person IS NULL) AND (released_by IS NULL) = (released_at_ms IS NULL)
       AND (released_by IS NULL) = (released_incarnation IS NULL) AND (released_by IS NULL) = (released_epoch IS NULL))
) STRICT;
CREATE INDEX holds_standing ON holds (incarnation, epoch) WHERE released_by IS NULL;
CREATE INDEX holds_by_setter ON holds (set_by) WHERE set_by IS NOT NULL;
CREATE INDEX holds_by_releaser ON holds (released_by) WHERE released_by IS NOT NULL;

CREATE TRIGGER holds_stay BEFORE DELETE ON holds
BEGIN SELECT RAISE(ABORT, 'holds are never deleted'); END;
CREATE TRIGGER holds_stay_released BEFORE UPDATE ON holds
WHEN OLD.released_by IS NOT NULL AND OLD.released_by IS NOT NEW.released_by
BEGIN SELECT RAISE(ABORT, 'a released hold stays released'); END;

-- The chain: the crate `audit` says what is hashed. The about_ columns serve lists and are not part of it.
CREATE TABLE audit (
    sequence         INTEGER PRIMARY KEY,
    at_ms            INTEGER NOT NULL,
    person           TEXT, -- NULL: the system by itself
    role             TEXT,
    action           TEXT NOT NULL,
    target           TEXT NOT NULL,
    reason           TEXT NOT NULL,
    evidence         TEXT NOT NULL,
    outcome          TEXT NOT NULL,
    detail           TEXT NOT NULL,
    order_id         BLOB,
    incarnation      INTEGER NOT NULL,
    epoch            INTEGER NOT NULL,
    previous         BLOB NOT NULL CHECK (length(previous) = 32),
    hash             BLOB NOT NULL CHECK (length(hash) = 32),
    about_slice      TEXT,
    about_slice_site TEXT,
    about_site       TEXT,
    about_node       BLOB
) STRICT;
CREATE INDEX audit_by_person ON audit (person, sequence) WHERE person IS NOT NULL;
CREATE INDEX audit_by_slice ON audit (about_slice, sequence) WHERE about_slice IS NOT NULL;
CREATE INDEX audit_by_order ON audit (order_id, sequence) WHERE order_id IS NOT NULL;

CREATE TRIGGER audit_only_grows BEFORE INSERT ON audit
WHEN NEW.sequence IS NOT (SELECT ifnull(max(sequence), 0) + 1 FROM audit)
BEGIN SELECT RAISE(ABORT, 'audit entries follow one another without a gap'); END;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'audit entries are never deleted'); END;
