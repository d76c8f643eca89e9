//! Counters and rates as IPVS shows them: a snapshot every two seconds, rates as a moving average of it.
//!
//! Pure: the caller brings the counters and the moment. Deliberately absent: reading them from the kernel.

use abi::Real;
use api::ServiceId;
use plan::Layout;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two runs of the estimator.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// Number of counters.
const KINDS: usize = 5;

/// Connections, packets in, packets out, bytes in, bytes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally([u64; KINDS]);

/// How far a difference is shifted before averaging, how much is added and how far it is shifted back when shown:
/// connections and packets keep ten binary places, bytes five.
const PRECISION: [(u32, i64, u32); KINDS] =
    [(9, 0x1ff, 10), (9, 0x1ff, 10), (9, 0x1ff, 10), (4, 0xf, 5), (4, 0xf, 5)];

impl From<abi::Counters> for Tally {
    fn from(counters: abi::Counters) -> Self {
        Self([
            counters.connections,
            counters.in_packets,
            counters.out_packets,
            counters.in_bytes,
            counters.out_bytes,
        ])
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(value);
        }
    }
}

/// One line of counters with its rates.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    /// As of the last run.
    total: Tally,
    /// What was there when the counters were zeroed.
    baseline: Tally,
    averages: [i64; KINDS],
}

impl Estimate {
    /// Starts with what is there already, so that it is no burst.
    fn starting_at(total: Tally) -> Self {
        Self { total, ..Self::default() }
    }

    /// Starts at zero, whatever is there already.
    fn zeroed_at(total: Tally) -> Self {
        Self { total, baseline: total, ..Self::default() }
    }

    fn run(&mut self, total: Tally) {
        if total == self.total && self.averages == [0; KINDS] {
            return;
        }
        for (((average, old), new), (shift, ..)) in
            self.averages.iter_mut().zip(self.total.0).zip(total.0).zip(PRECISION)
        {
            let rate = new.wrapping_sub(old).wrapping_shl(shift).cast_signed();
            *average = average.wrapping_add(rate.wrapping_sub(*average) >> 2);
        }
        self.total = total;
    }

    fn zero(&mut self) {
        self.baseline = self.total;
        self.averages = [0; KINDS];
    }

