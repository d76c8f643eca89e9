//! Asks a name server, over UDP.

use crate::error::{Failure, fail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use tokio::net::UdpSocket;

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 4096;

pub(crate) async fn probe(to: SocketAddr, name: &str, record: &str, expect: &str) -> Result<(), Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure(format!("`{name}' {record} cannot be asked for: {error}"));
    let name = Name::from_ascii(name).map_err(|error| wrong(&error))?;
    let record = RecordType::from_str(record).map_err(|error| wrong(&error))?;
    // Randomly keyed by the standard library: an answer that others guess would be taken for the server's.
    let id = (RandomState::new().build_hasher().finish() & 0xffff) as u16;
    let mut question = Message::new();
    question
        .set_id(id)
        .set_message_type(MessageType::Query)
        .set_op_code(OpCode::Query)
        .set_recursion_desired(true);
    question.add_query(Query::query(name, record));
    let bytes = question.to_vec().map_err(|error| wrong(&error))?;

    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    socket.send(&bytes).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        match Message::from_vec(&answer[..length]) {
            // One to somebody else; the time-out bounds the loop.
            Ok(message) if message.id() != id => {}
            Ok(message) => return judge(&message, expect),
            Err(error) => return fail(format!("the answer is no DNS message: {error}")),
        }
    }
}

fn judge(message: &Message, expect: &str) -> Result<(), Failure> {
    if message.response_code() != ResponseCode::NoError {
        return fail(format!("the answer was: {}", message.response_code()));
    }
    let answers: Vec<String> = message.answers().iter().map(|it| it.data().to_string()).collect();
    if expect.is_empty() {
        return Ok(());
    }
    if answers.iter().any(|it| it.trim_end_matches('.').eq_ignore_ascii_case(expect.trim_end_matches('.'))) {
        return Ok(());
    }
    let got = if answers.is_empty() { "nothing".to_owned() } else { answers.join(", ") };
    fail(format!("the answer was {got}, not {expect}"))
}
