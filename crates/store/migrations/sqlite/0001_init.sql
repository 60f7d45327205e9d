-- Numbers about the database itself: `projection_version`, what made the rows of `incidents`.
CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- The end of each tenant's chain. One row per tenant that has anything; every commit takes it first.
CREATE TABLE chain_heads (
    tenant TEXT NOT NULL PRIMARY KEY,
    count  INTEGER NOT NULL,
    hash   BLOB NOT NULL
) WITHOUT ROWID;

-- The journal. `body` is exactly what was hashed and holds everything else; `incident` is only there to be searched.
CREATE TABLE incident_events (
    tenant   TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    incident BLOB NOT NULL,
    body     BLOB NOT NULL,
    hash     BLOB NOT NULL,
    PRIMARY KEY (tenant, seq)
);
CREATE INDEX incident_events_by_incident ON incident_events (tenant, incident, seq);

-- Against mistakes, not against an intruder: for that there is the chain.
CREATE TRIGGER incident_events_no_update BEFORE UPDATE ON incident_events
BEGIN SELECT RAISE(ABORT, 'incident_events is append-only'); END;
CREATE TRIGGER incident_events_no_delete BEFORE DELETE ON incident_events
BEGIN SELECT RAISE(ABORT, 'incident_events is append-only'); END;

-- Projection of the journal; times are nanoseconds since 1970. The large columns come last.
CREATE TABLE incidents (
    tenant     TEXT NOT NULL,
    id         BLOB NOT NULL,
    number     INTEGER NOT NULL,
    status     TEXT NOT NULL,
    severity   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    onset      INTEGER NOT NULL,
    synthetic  INTEGER NOT NULL,
    entities   TEXT NOT NULL,
    names      TEXT NOT NULL,
    text       TEXT NOT NULL,
    body       BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX incidents_by_number ON incidents (tenant, number);
CREATE INDEX incidents_by_status ON incidents (tenant, status, number);

CREATE TABLE anomalies (
    tenant    TEXT NOT NULL,
    id        BLOB NOT NULL,
    entity    BLOB NOT NULL,
    severity  INTEGER NOT NULL,
    onset     INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    open      INTEGER NOT NULL,
    body      BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX anomalies_by_onset ON anomalies (tenant, onset, id);
CREATE INDEX anomalies_by_entity ON anomalies (tenant, entity, onset, id);
CREATE INDEX anomalies_by_end ON anomalies (tenant, open, last_seen);

CREATE TABLE changes (
    tenant TEXT NOT NULL,
    id     BLOB NOT NULL,
    at     INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX changes_by_time ON changes (tenant, at, id);

-- Keys come from telemetry and may hold any character: bytes, ordered as bytes.
CREATE TABLE documents (
    tenant     TEXT NOT NULL,
    collection TEXT NOT NULL,
    key        BLOB NOT NULL,
    body       BLOB NOT NULL,
    PRIMARY KEY (tenant, collection, key)
);

CREATE TABLE cursors (
    tenant      TEXT NOT NULL,
    consumer    TEXT NOT NULL,
    topic       TEXT NOT NULL,
    part        INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (tenant, consumer, topic, part)
) WITHOUT ROWID;

CREATE TABLE tokens (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL UNIQUE,
    created_at    INTEGER NOT NULL,
    generated     INTEGER NOT NULL,
    revoked_at    INTEGER
);
CREATE UNIQUE INDEX tokens_live ON tokens (name) WHERE revoked_at IS NULL;
