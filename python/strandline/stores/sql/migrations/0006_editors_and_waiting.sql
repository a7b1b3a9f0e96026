-- Who has edited a message last, and finding the sessions that wait for somebody.

ALTER TABLE messages ADD COLUMN editor TEXT;

CREATE INDEX decisions_pending ON decisions (session) WHERE outcome IS NULL;
