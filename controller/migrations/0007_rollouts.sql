-- Our own programs and how they reach the nodes (ADR 0016). The bytes are files: STATE/software/SHA256.

CREATE TABLE software (
    sha256       BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    name         TEXT NOT NULL,
    version      TEXT NOT NULL,
    architecture TEXT NOT NULL, -- as uname -m says it; empty: any
    size         INTEGER NOT NULL,
    added_by     TEXT NOT NULL,
    added_at_ms  INTEGER NOT NULL
) STRICT;

CREATE TABLE rollouts (
    number        INTEGER PRIMARY KEY, -- in the order of their starts
    id            BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    key           TEXT NOT NULL,
    person        TEXT NOT NULL,
    reason        TEXT NOT NULL,
    version       TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    incarnation   INTEGER NOT NULL, -- of the decision
    epoch         INTEGER NOT NULL,
    artifacts     TEXT NOT NULL, -- JSON
    head          TEXT NOT NULL, -- JSON: plan, phase, wave
    UNIQUE (person, key)
) STRICT;

CREATE TABLE rollout_nodes (
    rollout BLOB NOT NULL REFERENCES rollouts (id),
    node    BLOB NOT NULL REFERENCES nodes (id),
    item    TEXT NOT NULL, -- JSON: wave, step, what the node was before
    PRIMARY KEY (rollout, node)
) STRICT;
