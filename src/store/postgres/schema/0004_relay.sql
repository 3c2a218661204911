-- Statuses and notices that the bot is to get, until it has them. Rows are known by their event, so
-- that an id that is given again after a failover takes nothing for something else.
CREATE TABLE relay (
    event    uuid   PRIMARY KEY,
    id       bigint GENERATED ALWAYS AS IDENTITY, -- in the order of arrival
    number   text   NOT NULL,                     -- '' where it concerns none
    at       bigint NOT NULL,                     -- when it came
    due_at   bigint NOT NULL,
    failures int    NOT NULL DEFAULT 0,
    node     bigint,                              -- who hands it over now
    envelope text   NOT NULL
);
CREATE INDEX relay_free ON relay (number, id) WHERE node IS NULL;
CREATE INDEX relay_taken ON relay (node) WHERE node IS NOT NULL;
CREATE INDEX relay_age ON relay (at);
