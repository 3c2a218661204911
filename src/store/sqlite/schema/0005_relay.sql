-- Statuses and notices that the bot is to get, until it has them.
CREATE TABLE relay (
    id       INTEGER PRIMARY KEY,          -- in the order of arrival
    event    BLOB    NOT NULL UNIQUE,
    number   TEXT    NOT NULL,             -- '' where it concerns none
    at       INTEGER NOT NULL,             -- when it came
    due_at   INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    node     INTEGER,                      -- who hands it over now
    envelope TEXT    NOT NULL
) STRICT;
CREATE INDEX relay_free ON relay (number, id) WHERE node IS NULL;
CREATE INDEX relay_taken ON relay (node) WHERE node IS NOT NULL;
CREATE INDEX relay_age ON relay (at);
