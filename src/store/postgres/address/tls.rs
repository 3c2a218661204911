//! What TLS has to prove before a server is trusted, in the five words that libpq has for it.
//!
//! Two of the words ask for less than a browser would. They are here because managed databases
//! hand out certificates that nobody but the provider signed, and because a URL that says
//! `require` must mean here what it means everywhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::AddressError;

/// The protocol's name in TLS, asked of a server that is spoken to without a question first.
const PROTOCOL: &[u8] = b"postgresql";

/// What `sslmode` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// No TLS.
    Disable,
    /// TLS where it can be had, with anybody; else none.
    Prefer,
    /// TLS, with anybody; with `sslrootcert` the same as [`Mode::VerifyCa`].
    Require,
    /// TLS with a server whose certificate a root has signed, whatever name it bears.
    VerifyCa,
    /// The same, and the certificate is for the host that was named.
    VerifyFull,
}

/// Whom `sslrootcert` trusts to sign certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Whom the system trusts.
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

/// Everything an address says about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: Mode,
    pub(super) roots: Option<Roots>,
    /// A certificate and its key, both PEM files, to show to the server.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// TLS from the first byte on.
    pub(super) is_direct: bool,
    /// The password is proven for this one certificate only, so the server must own it.
    pub(super) is_bound: bool,
}

impl Tls {
    /// Reads what is needed and makes a TLS client of it.
    pub(super) fn client(&self) -> Result<MakeRustlsConnect, AddressError> {
        // No provider of the process: this one is chosen here, whoever else speaks TLS.
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier {
            algorithms: provider.signature_verification_algorithms,
            trust: self.trust()?,
            is_bound: self.is_bound,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has a cipher for each version of TLS")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.client.as_ref().filter(|_| self.mode != Mode::Disable) {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("sslcert", certificate)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unreadable("sslkey", "an unencrypted key", key, &error))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|_| AddressError::new("sslkey", "the key of the certificate"))?
            }
        };
        if self.is_direct {
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    fn trust(&self) -> Result<Trust, AddressError> {
        let must_fit_name = match (self.mode, &self.roots) {
            (Mode::Disable | Mode::Prefer, _) | (Mode::Require, None) => return Ok(Trust::Anybody),
            (Mode::Require | Mode::VerifyCa, _) => false,
            (Mode::VerifyFull, _) => true,
        };
        let mut roots = RootCertStore::empty();
        let mut listed = Vec::new();
        match &self.roots {
            Some(Roots::File(path)) => {
                listed = certificates("sslrootcert", path)?;
                for certificate in &listed {
                    roots.add(certificate.clone()).map_err(|_| {
                        AddressError::new("sslrootcert", "certificates that can be read")
                            .found(format!("another one in {}", path.display()))
                    })?;
                }
            }
            Some(Roots::System) | None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    let expected = "a file, or root certificates installed on this system";
                    return Err(AddressError::new("sslrootcert", expected).found("none"));
                }
            }
        }
        Ok(Trust::Roots {
            roots,
            listed,
            must_fit_name,
        })
    }
}

/// Who may be at the other end.
#[derive(Debug)]
enum Trust {
    /// Whoever answers: encrypted, so that nobody who only listens can read it.
    Anybody,
    /// Whoever has a certificate of one of the roots.
    Roots {
        roots: RootCertStore,
        /// Those that were listed one by one in a file.
        listed: Vec<CertificateDer<'static>>,
        must_fit_name: bool,
    },
}

/// Looks at the server's certificate as `sslmode` asks.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Trust,
    is_bound: bool,
}

