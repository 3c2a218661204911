-- What bots have asked to send by themselves. A row stands for one message, however often it was
-- asked for; it goes with its outgoing.
CREATE TABLE bot_send (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL,
    turn_seq     INTEGER NOT NULL, -- 0: outside of any turn
    position     INTEGER NOT NULL,
    content      BLOB    NOT NULL, -- what it says, hashed
    also         BLOB,             -- the other words that were taken for it last
    born         INTEGER NOT NULL, -- epoch in which it was asked for first
    seen         INTEGER NOT NULL, -- and last
    heard_at     INTEGER NOT NULL, -- when it was asked for last
    told         INTEGER NOT NULL DEFAULT 0,
    key          TEXT,
    also_key     TEXT,             -- the other key under which it was asked for last
    recipient    TEXT    NOT NULL, -- where the bot has said it goes
    callback     TEXT,
    body         TEXT,             -- set exactly while it waits for the end of its turn
    outgoing     INTEGER,          -- set exactly once it does not
    answer_status INTEGER,         -- what Meta has answered
    answer       TEXT,
    UNIQUE (conversation, turn_seq, position)
) STRICT;
CREATE INDEX bot_send_key ON bot_send (conversation, key) WHERE key IS NOT NULL;
CREATE INDEX bot_send_also_key ON bot_send (conversation, also_key) WHERE also_key IS NOT NULL;
CREATE UNIQUE INDEX bot_send_outgoing ON bot_send (outgoing) WHERE outgoing IS NOT NULL;
-- A conversation may have any number of them.
CREATE INDEX bot_send_unheard ON bot_send (conversation, content) WHERE told = 0;
