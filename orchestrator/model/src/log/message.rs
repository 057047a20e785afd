//! Messages of other programs, read: lines of standard output, syslog (RFC 3164 and 5424), and Pantavisor's log socket.
//!
//! Every form that is meant to be read by programs says how bad a message is; where none is recognised, the default of its channel counts.

use std::borrow::Cow;

use super::Level;

/// A message, understood as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// How bad it is.
    pub level: Level,
    /// Where in the program it comes from, when the message says so.
    pub source: Option<Cow<'a, str>>,
    /// The text for people.
    pub text: Cow<'a, [u8]>,
}

/// Bytes of the beginning of a line in which a level is looked for.
const LEVEL_BYTES_MAX: usize = 128;
/// Words of that.
const LEVEL_WORDS_MAX: usize = 6;

/// The level of a line of standard output or standard error, and the line without what only says that: `<4>` at its beginning (as
/// `sd-daemon` defines it), a field `level` of JSON or `key=value` pairs, or a word such as `ERROR` or `[warn]` among the first.
pub fn of_line(line: &[u8], default: Level) -> (Level, &[u8]) {
    if let [b'<', digit @ b'0'..=b'7', b'>', text @ ..] = line {
        return (Level::of_severity(digit - b'0'), text);
    }
    let front = &line[..line.len().min(LEVEL_BYTES_MAX)];
    let front = match std::str::from_utf8(front) {
        Ok(front) => front,
        Err(error) => std::str::from_utf8(&front[..error.valid_up_to()]).unwrap_or_default(),
    };
    (level_within(front).unwrap_or(default), line)
}

fn level_within(front: &str) -> Option<Level> {
    if front.starts_with('{') {
        return ["\"level\":", "\"severity\":", "\"lvl\":"]
            .iter()
            .find_map(|key| {
                let (_, value) = front.split_once(key)?;
                let value = value.trim_start().strip_prefix('"')?;
                Level::of_word(value.split_once('"')?.0)
            });
    }
    front
        .split_ascii_whitespace()
        .take(LEVEL_WORDS_MAX)
        .find_map(level_of_token)
}

/// `level=warn`, `[error]`, `ERROR:`, `WARN`. A word in lower case without any mark is ordinary language.
fn level_of_token(token: &str) -> Option<Level> {
    if let Some((key, value)) = token.split_once('=') {
        return matches!(key, "level" | "lvl" | "severity")
            .then(|| Level::of_word(value.trim_matches('"')))?;
    }
    let bare = token.trim_matches(['[', ']', '(', ')', '<', '>', '|', ':', ',', '-']);
    if bare.len() < 3 || !bare.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let marked = token.starts_with(['[', '(', '<', '|'])
        || token.ends_with(':')
        || bare.bytes().all(|byte| byte.is_ascii_uppercase());
    marked.then(|| Level::of_word(bare))?
}

/// A message to `/dev/log`: `<13>Nov 21 10:20:30 web[7]: text`, with a host name or without any of it, or RFC 5424. The text keeps the
/// program's name, as syslog files do.
pub fn of_syslog(datagram: &[u8]) -> Message<'_> {
    let datagram = trim_end(datagram);
    let (severity, rest) = priority(datagram).unwrap_or((6, datagram));
    let text = of_rfc_5424(rest).unwrap_or_else(|| Cow::Borrowed(without_time(rest)));
    Message {
        level: Level::of_severity(severity),
        source: None,
        text,
    }
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [front @ .., b'\n' | b'\r' | 0] = text {
        text = front;
    }
    text
}

