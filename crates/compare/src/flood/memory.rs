//! How much memory the tables of a target take, as the kernel says.

use std::io;

/// One line of `/proc/slabinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slab {
    /// Bytes of an object.
    pub(super) object_bytes: u64,
    /// Bytes of the objects in use.
    pub(super) bytes: u64,
}

/// The slab of this name, if the kernel has one and tells: it may have merged it with another (`slab_nomerge` prevents that).
pub(super) fn of_slab(name: &str) -> Option<Slab> {
    parse_slab(&std::fs::read_to_string("/proc/slabinfo").ok()?, name)
}

/// `name active all size ...`
fn parse_slab(text: &str, name: &str) -> Option<Slab> {
    let mut words =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.split_whitespace();
    let active: u64 = words.next()?.parse().ok()?;
    let object_bytes: u64 = words.nth(1)?.parse().ok()?;
    Some(Slab { object_bytes, bytes: active * object_bytes })
}

/// Bytes of all BPF maps that a process holds.
pub(super) fn of_maps(process: u32) -> io::Result<u64> {
    let mut sum = 0;
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let Some((id, bytes)) = parse_map(&text) else { continue };
        if !seen.contains(&id) {
            seen.push(id);
            sum += bytes;
        }
    }
    Ok(sum)
}

/// Number and bytes of a map.
fn parse_map(text: &str) -> Option<(u64, u64)> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((value("map_id:")?, value("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_found_by_its_whole_name() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
            ip_vs_conn_x 1 2 3 4 5\nip_vs_conn        70    80    320   12    1 : tunables 0\n";
        assert_eq!(parse_slab(text, "ip_vs_conn"), Some(Slab { object_bytes: 320, bytes: 70 * 320 }));
        assert_eq!(parse_slab(text, "ip_vs"), None);
    }

    #[test]
    fn a_map_has_a_number_and_bytes() {
        let text = "pos:\t0\nmap_type:\t9\nmemlock:\t16777216\nmap_id:\t31\nfrozen:\t0\n";
        assert_eq!(parse_map(text), Some((31, 16_777_216)));
        assert_eq!(parse_map("pos:\t0\nprog_id:\t3\nmemlock:\t4096\n"), None);
    }
}
