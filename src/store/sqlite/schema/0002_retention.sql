-- What retention needs to find what is old without looking at what is not.

ALTER TABLE ledger ADD COLUMN janitor INTEGER; -- node that has the duty to forget
-- The highest id of a forgotten message. Ids are never given again: message.prev,
-- conversation.last_message and event.message may name a message that is no longer there.
ALTER TABLE ledger ADD COLUMN forgotten_message INTEGER NOT NULL DEFAULT 0;

-- An event and what came as it (message, receipt, notice) are emptied and forgotten together, by
-- first_at. kept_at stands in for it where that was reached and the event had to stay; it is set
-- so that the event is looked at again after a day.
ALTER TABLE event ADD COLUMN is_full INTEGER NOT NULL DEFAULT 1; -- 0: the payload is emptied
ALTER TABLE event ADD COLUMN kept_at INTEGER;
-- New events come in at its right end, so that appending touches one more page and no random one.
CREATE INDEX event_age ON event (is_full, coalesce(kept_at, first_at));

ALTER TABLE outgoing ADD COLUMN kept_at INTEGER; -- like that of an event, in place of changed_at
CREATE INDEX outgoing_age ON outgoing (body <> '', coalesce(kept_at, changed_at)) WHERE state >= 3;

CREATE INDEX receipt_parked ON receipt (received_at) WHERE outgoing IS NULL;
CREATE INDEX dead_letter_closed ON dead_letter (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX dead_letter_under ON dead_letter (conversation) WHERE closed_at IS NULL;
