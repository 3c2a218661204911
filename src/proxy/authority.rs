//! A certificate authority of this installation alone, for the one host that is intercepted: made
//! once in a folder, trusted by a bot that is told to, and by nobody else.
//!
//! Its certificate allows it to sign for that host and for nothing else, so that a key that got
//! out is of little use. It is never installed in the system.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData, SerialNumber, date_time_ymd,
};
use rustix::process::geteuid;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::HOST;
use super::files::{pem, put};
use crate::clock::Clock;
use crate::model::Timestamp;

/// The key, and the certificate with it: one file, so that the two always belong together.
const KEY_FILE: &str = "key.pem";
/// The certificate once more, for those who are to trust it.
const CERTIFICATE_FILE: &str = "ca.pem";
/// How long the authority is good for: longer than an installation lives, since its end would
/// come as a surprise.
const LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// More than a key and its certificate take, in bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;
/// How long the host's certificate is good for, and from which age on another one is shown.
const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
const LEAF_AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// What a client's clock may be behind.
const LEAF_EARLIER: Duration = Duration::from_secs(3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The system refused.
    #[error("{}: expected a place for the certificate authority, found none: {source}", .path.display())]
    System {
        /// What it refused to read or to write.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// Others than the owner may read the key.
    #[error(
        "{}: expected a key that only its owner can read, found mode {mode:03o}; if nobody can \
         have copied it, chmod 600 it, else delete it and start the bots again",
        .path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key is somebody else's.
    #[error(
        "{}: expected a key of this user ({expected}), found one of another ({found}); run the \
         gateway and its bots as the same user",
        .path.display()
    )]
    Foreign {
        /// The key file.
        path: PathBuf,
        /// The number of the user of this process.
        expected: u32,
        /// The number of its owner.
        found: u32,
    },
    /// The key file does not hold what was written.
    #[error(
        "{}: expected a key and its certificate, found {found}; delete the file, and a new \
         authority is made at the next start",
        .path.display()
    )]
    Broken {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
}

/// The authority of an installation.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    clock: Clock,
    leaf: Mutex<Option<Leaf>>,
}

/// What is shown for the host.
struct Leaf {
    key: Arc<CertifiedKey>,
    made: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority of this folder; makes both if they are not there. Of several processes
    /// that do so at once all open the same one.
    ///
    /// # Errors
    /// [`AuthorityError`]. An authority that is there is never replaced.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, AuthorityError> {
        let refused = |path: &Path, source| AuthorityError::System {
            path: path.to_owned(),
            source,
        };
        let key_file = folder.join(KEY_FILE);
        let text = match read_private(&key_file)? {
            Some(text) => text,
            None => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.map_err(|source| refused(folder, source))?;
                let text = generate(clock.now())
                    .map_err(|reason| refused(&key_file, io::Error::other(reason)))?;
                write_once(folder, &key_file, &text)
                    .map_err(|source| refused(&key_file, source))?;
                let gone = || refused(&key_file, io::ErrorKind::NotFound.into());
                read_private(&key_file)?.ok_or_else(gone)?
            }
        };
        let (key, certificate) = parse(&text).map_err(|found| AuthorityError::Broken {
            path: key_file,
            found,
        })?;
        let shown = folder.join(CERTIFICATE_FILE);
        let text = pem("CERTIFICATE", &certificate);
        put(&shown, text.as_bytes()).map_err(|source| refused(&shown, source))?;
        let params = params(&key);
        Ok(Self {
            folder: fs::canonicalize(folder).map_err(|source| refused(folder, source))?,
            issuer: Issuer::new(params, key),
            certificate,
            clock,
            leaf: Mutex::new(None),
        })
    }

    /// Where it is, as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file with the certificate, for those who are to trust it.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join(CERTIFICATE_FILE)
    }

    /// The certificate, as PEM.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// What to show for [`HOST`] now.
    ///
    /// # Errors
    /// In words: the system has no randomness.
    pub(super) fn leaf(&self) -> Result<Arc<CertifiedKey>, String> {
        let now = self.clock.now();
        let mut leaf = self.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes it as useless as age does.
        let good = leaf.as_ref().filter(|leaf| {
            now.since(leaf.made) < LEAF_AGE_MAX && leaf.made.since(now) < LEAF_EARLIER
        });
        if let Some(good) = good {
            return Ok(Arc::clone(&good.key));
        }
        let key = Arc::new(self.sign(HOST, now)?);
        *leaf = Some(Leaf {
            key: Arc::clone(&key),
            made: now,
        });
        Ok(key)
    }

    fn sign(&self, host: &str, now: Timestamp) -> Result<CertifiedKey, String> {
        let text = |error: rcgen::Error| error.to_string();
        let key = KeyPair::generate().map_err(text)?;
        let mut params = CertificateParams::new([host.to_owned()]).map_err(text)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        params.serial_number = Some(serial()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, now, LEAF_LIFE);
        let signed = params.signed_by(&key, &self.issuer).map_err(text)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        CertifiedKey::from_der(
            vec![signed.der().clone()],
            private,
            &ring::default_provider(),
        )
        .map_err(|error| error.to_string())
    }
}

