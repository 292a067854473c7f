//! CRC32C with the processor's instruction.

/// CRC32C of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC32C of what `crc` is the sum of, followed by `bytes`.
pub(crate) fn append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod tests {
    /// The sums are those that the core makes.
    #[test]
    fn same_as_the_core() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        for len in [0, 1, 7, 8, 100, 1023, 5000] {
            assert_eq!(super::of(&bytes[..len]), quorate_raft::crc32c(&bytes[..len]));
        }
        assert_eq!(super::append(super::of(&bytes[..10]), &bytes[10..]), super::of(&bytes));
    }
}
