//! A schema for one test, in the database that all tests share.

use hapax::clock::Clock;

use crate::provided::{apart, connect, provided};
use crate::world::LIMIT;

/// The name of a schema that nobody else has. It is not created: that is for whom the test is
/// about. Dropped, with all that is in it, when this is dropped.
pub(crate) struct Schema {
    database: String,
    name: String,
}

impl Schema {
    pub(crate) fn new() -> Self {
        let database = provided("TEST_DATABASE_URL");
        assert!(
            database.starts_with("postgres://") || database.starts_with("postgresql://"),
            "TEST_DATABASE_URL is an address: postgres://…"
        );
        let drawn = getrandom::u64().expect("randomness");
        Self {
            database,
            name: format!("t_{drawn:016x}"),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The address of the database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The address of the database, with the schema as the only one that is searched.
    pub(crate) fn url(&self) -> String {
        let Self { database, name } = self;
        let mark = if database.contains('?') { '&' } else { '?' };
        format!("{database}{mark}options=-c%20search_path%3D{name}")
    }
}

impl Drop for Schema {
    #[expect(clippy::print_stderr, reason = "shown with the failure of the test")]
    fn drop(&mut self) {
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        let dropped = apart(async {
            let dropped = async {
                let client = connect(&self.database).await?;
                client.batch_execute(&statement).await
            };
            Clock::system().timeout(LIMIT, dropped).await
        });
        if std::thread::panicking() {
            eprintln!("{statement}: {dropped:?}");
        } else {
            let dropped = dropped.expect("nobody holds it any more");
            dropped.expect("the schema is dropped");
        }
    }
}

#[tokio::test]
async fn a_schema_is_gone_when_it_is_dropped() {
    let schema = Schema::new();
    let inside = connect(&schema.url()).await.expect("a connection");
    let name = schema.name().to_owned();
    let statements = format!("CREATE SCHEMA {name}; CREATE TABLE one (a int)");
    let made = inside.batch_execute(&statements).await;
    made.expect("a table in the schema");
    let query = "SELECT count(*) FROM pg_tables WHERE schemaname = $1";
    let row = inside.query_one(query, &[&name]).await;
    assert_eq!(row.expect("a count").get::<_, i64>(0), 1);

    drop(schema);
    let query = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    let row = inside.query_one(query, &[&name]).await;
    assert_eq!(row.expect("a count").get::<_, i64>(0), 0);
}
