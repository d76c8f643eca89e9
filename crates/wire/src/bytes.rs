//! Bounds-checked packet access.

/// The frame ends before the bytes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// A frame. Values are copied out and in: no reference into the packet ever lives, because the verifier
/// forgets what it knows of a packet pointer as soon as the packet moves.
///
/// An offset must be bounded where it is computed (a mask, or a comparison before the addition).
pub trait Bytes {
    /// Bytes that can be read and written here. All of the frame, but for a jumbo frame in several buffers: of that the
    /// first one, with the headers.
    fn len(&self) -> usize;

    /// Whether the frame has at least `len` bytes, those in further buffers included.
    fn holds(&self, len: usize) -> bool {
        len <= self.len()
    }

    /// Whether the frame has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the interface the frame came by; 0 when nobody knows.
    fn ingress(&self) -> u32;

    /// The `N` bytes at `offset`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends before them.
    fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short>;

    /// Copies the bytes from `offset` on, as many as `out` has room for.
    ///
    /// # Errors
    /// [`Short`] when the frame ends before.
    fn copy_out(&self, offset: usize, out: &mut [u8]) -> Result<(), Short> {
        for (i, place) in out.iter_mut().enumerate() {
            [*place] = self.get::<1>(offset.wrapping_add(i))?;
        }
        Ok(())
    }

    /// Replaces the `N` bytes at `offset`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends before them; nothing is written then.
    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Result<(), Short>;

    /// Replaces `N` words from `offset` on, each as it stands in the packet. An array of bytes that comes from memory
    /// is copied byte by byte on the BPF target; words are not.
    ///
    /// # Errors
    /// As [`Self::put`].
    fn put_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Result<(), Short> {
        let mut end = offset.wrapping_add(N << 2);
        // From the end, so that nothing is written if the frame is short.
        for word in words.into_iter().rev() {
            end = end.wrapping_sub(4);
            self.put(end, word.to_ne_bytes())?;
        }
        Ok(())
    }
}

/// The 32-bit words of a header, each as it stands in the packet. Headers are kept as words and not as bytes:
/// the compiler then loads each word once instead of every byte.
#[inline(always)]
pub(crate) fn words<const N: usize>(raw: &[[u8; 4]; N]) -> [u32; N] {
    raw.map(u32::from_ne_bytes)
}
