//! The act in which a web server is killed and comes back.

use super::DemoError;
use super::acts::{Stage, TOLERANCE_POINTS, fair, names};
use super::judge::{describe_load, is_balanced};
use super::report::Outcome;
use crate::address::{HTTP_PORT, Node};
use crate::load::REQUEST_TIMEOUT;
use api::Standing;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long the director may take to notice; checks come every fifth of a second.
const NOTICE_MAX: Duration = Duration::from_secs(10);

impl Stage {
    /// Kills the web server of one machine. What was under way to it fails; nothing else may.
    pub(super) fn kill(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let Some(number) = self.lab.reals().last().copied() else {
            return Ok(broken(act, "no real server is left"));
        };
        let name = Node::Real(number).name();
        let real = SocketAddr::new(Node::Real(number).v4().into(), HTTP_PORT);
        let before = self.load.stats();
        let begun = Instant::now();
        self.lab.kill_web_server(number)?;
        let noticed = self.wait_for(real, Standing::Down)?;
        let after = begun.elapsed();
        // Requests that began while it was still in.
        let (watch, mark) = (self.load.watch(), self.load.watch().mark());
        self.cancel.wait_until(REQUEST_TIMEOUT, || watch.is_past(mark))?;
        let out = self.load.stats();
        let in_flight = out.since(&before).failed;
        let without = self.watch()?;
        let listed = self.rows()?.iter().any(|row| row.real == real);

        self.lab.start_web_server(number)?;
        let returned = self.wait_for(real, Standing::Up)?;
        self.cancel.sleep(super::acts::SETTLE)?;
        let servers = names(&self.lab.reals());
        let stats = self.watch()?;
        let later = self.load.stats().since(&out).failed;
        Ok(Outcome {
            act: act.to_owned(),
            expected: format!(
                "checks take {name} out: no request fails that begins after that, and it is back by itself once it runs; {}",
                fair("new connections", servers.len(), TOLERANCE_POINTS)
            ),
            seen: format!(
                "out {} ms after the kill, {in_flight} requests under way until then failed; {} after it, {} of them failed; \
                 back: {}",
                after.as_millis(),
                without.answered,
                without.failed,
                describe_load(&stats)
            ),
            ok: noticed
                && !listed
                && without.answered > 0
                && returned
                && later == 0
                && is_balanced(&stats, &servers, TOLERANCE_POINTS),
        })
    }

    fn wait_for(&self, real: SocketAddr, standing: Standing) -> Result<bool, DemoError> {
        let front = self.director.front();
        self.cancel.wait_until(NOTICE_MAX, || front.standing(real).is_ok_and(|now| now == Some(standing)))
    }
}

fn broken(act: &str, why: &str) -> Outcome {
    Outcome {
        act: act.to_owned(),
        expected: "a web server is killed".to_owned(),
        seen: why.to_owned(),
        ok: false,
    }
}
