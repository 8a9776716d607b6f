//! A position in bytes that never reads past them: every length is compared with what is left before it is used.

use super::error::GgufErrorKind;

/// Reads little-endian fields one after the other.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Bytes from here to the end.
    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64, place: &str) -> Result<&'a [u8], GgufErrorKind> {
        if n > self.remaining() {
            return Err(GgufErrorKind::malformed(
                self.offset(),
                place,
                format!("{} bytes to the end of the file", self.remaining()),
                format!("{n}"),
            ));
        }
        let start = self.at;
        self.at += n as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self, place: &str) -> Result<[u8; N], GgufErrorKind> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, place)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, place: &str) -> Result<u32, GgufErrorKind> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    pub(super) fn u64(&mut self, place: &str) -> Result<u64, GgufErrorKind> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    /// A number of things that take at least `min_bytes` each: more than the rest of the file can hold is an error, so
    /// whoever allocates by this count stays within a small multiple of the file.
    pub(super) fn count(&mut self, min_bytes: u64, place: &str) -> Result<usize, GgufErrorKind> {
        let at = self.offset();
        let count = self.u64(place)?;
        let most = self.remaining() / min_bytes;
        if count > most {
            return Err(GgufErrorKind::malformed(
                at,
                place,
                format!("{count}"),
                format!("at most {most}, as many as the {} bytes left can hold", self.remaining()),
            ));
        }
        Ok(count as usize)
    }

    /// A string: its length in 8 bytes, then UTF-8 without a terminator.
    pub(super) fn string(&mut self, place: &str) -> Result<&'a str, GgufErrorKind> {
        let length = self.u64(place)?;
        let at = self.offset();
        let bytes = self.take(length, place)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let bad = at + error.valid_up_to() as u64;
            let found = format!("byte 0x{:02x}", bytes[error.valid_up_to()]);
            GgufErrorKind::malformed(bad, place, found, "UTF-8")
        })
    }
}
