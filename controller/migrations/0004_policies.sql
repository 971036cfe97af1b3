-- Which policy snapshot each site's nodes were last given: the same content is the same version, so that a controller
-- that starts again sends nobody what they have.
CREATE TABLE policies (
    site         TEXT PRIMARY KEY,
    content      BLOB NOT NULL CHECK (length(content) = 32), -- SHA-256 of the snapshot without version and time
    incarnation  INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    issued_at_ms INTEGER NOT NULL
) STRICT;
