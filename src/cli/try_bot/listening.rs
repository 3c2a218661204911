//! On which ports a process and its descendants listen, as Linux tells in `/proc`: for bots that
//! take their port from nowhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

/// `TCP_LISTEN` in the kernel's tables.
const LISTENING: &str = "0A";

/// The ports, in ascending order. Empty where nothing can be seen.
pub(super) fn ports(pid: u32) -> Vec<u16> {
    let mut found = BTreeSet::new();
    for pid in family(pid) {
        let folder = Path::new("/proc").join(pid.to_string());
        let sockets = sockets(&folder);
        for table in ["net/tcp", "net/tcp6"] {
            let text = fs::read_to_string(folder.join(table)).unwrap_or_default();
            let rows = text.lines().filter_map(row);
            let theirs = rows.filter(|(_, inode)| sockets.contains(inode));
            found.extend(theirs.map(|(port, _)| port));
        }
    }
    found.into_iter().collect()
}

/// A process, what descends from it, and what is in its process group.
fn family(root: u32) -> Vec<u32> {
    let mut parents = HashMap::new();
    let mut members = HashSet::from([root]);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((parent, group)) = parent_and_group(&stat) {
            parents.insert(pid, parent);
            if group == root {
                members.insert(pid);
            }
        }
    }
    let descends = |pid: u32| {
        let mut at = pid;
        // A table that changes while it is read may show a circle.
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(parent) if *parent == root => return true,
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    };
    members.extend(parents.keys().copied().filter(|pid| descends(*pid)));
    members.into_iter().collect()
}

/// The name in `stat` may hold anything; what follows its last bracket does not.
fn parent_and_group(stat: &str) -> Option<(u32, u32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    Some((parent, fields.next()?.parse().ok()?))
}

/// The inodes of the sockets that a process has open.
fn sockets(folder: &Path) -> HashSet<String> {
    let open = fs::read_dir(folder.join("fd")).into_iter().flatten();
    let links = open
        .flatten()
        .filter_map(|open| fs::read_link(open.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let link = link.to_str()?;
        let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    };
    links.filter_map(inode).collect()
}

/// Port and inode of a row of `/proc/net/tcp` that listens.
fn row(line: &str) -> Option<(u16, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (_, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (*state == LISTENING).then(|| (port, (*inode).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found_until_it_is_closed() {
        let pid = std::process::id();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(ports(pid).contains(&port));
        drop(listener);
        assert!(!ports(pid).contains(&port));
    }

    #[test]
    fn rows_and_names_are_read_as_the_kernel_writes_them() {
        let listens = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                       1000        0 12345 1 0000000000000000 100 0 0 10 0";
        assert_eq!(row(listens), Some((8080, "12345".to_owned())));
        assert_eq!(row(&listens.replace(" 0A ", " 01 ")), None);
        assert_eq!(row("  sl  local_address rem_address   st"), None);
        let stat = "77 (a) b (c)) S 12 34 34 0 -1";
        assert_eq!(parent_and_group(stat), Some((12, 34)));
    }
}
