-- The first schema. A migration runs in one transaction; the runner adds BEGIN, user_version and COMMIT around it.

-- What the store knows about itself: last_batch (highest committed batch number, as far as the journal does not say
-- it) and process (closed, full or normal: how the last process left, or what durability it runs with).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE sessions (
    id         TEXT NOT NULL UNIQUE,
    epoch      TEXT NOT NULL,
    owner      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    leaf       TEXT,
    title      TEXT
);
CREATE INDEX sessions_by_owner ON sessions (owner, updated_at DESC, id);
CREATE INDEX sessions_by_time ON sessions (updated_at DESC, id);

-- One row per message version. The rowid is the order of creation. Parts come last, so that an outline does not
-- have to walk through the overflow pages of a long reply.
CREATE TABLE messages (
    session    TEXT NOT NULL,
    version    TEXT NOT NULL UNIQUE,
    message_id TEXT NOT NULL,
    parent     TEXT,
    role       TEXT NOT NULL,
    author     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    run        TEXT,
    metadata   TEXT,
    parts      TEXT
);
CREATE INDEX messages_by_session ON messages (session);

CREATE TABLE runs (
    id            TEXT NOT NULL UNIQUE,
    session       TEXT NOT NULL,
    message       TEXT NOT NULL,
    message_id    TEXT NOT NULL,
    parent        TEXT,
    agent         TEXT NOT NULL,
    author        TEXT NOT NULL,
    status        TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    first_seq     INTEGER NOT NULL,
    last_seq      INTEGER,
    parent_run    TEXT,
    "key"         TEXT,
    reason        TEXT,
    error         TEXT,
    finish_reason TEXT,
    usage         TEXT,
    ended_at      INTEGER
);
CREATE INDEX runs_by_session ON runs (session, first_seq);
CREATE UNIQUE INDEX runs_by_key ON runs (session, "key") WHERE "key" IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (session, first_seq) WHERE status IN ('queued', 'running');

-- One row per commit: everything that all sessions appended in it.
CREATE TABLE journal (
    number  INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
);

-- Immutable, deflated segments of every session's events; lines of "<seq> <event json>".
CREATE TABLE log (
    session   TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    run       TEXT,
    at        INTEGER NOT NULL,
    blob      BLOB NOT NULL
);
CREATE INDEX log_by_session ON log (session, first_seq, last_seq, run);
CREATE INDEX log_by_age ON log (at, run);
