//! A database that is spoken to over TLS, whose certificate is verified: by the right authority
//! it works, by another one it is refused, and the error says so.

use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::load::{number, on_database, until_number};
use crate::provided::connect;
use crate::scene::{person, say};
use crate::talk::received;
use crate::world::{LIMIT, World};

/// A server's certificate for this machine, its authority, and one of another authority.
fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/certificates")
        .join(name)
}

/// A server that lets the role of the nodes in over TLS only.
async fn secured(world: &World) -> Cluster {
    let cluster = Cluster::start(&[]).await;
    let text = |name| std::fs::read_to_string(certificate(name)).expect("a certificate");
    let chain = cluster.put("server.pem", &text("loopback.pem"));
    let key = cluster.put("server-key.pem", &text("loopback-key.pem"));
    let admitted = cluster.put(
        "admitted",
        "hostssl hapax hapax 127.0.0.1/32 trust\nhost all postgres 127.0.0.1/32 trust\n",
    );
    for (name, path) in [
        ("ssl_cert_file", chain),
        ("ssl_key_file", key),
        ("hba_file", admitted.clone()),
    ] {
        let set = format!("ALTER SYSTEM SET {name} = '{}'", path.display());
        cluster.execute(&set).await;
    }
    cluster.execute("ALTER SYSTEM SET ssl = on").await;
    // Only a start reads where the list of the admitted is.
    let (mut cluster, how) = (cluster, crate::cluster::Stop::Fast);
    cluster.stop(how).await;
    cluster.start_again().await;
    let admin = connect(&cluster.admin_url()).await.expect("a connection");
    let ssl = "SELECT (current_setting('ssl') = 'on')::int::int8";
    until_number(world, &admin, ssl, 1).await;
    cluster
}

fn address(cluster: &Cluster, host: &str, authority: &str) -> String {
    let (port, authority) = (cluster.port(), certificate(authority));
    let authority = authority.display();
    format!("postgres://hapax@{host}:{port}/hapax?sslmode=verify-full&sslrootcert={authority}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_used_over_tls_when_its_certificate_is_right() {
    let world = World::new();
    let cluster = secured(&world).await;
    let plain = connect(&cluster.url()).await;
    assert!(plain.is_err(), "without TLS nobody is let in");
    let url = address(&cluster, "127.0.0.1", "loopback-authority.pem");
    let mut node = world.node(&on_database(&url)).await;
    say(&world, &world.meta(&node), &person(1), "hello").await;
    world.settle(&node).await;
    assert_eq!(received(&world, &person(1)), ["hello"]);
    let admin = connect(&cluster.admin_url()).await.expect("a connection");
    let plain = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                  WHERE a.usename = 'hapax' AND NOT s.ssl";
    let over_tls = plain.replace("NOT s.ssl", "s.ssl");
    assert_eq!(number(&admin, plain).await, 0);
    assert!(number(&admin, &over_tls).await > 0);
    assert_eq!(node.stop().await.code(), Some(0));

    for (host, authority, reason) in [
        ("127.0.0.1", "other.pem", "UnknownIssuer"),
        ("localhost", "loopback-authority.pem", "not valid for name"),
    ] {
        let url = address(&cluster, host, authority);
        let mut command = world.command(&on_database(&url));
        let output = command.arg("serve").output();
        let output = world.clock.timeout(LIMIT, output).await;
        let output = output.expect("it ends in time").expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(said.contains(host), "{said}");
    }
}
