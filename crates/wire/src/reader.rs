//! Taking values off the front of bytes.

use bytes::Bytes;

use crate::error::WireError;

/// Bytes not yet taken. Whatever it hands out was checked to be there.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The buffer that `rest` lies in, if slices of it can be shared.
    shared: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Reads bytes that somebody else owns; what is kept of them is copied.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, shared: None }
    }

    /// Reads bytes that can be shared: nothing is copied.
    #[must_use]
    pub fn shared(bytes: &'a Bytes) -> Self {
        Self { rest: bytes, shared: Some(bytes) }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] if there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `count` bytes as a value of their own, shared where possible.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] if there are fewer.
    pub fn bytes(&mut self, count: usize) -> Result<Bytes, WireError> {
        let slice = self.take(count)?;
        Ok(match self.shared {
            _ if slice.is_empty() => Bytes::new(),
            Some(shared) => shared.slice_ref(slice),
            None => Bytes::copy_from_slice(slice),
        })
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] if there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The number of items that follow, each of which takes at least `item_bytes_min`: small
    /// enough to reserve memory for.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] if that many cannot follow.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, WireError> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        match count.checked_mul(item_bytes_min) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(WireError::Truncated),
        }
    }

    /// Insists that everything was taken.
    ///
    /// # Errors
    ///
    /// [`WireError::Trailing`] if not.
    pub const fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}
