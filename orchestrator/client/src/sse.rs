//! The text of server-sent events, cut into events. Pure: bytes in, events out, bounded.

use crate::limits;

/// One event as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    /// Id that was last set, in this event or before it.
    pub(crate) id: String,
    /// The data lines, joined by line feeds.
    pub(crate) data: String,
}

/// An event is longer than [`limits::EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes the stream apart as the HTML standard says; lines may end in CR, LF or both and may be cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    started: bool,
    data: Option<String>,
    id: String,
    retry_ms: Option<u64>,
}

impl Parser {
    /// The pause that the server asked for before the next connection.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Where the stream is: the id that was set last, also without an event.
    pub(crate) fn last_id(&self) -> Option<&str> {
        (!self.id.is_empty()).then_some(&self.id)
    }

    /// Takes more of the stream; complete events are added to `frames`.
    pub(crate) fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        for &byte in bytes {
            let line_feed_of_pair = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            match byte {
                b'\n' if line_feed_of_pair => {}
                b'\r' | b'\n' => frames.extend(self.end_of_line()?),
                other => {
                    if self.line.len() >= limits::EVENT_BYTES_MAX {
                        return Err(TooLong);
                    }
                    self.line.push(other);
                }
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<Option<Frame>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !self.started {
            self.started = true;
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.data.take().map(|data| Frame {
                id: self.id.clone(),
                data,
            }));
        }
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                let had = self.data.is_some();
                let data = self.data.get_or_insert_default();
                if data.len() + value.len() >= limits::EVENT_BYTES_MAX {
                    return Err(TooLong);
                }
                if had {
                    data.push('\n');
                }
                data.push_str(value);
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            // Comments, the name of the event (it stands in the data too) and fields of a later server.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut frames = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut frames).unwrap();
        }
        frames
            .into_iter()
            .map(|frame| (frame.id, frame.data))
            .collect()
    }

    fn pair(id: &str, data: &str) -> (String, String) {
        (id.to_owned(), data.to_owned())
    }

    #[test]
    fn events_are_cut_out() {
        let text =
            b"\xef\xbb\xbf: hello\nid: 1\nevent: x\ndata: a\ndata:b\n\n:keep-alive\n\nid\ndata\n\n";
        let expected = vec![pair("1", "a\nb"), pair("", "")];
        assert_eq!(parse(&[text]), expected);
        // However it is cut, and with whatever line ends, the events are the same.
        for ending in ["\r", "\r\n"] {
            let text = String::from_utf8_lossy(text).replace('\n', ending);
            assert_eq!(parse(&[text.as_bytes()]), expected, "{ending:?}");
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                assert_eq!(parse(&[head, tail]), expected, "{ending:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_id_stays_until_another_comes() {
        let text =
            b"id: 7\ndata: a\n\ndata: b\n\nid: 9\0\ndata: c\n\nretry: 30\nretry: x\n\ndata: cut";
        assert_eq!(
            parse(&[text]),
            [pair("7", "a"), pair("7", "b"), pair("7", "c")]
        );
        let mut parser = Parser::default();
        parser.push(text, &mut Vec::new()).unwrap();
        assert_eq!(parser.retry_ms(), Some(30));
    }

    #[test]
    fn length_is_bounded() {
        let mut parser = Parser::default();
        let mut frames = Vec::new();
        let piece = vec![b'x'; limits::EVENT_BYTES_MAX];
        assert_eq!(parser.push(&piece, &mut frames), Ok(()));
        assert_eq!(parser.push(b"x", &mut frames), Err(TooLong));

        let mut parser = Parser::default();
        let line = [b"data:".as_slice(), &[b'x'; 1000], b"\n"].concat();
        let pushed = (0..2000)
            .map(|_| parser.push(&line, &mut frames))
            .position(|r| r.is_err());
        assert_eq!(pushed, Some(1047), "many lines are as long as one");
    }
}
