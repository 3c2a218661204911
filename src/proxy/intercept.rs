//! The inside of an intercepted connection: its TLS ends here, and HTTP is served on what is left.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::HOST;
use super::authority::Authority;
use crate::clock::Clock;
use crate::listener::{self, Limits};

/// Serves `router` within the TLS of a client that believes to speak to [`HOST`].
pub(super) async fn serve<S>(
    stream: S,
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = acceptor.accept(stream);
    let handshake = clock.timeout(limits.header, handshake);
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        // Nothing has been asked yet.
        () = stop.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => listener::connection(stream, router, limits, clock, stop).await,
        Ok(Err(error)) => warn!(
            %error,
            "a bot did not accept hapax's certificate for graph.facebook.com: it trusts \
             certificates of its own, and not those that hapax run names"
        ),
        Err(_) => warn!("a bot's TLS handshake for graph.facebook.com did not end in time"),
    }
}

/// What ends TLS for [`HOST`], under this authority.
pub(super) fn acceptor(authority: Arc<Authority>) -> TlsAcceptor {
    // No provider of the process: this one is chosen here, whoever else speaks TLS.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has a cipher for each version of TLS")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Leaves(authority)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Shows the host's certificate to whoever asks for that host.
struct Leaves(Arc<Authority>);

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leaves").field(&self.0).finish()
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.server_name().is_some_and(|name| name != HOST) {
            return None;
        }
        match self.0.leaf() {
            Ok(leaf) => Some(leaf),
            Err(error) => {
                error!(error, "no certificate could be made for a bot");
                None
            }
        }
    }
}
