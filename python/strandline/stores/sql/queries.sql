-- Every statement that Strandline runs, PRAGMAs apart. Format, read by queries.py:
--   a line "-- name --", comment lines that say why, one statement.
-- Columns stand in the order of the record's fields (core/records.py). put_* take one row of values; the loader can
-- repeat that row, so that many rows are one statement (one step: steps in a thread fight the event loop for the GIL).

-- begin --
-- IMMEDIATE: a writer that cannot have the lock finds out here, not half-way.
BEGIN IMMEDIATE;

-- begin_snapshot --
-- Several statements of one logical read see one state of the file.
BEGIN DEFERRED;

-- commit --
COMMIT;

-- rollback --
ROLLBACK;

-- count_tables --
-- An SQLite file without an application id is ours to take only while it is empty.
SELECT count(*) FROM sqlite_schema;

-- get_meta --
SELECT value FROM meta WHERE name = ?;

-- put_meta --
INSERT INTO meta (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- last_batch --
-- The journal says it for batches with entries, meta for all others and after trimming.
SELECT max(
    coalesce((SELECT value FROM meta WHERE name = 'last_batch'), 0),
    coalesce((SELECT max(number) FROM journal), 0)
);

-- put_journal --
INSERT INTO journal (number, entries) VALUES (?, ?);

-- trim_journal --
DELETE FROM journal WHERE number <= ?;

-- read_journal --
-- Read row by row where it may be long: a start after a crash must not hold all of it in memory.
SELECT number, entries FROM journal ORDER BY number;

-- erase_messages --
-- This and the next seven, in one transaction with put_erased, are the deletion of a session.
DELETE FROM messages WHERE session = ?;

-- erase_runs --
DELETE FROM runs WHERE session = ?;

-- erase_log --
DELETE FROM log WHERE session = ?;

-- erase_decisions --
DELETE FROM decisions WHERE session = ?;

-- erase_annotations --
DELETE FROM annotations WHERE session = ?;

-- erase_receipts --
DELETE FROM receipts WHERE session = ?;

-- erase_erasures --
DELETE FROM erasures WHERE session = ?;

-- erase_session --
DELETE FROM sessions WHERE id = ?;

-- put_erased --
INSERT INTO erased (session, number) VALUES (?, ?)
ON CONFLICT (session) DO UPDATE SET number = excluded.number;

-- read_erased --
SELECT session, number FROM erased;

-- trim_erased --
DELETE FROM erased WHERE number <= ?;

-- erase_content --
-- This and the next five, in one transaction with put_erasure, take away what a message has said. Segments of the session
-- itself hold what users said; erase() gives a segment without what the erasure names.
UPDATE log SET blob = erase(blob, ?2)
WHERE session = ?1 AND first_seq < ?3 AND (run IS NULL OR run IN (SELECT value FROM json_each(?4)));

-- erase_decisions_of_message --
DELETE FROM decisions WHERE session = ? AND message = ?;

-- erase_digests --
-- Of what an agent was told, as long as that is said in a message of its own, the digest stays.
UPDATE receipts SET digest = NULL
WHERE session = ?1 AND (message_id = ?2 OR (run IN (SELECT value FROM json_each(?3)) AND NOT EXISTS (
    SELECT 1 FROM messages
    WHERE messages.session = ?1 AND messages.message_id = receipts.message_id AND NOT messages.deleted
)));

-- erase_annotations_of_message --
DELETE FROM annotations WHERE session = ? AND message = ?;

-- erase_bodies --
UPDATE runs SET body = NULL WHERE session = ?1 AND ?2 IN (message, parent) AND body IS NOT NULL;

-- erase_annotated --
-- The same for what an annotation has said.
UPDATE log SET blob = erase(blob, ?2) WHERE session = ?1 AND first_seq < ?3 AND run IS NULL;

-- put_erasure --
-- What the journal holds of it up to that number is void.
INSERT INTO erasures (number, session, what) VALUES (?, ?, ?);

-- read_erasures --
SELECT number, what FROM erasures;

-- trim_erasures --
DELETE FROM erasures WHERE number <= ?;

-- put_sessions --
INSERT INTO sessions (id, epoch, owner, created_at, updated_at, last_seq, leaf, title, archived, submit)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    epoch = excluded.epoch, owner = excluded.owner, created_at = excluded.created_at,
    updated_at = excluded.updated_at, last_seq = excluded.last_seq, leaf = excluded.leaf, title = excluded.title,
    archived = excluded.archived, submit = excluded.submit;

-- put_messages --
-- An upsert keeps the rowid, and with it the order of creation; INSERT OR REPLACE would not.
INSERT INTO messages (session, version, message_id, parent, role, author, created_at, run, parts, metadata,
    deleted, spawned, editor)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (version) DO UPDATE SET
    session = excluded.session, message_id = excluded.message_id, parent = excluded.parent, role = excluded.role,
    author = excluded.author, created_at = excluded.created_at, run = excluded.run, parts = excluded.parts,
    metadata = excluded.metadata, deleted = excluded.deleted, spawned = excluded.spawned, editor = excluded.editor;

-- put_runs --
INSERT INTO runs (id, session, message, message_id, parent, agent, author, status, created_at, first_seq, last_seq,
    parent_run, "key", reason, error, finish_reason, usage, ended_at, spawned,
    attempt, producer, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    session = excluded.session, message = excluded.message, message_id = excluded.message_id,
    parent = excluded.parent, agent = excluded.agent, author = excluded.author, status = excluded.status,
    created_at = excluded.created_at, first_seq = excluded.first_seq, last_seq = excluded.last_seq,
    parent_run = excluded.parent_run, "key" = excluded."key", reason = excluded.reason, error = excluded.error,
    finish_reason = excluded.finish_reason, usage = excluded.usage, ended_at = excluded.ended_at,
    spawned = excluded.spawned, attempt = excluded.attempt, producer = excluded.producer, body = excluded.body;

-- put_decisions --
INSERT INTO decisions (session, id, run, message, message_id, kind, tool_call, tool, created_at, input, roles,
    expires_at, outcome, value, decided_at, decided_by)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session, id) DO UPDATE SET
    outcome = excluded.outcome, value = excluded.value, decided_at = excluded.decided_at,
    decided_by = excluded.decided_by;

-- put_annotations --
INSERT INTO annotations (session, id, message, message_id, kind, author, created_at, name, data, range)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session, id) DO UPDATE SET
    message = excluded.message, message_id = excluded.message_id, kind = excluded.kind, author = excluded.author,
    created_at = excluded.created_at, name = excluded.name, data = excluded.data, range = excluded.range;

