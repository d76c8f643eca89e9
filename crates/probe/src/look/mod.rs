//! Looks at the network around a director, for examinations that a person asks for.
//!
//! Deliberately absent: what the answers mean (`doctor`).

pub mod clock;
pub mod owner;
