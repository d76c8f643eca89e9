//! What is said to a target beside ipvsadm: fwmarks and settings.

use crate::net::{NetError, batch_nft};
use crate::step::Mark;
use std::io;
use testkit::NetNs;

/// Where IPVS has its settings.
const SETTINGS: &str = "/proc/sys/net/ipv4/vs";

/// Words of `sluice` that change a mark.
pub(crate) fn mark_words(mark: &Mark) -> Vec<String> {
    let mut words = vec!["mark".to_owned(), if mark.is_added { "add" } else { "delete" }.to_owned()];
    words.push(mark.protocol.clone());
    // Port 0 of a script is every port.
    words.extend(mark.destinations.iter().map(|to| match (to.port(), to.ip()) {
        (0, std::net::IpAddr::V4(address)) => format!("{address}:*"),
        (0, std::net::IpAddr::V6(address)) => format!("[{address}]:*"),
        _ => to.to_string(),
    }));
    if mark.is_added {
        words.extend(["--mark".to_owned(), mark.mark.to_string()]);
    }
    words
}

/// Gives the kernel's packets these marks and no others, before IPVS sees them.
pub(crate) fn mark_packets(netns: &NetNs, marks: &[Mark]) -> Result<(), NetError> {
    batch_nft(netns, &rules(marks))
}

fn rules(marks: &[Mark]) -> String {
    let mut text = "add table inet marks\ndelete table inet marks\nadd table inet marks\n\
                    add chain inet marks in { type filter hook prerouting priority -150 ; }\n"
        .to_owned();
    for mark in marks {
        for to in &mark.destinations {
            let family = if to.is_ipv4() { "ip" } else { "ip6" };
            let protocol = &mark.protocol;
            let port = match to.port() {
                0 => format!("meta l4proto {protocol}"),
                port => format!("{protocol} dport {port}"),
            };
            let (address, mark) = (to.ip(), mark.mark);
            text.push_str(&format!(
                "add rule inet marks in {family} daddr {address} {port} meta mark set {mark}\n"
            ));
        }
    }
    text
}

/// Writes one of the kernel's settings. The kernel may refuse the value, or not know the name.
pub(crate) fn set(netns: &NetNs, name: &str, value: &str) -> Result<io::Result<()>, NetError> {
    let path = format!("{SETTINGS}/{name}");
    Ok(netns.run(|| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    #[test]
    fn a_mark_is_said_to_both() {
        let Ok(Step::Mark(mark)) = Step::read("mark tcp 192.0.2.10:80 [2001:db8::10]:0 7") else {
            panic!("no mark")
        };
        assert_eq!(mark_words(&mark).join(" "), "mark add tcp 192.0.2.10:80 [2001:db8::10]:* --mark 7");
        let rules = rules(&[mark]);
        assert!(rules.contains("in ip daddr 192.0.2.10 tcp dport 80 meta mark set 7\n"), "{rules}");
        assert!(rules.contains("in ip6 daddr 2001:db8::10 meta l4proto tcp meta mark set 7\n"), "{rules}");
    }
}