-- put_receipts --
INSERT INTO receipts (session, message_id, run, seq, digest, "key") VALUES (?, ?, ?, ?, ?, ?);

-- drop_annotation --
DELETE FROM annotations WHERE session = ? AND id = ?;

-- put_segment --
INSERT INTO log (session, first_seq, last_seq, run, at, blob) VALUES (?, ?, ?, ?, ?, ?);

-- raise_last_seq --
-- After a crash the journal may be ahead of the session's row.
UPDATE sessions SET last_seq = ?2 WHERE id = ?1 AND last_seq < ?2;

-- renew_epochs --
-- mint_epoch() is called once per row.
UPDATE sessions SET epoch = mint_epoch();

-- expire_log --
-- A slice at a time, so that a large expiry never keeps the writer waiting for long. A run goes as a whole, and its end
-- first: a reader that is in the middle of it misses the end, and is not shown a hole.
DELETE FROM log WHERE rowid IN (
    SELECT rowid FROM log
    WHERE at < ?1
      AND (run IS NULL OR run NOT IN (
          SELECT id FROM runs WHERE status IN ('queued', 'running') OR ended_at >= ?1
      ))
    ORDER BY at DESC
    LIMIT ?2
);

-- get_session --
SELECT id, epoch, owner, created_at, updated_at, last_seq, leaf, title, archived, submit FROM sessions WHERE id = ?;

-- list_sessions --
-- What comes after the place (updated_at ?1, id ?2); ?3 is archived or not, null for both. The first condition alone finds
-- the beginning in the index.
SELECT id, epoch, owner, created_at, updated_at, last_seq, leaf, title, archived, submit FROM sessions
WHERE updated_at <= ?1 AND (updated_at < ?1 OR id > ?2) AND archived = coalesce(?3, archived)
ORDER BY updated_at DESC, id LIMIT ?4;

