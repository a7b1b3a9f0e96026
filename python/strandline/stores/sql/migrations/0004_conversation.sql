-- Decisions, annotations, deleted and spawned messages, and runs that a later process or a remote agent carries on.

ALTER TABLE sessions ADD COLUMN submit TEXT;

ALTER TABLE messages ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN spawned INTEGER NOT NULL DEFAULT 0;

ALTER TABLE runs ADD COLUMN spawned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN producer INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN body TEXT;

CREATE TABLE decisions (
    session    TEXT NOT NULL,
    id         TEXT NOT NULL,
    run        TEXT NOT NULL,
    message    TEXT NOT NULL,
    message_id TEXT NOT NULL,
    kind       TEXT NOT NULL,
    tool_call  TEXT NOT NULL,
    tool       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    input      TEXT,
    roles      TEXT,
    expires_at INTEGER,
    outcome    TEXT,
    value      TEXT,
    decided_at INTEGER,
    decided_by TEXT,
    UNIQUE (session, id)
);
CREATE INDEX decisions_by_session ON decisions (session);
CREATE INDEX decisions_due ON decisions (expires_at) WHERE outcome IS NULL AND expires_at IS NOT NULL;

CREATE TABLE annotations (
    session    TEXT NOT NULL,
    id         TEXT NOT NULL,
    message    TEXT NOT NULL,
    message_id TEXT NOT NULL,
    kind       TEXT NOT NULL,
    author     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    name       TEXT,
    data       TEXT,
    range      TEXT,
    UNIQUE (session, id)
);
CREATE INDEX annotations_by_session ON annotations (session, message);
