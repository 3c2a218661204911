//! Files that anybody may read: written whole or not at all, and left alone when they are right.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// Makes the file hold this. Whoever reads it at the same time sees the old content or the
/// new one.
///
/// # Errors
/// The system's; the file is as it was then.
pub(super) fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    let open = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(open)?;
    file.persist(path).map_err(|refused| refused.error)?;
    Ok(())
}

/// A section of PEM.
pub(super) fn pem(label: &str, content: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = STANDARD.encode(content);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, left) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = left;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
