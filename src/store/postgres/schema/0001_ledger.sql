-- Times are milliseconds since 1970 on the database's clock unless a name says otherwise.
-- Enumerations are the numbers of the code's types. Payloads (message.envelope, outgoing.body,
-- receipt.raw, notice.raw) are written once.
--
-- Every primary key is the event's key, or contains the conversation or the number, so that the
-- tables can be spread by hash later. Rows that change often (conversation, outgoing, node,
-- ledger) have no index on what changes and room on their page, so that an update stays on it.

-- The time of the transaction, set when it begins: one for all its statements.
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT current_setting('hapax.now')::bigint $$;

CREATE TABLE ledger (
    one        int    PRIMARY KEY CHECK (one = 1),
    store_id   bigint NOT NULL,
    healthy_ms bigint NOT NULL,           -- time in which receipts could have arrived
    healthy_at bigint NOT NULL,
    timeline   bigint NOT NULL,           -- the server's; another one means a failover
    era        bigint NOT NULL DEFAULT 0, -- raised by each failover, and with it every epoch
    identity   int    NOT NULL DEFAULT 0, -- locked by whoever makes or links contacts
    janitor    bigint,                    -- node that has the duty to forget
    born_at    bigint NOT NULL
) WITH (fillfactor = 10);

-- One row per running process. A dead one has no row.
CREATE SEQUENCE node_id;
CREATE TABLE node (
    id          bigint PRIMARY KEY DEFAULT nextval('node_id'),
    lease_until bigint NOT NULL,
    pid         bigint NOT NULL,
    joined_at   bigint NOT NULL
) WITH (fillfactor = 20);

-- The gate: a row exists exactly when the event has been stored.
CREATE TABLE event (
    key      uuid     PRIMARY KEY,
    kind     smallint NOT NULL,
    arrivals bigint   NOT NULL,
    first_at bigint   NOT NULL,
    last_at  bigint   NOT NULL,
    delivery bigint   NOT NULL,           -- of the last arrival
    is_full  boolean  NOT NULL DEFAULT true -- false: retention has emptied what came as it
) WITH (fillfactor = 85);
-- Messages are found by their own age.
CREATE INDEX event_age ON event (is_full, first_at) WHERE kind <> 1;

-- What a delivery was answered; written after the answer, so a missing row means unknown.
CREATE TABLE delivery (
    id         bigint   PRIMARY KEY,
    at         bigint   NOT NULL,
    events     int      NOT NULL,
    status     smallint NOT NULL,
    latency_us bigint   NOT NULL
);
CREATE INDEX delivery_at ON delivery (at);

-- The last arrivals of an event that came more than once, as a ring.
CREATE TABLE arrival (
    event      uuid     NOT NULL,
    slot       smallint NOT NULL,
    at         bigint   NOT NULL,
    delivery   bigint,
    status     smallint,                  -- set here only where nothing of the delivery was stored
    latency_us bigint,
    PRIMARY KEY (event, slot)
);

CREATE TABLE notice (
    event  uuid   PRIMARY KEY,
    number text,
    kind   text   NOT NULL,
    at     bigint NOT NULL,
    raw    text   NOT NULL
);

CREATE SEQUENCE contact_id;
CREATE TABLE contact (
    id         bigint PRIMARY KEY,
    created_at bigint NOT NULL
);

CREATE TABLE alias (
    number       text     NOT NULL,
    kind         smallint NOT NULL,
    value        text     NOT NULL,
    contact      bigint   NOT NULL,
    conversation bigint   NOT NULL,
    since        bigint   NOT NULL,
    PRIMARY KEY (number, kind, value)
);
CREATE INDEX alias_contact ON alias (contact, number, kind);

