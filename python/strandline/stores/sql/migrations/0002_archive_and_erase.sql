-- Sessions can be archived, and deleted.

ALTER TABLE sessions ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;

-- With archived as the last column a page of either kind is found without a look at the rows that it leaves out.
DROP INDEX sessions_by_owner;
DROP INDEX sessions_by_time;
CREATE INDEX sessions_by_owner ON sessions (owner, updated_at DESC, id, archived);
CREATE INDEX sessions_by_time ON sessions (updated_at DESC, id, archived);

-- Which sessions were deleted by which batch: what the journal holds of them up to that number is void. A row goes when
-- the journal is trimmed beyond its number.
CREATE TABLE erased (
    session TEXT PRIMARY KEY,
    number  INTEGER NOT NULL
) WITHOUT ROWID;
