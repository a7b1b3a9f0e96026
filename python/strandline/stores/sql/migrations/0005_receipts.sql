-- What running agents were told, so that the same request again is answered as it was the first time, also after a
-- restart (PROTOCOL §14.3). digest: of what it said, null once that was erased.
CREATE TABLE receipts (
    session    TEXT NOT NULL,
    message_id TEXT NOT NULL,
    run        TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    digest     TEXT,
    "key"      TEXT,
    UNIQUE (session, seq)
);