impl Verifier {
    /// Who trusts anybody also takes a certificate that can't be read here (of X.509 version 1,
    /// as PostgreSQL's manual once had them made), and then can't know whether the server has
    /// its key. Refusing would make `prefer` go on without TLS, which is worse.
    fn unless_unreadable(
        &self,
        verdict: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match (&self.trust, &verdict) {
            (
                Trust::Anybody,
                Err(Error::InvalidCertificate(
                    CertificateError::BadEncoding | CertificateError::Other(_),
                )),
            ) if !self.is_bound => Ok(HandshakeSignatureValid::assertion()),
            _ => verdict,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Roots {
            roots,
            listed,
            must_fit_name,
        } = &self.trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            self.algorithms.all,
        );
        // A server that signed its own certificate has it in the file itself. It counts as an
        // authority then, which no server may be; the dates are looked at before that.
        let is_listed = listed.iter().any(|listed| listed == end_entity);
        match chain {
            Err(Error::InvalidCertificate(fault)) if is_listed && !is_about_dates(&fault) => {}
            other => other?,
        }
        if *must_fit_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.unless_unreadable(verify_tls12_signature(message, cert, dss, &self.algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.unless_unreadable(verify_tls13_signature(message, cert, dss, &self.algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn is_about_dates(fault: &CertificateError) -> bool {
    matches!(
        fault,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

/// All certificates in a PEM file; at least one.
fn certificates(part: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, AddressError> {
    let wrong = |error: pem::Error| unreadable(part, "certificates", path, &error);
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    if all.is_empty() {
        return Err(wrong(pem::Error::NoItemsFound));
    }
    Ok(all)
}

/// The error's own text may hold a line of the file, which may be a key: only its kind is told.
fn unreadable(part: &str, what: &str, path: &Path, error: &pem::Error) -> AddressError {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("there is not {what}"),
        _ => "it is no PEM file".to_owned(),
    };
    AddressError::new(part, format!("a PEM file with {what}"))
        .found(format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's certificate for `db1`, its authority, one of another authority, a server that
    /// signed its own for `db1`; made to last for a hundred years from 2026 on.
    fn pem(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/certificates")
            .join(name)
    }

    fn one(name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(pem(name)).expect("a certificate")
    }

    /// Whether a server with this certificate is trusted under this name, in that year.
    fn trusts(mode: Mode, roots: Option<&str>, server: &str, name: &str, year: u64) -> bool {
        let tls = Tls {
            mode,
            roots: roots.map(|name| Roots::File(pem(name))),
            client: None,
            is_direct: false,
            is_bound: false,
        };
        let verifier = Verifier {
            algorithms: ring::default_provider().signature_verification_algorithms,
            trust: tls.trust().expect("roots"),
            is_bound: false,
        };
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let seconds = (year - 1970) * 365 * 24 * 3600;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier
            .verify_server_cert(&one(server), &[], &name, &[], now)
            .is_ok()
    }

    #[test]
    fn each_word_asks_for_what_it_says() {
        use Mode::{Prefer, Require, VerifyCa, VerifyFull};
        let (ours, other, own) = (Some("authority.pem"), Some("other.pem"), Some("own.pem"));
        let cases = [
            (Prefer, None, "server.pem", "db1", 2030, true),
            (Prefer, None, "server.pem", "db2", 2200, true),
            (Require, None, "own.pem", "db2", 2200, true),
            (Require, ours, "server.pem", "db2", 2030, true),
            (Require, other, "server.pem", "db1", 2030, false),
            (VerifyCa, ours, "server.pem", "db1", 2030, true),
            (VerifyCa, ours, "server.pem", "db2", 2030, true),
            (VerifyCa, ours, "server.pem", "db1", 2200, false),
            (VerifyCa, ours, "server.pem", "db1", 2000, false),
            (VerifyCa, other, "server.pem", "db1", 2030, false),
            (VerifyCa, ours, "own.pem", "db1", 2030, false),
            (VerifyCa, own, "own.pem", "db2", 2030, true),
            (VerifyCa, own, "own.pem", "db1", 2200, false),
            (VerifyCa, own, "server.pem", "db1", 2030, false),
            (VerifyFull, ours, "server.pem", "db1", 2030, true),
            (VerifyFull, ours, "server.pem", "db2", 2030, false),
            (VerifyFull, ours, "server.pem", "10.0.0.1", 2030, true),
            (VerifyFull, ours, "server.pem", "10.0.0.2", 2030, false),
            (VerifyFull, ours, "server.pem", "db1", 2200, false),
            (VerifyFull, other, "server.pem", "db1", 2030, false),
            (VerifyFull, own, "own.pem", "db1", 2030, true),
            (VerifyFull, own, "own.pem", "db2", 2030, false),
        ];
        for (mode, roots, server, name, year, expected) in cases {
            let found = trusts(mode, roots, server, name, year);
            assert_eq!(found, expected, "{mode:?} {roots:?} {server} {name} {year}");
        }
    }

    #[test]
    fn a_key_is_not_asked_of_a_certificate_that_nobody_can_read() {
        let passes = |trust, is_bound, fault| {
            let algorithms = ring::default_provider().signature_verification_algorithms;
            let verifier = Verifier {
                algorithms,
                trust,
                is_bound,
            };
            verifier
                .unless_unreadable(Err(Error::InvalidCertificate(fault)))
                .is_ok()
        };
        let roots = Trust::Roots {
            roots: RootCertStore::empty(),
            listed: Vec::new(),
            must_fit_name: false,
        };
        let unreadable = CertificateError::BadEncoding;
        assert!(passes(Trust::Anybody, false, unreadable.clone()));
        assert!(!passes(Trust::Anybody, true, unreadable.clone()));
        assert!(!passes(roots, false, unreadable));
        let forged = CertificateError::BadSignature;
        assert!(!passes(Trust::Anybody, false, forged));
    }

    #[test]
    fn a_file_that_will_not_do_is_told_without_its_text() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let none = dir.path().join("none.pem");
        let broken = write("broken.pem", "-----BEGIN PRIVATE KEY\ns3cr3t");
        let no_der = write(
            "no-der.pem",
            "-----BEGIN CERTIFICATE-----\nczNjcjN0\n-----END CERTIFICATE-----\n",
        );
        let tls = |roots: &Path, client: Option<(PathBuf, PathBuf)>| Tls {
            mode: Mode::VerifyCa,
            roots: Some(Roots::File(roots.to_owned())),
            client,
            is_direct: false,
            is_bound: false,
        };
        let authority = pem("authority.pem");
        let with_client = |certificate: &Path, key: &Path| {
            tls(&authority, Some((certificate.to_owned(), key.to_owned())))
        };
        let cases = [
            (tls(&none, None), "sslrootcert"),
            (tls(&broken, None), "sslrootcert"),
            (tls(&no_der, None), "sslrootcert"),
            (tls(&write("empty.pem", ""), None), "sslrootcert"),
            (with_client(&none, &broken), "sslcert"),
            (with_client(&pem("server.pem"), &none), "sslkey"),
            (with_client(&pem("server.pem"), &broken), "sslkey"),
            (with_client(&pem("server.pem"), &authority), "sslkey"),
        ];
        for (tls, part) in cases {
            let error = tls.client().err().expect("a fault");
            assert_eq!(error.part, part, "{error}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
        assert!(tls(&authority, None).client().is_ok());
    }
}
