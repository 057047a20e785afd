//! Archives as they come: bytes in, members out, nothing held but a header. tar (plain or gzip, as `pvr export` and `coxctl payload
//! bundle` write it) and cpio (`newc`, as SWUpdate's `.swu` is).
//!
//! Only plain files count; names are texts; every size is bounded. A plain archive can be read with jumps: who knows a member already
//! calls [`Scanner::skip`] instead of feeding its bytes.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;

/// Bytes of all members together.
const BYTES_MAX: u64 = 64 << 30;
/// Members.
const MEMBERS_MAX: u32 = 100_000;
/// Bytes of a name that counts; longer ones are no names of ours.
const NAME_BYTES_MAX: usize = 1024;
/// Bytes of compressed input that are unpacked at once: at a ratio of 1000 they become 2 MiB.
pub const SLICE_BYTES: usize = 2048;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The first bytes are of no archive that is known.
    #[error("it is neither a tar archive (plain or gzip) nor a cpio archive (newc)")]
    Unknown,
    /// A header makes no sense.
    #[error("it is damaged at byte {at}: {reason}")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// More than is taken.
    #[error("it has more than {what}")]
    TooLarge {
        /// What of.
        what: &'static str,
    },
    /// The compressed stream is damaged.
    #[error("it cannot be unpacked: {reason}")]
    Packed {
        /// How.
        reason: String,
    },
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A file begins.
    Member {
        /// Its name, without `./`.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// The next bytes of the file.
    Data(&'a [u8]),
    /// The file has ended.
    End,
    /// The archive has ended; what follows does not count.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tar,
    Cpio,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Header,
    /// Of a cpio member, whose name stands after its header.
    Name {
        bytes: u64,
        file: bool,
        length: usize,
    },
    Data {
        left: u64,
        wanted: bool,
    },
    MemberEnd,
    Padding(u64),
    Finished,
}

/// Reads an archive piece by piece.
#[derive(Debug)]
pub struct Scanner {
    kind: Option<Kind>,
    at: At,
    held: Vec<u8>,
    position: u64,
    padding: u64,
    member_bytes: u64,
    bytes: u64,
    members: u32,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            kind: None,
            at: At::Header,
            held: Vec::with_capacity(512),
            position: 0,
            padding: 0,
            member_bytes: 0,
            bytes: 0,
            members: 0,
        }
    }
}

