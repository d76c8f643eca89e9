//! Weights while they are partial.

/// While somebody in a service gets a part of its weight, all weights are so many times the declared ones, so that a part
/// of a weight of 1 can be said.
pub(crate) const FINE: u32 = 100;
/// Weights are C `int` in the kernel's interface.
const WEIGHT_MAX: u64 = i32::MAX as u64;
/// A reported share that differs by less than this from the one in force changes nothing: each new weight costs a new
/// ring, and moves some clients of hash schedulers.
const SHARE_STEP: f64 = 0.05;

/// A declared weight times a share; at least 1, unless the declared one is 0 or the share is.
pub(crate) fn part(declared: u32, share: f64, fine: bool) -> u32 {
    if declared == 0 || share <= 0.0 {
        return 0;
    }
    let scale = if fine { f64::from(FINE) } else { 1.0 };
    let weight = (f64::from(declared) * scale * share).round();
    // Not more than WEIGHT_MAX, which f64 holds exactly.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of u32"
    )]
    let weight = weight.clamp(1.0, WEIGHT_MAX as f64) as u32;
    weight
}

/// Whether weights this large can be made finer.
pub(crate) fn can_be_fine(declared: impl IntoIterator<Item = u32>) -> bool {
    // A share goes up to 10.
    declared.into_iter().all(|weight| u64::from(weight) * u64::from(FINE) * 10 <= WEIGHT_MAX)
}

/// The share to go by: the one in force, unless the wanted one is far enough from it.
pub(crate) fn step(in_force: f64, wanted: f64) -> f64 {
    let is_end = wanted == 0.0 || (wanted - 1.0).abs() < 0.005;
    if (wanted - in_force).abs() >= SHARE_STEP || is_end && (wanted - in_force).abs() > f64::EPSILON {
        if is_end && wanted != 0.0 { 1.0 } else { wanted }
    } else {
        in_force
    }
}
