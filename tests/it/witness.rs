//! What happens to nodes and conversations, as PostgreSQL itself writes it down by triggers: each
//! renewal, each end of a node, each claim, each wait, one after the other. Changes nothing of it.

use hapax::clock::Clock;
use tokio_postgres::Client;

use crate::provided::connect;
use crate::schema::Schema;
use crate::world::LIMIT;

/// What is known to have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A node has renewed its lease.
    Renewed,
    /// A node is no more: its lease was over, or it left.
    Ended,
    /// A node has claimed a conversation.
    Claimed,
    /// A conversation's turn has to wait.
    PutOff,
    /// The test has marked the place.
    Marked,
}

/// One thing that happened. Times are milliseconds on the database's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) at: i64,
    pub(crate) what: What,
    pub(crate) node: i64,
    /// 0 where it is about none.
    pub(crate) conversation: i64,
    /// How long it has to wait; 0 where nothing has to.
    pub(crate) until: i64,
}

const TRIGGERS: &str = "
    CREATE TABLE witness (
        n bigserial PRIMARY KEY, what smallint NOT NULL, node bigint NOT NULL,
        conversation bigint NOT NULL DEFAULT 0, until bigint NOT NULL DEFAULT 0,
        at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    CREATE FUNCTION renewed() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO witness (what, node) VALUES (0, NEW.id); RETURN NULL; END $$;
    CREATE FUNCTION ended() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO witness (what, node) VALUES (1, OLD.id); RETURN NULL; END $$;
    CREATE FUNCTION claimed() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO witness (what, node, conversation)
                 VALUES (2, NEW.owner, NEW.id); RETURN NULL; END $$;
    CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO witness (what, node, conversation, until)
                 VALUES (4, 0, NEW.id, NEW.not_before); RETURN NULL; END $$;
    CREATE TRIGGER renewed AFTER UPDATE ON node FOR EACH ROW EXECUTE FUNCTION renewed();
    CREATE TRIGGER ended AFTER DELETE ON node FOR EACH ROW EXECUTE FUNCTION ended();
    CREATE TRIGGER claimed AFTER UPDATE ON conversation FOR EACH ROW
        WHEN (NEW.owner IS NOT NULL AND NEW.epoch > OLD.epoch) EXECUTE FUNCTION claimed();
    CREATE TRIGGER put_off AFTER UPDATE ON conversation FOR EACH ROW
        WHEN (NEW.not_before <> OLD.not_before AND NEW.not_before <> 0)
        EXECUTE FUNCTION put_off();";

/// A witness of one schema.
pub(crate) struct Witness {
    client: Client,
    clock: Clock,
}

impl Witness {
    /// Watches from now on. A node must have migrated the schema.
    pub(crate) async fn start(schema: &Schema) -> Self {
        let client = connect(&schema.url()).await.expect("a connection");
        let witness = Self {
            client,
            clock: Clock::system(),
        };
        // Functions find the table in whatever path the nodes search.
        let triggers = TRIGGERS.replace("INTO witness", &format!("INTO {}.witness", schema.name()));
        let made = witness.client.batch_execute(&triggers);
        let made = witness.clock.timeout(LIMIT, made).await;
        made.expect("in time").expect("the triggers are made");
        witness
    }

    /// Marks the place, with the id of a node.
    pub(crate) async fn mark(&self, node: i64) {
        let sql = "INSERT INTO witness (what, node) VALUES (3, $1)";
        let marked = async { self.client.execute(sql, &[&node]).await };
        let marked = self.clock.timeout(LIMIT, marked).await;
        marked.expect("in time").expect("it is marked");
    }

    /// All that was seen so far, in order.
    pub(crate) async fn seen(&self) -> Vec<Seen> {
        let sql = "SELECT at, what, node, conversation, until FROM witness ORDER BY n";
        let rows = self.clock.timeout(LIMIT, self.client.query(sql, &[])).await;
        let rows = rows.expect("in time").expect("it tells");
        let read = |row: &tokio_postgres::Row| Seen {
            at: row.get(0),
            what: match row.get::<_, i16>(1) {
                0 => What::Renewed,
                1 => What::Ended,
                2 => What::Claimed,
                3 => What::Marked,
                _ => What::PutOff,
            },
            node: row.get(2),
            conversation: row.get(3),
            until: row.get(4),
        };
        rows.iter().map(read).collect()
    }
}