impl Scanner {
    /// Takes from the front of `input` what the next finding needs; `None` when more input is needed.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Found<'a>>, ArchiveError> {
        loop {
            match self.at.clone() {
                At::Header => {
                    let needed = match self.kind {
                        None => 6,
                        Some(Kind::Tar) => 512,
                        Some(Kind::Cpio) => 110,
                    };
                    if !self.hold(input, needed) {
                        return Ok(None);
                    }
                    if self.kind.is_none() {
                        self.kind = Some(if self.held.starts_with(b"07070") {
                            Kind::Cpio
                        } else {
                            Kind::Tar
                        });
                        continue;
                    }
                    let header = std::mem::take(&mut self.held);
                    let found = match self.kind {
                        Some(Kind::Cpio) => self.cpio_header(&header)?,
                        Some(Kind::Tar) | None => self.tar_header(&header)?,
                    };
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                At::Name {
                    bytes,
                    file,
                    length,
                } => {
                    if !self.hold(input, length) {
                        return Ok(None);
                    }
                    let name = std::mem::take(&mut self.held);
                    let end = name.iter().position(|byte| *byte == 0);
                    let name = &name[..end.unwrap_or(name.len())];
                    if name == b"TRAILER!!!" {
                        self.at = At::Finished;
                        continue;
                    }
                    self.padding = bytes.wrapping_neg() & 3;
                    if let Some(found) = self.member(name, bytes, file)? {
                        return Ok(Some(found));
                    }
                }
                At::Data { left: 0, wanted } => {
                    self.at = if wanted {
                        At::MemberEnd
                    } else {
                        At::Padding(self.padding)
                    };
                }
                At::Data { left, wanted } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length =
                        usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    let data = self.take(input, length);
                    self.at = At::Data {
                        left: left - data.len() as u64,
                        wanted,
                    };
                    if wanted {
                        return Ok(Some(Found::Data(data)));
                    }
                }
                At::MemberEnd => {
                    self.at = At::Padding(self.padding);
                    return Ok(Some(Found::End));
                }
                At::Padding(0) => self.at = At::Header,
                At::Padding(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length =
                        usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    let passed = self.take(input, length).len() as u64;
                    self.at = At::Padding(left - passed);
                }
                At::Finished => return Ok(Some(Found::Finished)),
            }
        }
    }

    /// Bytes of the member that have not come yet; they can be left out with [`Scanner::skip`].
    pub fn left(&self) -> u64 {
        match self.at {
            At::Data { left, .. } => left,
            At::Header | At::Name { .. } | At::MemberEnd | At::Padding(_) | At::Finished => 0,
        }
    }

    /// Length of the member that is passing by.
    pub fn member_bytes(&self) -> u64 {
        self.member_bytes
    }

    /// The last `bytes` of the member that were fed will be fed again.
    pub fn step_back(&mut self, bytes: u64) {
        if let At::Data { left, .. } = &mut self.at {
            let back = bytes.min(self.member_bytes - *left);
            *left += back;
            self.position -= back;
        }
    }

    /// The next `bytes` of the member will not be fed.
    pub fn skip(&mut self, bytes: u64) {
        if let At::Data { left, .. } = &mut self.at {
            let skipped = bytes.min(*left);
            *left -= skipped;
            self.position += skipped;
        }
    }

    /// Whether the archive has ended. The end of the input before that is a cut archive.
    pub fn is_finished(&self) -> bool {
        self.at == At::Finished
    }

    /// Whether the input may end here: after a whole member.
    pub fn is_between_members(&self) -> bool {
        self.held.is_empty() && matches!(self.at, At::Header | At::Finished | At::Padding(_))
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(length);
        *input = rest;
        self.position += length as u64;
        taken
    }

    /// Whether so many bytes are held now.
    fn hold(&mut self, input: &mut &[u8], needed: usize) -> bool {
        let missing = needed.saturating_sub(self.held.len()).min(input.len());
        let taken = self.take(input, missing);
        self.held.extend_from_slice(taken);
        self.held.len() >= needed
    }

    fn damaged(&self, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Damaged {
            at: self.position,
            reason: reason.into(),
        }
    }

    fn member<'a>(
        &mut self,
        name: &[u8],
        bytes: u64,
        file: bool,
    ) -> Result<Option<Found<'a>>, ArchiveError> {
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(ArchiveError::TooLarge {
                what: "100,000 members",
            });
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES_MAX {
            return Err(ArchiveError::TooLarge { what: "64 GiB" });
        }
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| file && name.len() <= NAME_BYTES_MAX)
            .map(|name| name.strip_prefix("./").unwrap_or(name).to_owned());
        self.member_bytes = bytes;
        self.at = At::Data {
            left: bytes,
            wanted: name.is_some(),
        };
        Ok(name.map(|name| Found::Member { name, bytes }))
    }

    fn tar_header<'a>(&mut self, header: &[u8]) -> Result<Option<Found<'a>>, ArchiveError> {
        if header.iter().all(|byte| *byte == 0) {
            // A first block of zeros is no archive.
            if self.position <= 512 {
                return Err(ArchiveError::Unknown);
            }
            self.at = At::Finished;
            return Ok(Some(Found::Finished));
        }
        let header: &[u8; 512] = header.try_into().map_err(|_| ArchiveError::Unknown)?;
        let sum: u32 = header
            .iter()
            .enumerate()
            .map(|(place, byte)| {
                let blank = (148..156).contains(&place);
                u32::from(if blank { b' ' } else { *byte })
            })
            .sum();
        let header = tar::Header::from_byte_slice(header);
        if header.cksum().ok() != Some(sum) {
            return Err(if self.members == 0 {
                ArchiveError::Unknown
            } else {
                self.damaged("the checksum of a header is wrong")
            });
        }
        let bytes = header
            .entry_size()
            .map_err(|error| self.damaged(error.to_string()))?;
        self.padding = bytes.wrapping_neg() & 511;
        let name = header.path_bytes();
        self.member(&name, bytes, header.entry_type().is_file())
    }

    fn cpio_header<'a>(&mut self, header: &[u8]) -> Result<Option<Found<'a>>, ArchiveError> {
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(if self.members == 0 {
                ArchiveError::Unknown
            } else {
                self.damaged("a header does not begin as it must")
            });
        }
        let field = |number: usize| {
            let digits = header.get(6 + 8 * number..14 + 8 * number)?;
            let digits = std::str::from_utf8(digits).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let (Some(mode), Some(bytes), Some(name)) = (field(1), field(6), field(11)) else {
            return Err(self.damaged("a header holds something else than hexadecimal digits"));
        };
        let name = usize::try_from(name).unwrap_or(usize::MAX);
        if name > 4096 {
            return Err(self.damaged("a name is longer than 4096 bytes"));
        }
        self.at = At::Name {
            bytes: u64::from(bytes),
            file: mode & 0o170_000 == 0o100_000,
            // Header and name together are padded to four bytes.
            length: name + (110 + name).wrapping_neg() % 4,
        };
        Ok(None)
    }
}

/// Unpacks gzip on the way, when the input is that; else hands it on.
pub enum Unpacker {
    /// Not known yet.
    Unknown,
    /// As it is.
    Plain,
    /// Gzip.
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Plain => "Plain",
            Self::Gzip(_) => "Gzip",
        })
    }
}

impl Unpacker {
    /// Whether the input is plain, so that parts of it can be left out.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Looks at the first bytes. One alone may be all that has come; no other archive begins with that of gzip.
    pub fn begin(&mut self, first: &[u8]) {
        if matches!(self, Self::Unknown) && !first.is_empty() {
            *self = if first.starts_with(&[0x1f, 0x8b]) || first == [0x1f] {
                Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
            } else {
                Self::Plain
            };
        }
    }

