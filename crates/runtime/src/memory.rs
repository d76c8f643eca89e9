//! Free memory of the machine.

/// Pages that are free or hold nothing but buffers, as the automatic modes of IPVS count them
/// [`ip_vs_ctl.c`, `update_defense_level`]; as many as there can be where the machine does not say.
#[must_use]
pub fn free_pages() -> u64 {
    std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse(&text)).unwrap_or(u64::MAX)
}

fn parse(text: &str) -> Option<u64> {
    const PAGE_KB: u64 = 4;
    let kb = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((kb("MemFree:")? + kb("Buffers:")?) / PAGE_KB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_and_buffers_count() {
        let text =
            "MemTotal:  4096 kB\nMemFree:    400 kB\nMemAvailable: 9 kB\nBuffers:  40 kB\nCached: 7 kB\n";
        assert_eq!(parse(text), Some(110));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert!(free_pages() < u64::MAX);
    }
}
