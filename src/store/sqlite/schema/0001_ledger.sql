-- Times are milliseconds since 1970 unless a name says otherwise. Enumerations are the numbers
-- of the code's types. Payloads (message.envelope, outgoing.body, receipt.raw) are written once.

CREATE TABLE ledger (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    store_id   INTEGER NOT NULL,
    healthy_ms INTEGER NOT NULL, -- time in which receipts could have arrived
    healthy_at INTEGER NOT NULL,
    born_at    INTEGER NOT NULL
) STRICT;

-- One row per running process. A dead one has no row.
CREATE TABLE node (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    boot           TEXT    NOT NULL, -- the kernel's boot id: leases end with the boot
    lease_until_ms INTEGER NOT NULL, -- on the boot's clock (CLOCK_BOOTTIME)
    pid            INTEGER NOT NULL,
    joined_at      INTEGER NOT NULL
) STRICT;

-- The gate: a row exists exactly when the event has been stored.
CREATE TABLE event (
    key      BLOB    NOT NULL PRIMARY KEY,
    kind     INTEGER NOT NULL,
    arrivals INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    delivery INTEGER NOT NULL, -- of the last arrival
    message  INTEGER           -- where it was put, if it is a message
) STRICT, WITHOUT ROWID;

-- What a delivery was answered; written after the answer, so a missing row means unknown.
CREATE TABLE delivery (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    events     INTEGER NOT NULL,
    status     INTEGER NOT NULL,
    latency_us INTEGER NOT NULL
) STRICT;

-- The last arrivals of an event that came more than once, as a ring.
CREATE TABLE arrival (
    event      BLOB    NOT NULL,
    slot       INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    delivery   INTEGER,
    status     INTEGER, -- set here only where nothing of the delivery was stored
    latency_us INTEGER,
    PRIMARY KEY (event, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE notice (
    event  BLOB    NOT NULL PRIMARY KEY,
    number TEXT,
    kind   TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    raw    TEXT    NOT NULL
) STRICT;

CREATE TABLE contact (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE alias (
    number  TEXT    NOT NULL,
    kind    INTEGER NOT NULL,
    value   TEXT    NOT NULL,
    contact INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (number, kind, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_contact ON alias (contact);

-- Lock, gate and sequencer of one conversation.
CREATE TABLE conversation (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    number            TEXT    NOT NULL,
    contact           INTEGER NOT NULL,
    recipient         TEXT    NOT NULL, -- where an answer goes
    next_seq          INTEGER NOT NULL DEFAULT 1,
    done_seq          INTEGER NOT NULL DEFAULT 0,
    epoch             INTEGER NOT NULL DEFAULT 0,
    owner             INTEGER,          -- node
    claim             INTEGER,          -- token of the claim under which it is owned
    attempt           INTEGER NOT NULL DEFAULT 0,
    turn_last         INTEGER,          -- frozen end of the turn that has begun
    head_message      INTEGER,          -- the first pending one
    last_message      INTEGER,
    not_before        INTEGER NOT NULL DEFAULT 0,
    quiet_until       INTEGER NOT NULL DEFAULT 0,
    ready_at          INTEGER,          -- set exactly when something is pending and nobody owns it
    unavailable_since INTEGER,
    last_error        TEXT,
    merged_into       INTEGER,
    UNIQUE (number, contact)
) STRICT;
CREATE INDEX conversation_ready ON conversation (ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX conversation_owner ON conversation (owner) WHERE owner IS NOT NULL;

-- In the order of arrival over all conversations, so that appending touches the end of one tree
-- only. The messages of one conversation are linked: backwards here for ever, forwards in
-- message_next while somebody waits for it.
CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    prev         INTEGER,
    event        BLOB    NOT NULL,
    wamid        TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    sent_at      INTEGER,
    received_at  INTEGER NOT NULL,
    envelope     TEXT    NOT NULL
) STRICT;

CREATE TABLE message_next (
    id   INTEGER PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT;

-- How each turn ended.
CREATE TABLE turn (
    conversation INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    seq_last     INTEGER NOT NULL,
    outcome      INTEGER NOT NULL, -- 1 reply, 2 silence, 3 dead letter
    attempts     INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    node         INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    finished_at  INTEGER NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE number (
    id           TEXT PRIMARY KEY,
    paused_until INTEGER NOT NULL DEFAULT 0,
    reason       TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE outgoing (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL,
    number       TEXT    NOT NULL,
    turn_seq     INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    body         TEXT    NOT NULL,
    state        INTEGER NOT NULL DEFAULT 0,
    attempt      INTEGER NOT NULL DEFAULT 0,
    due_at       INTEGER,          -- set exactly on a pending head of its conversation
    node         INTEGER,          -- who sends it now
    wamid        TEXT,
    rank         INTEGER NOT NULL DEFAULT 0,
    failed_attempt INTEGER,        -- the attempt that a receipt has called failed
    error        TEXT,
    unsure_at_ms INTEGER,          -- on the ledger's healthy clock
    created_at   INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL,
    UNIQUE (conversation, turn_seq, position)
) STRICT;
CREATE INDEX outgoing_due ON outgoing (number, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX outgoing_open ON outgoing (conversation, id) WHERE state < 3;
CREATE UNIQUE INDEX outgoing_in_question ON outgoing (conversation) WHERE state IN (1, 2);
CREATE INDEX outgoing_sending ON outgoing (node) WHERE state = 1;
CREATE INDEX outgoing_unsure ON outgoing (unsure_at_ms) WHERE state = 2;
CREATE INDEX outgoing_wamid ON outgoing (number, wamid) WHERE wamid IS NOT NULL;

-- outgoing is null while a receipt is parked: nobody has claimed its wamid yet.
CREATE TABLE receipt (
    event       BLOB    NOT NULL PRIMARY KEY,
    number      TEXT    NOT NULL,
    wamid       TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    participant TEXT    NOT NULL,
    at          INTEGER,
    received_at INTEGER NOT NULL,
    outgoing    INTEGER,
    attempt     INTEGER,
    code        INTEGER,
    retryable   INTEGER NOT NULL,
    raw         TEXT    NOT NULL
) STRICT;
CREATE INDEX receipt_wamid ON receipt (number, wamid);

CREATE TABLE dead_letter (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    seq_last     INTEGER NOT NULL,
    outgoing     INTEGER,
    reason       TEXT    NOT NULL,
    attempts     INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    closed_at    INTEGER
) STRICT;
CREATE INDEX dead_letter_open ON dead_letter (at) WHERE closed_at IS NULL;
CREATE INDEX dead_letter_outgoing ON dead_letter (outgoing) WHERE outgoing IS NOT NULL;