/// `<13>` to its severity.
fn priority(message: &[u8]) -> Option<(u8, &[u8])> {
    let rest = message.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let (digits, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
    let good = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number: u16 = good.then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
    let severity = u8::try_from(number % 8).ok()?;
    (number <= 191).then_some((severity, rest))
}

/// `Nov 21 10:20:30 ` is taken away: the line has its own time.
fn without_time(text: &[u8]) -> &[u8] {
    const MONTHS: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let Some((time, rest)) = text.split_at_checked(16) else {
        return text;
    };
    let digit_or_space = |index: usize| {
        time.get(index)
            .is_some_and(|byte| byte.is_ascii_digit() || *byte == b' ')
    };
    let is_time = MONTHS.iter().any(|month| time.starts_with(month))
        && [3, 6, 15]
            .iter()
            .all(|index| time.get(*index) == Some(&b' '))
        && [9, 12].iter().all(|index| time.get(*index) == Some(&b':'))
        && [4, 5, 7, 8, 10, 11, 13, 14].into_iter().all(digit_or_space);
    if is_time { rest } else { text }
}

/// `1 TIME HOST APP PROCID MSGID SD TEXT` to `APP[PROCID]: TEXT`.
fn of_rfc_5424(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut rest = text.strip_prefix(b"1 ")?;
    let mut fields: [&[u8]; 5] = [b""; 5];
    for field in &mut fields {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        (*field, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
    }
    let [_, _, app, process, _] = fields;
    let text = after_structured_data(rest)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut out = Vec::with_capacity(app.len() + process.len() + text.len() + 4);
    if app != b"-" {
        out.extend_from_slice(app);
        if process != b"-" {
            out.push(b'[');
            out.extend_from_slice(process);
            out.push(b']');
        }
        out.extend_from_slice(b": ");
    }
    out.extend_from_slice(text);
    Some(Cow::Owned(out))
}

/// Skips `-` or `[id name="value"]…`.
fn after_structured_data(text: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some(rest.strip_prefix(b" ").unwrap_or(rest));
    }
    if !text.starts_with(b"[") {
        return None;
    }
    let (mut inside, mut quoted, mut escaped) = (false, false, false);
    for (index, byte) in text.iter().enumerate() {
        match (byte, quoted, escaped) {
            (_, true, true) => escaped = false,
            (b'\\', true, false) => escaped = true,
            (b'"', _, _) if inside => quoted = !quoted,
            (b'[', false, _) => inside = true,
            (b']', false, _) => inside = false,
            (b' ', false, _) if !inside => return text.get(index + 1..),
            _ if !inside => return None,
            _ => {}
        }
    }
    (!inside).then_some(b"")
}

/// A message to Pantavisor's `pv-ctrl-log`: its binary form, JSON, syslog, or `key=value`. `None` when nothing was said.
pub fn of_pantavisor(bytes: &[u8]) -> Option<Message<'_>> {
    if let Some(message) = of_binary(bytes) {
        return Some(message);
    }
    let text = trim_end(bytes);
    let message = if text.starts_with(b"{") {
        of_json(text)
    } else if text.starts_with(b"<") {
        Some(of_syslog(text))
    } else {
        of_pairs(text)
    };
    let message = message.unwrap_or(Message {
        level: Level::Info,
        source: None,
        text: Cow::Borrowed(text),
    });
    (!message.text.is_empty()).then_some(message)
}

/// `{int code; int len}` and `level\0platform\0source\0data`. The platform is not believed: who connected is known.
fn of_binary(bytes: &[u8]) -> Option<Message<'_>> {
    /// A message that has no other code.
    const LEGACY: i32 = 0;
    let (code, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    if i32::from_ne_bytes(*code) != LEGACY {
        return None;
    }
    let length = usize::try_from(i32::from_ne_bytes(*length)).ok()?;
    let rest = rest.get(..length.min(rest.len()))?;
    let mut fields = rest.splitn(4, |byte| *byte == 0);
    let level = std::str::from_utf8(fields.next()?).ok()?;
    let _platform = fields.next()?;
    let source = fields.next()?;
    Some(Message {
        level: level_of(level)?,
        source: Some(String::from_utf8_lossy(source)).filter(|source| !source.is_empty()),
        text: Cow::Borrowed(trim_end(fields.next()?)),
    })
}

/// A number of Pantavisor's, or a word.
fn level_of(text: &str) -> Option<Level> {
    match text.trim().parse() {
        Ok(number) => Some(Level::of_pantavisor(number)),
        Err(_) => Level::of_word(text.trim()),
    }
}

fn of_json(text: &[u8]) -> Option<Message<'_>> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let level = match value.get("level") {
        Some(serde_json::Value::String(word)) => level_of(word),
        Some(other) => other.as_u64().map(Level::of_pantavisor),
        None => None,
    };
    let field = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    Some(Message {
        level: level.unwrap_or(Level::Info),
        source: field("source").map(Cow::Owned),
        text: Cow::Owned(field("message").or_else(|| field("msg"))?.into_bytes()),
    })
}