/// Good from an hour before `now` on, for clocks that are behind.
fn set_life(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let seconds = u64::try_from(now.as_seconds()).unwrap_or(0);
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = now - LEAF_EARLIER;
    params.not_after = now + life;
}

/// The authority's own certificate, but for its signature. Its name tells it from the authorities
/// of other installations, which a bundle may hold as well.
fn params(key: &KeyPair) -> CertificateParams {
    let digest = hex::encode(Sha256::digest(key.subject_public_key_info()));
    let mut params = CertificateParams::default();
    let name = format!("Hapax, for {HOST} on this machine ({})", &digest[..8]);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // What is permitted bounds names of its own kind only, so addresses are excluded.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(HOST.to_owned())],
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    params
}

/// A new authority, as its key file holds it.
fn generate(now: Timestamp) -> Result<String, String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(text)?;
    let mut params = params(&key);
    params.serial_number = Some(serial()?);
    set_life(&mut params, now, LIFE);
    let certificate = params.self_signed(&key).map_err(text)?;
    let private = pem("PRIVATE KEY", &key.serialize_der());
    Ok(private + &pem("CERTIFICATE", certificate.der()))
}

/// Reads a key file; what is wrong with it, in words that quote nothing of it.
fn parse(text: &[u8]) -> Result<(KeyPair, CertificateDer<'static>), String> {
    let private = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| "no key")?;
    let certificate = CertificateDer::from_pem_slice(text).map_err(|_| "no certificate")?;
    let key = KeyPair::try_from(&private).map_err(|_| "a key of another kind")?;
    let chain = vec![certificate.clone()];
    let pair = CertifiedKey::from_der(chain, private.into(), &ring::default_provider());
    pair.map_err(|_| "a certificate of another key")?;
    Ok((key, certificate))
}

/// A number that no other certificate has (RFC 5280: positive, at most 20 bytes).
fn serial() -> Result<SerialNumber, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The content of a private file; `None` if there is no such file. That nobody else can have
/// written it is what allows to trust it, whoever has told where it is.
fn read_private(path: &Path) -> Result<Option<Vec<u8>>, AuthorityError> {
    let refused = |source| AuthorityError::System {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let about = file.metadata().map_err(refused)?;
    let (expected, found) = (geteuid().as_raw(), about.uid());
    if found != expected {
        let path = path.to_owned();
        return Err(AuthorityError::Foreign {
            path,
            expected,
            found,
        });
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(AuthorityError::Exposed { path, mode });
    }
    let mut content = Vec::new();
    let mut bounded = file.take(KEY_FILE_MAX);
    bounded.read_to_end(&mut content).map_err(refused)?;
    Ok(Some(content))
}

/// Writes the key file, readable by its owner only, unless somebody else has just done so.
fn write_once(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(refused) => Err(refused.error),
    }
}

#[cfg(test)]
mod tests;
