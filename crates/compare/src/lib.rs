//! The same scripts of commands and packets, played into kernel IPVS and into Sluice, and what differs.
//!
//! ```text
//! text -> scripts -> play (on one target) -> record        record + record -> diff -> report
//! ```
//! Absent on purpose: any opinion on what is right. The one target is the measure of the other; which of the
//! two a difference speaks against is for people to decide, with the specification.

mod burst;
pub mod diff;
pub mod flood;
mod flow;
mod frame;
mod mac;
mod net;
mod pieces;
pub mod play;
pub mod random;
pub mod record;
pub mod script;
mod settings;
mod step;
mod target;
mod template;

pub use burst::{Burst, Vary};
pub use play::{Options, PlayError, play};
pub use record::Record;
pub use script::{Script, ScriptError};
pub use step::{Mark, Step, StepError};
pub use target::Target;
