-- The AI thread of a conversation. A row exists once somebody has asked for it, and stays: a version
-- is never given again.
CREATE TABLE thread (
    conversation INTEGER PRIMARY KEY,
    version      INTEGER NOT NULL, -- of the last right to make it that was given or taken away
    thread       TEXT,             -- set exactly while it is known
    since        INTEGER NOT NULL, -- when the thread was stored, or the right given
    until        INTEGER,          -- set exactly while somebody has the right, perhaps over by now
    claim_key    TEXT              -- what its holder called the request
) STRICT;
CREATE INDEX thread_right ON thread (until) WHERE until IS NOT NULL;

-- Threads that a conversation had.
CREATE TABLE thread_past (
    conversation INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    thread       TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    until        INTEGER NOT NULL,
    PRIMARY KEY (conversation, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX thread_past_age ON thread_past (until);

-- Threads that were made for nothing; without an id where nobody ever told it. A right that is over
-- counts as one from its row in thread, until another one is given.
CREATE TABLE thread_orphan (
    id           INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    thread       TEXT,
    at           INTEGER NOT NULL
) STRICT;
CREATE INDEX thread_orphan_of ON thread_orphan (conversation, version);
CREATE INDEX thread_orphan_age ON thread_orphan (at);
