-- Numbers about the database itself: `projection_version`, what made the rows of `incidents`.
CREATE TABLE settings (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

-- The end of each tenant's chain. One row per tenant that has anything; every commit takes it first.
CREATE TABLE chain_heads (
    tenant TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    count  BIGINT NOT NULL,
    hash   BYTEA NOT NULL
);

-- The journal. `body` is exactly what was hashed and holds everything else; `incident` is only there to be searched.
CREATE TABLE incident_events (
    tenant   TEXT COLLATE "C" NOT NULL,
    seq      BIGINT NOT NULL,
    incident BYTEA NOT NULL,
    body     BYTEA NOT NULL,
    hash     BYTEA NOT NULL,
    PRIMARY KEY (tenant, seq)
);
CREATE INDEX incident_events_by_incident ON incident_events (tenant, incident, seq);

-- Against mistakes, not against an intruder: for that there is the chain.
CREATE FUNCTION incident_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'incident_events is append-only';
END $$;
CREATE TRIGGER incident_events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON incident_events
FOR EACH STATEMENT EXECUTE FUNCTION incident_events_append_only();

-- Projection of the journal; times are nanoseconds since 1970. The large columns come last.
CREATE TABLE incidents (
    tenant     TEXT COLLATE "C" NOT NULL,
    id         BYTEA NOT NULL,
    number     BIGINT NOT NULL,
    status     TEXT NOT NULL,
    severity   BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    onset      BIGINT NOT NULL,
    synthetic  BIGINT NOT NULL,
    entities   TEXT NOT NULL,
    names      TEXT NOT NULL,
    text       TEXT NOT NULL,
    body       BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX incidents_by_number ON incidents (tenant, number);
CREATE INDEX incidents_by_status ON incidents (tenant, status, number);

CREATE TABLE anomalies (
    tenant    TEXT COLLATE "C" NOT NULL,
    id        BYTEA NOT NULL,
    entity    BYTEA NOT NULL,
    severity  BIGINT NOT NULL,
    onset     BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    open      BIGINT NOT NULL,
    body      BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX anomalies_by_onset ON anomalies (tenant, onset, id);
CREATE INDEX anomalies_by_entity ON anomalies (tenant, entity, onset, id);
CREATE INDEX anomalies_by_end ON anomalies (tenant, open, last_seen);

CREATE TABLE changes (
    tenant TEXT COLLATE "C" NOT NULL,
    id     BYTEA NOT NULL,
    at     BIGINT NOT NULL,
    body   BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX changes_by_time ON changes (tenant, at, id);

-- Keys come from telemetry and may hold any character: bytes, ordered as bytes.
CREATE TABLE documents (
    tenant     TEXT COLLATE "C" NOT NULL,
    collection TEXT COLLATE "C" NOT NULL,
    key        BYTEA NOT NULL,
    body       BYTEA NOT NULL,
    PRIMARY KEY (tenant, collection, key)
);

CREATE TABLE cursors (
    tenant      TEXT COLLATE "C" NOT NULL,
    consumer    TEXT COLLATE "C" NOT NULL,
    topic       TEXT COLLATE "C" NOT NULL,
    part        BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (tenant, consumer, topic, part)
);

CREATE TABLE tokens (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          TEXT COLLATE "C" NOT NULL,
    role          TEXT NOT NULL,
    secret_sha256 BYTEA NOT NULL UNIQUE,
    created_at    BIGINT NOT NULL,
    generated     BIGINT NOT NULL,
    revoked_at    BIGINT
);
CREATE UNIQUE INDEX tokens_live ON tokens (name) WHERE revoked_at IS NULL;
