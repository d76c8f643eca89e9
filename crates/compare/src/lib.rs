//! The same scripts of commands and packets, played into kernel IPVS and into Sluice, and what differs.
//!
//! ```text
//! text -> scripts -> play (on one target) -> record        record + record -> diff -> report
//! ```
//! Absent on purpose: any opinion on what is right. The one target is the measure of the other; which of the
//! two a difference speaks against is for people to decide, with the specification.

pub mod diff;
mod frame;
mod net;
pub mod play;
pub mod random;
pub mod record;
pub mod script;
mod step;
mod target;
mod template;

pub use play::{Options, PlayError, play};
pub use record::Record;
pub use script::{Script, ScriptError};
pub use step::{Burst, Step, StepError, Vary};
pub use target::Target;
