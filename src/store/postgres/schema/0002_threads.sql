-- The AI thread of a conversation; it changes under the lock on that one's row. A row exists once
-- somebody has asked for it, and stays: a version is never given again.
CREATE TABLE thread (
    conversation bigint PRIMARY KEY,
    version      bigint NOT NULL,         -- of the last right that was given or taken away
    thread       text,                    -- set exactly while it is known
    since        bigint NOT NULL,         -- when the thread was stored, or the right given
    until        bigint,                  -- set exactly while somebody has the right, even if over
    claim_key    text                     -- what its holder called the request
);
CREATE INDEX thread_right ON thread (until) WHERE until IS NOT NULL;

-- Threads that a conversation had.
CREATE TABLE thread_past (
    conversation bigint NOT NULL,
    version      bigint NOT NULL,
    thread       text   NOT NULL,
    since        bigint NOT NULL,
    until        bigint NOT NULL,
    PRIMARY KEY (conversation, version)
);
CREATE INDEX thread_past_age ON thread_past (until);

-- Threads that were made for nothing; without an id where nobody ever told it. A right that is over
-- counts as one from its row in thread, until another one is given.
CREATE TABLE thread_orphan (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    conversation bigint NOT NULL,
    version      bigint NOT NULL,
    thread       text,
    at           bigint NOT NULL,
    PRIMARY KEY (conversation, id)
);
CREATE INDEX thread_orphan_of ON thread_orphan (conversation, version);
CREATE INDEX thread_orphan_age ON thread_orphan (at);