/// `level=3 source=x message=text to the end`.
fn of_pairs(text: &[u8]) -> Option<Message<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    let begin = ["message=", "msg="].iter().find_map(|key| {
        text.match_indices(key)
            .find(|(at, _)| *at == 0 || text[..*at].ends_with(' '))
            .map(|(at, key)| (at, at + key.len()))
    });
    let (at, begin) = begin?;
    let mut level = None;
    let mut source = None;
    for pair in text[..at].split(' ') {
        match pair.split_once('=') {
            Some(("level", value)) => level = level_of(value),
            Some(("source", value)) => source = Some(Cow::Borrowed(value.trim_matches('"'))),
            Some(_) | None => {}
        }
    }
    let message = &text[begin..];
    let bare = message
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Some(Message {
        level: level.unwrap_or(Level::Info),
        source,
        text: Cow::Borrowed(bare.unwrap_or(message).as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_standard_output() {
        for (line, level, text) in [
            ("<3>broken", Level::Error, "broken"),
            ("<7>", Level::Debug, ""),
            ("<8>x", Level::Info, "<8>x"),
            ("2026/11/21 10:20:30 [error] 7#7: no", Level::Error, ""),
            ("2026-11-21T10:20:30Z  WARN web: slow", Level::Warn, ""),
            ("time=x level=warning msg=\"slow\"", Level::Warn, ""),
            ("level=\"debug\" msg=x", Level::Debug, ""),
            ("{\"level\":\"error\",\"msg\":\"x\"}", Level::Error, ""),
            ("{\"ts\":1,\"severity\": \"WARNING\"}", Level::Warn, ""),
            ("{\"level\":30}", Level::Info, ""),
            ("Error: no such file", Level::Error, ""),
            ("CRITICAL disk", Level::Fatal, ""),
            ("there was no error here", Level::Info, ""),
            ("information=5", Level::Info, ""),
            ("one two three four five six ERROR", Level::Info, ""),
            ("", Level::Info, ""),
            ("ü[error]", Level::Info, ""),
        ] {
            let text = if text.is_empty() && !line.starts_with("<7>") {
                line
            } else {
                text
            };
            let found = of_line(line.as_bytes(), Level::Info);
            assert_eq!(found, (level, text.as_bytes()), "{line}");
        }
        assert_eq!(of_line(b"plain", Level::Warn).0, Level::Warn);
        // Cut in the middle of a character.
        let long = "ü".repeat(200);
        assert_eq!(of_line(long.as_bytes(), Level::Info).0, Level::Info);
    }

    #[test]
    fn syslog() {
        for (datagram, level, text) in [
            (
                "<11>Nov 21 10:20:30 web[7]: no\n",
                Level::Error,
                "web[7]: no",
            ),
            (
                "<14>Nov  1 10:20:30 host web: yes",
                Level::Info,
                "host web: yes",
            ),
            ("<15>web: text\0", Level::Debug, "web: text"),
            ("no priority", Level::Info, "no priority"),
            ("<192>too high", Level::Info, "<192>too high"),
            ("<>x", Level::Info, "<>x"),
            ("<1x>x", Level::Info, "<1x>x"),
            (
                "<28>1 2026-11-21T10:20:30Z host web 7 - - slow",
                Level::Warn,
                "web[7]: slow",
            ),
            (
                "<28>1 - - - - - [a@1 b=\"c\\\"] d\"][e@1] \u{feff}text",
                Level::Warn,
                "text",
            ),
            ("<28>1 - - web - - [a]", Level::Warn, "web: "),
            ("<28>1 not all fields", Level::Warn, "1 not all fields"),
            ("<28>1 - - - - - [open", Level::Warn, "1 - - - - - [open"),
            ("<13>Nov 21", Level::Info, "Nov 21"),
        ] {
            let found = of_syslog(datagram.as_bytes());
            let shown = String::from_utf8_lossy(&found.text);
            assert_eq!((found.level, shown.as_ref()), (level, text), "{datagram}");
        }
    }

    fn binary(code: i32, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len()).unwrap();
        [&code.to_ne_bytes()[..], &length.to_ne_bytes()[..], body].concat()
    }

    #[test]
    fn pantavisors_socket() {
        let legacy = binary(0, b"1\0web\0main\0it failed\n\0");
        for (bytes, level, source, text) in [
            (legacy.as_slice(), Level::Error, Some("main"), "it failed"),
            (
                br#"{"version":"0","level":2,"source":"x","message":"hot"}"#,
                Level::Warn,
                Some("x"),
                "hot",
            ),
            (
                br#"{"level":"ERROR","message":"hot"}"#,
                Level::Error,
                None,
                "hot",
            ),
            (b"<11>web: no", Level::Error, None, "web: no"),
            (
                b"level=4 source=core message=a b=c",
                Level::Debug,
                Some("core"),
                "a b=c",
            ),
            (b"message=\"x\"", Level::Info, None, "x"),
            (b"just text", Level::Info, None, "just text"),
            (b"{not json", Level::Info, None, "{not json"),
            (b"xmessage=1", Level::Info, None, "xmessage=1"),
        ] {
            let found = of_pantavisor(bytes).unwrap();
            let shown = String::from_utf8_lossy(&found.text);
            assert_eq!(
                (found.level, found.source.as_deref(), shown.as_ref()),
                (level, source, text)
            );
        }
        for nothing in [&b""[..], b"\n", b"level=3 message="] {
            assert_eq!(of_pantavisor(nothing), None);
        }
        // Lengths that are not true.
        let mut long = binary(0, b"1\0a\0b\0text");
        long[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        assert_eq!(of_pantavisor(&long).unwrap().text.as_ref(), b"text");
        long[4..8].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert!(of_pantavisor(&long).is_some());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            of_line(&bytes, Level::Info);
            of_syslog(&bytes);
            of_pantavisor(&bytes);
            of_pantavisor(&binary(0, &bytes));
            crate::log::Line::parse(&bytes);
        }
    }
}