-- Lock, gate and sequencer of one conversation. Whatever happens to its messages, its lease or
-- its outbox happens under a lock on this row.
CREATE SEQUENCE conversation_id;
CREATE TABLE conversation (
    id                bigint PRIMARY KEY,
    number            text   NOT NULL,
    contact           bigint NOT NULL,
    recipient         text   NOT NULL,    -- where an answer goes
    next_seq          bigint NOT NULL DEFAULT 1,
    done_seq          bigint NOT NULL DEFAULT 0,
    epoch             bigint NOT NULL DEFAULT 0,
    owner             bigint,             -- node
    claim             bigint,             -- token of the claim under which it is owned
    attempt           bigint NOT NULL DEFAULT 0,
    turn_last         bigint,             -- frozen end of the turn that has begun
    not_before        bigint NOT NULL DEFAULT 0,
    quiet_until       bigint NOT NULL DEFAULT 0,
    unavailable_since bigint,
    last_error        text,
    merged_into       bigint
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX conversation_of ON conversation (number, contact);

-- The small set that scheduling looks at: a row exists exactly while messages are pending. It
-- has a due time while nobody owns the conversation, and a node while somebody does.
CREATE TABLE pending (
    conversation bigint PRIMARY KEY,
    due_at       bigint,
    node         bigint,
    CHECK ((due_at IS NULL) <> (node IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX pending_due ON pending (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX pending_node ON pending (node) WHERE node IS NOT NULL;

CREATE TABLE message (
    conversation bigint NOT NULL,
    seq          bigint NOT NULL,
    event        uuid   NOT NULL,
    wamid        text   NOT NULL,
    kind         text   NOT NULL,
    sent_at      bigint,
    received_at  bigint NOT NULL,
    envelope     text   NOT NULL,
    is_full      boolean NOT NULL DEFAULT true, -- false: retention has emptied the envelope
    kept_at      bigint,                  -- stands in for received_at where it had to stay
    PRIMARY KEY (conversation, seq)
);
-- New rows come in at its right end.
CREATE INDEX message_age ON message (is_full, coalesce(kept_at, received_at));

-- How each turn ended.
CREATE TABLE turn (
    conversation bigint   NOT NULL,
    seq          bigint   NOT NULL,
    seq_last     bigint   NOT NULL,
    outcome      smallint NOT NULL,       -- 1 reply, 2 silence, 3 dead letter
    attempts     bigint   NOT NULL,
    epoch        bigint   NOT NULL,
    node         bigint   NOT NULL,
    started_at   bigint   NOT NULL,
    finished_at  bigint   NOT NULL,
    PRIMARY KEY (conversation, seq)
);

CREATE TABLE number (
    id           text   PRIMARY KEY,
    paused_until bigint NOT NULL DEFAULT 0,
    reason       text
) WITH (fillfactor = 50);

CREATE SEQUENCE outgoing_id;
CREATE TABLE outgoing (
    id             bigint   NOT NULL DEFAULT nextval('outgoing_id'),
    conversation   bigint   NOT NULL,
    number         text     NOT NULL,
    turn_seq       bigint   NOT NULL,
    position       int      NOT NULL,
    body           text     NOT NULL,
    state          smallint NOT NULL DEFAULT 0,
    attempt        bigint   NOT NULL DEFAULT 0,
    wamid          text,
    rank           smallint NOT NULL DEFAULT 0,
    failed_attempt bigint,                -- the attempt that a receipt has called failed
    error          text,
    created_at     bigint   NOT NULL,
    changed_at     bigint   NOT NULL,
    is_full        boolean  NOT NULL DEFAULT true, -- false: retention has emptied the body
    kept_at        bigint,                -- stands in for created_at where it had to stay
    PRIMARY KEY (id, conversation)
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX outgoing_of ON outgoing (conversation, turn_seq, position);
-- By what never changes while it is sent and settled, so that those updates stay on the page.
CREATE INDEX outgoing_age ON outgoing (is_full, coalesce(kept_at, created_at));

-- The outgoings that are not settled: pending, sending or unsure.
CREATE TABLE outbox (
    conversation bigint   NOT NULL,
    outgoing     bigint   NOT NULL,
    number       text     NOT NULL,
    state        smallint NOT NULL DEFAULT 0,
    due_at       bigint,                  -- set exactly on a pending head of its conversation
    node         bigint,                  -- who sends it now
    unsure_at_ms bigint,                  -- on the ledger's healthy clock
    PRIMARY KEY (conversation, outgoing)
) WITH (fillfactor = 50);
CREATE INDEX outbox_due ON outbox (number, due_at) WHERE due_at IS NOT NULL;
CREATE UNIQUE INDEX outbox_in_question ON outbox (conversation) WHERE state IN (1, 2);
CREATE INDEX outbox_sending ON outbox (node) WHERE state = 1;
CREATE INDEX outbox_unsure ON outbox (unsure_at_ms) WHERE state = 2;

-- Where a receipt without our tag and the answer to its send meet: both write this row.
CREATE TABLE wamid (
    number       text   NOT NULL,
    wamid        text   NOT NULL,
    outgoing     bigint,
    conversation bigint,
    at           bigint NOT NULL,
    PRIMARY KEY (number, wamid)
);
CREATE INDEX wamid_at ON wamid (at);

-- outgoing is null while a receipt is parked: nobody has claimed its wamid yet.
CREATE TABLE receipt (
    event       uuid    PRIMARY KEY,
    number      text    NOT NULL,
    wamid       text    NOT NULL,
    status      text    NOT NULL,
    participant text    NOT NULL,
    at          bigint,
    received_at bigint  NOT NULL,
    outgoing    bigint,
    attempt     bigint,
    code        bigint,
    retryable   boolean NOT NULL,
    raw         text    NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX receipt_parked ON receipt (number, wamid) WHERE outgoing IS NULL;
CREATE INDEX receipt_parked_at ON receipt (received_at) WHERE outgoing IS NULL;

CREATE TABLE dead_letter (
    id           bigint   GENERATED ALWAYS AS IDENTITY,
    conversation bigint   NOT NULL,
    kind         smallint NOT NULL,
    seq          bigint   NOT NULL,
    seq_last     bigint   NOT NULL,
    outgoing     bigint,
    reason       text     NOT NULL,
    attempts     bigint   NOT NULL,
    at           bigint   NOT NULL,
    closed_at    bigint,
    PRIMARY KEY (id, conversation)
);
CREATE INDEX dead_letter_open ON dead_letter (conversation, seq) WHERE closed_at IS NULL;
CREATE INDEX dead_letter_outgoing ON dead_letter (outgoing) WHERE outgoing IS NOT NULL;
CREATE INDEX dead_letter_closed ON dead_letter (closed_at) WHERE closed_at IS NOT NULL;

-- Tables whose rows come and go would bloat under the default, which waits for a fifth of them.
ALTER TABLE pending SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                         autovacuum_vacuum_cost_delay = 0);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                        autovacuum_vacuum_cost_delay = 0);
ALTER TABLE conversation SET (autovacuum_vacuum_scale_factor = 0.02);
