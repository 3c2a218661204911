//! Whom a bot trusts before it is told of one more: the certificates of a file, of a folder, or of
//! the system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{EnvironmentError, Variables, value};
use crate::proxy::files::pem;

/// Where a certificate begins.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// More than any list of roots takes, in bytes.
const SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Certificates, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Roots(Vec<u8>);

impl Roots {
    /// What is trusted by who reads the first of these variables that is set; else the system's.
    pub(super) fn before(
        before: &Variables,
        names: &[&'static str],
    ) -> Result<Self, EnvironmentError> {
        for name in names {
            if let Some(roots) = Self::set(before, name)? {
                return Ok(roots);
            }
        }
        Self::of_the_system()
    }

    /// What this variable names, if it is set.
    pub(super) fn set(
        before: &Variables,
        name: &'static str,
    ) -> Result<Option<Self>, EnvironmentError> {
        let Some(path) = value(before, name).map(PathBuf::from) else {
            return Ok(None);
        };
        match read(&path) {
            Ok(roots) => Ok(Some(roots)),
            Err(source) => Err(EnvironmentError::Unreadable { name, path, source }),
        }
    }

    fn of_the_system() -> Result<Self, EnvironmentError> {
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            return Err(EnvironmentError::NoRoots);
        }
        let text: String = found.iter().map(|root| pem("CERTIFICATE", root)).collect();
        Ok(Self(text.into_bytes()))
    }

    /// Trusts one more, unless it is there.
    pub(super) fn add(&mut self, certificate: &str) {
        let is_there = contains(&self.0, certificate.trim_end().as_bytes());
        if !is_there {
            self.append(certificate.as_bytes());
        }
    }

    fn append(&mut self, text: &[u8]) {
        if self.0.last().is_some_and(|last| *last != b'\n') {
            self.0.push(b'\n');
        }
        self.0.extend_from_slice(text);
    }

    /// The whole, as a file holds it.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    /// A name that belongs to this content: bots that trust different roots do not share a file,
    /// and none changes while somebody reads it.
    pub(super) fn file_name(&self) -> String {
        let digest = hex::encode(Sha256::digest(&self.0));
        format!("roots-{}.pem", &digest[..16])
    }
}

fn read(path: &Path) -> io::Result<Roots> {
    let mut roots = Roots(Vec::new());
    if !path.is_dir() {
        roots.append(&bounded(path)?);
    } else {
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path)? {
            files.push(entry?.path());
        }
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            let text = bounded(file)?;
            // Such folders hold each one twice, under its name and under its hash.
            if contains(&text, BEGIN) && !contains(&roots.0, text.trim_ascii()) {
                roots.append(&text);
            }
        }
    }
    if !contains(&roots.0, BEGIN) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "there is no certificate in it",
        ));
    }
    Ok(roots)
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > SIZE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}
