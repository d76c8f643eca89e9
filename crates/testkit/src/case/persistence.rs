//! Persistence templates in cases.

use std::net::IpAddr;

use abi::{Address, FLOW_ASSURED, FLOW_CONTROLLED, FLOW_TEMPLATE, FlowKey};
use serde::Deserialize;

use super::compile::{CompileError, SECOND_NS, address, endpoint, wrong};
use super::{Compiled, Seen};

/// A template before the first packet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// `tcp 198.51.100.0 > 192.0.2.10:80`, `mark 7 198.51.100.0`.
    pub key: String,
    /// Address of its real server.
    pub real: IpAddr,
    /// Seconds until it ends; negative: it has ended and was not swept yet.
    pub expires_in: i64,
    /// Flows stand under it.
    #[serde(default)]
    pub controls: bool,
}

/// A template that must be there after a step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateIs {
    /// As [`Template::key`]; of a call `call > 192.0.2.10:5060`, as the hash is nobody's business.
    pub key: String,
    /// Address of its real server.
    pub real: IpAddr,
    /// Seconds until it ends.
    pub expires_in: i64,
    /// Flows stand under it.
    #[serde(default = "yes")]
    pub controls: bool,
    /// A connection was established under it.
    #[serde(default)]
    pub assured: bool,
}

fn yes() -> bool {
    true
}

/// What stands for the client in the key of a call.
const CALL: Address = Address([0; 4]);

fn key(text: &str) -> Result<FlowKey, CompileError> {
    let expected = "expected such as tcp 198.51.100.0 > 192.0.2.10:80 or mark 7 198.51.100.0";
    let bad = || wrong("template", text, expected);
    let ip = |text: &str| text.parse().map(address).map_err(|_| bad());
    if let Some(rest) = text.strip_prefix("mark ") {
        let (mark, client) = rest.split_once(' ').ok_or_else(bad)?;
        let client = ip(client)?;
        let virtual_address = Address::of_mark(mark.parse().map_err(|_| bad())?, client.is_v4());
        return Ok(FlowKey { client, virtual_address, ..FlowKey::default() });
    }
    let (from, to) = text.split_once(" > ").ok_or_else(bad)?;
    let (protocol, client) = match from.split_once(' ') {
        Some((protocol, client)) => (protocol, ip(client)?),
        None if from == "call" => ("udp", CALL),
        None => return Err(bad()),
    };
    let (protocol, at) = endpoint(&format!("{protocol} {to}"))?;
    Ok(FlowKey {
        client,
        virtual_address: address(at.ip()),
        virtual_port_be: at.port().to_be(),
        protocol: protocol.into(),
        ..FlowKey::default()
    })
}

impl Compiled {
    pub(super) fn template(
        &self,
        written: &Template,
        now_ns: u64,
    ) -> Result<(FlowKey, abi::Flow), CompileError> {
        let flow = abi::Flow {
            expires_ns: now_ns.saturating_add_signed(written.expires_in * SECOND_NS as i64),
            real: self.real(written.real)?,
            flags: FLOW_TEMPLATE | if written.controls { FLOW_CONTROLLED } else { 0 },
            ..Default::default()
        };
        Ok((key(&written.key)?, flow))
    }
}

/// The order in which templates are compared.
pub fn sort_templates(templates: &mut [(FlowKey, abi::Flow)]) {
    templates.sort_by_key(|(key, _)| *key);
}

/// What is wrong with the templates after a step.
pub(super) fn check(
    expected: &[TemplateIs],
    tables: &Compiled,
    seen: &Seen,
    wrong: &mut Vec<String>,
) -> Result<(), String> {
    let mut rest = seen.templates.clone();
    for expected in expected {
        let key = key(&expected.key).map_err(|error| error.to_string())?;
        let is_it = |(found, _): &(FlowKey, abi::Flow)| {
            let client = if key.client == CALL { CALL } else { found.client };
            FlowKey { client, ..*found } == key
        };
        let Some(place) = rest.iter().position(is_it) else {
            wrong.push(format!("template {}: expected, but not there", expected.key));
            continue;
        };
        let (_, found) = rest.remove(place);
        let real = tables.real(expected.real).map_err(|error| error.to_string())?;
        let flags = FLOW_TEMPLATE
            | if expected.controls { FLOW_CONTROLLED } else { 0 }
            | if expected.assured { FLOW_ASSURED } else { 0 };
        let off =
            found.expires_ns.wrapping_sub(seen.now_ns).cast_signed() - expected.expires_in * SECOND_NS as i64;
        if found.real != real || found.flags != flags || off.unsigned_abs() > seen.clock_slack_ns {
            wrong.push(format!("template: expected {expected:?}, seen {found:?}, {off} ns off"));
        }
    }
    for (key, _) in rest {
        wrong.push(format!("template {key:?}: not expected"));
    }
    Ok(())
}
