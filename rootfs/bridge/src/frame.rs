//! Frames on the stream: `magic (4) | kind (1) | length (2) | channel (4) | check (1) | payload`, numbers little-endian.
//!
//! A reader that finds no frame goes on byte by byte until it finds one. Pure.

use std::io::{self, Read};

/// Bytes of payload in one frame.
pub const PAYLOAD_MAX: usize = 8 << 10;
const MAGIC: [u8; 4] = *b"\xC7CxB";
const HEADER: usize = 12;

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The sender is there. When it is another one than before, every channel is gone.
    Hello,
    /// The answer to it: what comes behind it is meant for the one who greeted.
    Welcome,
    /// A new channel; the host numbers them.
    Open,
    /// Bytes.
    Data(Vec<u8>),
    /// No more bytes come.
    End,
    /// The channel is gone.
    Close,
    /// So many bytes were taken, and as many more may be sent.
    Taken(u32),
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Of which channel; in greetings a number that stands for one life of who said hello.
    pub channel: u32,
    /// What it says.
    pub kind: Kind,
}

impl Frame {
    /// Its bytes. A greeting is led by as many zeros as a frame that was cut may still lack.
    pub fn encode(&self) -> Vec<u8> {
        let (number, payload): (u8, &[u8]) = match &self.kind {
            Kind::Hello => (0, &[]),
            Kind::Welcome => (1, &[]),
            Kind::Open => (2, &[]),
            Kind::Data(bytes) => (3, bytes),
            Kind::End => (4, &[]),
            Kind::Close => (5, &[]),
            Kind::Taken(count) => (6, &count.to_le_bytes()),
        };
        let mut bytes = match self.kind {
            Kind::Hello | Kind::Welcome => vec![0; PAYLOAD_MAX + HEADER],
            Kind::Open | Kind::Data(_) | Kind::End | Kind::Close | Kind::Taken(_) => Vec::new(),
        };
        let start = bytes.len();
        let length = u16::try_from(payload.len()).expect("a payload has at most PAYLOAD_MAX bytes");
        bytes.extend(MAGIC);
        bytes.push(number);
        bytes.extend(length.to_le_bytes());
        bytes.extend(self.channel.to_le_bytes());
        bytes.push(check(&bytes[start..]));
        bytes.extend(payload);
        bytes
    }

    /// The next frame of a stream; `None` at its end.
    ///
    /// # Errors
    /// The stream's own.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        loop {
            while filled < HEADER {
                match stream.read(&mut header[filled..]) {
                    Ok(0) => return Ok(None),
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if let Some((number, length, channel)) = parse(&header) {
                let mut payload = vec![0; length];
                match stream.read_exact(&mut payload) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    Err(error) => return Err(error),
                }
                if let Some(kind) = kind(number, payload) {
                    return Ok(Some(Self { channel, kind }));
                }
                filled = 0;
                continue;
            }
            // The next place where a frame may begin.
            let next = header[1..].iter().position(|byte| *byte == MAGIC[0]);
            let from = next.map_or(HEADER, |at| at + 1);
            header.copy_within(from.., 0);
            filled = HEADER - from;
        }
    }
}

fn check(bytes: &[u8]) -> u8 {
    let sum = bytes
        .iter()
        .fold(0x5Au8, |sum, byte| sum.rotate_left(3).wrapping_add(*byte));
    !sum
}

fn parse(header: &[u8; HEADER]) -> Option<(u8, usize, u32)> {
    let [a, b, c, d, number, l0, l1, c0, c1, c2, c3, sum] = *header;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    let is_frame = [a, b, c, d] == MAGIC && sum == check(&header[..11]) && length <= PAYLOAD_MAX;
    is_frame.then(|| (number, length, u32::from_le_bytes([c0, c1, c2, c3])))
}

fn kind(number: u8, payload: Vec<u8>) -> Option<Kind> {
    Some(match (number, payload.is_empty()) {
        (0, true) => Kind::Hello,
        (1, true) => Kind::Welcome,
        (2, true) => Kind::Open,
        (3, false) => Kind::Data(payload),
        (4, true) => Kind::End,
        (5, true) => Kind::Close,
        (6, false) => Kind::Taken(u32::from_le_bytes(payload.try_into().ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        std::iter::from_fn(|| Frame::read(&mut bytes).unwrap()).collect()
    }

    fn all() -> Vec<Frame> {
        let kinds = [
            Kind::Open,
            Kind::Data(vec![0xC7; 300]),
            Kind::Data(vec![7; PAYLOAD_MAX]),
            Kind::Taken(u32::MAX),
            Kind::End,
            Kind::Close,
        ];
        let frame = |(number, kind)| Frame {
            channel: number,
            kind,
        };
        (7..).zip(kinds).map(frame).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes: Vec<u8> = all().iter().flat_map(Frame::encode).collect();
        assert_eq!(frames(&bytes), all());
    }

    #[test]
    fn a_greeting_is_found_behind_a_stream_that_was_cut_anywhere() {
        let hello = Frame {
            channel: 0,
            kind: Kind::Hello,
        };
        let before: Vec<u8> = all().iter().flat_map(Frame::encode).collect();
        for cut in (0..before.len())
            .step_by(13)
            .chain(before.len() - 60..before.len())
        {
            let mut bytes = before[..cut].to_vec();
            bytes.extend(hello.encode());
            bytes.extend(all().iter().flat_map(Frame::encode));
            let found = frames(&bytes);
            let at = found.iter().position(|frame| *frame == hello);
            let at = at.unwrap_or_else(|| panic!("cut at {cut}: no greeting"));
            assert_eq!(found[at + 1..], all(), "cut at {cut}");
        }
    }

    #[test]
    fn garbage_holds_no_frame() {
        let mut bytes: Vec<u8> = (0..100_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        bytes.extend(MAGIC.repeat(100));
        let hello = Frame {
            channel: 0,
            kind: Kind::Welcome,
        };
        bytes.extend(hello.encode());
        assert_eq!(frames(&bytes), [hello]);
    }
}
