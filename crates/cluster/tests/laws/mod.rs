//! What must hold of any text: of the reader of the cluster file, and of the importers. Property tests and the fuzzer's
//! targets share it.

use api::Protocol;
use cluster::{FINDINGS_MAX, Format, Hints, Lines, Names, decode, format, import, parse, render};
use plan::Options;
use std::net::{IpAddr, Ipv4Addr};

/// Any bytes are read or refused, never half; what is good is the same after it was formatted or rendered.
#[allow(dead_code, reason = "each of the programs that share this file uses one of the two")]
pub fn check_file(bytes: &[u8]) -> Result<(), String> {
    let text = match decode(bytes) {
        Ok(text) => text,
        Err((before, finding)) => {
            let shown = finding.text("f", &Lines::new(before));
            return if shown.starts_with("f:") { Ok(()) } else { Err(shown) };
        }
    };
    let parsed = parse(text, &Options::default());
    let lines = Lines::new(text);
    for finding in &parsed.findings {
        if finding.span.start > finding.span.end || finding.span.end > text.len() {
            return Err(format!("a finding outside the text: {finding:?}"));
        }
        let shown = finding.text("f", &lines);
        if !shown.starts_with("f:") || finding.json("f", &lines)["line"] == 0 {
            return Err(format!("a finding without a place: {shown}"));
        }
    }
    if parsed.findings.len() > FINDINGS_MAX {
        return Err(format!("{} findings", parsed.findings.len()));
    }
    let Some(good) = parsed.cluster else {
        return if parsed.findings.is_empty() { Err("refused without a word".to_owned()) } else { Ok(()) };
    };
    let formatted = format(text).map_err(|findings| format!("good, but no TOML: {findings:?}"))?;
    if format(&formatted).as_ref() != Ok(&formatted) {
        return Err(format!("formatted twice is not formatted once:\n{formatted}"));
    }
    for again in [formatted, render(&good.model, &Hints::default())] {
        match parse(&again, &Options::default()) {
            other if other.cluster.as_ref().map(|it| &it.model) == Some(&good.model) => {}
            other => return Err(format!("another model: {:?}\n{again}", other.findings)),
        }
    }
    Ok(())
}

/// Any text is imported by every importer, and what comes out is a good cluster file.
#[allow(dead_code, reason = "each of the programs that share this file uses one of the two")]
pub fn check_import(text: &str) -> Result<(), String> {
    for (name, of) in Format::ALL {
        let imported = import(of, text, &Options::default(), &Nobody);
        let parsed = parse(&imported.text, &Options::default());
        if parsed.cluster.is_none() {
            return Err(format!("{name}: {:?}\n{}", parsed.findings, imported.text));
        }
    }
    Ok(())
}

/// Name services that know no name.
struct Nobody;

impl Names for Nobody {
    fn host_address(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn service_port(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn service_name(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}
