//! Random bytes of the kernel (`getrandom`), for hash seeds and identifiers.

/// The kernel gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("cannot read random bytes from the kernel")]
pub struct RandomError(#[source] getrandom::Error);

/// `N` random bytes. Blocks only until the kernel's pool was seeded once after boot.
///
/// # Errors
/// When the system call is missing or forbidden.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

/// A random number, for seeds.
///
/// # Errors
/// As [`random_bytes`].
pub fn random_u64() -> Result<u64, RandomError> {
    Ok(u64::from_ne_bytes(random_bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let a: [u8; 32] = random_bytes().expect("random bytes");
        let b: [u8; 32] = random_bytes().expect("random bytes");
        assert_ne!(a, b);
    }
}
