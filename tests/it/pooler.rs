//! pgbouncer in front of a PostgreSQL server, in transaction mode: each transaction of a client
//! may run on another connection.

use std::path::Path;
use std::time::Duration;

use hapax::clock::Clock;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::cluster::Cluster;
use crate::provided::{Service, command, connect, free_port, private_folder, provided};
use crate::world::LIMIT;

/// A pgbouncer. Killed when dropped.
pub(crate) struct Pooler {
    port: u16,
    // Before the folder, so that it ends before its files are deleted.
    _service: Service,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one in front of the server that listens at this loopback port, for the roles
    /// `hapax` and `postgres`.
    pub(crate) async fn start(server: u16) -> Self {
        let folder = private_folder();
        let port = free_port();
        let path = folder.path();
        let users = "\"hapax\" \"\"\n\"postgres\" \"\"\n";
        std::fs::write(path.join("users"), users).expect("a list of users");
        let settings = settings(path, server, port);
        std::fs::write(path.join("pgbouncer.ini"), settings).expect("its settings");

        let program = provided("TEST_PGBOUNCER");
        let mut command = command(Path::new(&program), path);
        command.arg("pgbouncer.ini");
        let mut service = Service::start(command, &path.join("log"));
        let clock = Clock::system();
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                let status = service.status();
                assert!(status.is_none(), "{status:?}\n{}", service.log_tail());
                clock.sleep(Duration::from_millis(20)).await;
            }
        };
        let listens = clock.timeout(LIMIT, listens).await;
        listens.expect("pgbouncer listens in time");
        Self {
            port,
            _service: service,
            _folder: folder,
        }
    }

    /// The server's database `hapax`, through the pooler.
    pub(crate) fn url(&self) -> String {
        format!("postgres://hapax@127.0.0.1:{}/hapax", self.port)
    }
}

fn settings(folder: &Path, server: u16, port: u16) -> String {
    let folder = folder.display();
    format!(
        "[databases]\n\
         * = host=127.0.0.1 port={server}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = trust\n\
         auth_file = {folder}/users\n\
         pool_mode = transaction\n\
         max_client_conn = 200\n"
    )
}

#[tokio::test]
async fn a_pooler_shares_one_connection_among_idle_clients() {
    let cluster = Cluster::start(&[]).await;
    let pooler = Pooler::start(cluster.port()).await;
    let one = connect(&pooler.url()).await.expect("a connection");
    let two = connect(&pooler.url()).await.expect("a connection");
    one.simple_query("SELECT 1").await.expect("an answer");

    let mut backends = Vec::new();
    for client in [&one, &two] {
        let answer = client.simple_query("SELECT pg_backend_pid()").await;
        let answer = answer.expect("an answer");
        backends.extend(answer.into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }));
    }
    assert_eq!(backends.len(), 2);
    assert_eq!(backends[0], backends[1], "both idle, both on one server");
}