-- list_sessions_of_owner --
SELECT id, epoch, owner, created_at, updated_at, last_seq, leaf, title, archived, submit FROM sessions
WHERE owner = ?5 AND updated_at <= ?1 AND (updated_at < ?1 OR id > ?2) AND archived = coalesce(?3, archived)
ORDER BY updated_at DESC, id LIMIT ?4;

-- list_sessions_that_wait --
-- Those with a decision that is pending; ?5 is the owner, null for everybody's.
SELECT id, epoch, owner, created_at, updated_at, last_seq, leaf, title, archived, submit FROM sessions
WHERE id IN (SELECT session FROM decisions WHERE outcome IS NULL)
    AND updated_at <= ?1 AND (updated_at < ?1 OR id > ?2) AND archived = coalesce(?3, archived)
    AND owner = coalesce(?5, owner)
ORDER BY updated_at DESC, id LIMIT ?4;

-- count_pending --
SELECT session, count(*) FROM decisions
WHERE outcome IS NULL AND session IN (SELECT value FROM json_each(?)) GROUP BY session;

-- outline --
SELECT session, version, message_id, parent, role, author, created_at, run, NULL, metadata, deleted, spawned, editor
FROM messages
WHERE session = ? ORDER BY rowid;

-- get_messages --
-- One statement for any number of versions: one snapshot, one call. Parts that are a blob are compressed JSON.
SELECT session, version, message_id, parent, role, author, created_at, run,
    CASE typeof(parts) WHEN 'blob' THEN inflate(parts) ELSE parts END, metadata, deleted, spawned, editor
FROM messages
WHERE session = ?1 AND version IN (SELECT value FROM json_each(?2));

-- all_messages --
SELECT session, version, message_id, parent, role, author, created_at, run,
    CASE typeof(parts) WHEN 'blob' THEN inflate(parts) ELSE parts END, metadata, deleted, spawned, editor
FROM messages
WHERE session = ? ORDER BY rowid;

-- list_runs --
SELECT id, session, message, message_id, parent, agent, author, status, created_at, first_seq, last_seq,
    parent_run, "key", reason, error, finish_reason, usage, ended_at, spawned,
    attempt, producer, body
FROM runs WHERE session = ? ORDER BY first_seq, rowid;

-- get_run --
SELECT id, session, message, message_id, parent, agent, author, status, created_at, first_seq, last_seq,
    parent_run, "key", reason, error, finish_reason, usage, ended_at, spawned,
    attempt, producer, body
FROM runs WHERE id = ?;

-- unfinished_runs --
SELECT id, session, message, message_id, parent, agent, author, status, created_at, first_seq, last_seq,
    parent_run, "key", reason, error, finish_reason, usage, ended_at, spawned,
    attempt, producer, body
FROM runs WHERE status IN ('queued', 'running') ORDER BY session, first_seq, rowid;

-- read_log --
SELECT inflate(blob) FROM log WHERE session = ?1 AND first_seq <= ?3 AND last_seq >= ?2 ORDER BY first_seq;

-- read_log_of_run --
SELECT inflate(blob) FROM log WHERE session = ?1 AND first_seq <= ?3 AND last_seq >= ?2 AND run = ?4
ORDER BY first_seq;

-- list_decisions --
SELECT session, id, run, message, message_id, kind, tool_call, tool, created_at,
    CASE WHEN outcome IS NULL THEN input END, roles, expires_at, outcome, value, decided_at, decided_by
FROM decisions WHERE session = ? ORDER BY rowid;

-- due_decisions --
-- The first of those that have expired, or will have by then.
SELECT session, id, run, message, message_id, kind, tool_call, tool, created_at, input, roles, expires_at, outcome,
    value, decided_at, decided_by
FROM decisions WHERE outcome IS NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?;

-- list_annotations --
SELECT session, id, message, message_id, kind, author, created_at, name, NULL, NULL
FROM annotations WHERE session = ?;

-- list_receipts --
SELECT session, message_id, run, seq, digest, "key" FROM receipts WHERE session = ? ORDER BY seq;

-- annotations_of --
-- A page of one message's, of one kind or (null) of all, in order of creation.
SELECT session, id, message, message_id, kind, author, created_at, name, data, range
FROM annotations WHERE session = ?1 AND message = ?2 AND kind = coalesce(?3, kind)
ORDER BY rowid LIMIT ?4 OFFSET ?5;
