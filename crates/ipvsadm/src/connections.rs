//! Listing of tracked flows (`-L -c`), in the director's order.
//!
//! Deliberately absent: the classic tool splits lines of its source longer than 255 bytes; here no line is
//! split.

use crate::endpoint::{Names, Writer};
use api::{Connection, Protocol};
use std::fmt::Write as _;

/// The text of the listing; `engine_data` adds the columns of persistence engines.
#[must_use]
pub fn connections_text(
    connections: &[Connection],
    numeric: bool,
    engine_data: bool,
    names: &dyn Names,
) -> String {
    let writer = Writer { numeric, names };
    let mut out = "IPVS connection entries\n".to_owned();
    out += if engine_data {
        concat!(
            "pro expire state       source             virtual            ",
            "destination        pe name          pe_data\n"
        )
    } else {
        "pro expire state       source             virtual            destination\n"
    };
    for connection in connections {
        line(&mut out, connection, engine_data, writer);
    }
    out
}

fn line(out: &mut String, connection: &Connection, engine_data: bool, writer: Writer<'_>) {
    // `IP`, of a firewall mark's template, is no protocol with port names.
    let protocol: Option<Protocol> = connection.protocol.parse().ok();
    let client = writer.endpoint(connection.client, protocol);
    let virtual_address = writer.endpoint(connection.virtual_address, protocol);
    let real = writer.endpoint(connection.real, protocol);
    let expires = format!("{:02}:{:02}", connection.expires_s / 60, connection.expires_s % 60);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:<3} {expires:<6} {:<11} {client:<18} {virtual_address:<18}",
        connection.protocol, connection.state
    );
    // These widths do not fit the title's: that is how the classic tool prints them.
    let _ = match (&connection.engine, &connection.engine_data) {
        (Some(engine), Some(data)) if engine_data => writeln!(out, " {real:<16} {engine:<18} {data}"),
        _ => writeln!(out, " {real}"),
    };
}
