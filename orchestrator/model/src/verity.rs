//! Trees of hashes as dm-verity reads them: built when a revision is authored, read again when its image is mounted.
//!
//! Superblock and layout are those of `veritysetup format` with its defaults (format 1, SHA-256, blocks of 4096 bytes). The tree is made with a
//! salt and a UUID that follow from the image, so the same image gives the same bytes. Pure: bytes come in, bytes go out.

use sha2::{Digest as _, Sha256};

/// Bytes of a block, of data and of hashes.
pub const BLOCK: usize = 4096;
/// Hashes in a block.
const HASHES: u64 = 128;
const HASH: usize = 32;
const SIGNATURE: &[u8; 8] = b"verity\0\0";
const SUPERBLOCK: usize = 512;
const SALT_MAX: usize = 256;

/// What the superblock says: everything that the kernel needs but the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of a block of data.
    pub data_block: u32,
    /// Bytes of a block of hashes.
    pub hash_block: u32,
    /// Blocks of data.
    pub data_blocks: u64,
    /// Name of the hash, such as `sha256`.
    pub algorithm: String,
    /// What is hashed before each block.
    pub salt: Vec<u8>,
}

/// Why the bytes are no tree of hashes that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSuperblock {
    /// Too short, or another signature.
    #[error("it does not begin with the superblock of dm-verity; make it anew")]
    NotOne,
    /// A version or type that is not known.
    #[error("its superblock has the version {version} and the type {kind}; 1 and 1 are known")]
    Unknown {
        /// Version of the superblock.
        version: u32,
        /// Way of hashing.
        kind: u32,
    },
    /// A figure that cannot be.
    #[error("its superblock is damaged: {0}")]
    Damaged(&'static str),
}

impl Superblock {
    /// Reads the superblock at the beginning of a tree.
    ///
    /// # Errors
    /// It is none, or not one that is known.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadSuperblock> {
        let bytes = bytes.get(..SUPERBLOCK).ok_or(BadSuperblock::NotOne)?;
        if !bytes.starts_with(SIGNATURE) {
            return Err(BadSuperblock::NotOne);
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let (version, kind) = (word(8), word(12));
        if (version, kind) != (1, 1) {
            return Err(BadSuperblock::Unknown { version, kind });
        }
        let algorithm = bytes[32..64]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if algorithm.is_empty() || !algorithm.iter().all(is_name) {
            return Err(BadSuperblock::Damaged("the name of the hash is no name"));
        }
        let salt_len = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        if salt_len > SALT_MAX {
            return Err(BadSuperblock::Damaged("the salt is longer than 256 bytes"));
        }
        let (data_block, hash_block) = (word(64), word(68));
        let is_block = |size: u32| size.is_power_of_two() && (512..=65536).contains(&size);
        if !is_block(data_block) || !is_block(hash_block) {
            return Err(BadSuperblock::Damaged("a block has no possible size"));
        }
        let data_blocks = u64::from(word(72)) | u64::from(word(76)) << 32;
        if data_blocks == 0 || data_blocks.checked_mul(u64::from(data_block)).is_none() {
            return Err(BadSuperblock::Damaged("the number of blocks cannot be"));
        }
        Ok(Self {
            data_block,
            hash_block,
            data_blocks,
            algorithm: String::from_utf8_lossy(algorithm).into_owned(),
            salt: bytes[88..88 + salt_len].to_vec(),
        })
    }

    /// Bytes of data that the tree covers.
    pub fn data_bytes(&self) -> u64 {
        self.data_blocks.saturating_mul(u64::from(self.data_block))
    }

    fn render(&self, uuid: &[u8; 16]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, SIGNATURE);
        put(8, &1u32.to_le_bytes());
        put(12, &1u32.to_le_bytes());
        put(16, uuid);
        put(32, self.algorithm.as_bytes());
        put(64, &self.data_block.to_le_bytes());
        put(68, &self.hash_block.to_le_bytes());
        put(72, &self.data_blocks.to_le_bytes());
        let salt_len = u16::try_from(self.salt.len()).expect("the salt is short");
        put(80, &salt_len.to_le_bytes());
        put(88, &self.salt);
        bytes
    }
}

/// A tree, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Superblock and hashes, as they stand in the hash device.
    pub bytes: Vec<u8>,
    /// The root: who trusts it trusts every block.
    pub root: [u8; HASH],
}

impl Tree {
    /// The root as it stands in a descriptor.
    pub fn root_hash(&self) -> String {
        hex(&self.root)
    }
}

