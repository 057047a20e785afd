//! U-Boot's environment: `CRC-32 (4 bytes, little endian) [flag (1 byte)] name=value NUL name=value NUL NUL padding`.
//!
//! The flag is there when two copies are kept; it counts up with each write, and the checksum does not cover it. Which copy is in
//! use is decided exactly as U-Boot does. Variables that are not ours are kept byte for byte and in their order. Pure.

/// The variables of an environment, each as `name=value`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables(Vec<Vec<u8>>);

impl Variables {
    /// The value of a variable; the last one when it is there twice, as U-Boot takes it.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut entries = self.0.iter().rev();
        entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Sets a variable, or removes it when the value is empty, as U-Boot's `setenv` does.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|entry| {
            let rest = entry.strip_prefix(name.as_bytes());
            rest.is_none_or(|rest| !rest.starts_with(b"="))
        });
        if !value.is_empty() {
            self.0.push(format!("{name}={value}").into_bytes());
        }
    }

    /// Sets a variable and puts it first.
    pub fn set_first(&mut self, name: &str, value: &str) {
        self.set(name, value);
        if !value.is_empty() {
            self.0.rotate_right(1);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From text with a `name=value` in each line, as U-Boot's build writes `u-boot-initial-env`.
    pub fn from_lines(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| line.contains(&b'=') && !line.starts_with(b"#"));
        Self(lines.map(<[u8]>::to_vec).collect())
    }

    /// From `name=value NUL … NUL NUL`. What is behind the empty entry is padding; an entry that no NUL ends was cut and is left out.
    pub fn from_list(bytes: &[u8]) -> Self {
        let mut entries = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let (entry, after) = rest.split_at(end);
            if entry.is_empty() {
                break;
            }
            if entry.contains(&b'=') {
                entries.push(entry.to_vec());
            }
            rest = after.get(1..).unwrap_or_default();
        }
        Self(entries)
    }

    /// As `name=value NUL … NUL NUL`.
    pub fn to_list(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in &self.0 {
            bytes.extend_from_slice(entry);
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }
}

/// Why a copy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Bytes are missing.
    #[error("it has {found} bytes instead of {expected}")]
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// The checksum is another one.
    #[error("its checksum is {stored:08x}, but that of its content {computed:08x}")]
    Checksum {
        /// In the copy.
        stored: u32,
        /// Of its content.
        computed: u32,
    },
}

/// The variables do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the variables need {needed} bytes, and the environment has room for {room}")]
pub struct TooLarge {
    /// Bytes that they need.
    pub needed: usize,
    /// Bytes that there are.
    pub room: usize,
}

/// One good copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The flag; 0 in an environment that has none.
    pub flag: u8,
    /// What it holds.
    pub variables: Variables,
}

const fn header_len(with_flag: bool) -> usize {
    if with_flag { 5 } else { 4 }
}

/// Reads a copy of `size` bytes; what is behind them does not belong to it.
///
/// # Errors
/// The copy is not whole.
pub fn decode(bytes: &[u8], size: usize, with_flag: bool) -> Result<Copy, Damage> {
    let short = Damage::Short {
        found: bytes.len(),
        expected: size,
    };
    let copy = bytes.get(..size).ok_or(short.clone())?;
    let (header, data) = copy
        .split_at_checked(header_len(with_flag))
        .ok_or(short.clone())?;
    let (crc, flag) = header.split_first_chunk::<4>().ok_or(short)?;
    let (stored, computed) = (u32::from_le_bytes(*crc), crc32fast::hash(data));
    if stored != computed {
        return Err(Damage::Checksum { stored, computed });
    }
    Ok(Copy {
        flag: flag.first().copied().unwrap_or(0),
        variables: Variables::from_list(data),
    })
}

/// Writes a copy of exactly `size` bytes.
///
/// # Errors
/// The variables do not fit.
pub fn encode(variables: &Variables, size: usize, flag: Option<u8>) -> Result<Vec<u8>, TooLarge> {
    let mut data = variables.to_list();
    let room = size.saturating_sub(header_len(flag.is_some()));
    if data.len() > room {
        return Err(TooLarge {
            needed: data.len(),
            room,
        });
    }
    data.resize(room, 0);
    let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
    copy.extend(flag);
    copy.extend(data);
    Ok(copy)
}

/// Whether U-Boot uses the second of two good copies: the one with the higher flag, where 0 comes after 255; the first when they are equal.
pub fn second_is_newer(first: u8, second: u8) -> bool {
    match (first, second) {
        (255, 0) => true,
        (0, 255) => false,
        (first, second) => second > first,
    }
}