    /// Unpacks at most [`SLICE_BYTES`] of packed input.
    ///
    /// # Errors
    /// [`ArchiveError::Packed`].
    pub fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let Self::Gzip(decoder) = self else {
            return Ok(packed.to_vec());
        };
        let failed = |error: std::io::Error| ArchiveError::Packed {
            reason: error.to_string(),
        };
        decoder.write_all(packed).map_err(failed)?;
        decoder.flush().map_err(failed)?;
        Ok(std::mem::take(decoder.get_mut()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_path(name).unwrap();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn cpio(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, bytes) in members.iter().chain(&[("TRAILER!!!", &b""[..])]) {
            let fields = [
                1,
                0o100_644,
                0,
                0,
                1,
                0,
                bytes.len(),
                0,
                0,
                0,
                0,
                name.len() + 1,
                0,
            ];
            archive.extend_from_slice(b"070701");
            for field in fields {
                archive.extend_from_slice(format!("{field:08X}").as_bytes());
            }
            archive.extend_from_slice(name.as_bytes());
            archive.push(0);
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend_from_slice(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    type Members = Vec<(String, Vec<u8>)>;

    fn scan(archive: &[u8], pieces: usize) -> Result<(Members, bool), ArchiveError> {
        let mut scanner = Scanner::default();
        let mut unpacker = Unpacker::Unknown;
        unpacker.begin(&archive[..pieces.min(archive.len())]);
        let mut members: Members = Vec::new();
        let mut open = false;
        for piece in archive.chunks(pieces) {
            let plain = unpacker.unpack(piece)?;
            let mut input = &plain[..];
            while let Some(found) = scanner.next(&mut input)? {
                match found {
                    Found::Member { name, .. } => {
                        assert!(!open);
                        open = true;
                        members.push((name, Vec::new()));
                    }
                    Found::Data(data) => {
                        members.last_mut().unwrap().1.extend_from_slice(data);
                    }
                    Found::End => {
                        assert!(open);
                        open = false;
                    }
                    Found::Finished => return Ok((members, true)),
                }
            }
        }
        Ok((members, scanner.is_between_members()))
    }

    #[test]
    fn all_forms_in_pieces_of_any_size() {
        let members: &[(&str, &[u8])] = &[
            ("./json", b"{}"),
            ("objects/empty", b""),
            ("objects/a", &[7; 1300]),
            ("x", &[1; 512]),
        ];
        let expected: Members = members
            .iter()
            .map(|(name, bytes)| (name.trim_start_matches("./").to_owned(), bytes.to_vec()))
            .collect();
        for archive in [tar(members), gzip(&tar(members)), cpio(members)] {
            for pieces in [1, 2, 3, 511, 512, 513, SLICE_BYTES] {
                let (found, whole) = scan(&archive, pieces).unwrap();
                assert!(whole);
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn what_is_known_can_be_left_out() {
        let archive = tar(&[("a", &[7; 100_000]), ("b", b"x")]);
        let mut scanner = Scanner::default();
        let mut input = &archive[..512];
        assert!(matches!(
            scanner.next(&mut input),
            Ok(Some(Found::Member { .. }))
        ));
        assert_eq!(scanner.left(), 100_000);
        scanner.skip(99_000);
        let mut input = &archive[512 + 99_000..];
        assert_eq!(
            scanner.next(&mut input).unwrap(),
            Some(Found::Data(&[7; 1000][..]))
        );
        assert_eq!(scanner.next(&mut input).unwrap(), Some(Found::End));
        let next = scanner.next(&mut input).unwrap();
        assert!(matches!(next, Some(Found::Member { name, .. }) if name == "b"));
    }

    #[test]
    fn no_archive_a_cut_one_and_a_damaged_one() {
        for bytes in [
            &b"no archive at all, whatever its length is"[..],
            &[0; 1024],
            &[9; 600],
        ] {
            let mut long = bytes.to_vec();
            long.resize(600, 1);
            assert!(matches!(scan(&long, 100), Err(ArchiveError::Unknown)));
        }
        let archive = tar(&[("a", &[7; 2000]), ("b", b"x")]);
        let (found, whole) = scan(&archive[..1000], 100).unwrap();
        assert!(!whole && found.len() == 1);
        let mut damaged = archive.clone();
        damaged[512 + 2048 + 3] ^= 1;
        assert!(matches!(
            scan(&damaged, 100),
            Err(ArchiveError::Damaged { .. })
        ));
        let mut packed = gzip(&archive);
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        assert!(scan(&packed, 100).is_err() || scan(&packed, 100).unwrap().0.len() < 3);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..3000), pieces in 1_usize..600) {
            drop(scan(&bytes, pieces));
        }

        #[test]
        fn any_flip_in_a_header_is_noticed_or_harmless(place in 0_usize..512, bit in 0_u8..8) {
            let mut archive = tar(&[("json", b"{}"), ("b", b"x")]);
            archive[place] ^= 1 << bit;
            if let Ok((found, _)) = scan(&archive, 700) {
                prop_assert!(found.len() <= 2);
            }
        }
    }
}