/// Builds a tree from the blocks of an image, in order. Keeps 32 bytes for each.
#[derive(Debug, Clone)]
pub struct Builder {
    salt: Vec<u8>,
    uuid: [u8; 16],
    leaves: Vec<[u8; HASH]>,
}

impl Builder {
    /// For an image with this digest.
    pub fn new(image: &crate::ObjectId) -> Self {
        let seed = Sha256::digest(format!("dm-verity of {image}"));
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&Sha256::digest(format!("uuid of {image}"))[..16]);
        // Made from a name, in the sense of RFC 9562: version 8, its own kind.
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        Self::with(seed.to_vec(), uuid)
    }

    fn with(salt: Vec<u8>, uuid: [u8; 16]) -> Self {
        Self {
            salt,
            uuid,
            leaves: Vec::new(),
        }
    }

    /// The next block; what is shorter counts as filled up with zeros, as the image must be.
    pub fn push(&mut self, block: &[u8]) {
        self.leaves.push(self.hash(block));
    }

    fn hash(&self, block: &[u8]) -> [u8; HASH] {
        let mut hasher = Sha256::new();
        hasher.update(&self.salt);
        hasher.update(block);
        let short = BLOCK.saturating_sub(block.len());
        hasher.update(&[0; BLOCK][..short]);
        hasher.finalize().into()
    }

    /// The tree. An image has at least one block.
    pub fn finish(mut self) -> Tree {
        if self.leaves.is_empty() {
            self.push(&[]);
        }
        let superblock = Superblock {
            data_block: u32::try_from(BLOCK).expect("4096"),
            hash_block: u32::try_from(BLOCK).expect("4096"),
            data_blocks: self.leaves.len() as u64,
            algorithm: "sha256".to_owned(),
            salt: self.salt.clone(),
        };
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut hashes = std::mem::take(&mut self.leaves);
        while hashes.len() > 1 {
            let per_block = usize::try_from(HASHES).expect("128");
            let mut level = Vec::with_capacity(hashes.len().div_ceil(per_block) * BLOCK);
            let mut above = Vec::with_capacity(hashes.len().div_ceil(per_block));
            for group in hashes.chunks(per_block) {
                let start = level.len();
                level.extend(group.iter().flatten());
                level.resize(start + BLOCK, 0);
                above.push(self.hash(&level[start..]));
            }
            levels.push(level);
            hashes = above;
        }
        let mut bytes = superblock.render(&self.uuid);
        for level in levels.iter().rev() {
            bytes.extend_from_slice(level);
        }
        Tree {
            bytes,
            root: hashes[0],
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;

    fn tree(blocks: usize) -> Tree {
        let mut builder = Builder::new(&ObjectId::of(b"image"));
        for number in 0..blocks {
            builder.push(&[u8::try_from(number % 251).unwrap(); BLOCK]);
        }
        builder.finish()
    }

    #[test]
    fn levels_are_as_many_as_needed() {
        // Superblock, then the levels from the top: one block for up to 128, two levels from 129 on.
        for (blocks, expected) in [
            (1, 1),
            (2, 2),
            (128, 2),
            (129, 4),
            (16384, 130),
            (16385, 133),
        ] {
            assert_eq!(tree(blocks).bytes.len(), expected * BLOCK, "{blocks}");
        }
    }

    #[test]
    fn the_root_is_the_hash_of_the_top_block() {
        let tree = tree(300);
        let superblock = Superblock::parse(&tree.bytes).unwrap();
        assert_eq!(superblock.data_blocks, 300);
        assert_eq!(superblock.data_bytes(), 300 * 4096);
        let mut hasher = Sha256::new();
        hasher.update(&superblock.salt);
        hasher.update(&tree.bytes[BLOCK..2 * BLOCK]);
        assert_eq!(hex(&hasher.finalize()), tree.root_hash());
    }

    #[test]
    fn damaged_superblocks_are_refused() {
        let good = tree(3).bytes;
        for (at, byte) in [
            (0, b'x'),
            (8, 2),
            (12, 0),
            (32, b'/'),
            (64, 1),
            (71, 1),
            (81, 9),
        ] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(Superblock::parse(&bytes).is_err(), "byte {at}");
        }
        let mut none = good.clone();
        none[72..80].fill(0);
        assert!(Superblock::parse(&none).is_err());
        assert_eq!(Superblock::parse(&good[..500]), Err(BadSuperblock::NotOne));
    }
}
