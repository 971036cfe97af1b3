-- What makes the controller's word outlive this file, and what nodes told of a time that this file does not know.

-- The controller's word for the hold and for its release: short signatures of the crate `trust`. NULL: from before
-- there were signatures, or (release) it stands.
ALTER TABLE holds ADD COLUMN signature BLOB CHECK (signature IS NULL OR length(signature) = 72);
ALTER TABLE holds ADD COLUMN release_signature BLOB CHECK (release_signature IS NULL OR length(release_signature) = 72);

-- Releases that the controller once signed and that only nodes remember. The hold may be unknown, too: then it stays
-- released when another node brings it. Never deleted.
CREATE TABLE told_releases (
    hold        BLOB PRIMARY KEY CHECK (length(hold) = 16),
    incarnation INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    signature   BLOB NOT NULL CHECK (length(signature) = 72),
    node        BLOB NOT NULL REFERENCES nodes (id), -- the first that told
    at_ms       INTEGER NOT NULL
) STRICT;

-- Holds that somebody at a node's own door released there. They stand everywhere else.
CREATE TABLE exemptions (
    hold   BLOB NOT NULL CHECK (length(hold) = 16),
    node   BLOB NOT NULL REFERENCES nodes (id),
    person TEXT NOT NULL,
    role   TEXT NOT NULL,
    at_ms  INTEGER NOT NULL, -- by the node's clock
    PRIMARY KEY (hold, node)
) STRICT;
CREATE INDEX exemptions_by_node ON exemptions (node);

-- How much of each node's own audit has been taken over.
CREATE TABLE told_diaries (
    node     BLOB PRIMARY KEY REFERENCES nodes (id),
    sequence INTEGER NOT NULL,
    hash     BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