    fn shown(&self) -> api::Counters {
        let mut counts = [0; KINDS];
        for ((count, total), baseline) in counts.iter_mut().zip(self.total.0).zip(self.baseline.0) {
            *count = total.wrapping_sub(baseline);
        }
        let mut rates = [0; KINDS];
        for ((rate, average), (_, half, shift)) in rates.iter_mut().zip(self.averages).zip(PRECISION) {
            *rate = (average.wrapping_add(half) >> shift).max(0).cast_unsigned();
        }
        let [connections, in_packets, out_packets, in_bytes, out_bytes] = counts;
        let [connections_per_s, in_packets_per_s, out_packets_per_s, in_bytes_per_s, out_bytes_per_s] = rates;
        api::Counters {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
            connections_per_s,
            in_packets_per_s,
            out_packets_per_s,
            in_bytes_per_s,
            out_bytes_per_s,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct ServiceLine {
    /// `None` until the first run says what is there already.
    estimate: Option<Estimate>,
    /// Counters of real servers whose index was given up.
    past: Tally,
}

/// All lines, by the indices of services and real servers. The line of a service that is gone stays until another one has
/// its index.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    reals: Vec<Option<Estimate>>,
    services: Vec<Option<ServiceLine>>,
    /// Room for a run's sums.
    sums: Vec<Tally>,
}

/// The entry of an index.
fn at<T>(lines: &mut Vec<Option<T>>, index: u32) -> &mut Option<T> {
    let index = index as usize;
    if lines.len() <= index {
        lines.resize_with(index + 1, || None);
    }
    &mut lines[index]
}

impl Statistics {
    /// Those of services that were there before: what they have counted is no burst.
    pub(crate) fn of(services: impl Iterator<Item = u32>) -> Self {
        let mut statistics = Self::default();
        for index in services {
            *at(&mut statistics.services, index) = Some(ServiceLine::default());
        }
        statistics
    }

    /// One run of the estimator. `counters` is by index of the real server; `reals` says whose they are.
    pub(crate) fn run(&mut self, counters: &[abi::Counters], reals: &BTreeMap<u32, Real>) {
        self.sums.clear();
        self.sums.resize(self.services.len(), Tally::default());
        for (&index, real) in reals {
            let total = counters.get(index as usize).copied().unwrap_or_default().into();
            // Orphans have no service, and nobody shows them.
            let Some(sum) = self.sums.get_mut(real.service as usize) else { continue };
            sum.add(total);
            at(&mut self.reals, index).get_or_insert_with(|| Estimate::starting_at(total)).run(total);
        }
        for (line, sum) in self.services.iter_mut().zip(&self.sums) {
            let Some(line) = line else { continue };
            let mut total = line.past;
            total.add(*sum);
            line.estimate.get_or_insert_with(|| Estimate::starting_at(total)).run(total);
        }
    }

    /// A real server was added: its line starts at zero, `total` being what its counters hold now. One that was deleted
    /// and added again while its index was kept goes on, as in IPVS.
    pub(crate) fn add_real(&mut self, index: u32, total: abi::Counters) {
        at(&mut self.reals, index).get_or_insert_with(|| Estimate::zeroed_at(total.into()));
    }

    /// A service was added: its line and those of its real servers start at zero, whatever real servers of a former life have
    /// counted. `counters` has those of its real servers.
    pub(crate) fn add_service(
        &mut self,
        service: &ServiceId,
        counters: &BTreeMap<u32, abi::Counters>,
        layout: &Layout,
    ) {
        let Some(index) = layout.service_index(service) else { return };
        let mut sum = Tally::default();
        for real in layout.reals_of(service) {
            let total = counters.get(&real).copied().unwrap_or_default().into();
            sum.add(total);
            *at(&mut self.reals, real) = Some(Estimate::zeroed_at(total));
        }
        let estimate = Some(Estimate::zeroed_at(sum));
        *at(&mut self.services, index) = Some(ServiceLine { estimate, past: Tally::default() });
    }

    /// The index of a deleted real server is given up; its service, by index, keeps what it has counted.
    pub(crate) fn release_real(&mut self, index: u32, service: Option<u32>, total: abi::Counters) {
        *at(&mut self.reals, index) = None;
        let line = service.and_then(|service| self.services.get_mut(service as usize));
        if let Some(Some(line)) = line {
            line.past.add(total.into());
        }
    }

    /// Zeroes a service and its real servers, or everything.
    pub(crate) fn zero(&mut self, service: Option<&ServiceId>, layout: &Layout) {
        let Some(service) = service else {
            self.reals.iter_mut().flatten().for_each(Estimate::zero);
            self.services
                .iter_mut()
                .flatten()
                .filter_map(|line| line.estimate.as_mut())
                .for_each(Estimate::zero);
            return;
        };
        let line = layout.service_index(service).and_then(|index| self.services.get_mut(index as usize));
        if let Some(estimate) = line.and_then(|line| line.as_mut()?.estimate.as_mut()) {
            estimate.zero();
        }
        for index in layout.reals_of(service) {
            if let Some(Some(estimate)) = self.reals.get_mut(index as usize) {
                estimate.zero();
            }
        }
    }

    /// The line of a real server.
    pub(crate) fn real(&self, index: u32) -> api::Counters {
        self.reals.get(index as usize).copied().flatten().map(|line| line.shown()).unwrap_or_default()
    }

    /// The line of a service.
    pub(crate) fn service(&self, index: u32) -> api::Counters {
        let line = self.services.get(index as usize).copied().flatten();
        line.and_then(|line| line.estimate).map(|line| line.shown()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(connections: u64, in_bytes: u64) -> Tally {
        abi::Counters { connections, in_bytes, ..abi::Counters::default() }.into()
    }

    #[test]
    fn rates_follow_the_two_second_mean_with_weight_one_quarter() {
        // 10 connections and 3,000 bytes in each period of two seconds, worked out by hand from section 5.2:
        // averages 5120/4 = 1280, 2240, 2960, 3500 ... and 48000/4 = 12000, 21000, 27750.
        let mut estimate = Estimate::default();
        let mut seen = Vec::new();
        for period in 1..=3 {
            estimate.run(tally(10 * period, 3000 * period));
            let shown = estimate.shown();
            seen.push((shown.connections_per_s, shown.in_bytes_per_s));
        }
        // (1280 + 511) >> 10 = 1, (2240 + 511) >> 10 = 2, (2960 + 511) >> 10 = 3; (12000 + 15) >> 5 = 375 ...
        assert_eq!(seen, [(1, 375), (2, 656), (3, 867)]);
        for period in 4..60 {
            estimate.run(tally(10 * period, 3000 * period));
        }
        assert_eq!((estimate.shown().connections_per_s, estimate.shown().in_bytes_per_s), (5, 1500));
        // Silence: the rates die away and never go negative.
        for _ in 0..60 {
            estimate.run(estimate.total);
        }
        assert_eq!((estimate.shown().connections_per_s, estimate.shown().in_bytes_per_s), (0, 0));
        assert_eq!(estimate.shown().connections, 590);
    }

    #[test]
    fn zeroing_subtracts_and_stops_the_rates() {
        let mut estimate = Estimate::default();
        estimate.run(tally(100, 5));
        estimate.zero();
        assert_eq!(estimate.shown(), api::Counters::default());
        estimate.run(tally(107, 5));
        assert_eq!(estimate.shown().connections, 7);
    }

    /// Each period of two seconds: what came in it (connections, packets in and out, bytes in and out) and the five
    /// figures of `--rate` after it, worked out from the formula of section 5.2 by another program.
    const SERIES: [([u64; KINDS], [u64; KINDS]); 7] = [
        ([1, 3, 2, 180, 120], [0, 0, 0, 22, 15]),
        ([0, 0, 0, 0, 0], [0, 0, 0, 17, 11]),
        ([7, 70, 65, 9_999, 88_888], [1, 9, 8, 1_263, 11_119]),
        ([100, 1_000, 900, 1_500_000, 64_000_000_000], [13, 132, 119, 188_447, 8_000_008_340]),
        ([1, 1, 1, 40, 40], [10, 99, 89, 141_340, 6_000_006_260]),
        ([0, 0, 0, 0, 0], [8, 74, 67, 106_005, 4_500_004_695]),
        ([5, 11, 13, 17, 1 << 40], [6, 57, 52, 79_506, 140_813_956_993]),
    ];

    fn rates(shown: &api::Counters) -> [u64; KINDS] {
        [
            shown.connections_per_s,
            shown.in_packets_per_s,
            shown.out_packets_per_s,
            shown.in_bytes_per_s,
            shown.out_bytes_per_s,
        ]
    }

    #[test]
    fn every_rate_of_an_uneven_series_is_right_to_the_digit() {
        // What was there before the first period is no burst, however much: counters have 64 bits.
        for before in [0, u64::from(u32::MAX) - 5, 1 << 50] {
            let mut total = Tally([before; KINDS]);
            let mut estimate = Estimate::starting_at(total);
            for (came, expected) in SERIES {
                total.add(Tally(came));
                estimate.run(total);
                assert_eq!(rates(&estimate.shown()), expected, "after {came:?} on {before}");
            }
            let shown = estimate.shown();
            assert_eq!((shown.connections, shown.in_packets), (before + 114, before + 1_085));
            assert_eq!(shown.out_bytes, before + 64_000_089_048 + (1 << 40));
            // -Z in the middle of it: counts from here, rates from nothing.
            estimate.zero();
            assert_eq!(estimate.shown(), api::Counters::default());
            total.add(Tally(SERIES[0].0));
            estimate.run(total);
            assert_eq!(rates(&estimate.shown()), SERIES[0].1);
            assert_eq!(estimate.shown().out_bytes, 120);
        }
    }

    #[test]
    fn zeroing_one_service_leaves_the_others() {
        let id = |port| ServiceId::Address {
            protocol: api::Protocol::Tcp,
            address: std::net::IpAddr::from([192, 0, 2, 10]),
            port,
        };
        let mut model = plan::Model::new(plan::Options::default());
        let spec = api::ServiceSpec {
            scheduler: "rr".to_owned(),
            scheduler_flags: api::SchedulerFlags::default(),
            persistence: None,
            persistence_engine: None,
            one_packet: false,
        };
        for port in [80, 81] {
            let add = api::Change::AddService { service: id(port), spec: spec.clone() };
            model.apply(&add).expect("a service");
        }
        let mut layout = Layout::new(abi::Limits::default());
        plan::compile(&mut layout, &model, &plan::Neighbours::new(), &plan::Cursors::new()).expect("room");
        let index = |port| layout.service_index(&id(port)).expect("an index");
        let mut statistics = Statistics::default();
        for port in [80, 81] {
            let mut estimate = Estimate::default();
            estimate.run(tally(100, 5));
            let line = ServiceLine { estimate: Some(estimate), ..ServiceLine::default() };
            *at(&mut statistics.services, index(port)) = Some(line);
        }
        statistics.zero(Some(&id(80)), &layout);
        assert_eq!(statistics.service(index(80)), api::Counters::default());
        assert_eq!(statistics.service(index(81)).connections, 100);
        statistics.zero(None, &layout);
        assert_eq!(statistics.service(index(81)), api::Counters::default());
    }

    #[test]
    fn a_real_server_added_again_goes_on_and_a_released_one_starts_at_zero() {
        let total = abi::Counters { connections: 7, ..abi::Counters::default() };
        let mut statistics = Statistics::default();
        statistics.add_real(3, abi::Counters::default());
        statistics.reals[3].as_mut().expect("its line").run(total.into());
        statistics.add_real(3, total);
        assert_eq!(statistics.real(3).connections, 7);
        statistics.release_real(3, None, total);
        statistics.add_real(3, total);
        assert_eq!(statistics.real(3).connections, 0);
    }

    #[test]
    fn what_was_counted_before_is_no_burst() {
        let estimate = Estimate::starting_at(tally(1_000_000, 9));
        assert_eq!(estimate.shown().connections_per_s, 0);
        assert_eq!(estimate.shown().connections, 1_000_000);
    }
}
