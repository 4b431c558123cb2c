//! Bytes together with their digest.

use std::{ops::Deref, sync::Arc};

use crate::Digest;

/// Bytes and their SHA-256, which was computed from them and never is a claim. Clones share
/// the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    digest: Digest,
    bytes: Arc<Vec<u8>>,
}

impl Blob {
    /// Takes the bytes and computes their digest.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            bytes: Arc::new(bytes),
        }
    }

    /// SHA-256 of the bytes.
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Blob;
    use crate::Digest;

    #[test]
    fn its_digest_is_that_of_its_bytes_and_clones_share_them() {
        let blob = Blob::new(b"object".to_vec());
        let clone = blob.clone();
        assert_eq!(clone.digest(), Digest::of(b"object"));
        assert_eq!(clone.as_ptr(), blob.as_ptr());
    }
}
