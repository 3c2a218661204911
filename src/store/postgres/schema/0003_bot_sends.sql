-- What bots have asked to send by themselves; it changes under the lock on its conversation's row.
-- A row stands for one message, however often it was asked for; it goes with its outgoing.
CREATE SEQUENCE bot_send_id;
CREATE TABLE bot_send (
    id            bigint   NOT NULL DEFAULT nextval('bot_send_id'),
    conversation  bigint   NOT NULL,
    turn_seq      bigint   NOT NULL,      -- 0: outside of any turn
    position      int      NOT NULL,
    content       uuid     NOT NULL,      -- what it says, hashed
    also          uuid,                   -- the other words that were taken for it last
    born          bigint   NOT NULL,      -- epoch in which it was asked for first
    seen          bigint   NOT NULL,      -- and last
    heard_at      bigint   NOT NULL,      -- when it was asked for last
    told          smallint NOT NULL DEFAULT 0,
    key           text,
    also_key      text,                   -- the other key under which it was asked for last
    recipient     text     NOT NULL,      -- where the bot has said it goes
    callback      text,
    body          text,                   -- set exactly while it waits for the end of its turn
    outgoing      bigint,                 -- set exactly once it does not
    answer_status int,                    -- what Meta has answered
    answer        text,
    PRIMARY KEY (id, conversation)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX bot_send_of ON bot_send (conversation, turn_seq, position);
CREATE INDEX bot_send_key ON bot_send (conversation, key) WHERE key IS NOT NULL;
CREATE INDEX bot_send_also_key ON bot_send (conversation, also_key) WHERE also_key IS NOT NULL;
CREATE INDEX bot_send_outgoing ON bot_send (outgoing) WHERE outgoing IS NOT NULL;
-- A conversation may have any number of them.
CREATE INDEX bot_send_unheard ON bot_send (conversation, content) WHERE told = 0;
