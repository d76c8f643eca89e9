//! The cluster file of the demo.

use super::director::Front;
use super::{DemoError, io_failed};
use crate::address::{HTTP_PORT, Node, VIP_V4};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Milliseconds from one check of a real server to the next; two failures in a row take it out.
pub const CHECK_INTERVAL_MS: u32 = 200;

/// The cluster file.
#[derive(Debug)]
pub struct ClusterFile {
    path: PathBuf,
}

impl ClusterFile {
    /// The file of a run, not written yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes it with these real servers and applies it; gives what `sluice apply` said.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn apply(&self, front: &Front, reals: &[u32]) -> Result<String, DemoError> {
        std::fs::write(&self.path, text(reals)).map_err(io_failed("write the cluster file"))?;
        Ok(front.sluice(&format!("apply {}", self.path.display()))?)
    }
}

/// The service of the demo on these real servers.
fn text(reals: &[u32]) -> String {
    let mut text = "# The demo's cluster: `sluice plan FILE' shows what an edit would change.\n".to_owned();
    for number in reals {
        let node = Node::Real(*number);
        let _ = write!(text, "\n[server.{}]\naddress = \"{}\"\n", node.name(), node.v4());
    }
    let names: Vec<String> =
        reals.iter().map(|number| format!("\"{}\"", Node::Real(*number).name())).collect();
    let _ = write!(
        text,
        "\n[check.page]\ntype = \"http\"\npath = \"/\"\ninterval = \"{CHECK_INTERVAL_MS}ms\"\ntimeout = \"1s\"\nrise = 2\nfall = 2\n\n\
         [service.www]\nvip = \"{VIP_V4}\"\nports = \"tcp/{HTTP_PORT}\"\nscheduler = \"rr\"\nforward = \"direct\"\n\
         checks = [\"page\"]\nservers = [{}]\n",
        names.join(", ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_good_and_has_every_server() {
        let parsed = cluster::parse(&text(&[1, 2, 5]), &plan::Options::default());
        assert_eq!(parsed.findings, []);
        let model = parsed.cluster.expect("a cluster").model;
        assert_eq!((model.services().len(), model.reals_len()), (1, 3));
    }
}
