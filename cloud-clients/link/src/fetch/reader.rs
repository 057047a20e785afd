//! One artifact as a stream of bytes from any offset on, whatever becomes of connections, mirrors and links.
//!
//! A connection that breaks after it has brought something is made anew at once; one that brings nothing costs a growing pause. Links that
//! lead nowhere (404, 403, another length, no range) are left for the next mirror; when all are dead the cloud is asked for fresh
//! ones. Pauses are taken by the caller, who may have something open that cannot wait so long.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::task::JoinHandle;

use super::Fetching;
use crate::backoff::Backoff;
use crate::clock;
use crate::deployment::{Code, Trouble};
use crate::limits;
use crate::offer::{Artifact, Link, Offer};
use crate::web::{Address, Call, Open, Web, WebError, retry_after};

/// Which artifact: its place in the list may differ from poll to poll, its names do not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    module: String,
    name: String,
}

impl Key {
    pub(crate) fn of(artifact: &Artifact) -> Self {
        Self {
            module: artifact.module.clone(),
            name: artifact.name.clone(),
        }
    }

    fn find<'a>(&self, offer: &'a Offer) -> Option<&'a Artifact> {
        offer
            .artifacts
            .iter()
            .find(|artifact| artifact.module == self.module && artifact.name == self.name)
    }
}

/// Why no byte comes now.
#[derive(Debug)]
pub(crate) enum Hindered {
    /// Wait so long, then ask again.
    Pause(Duration),
    /// All links are dead: the cloud must give fresh ones.
    Stale,
    /// It cannot be had.
    Never(Trouble),
}

/// Reads one artifact.
pub(crate) struct Reader {
    fetching: Fetching,
    key: Key,
    offset: u64,
    /// What the cloud says, or else a server; that is forgotten with the bytes that it sent.
    total: Option<u64>,
    declared: Option<u64>,
    source: Option<Source>,
    mirror: usize,
    /// Links that lead nowhere, by their addresses.
    dead: BTreeSet<String>,
    /// For `If-Range`, with the link that it is of.
    tag: Option<(String, HeaderValue)>,
    backoff: Backoff,
    fruitless: u64,
    /// Bytes since the last failure.
    fresh: u64,
    stale_rounds: u32,
    window: Window,
    last: String,
}

enum Source {
    One {
        open: Open,
        /// Bytes that come before ours.
        skip: u64,
        /// Where this answer ends, when only the first block was asked for.
        until: Option<u64>,
    },
    Blocks(Blocks),
}

/// The rate of a connection, without the time for which we made it wait.
#[derive(Default)]
struct Window {
    waited: Duration,
    bytes: u64,
}

/// Bytes of a connection after which its break is answered by another one at once.
const FRUIT_BYTES: u64 = 64 << 10;

impl Reader {
    pub(crate) fn new(fetching: Fetching, key: Key) -> Self {
        let backoff = Backoff::new(fetching.policy.back_off_max);
        let total = key
            .find(&fetching.offers.borrow())
            .and_then(|artifact| artifact.bytes);
        Self {
            fetching,
            key,
            offset: 0,
            total,
            declared: total,
            source: None,
            mirror: 0,
            dead: BTreeSet::new(),
            tag: None,
            backoff,
            fruitless: 0,
            fresh: 0,
            stale_rounds: 0,
            window: Window::default(),
            last: "no link was tried".to_owned(),
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The length of the artifact; asked of a server when the cloud does not tell it.
    pub(crate) async fn total(&mut self) -> Result<u64, Hindered> {
        loop {
            if let Some(total) = self.total {
                return Ok(total);
            }
            self.connect().await?;
        }
    }

    /// The next bytes come from here on.
    pub(crate) fn seek(&mut self, offset: u64) {
        if offset != self.offset {
            self.source = None;
            self.offset = offset;
        }
    }

    /// What was read was not what it should be: everything from another mirror.
    pub(crate) fn distrust(&mut self) {
        self.source = None;
        self.tag = None;
        self.offset = 0;
        self.total = self.declared;
        self.mirror += 1;
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Hindered> {
        loop {
            if self.total == Some(self.offset) {
                self.source = None;
                return Ok(None);
            }
            if self.fetching.meter.rest().is_some() {
                // For so long no server keeps a connection.
                self.source = None;
            }
            let piece = match &mut self.source {
                None => {
                    self.connect().await?;
                    continue;
                }
                Some(Source::One { open, skip, until }) => {
                    let asked = std::time::Instant::now();
                    let piece = open.next().await;
                    self.window.waited += asked.elapsed();
                    match piece {
                        Ok(Some(mut piece)) => {
                            let over = usize::try_from(*skip).unwrap_or(usize::MAX);
                            let over = piece.split_to(over.min(piece.len())).len() as u64;
                            *skip -= over;
                            self.counted(over).await;
                            Ok(piece)
                        }
                        Ok(None) if self.total.is_none() => {
                            self.total = Some(self.offset);
                            continue;
                        }
                        Ok(None) if *until == Some(self.offset) => {
                            let end = self.total.unwrap_or(self.offset);
                            let blocks =
                                Blocks::new(self.key.clone(), self.offset, end, self.mirror + 1);
                            self.source = Some(Source::Blocks(blocks));
                            continue;
                        }
                        Ok(None) => Err("the answer ended too early".to_owned()),
                        Err(error) => Err(error.whole()),
                    }
                }
                Some(Source::Blocks(blocks)) => {
                    let dead = &self.dead;
                    match blocks.next(&self.fetching, dead).await {
                        Ok(block) => Ok(block),
                        Err((url, why)) => {
                            // A mirror that fails is left alone as long as there is another one.
                            let others = self
                                .links()
                                .iter()
                                .any(|link| link.url != url && !self.dead.contains(&link.url));
                            if others {
                                self.dead_now(&url, why)?;
                                continue;
                            }
                            Err(why)
                        }
                    }
                }
            };
            let piece = match piece {
                Ok(piece) if piece.is_empty() => {
                    self.check_rate()?;
                    continue;
                }
                Ok(piece) => piece,
                Err(why) => {
                    self.failed(why, None)?;
                    continue;
                }
            };
            let length = piece.len() as u64;
            self.offset += length;
            self.fresh += length;
            if self.total.is_some_and(|total| self.offset > total) {
                self.offset -= length;
                self.dead_link("it sends more than the artifact has".to_owned())?;
                continue;
            }
            if self.fresh >= FRUIT_BYTES {
                self.backoff.reset();
                self.fruitless = 0;
                self.stale_rounds = 0;
            }
            self.counted(length).await;
            self.check_rate()?;
            return Ok(Some(piece));
        }
    }

    /// Counts bytes against rate and budget, and waits where they say so.
    async fn counted(&mut self, bytes: u64) {
        self.window.bytes += bytes;
        self.fetching.take(bytes).await;
    }

    /// Gives a connection up that lives and brings next to nothing.
    fn check_rate(&mut self) -> Result<(), Hindered> {
        let policy = &self.fetching.policy;
        if self.window.waited < policy.stall_timeout {
            return Ok(());
        }
        let window = std::mem::take(&mut self.window);
        let least = policy.min_rate.saturating_mul(window.waited.as_secs());
        if window.bytes >= least {
            return Ok(());
        }
        self.fresh = 0;
        self.failed(
            format!(
                "it is too slow: {} bytes in {} s",
                window.bytes,
                window.waited.as_secs()
            ),
            None,
        )
    }

    fn links(&self) -> Vec<Link> {
        let offer = self.fetching.offers.borrow();
        let artifact = self.key.find(&offer);
        artifact.map_or_else(Vec::new, |artifact| artifact.links.clone())
    }

    async fn connect(&mut self) -> Result<(), Hindered> {
        if let Some(rest) = self.fetching.meter.rest() {
            return Err(Hindered::Pause(rest));
        }
        self.window = Window::default();
        let links = self.links();
        let alive: Vec<&Link> = links
            .iter()
            .filter(|link| !self.dead.contains(&link.url))
            .collect();
        let Some(link) = (!alive.is_empty()).then(|| alive[self.mirror % alive.len()]) else {
            return self.stale();
        };
        let call = match self.call(link) {
            Ok(call) => call,
            Err(error) => return self.dead_now(&link.url, error.to_string()),
        };
        let url = link.url.clone();
        let open = match self.fetching.web.open(&call).await {
            Ok(open) => open,
            Err(error) if error.may_pass() => return self.failed(error.whole(), None),
            Err(error) => return self.dead_now(&url, error.whole()),
        };
        let status = open.status;
        match status.as_u16() {
            200 | 206 => {}
            416 if content_range(&open.headers).is_some_and(|(_, total)| {
                total == Some(self.offset) && self.total.is_none_or(|known| known == self.offset)
            }) =>
            {
                self.total = Some(self.offset);
                return Ok(());
            }
            408 | 425 | 429 | 500..=599 => {
                let asked = retry_after(&open.headers);
                return self.failed(format!("{} answers {status}", open.from), asked);
            }
            _ => return self.dead_now(&url, format!("{} answers {status}", open.from)),
        }
        match self.understand(&open) {
            Ok((skip, total)) => {
                self.total = self.total.or(total);
                self.tag = tag_of(&open.headers).map(|tag| (url, tag));
                let until = self
                    .first_block()
                    .filter(|_| open.status == StatusCode::PARTIAL_CONTENT);
                self.source = Some(Source::One { open, skip, until });
                Ok(())
            }
            Err(why) => self.dead_now(&url, why),
        }
    }

    /// Where the first block ends, when the rest is worth several connections. It shows whether a link is alive.
    fn first_block(&self) -> Option<u64> {
        let end = self.offset + BLOCK_BYTES;
        let many = self.fetching.policy.parallel > 1
            && self.total.is_some_and(|total| total > end + BLOCK_BYTES);
        many.then_some(end)
    }

    fn call(&self, link: &Link) -> Result<Call, WebError> {
        let last = self.first_block().map(|until| (until - 1).to_string());
        let range = format!("bytes={}-{}", self.offset, last.unwrap_or_default());
        let range = HeaderValue::try_from(range).expect("digits are a header value");
        let mut call = Call::new(Method::GET, Address::parse(&link.url)?)
            .credentials(link.credentials.clone())
            .header(header::RANGE, range);
        if let Some((_, tag)) = self
            .tag
            .as_ref()
            .filter(|(url, _)| *url == link.url && self.offset > 0)
        {
            call = call.header(header::IF_RANGE, tag.clone());
        }
        Ok(call)
    }

    /// Bytes to pass over before ours come, and the length of the whole.
    fn understand(&self, open: &Open) -> Result<(u64, Option<u64>), String> {
        let packed = open.headers.get(header::CONTENT_ENCODING);
        if packed.is_some_and(|value| value != "identity") {
            return Err(format!(
                "{} sends it packed, which was not asked for",
                open.from
            ));
        }
        let length = number(&open.headers, &header::CONTENT_LENGTH);
        let (skip, total) = if open.status == StatusCode::PARTIAL_CONTENT {
            let (start, total) = content_range(&open.headers)
                .ok_or_else(|| format!("{} does not say which part it sends", open.from))?;
            if start != Some(self.offset) {
                return Err(format!("{} sends another part than asked for", open.from));
            }
            (
                0,
                total.or_else(|| length.map(|length| self.offset + length)),
            )
        } else {
            // The whole file: it knows no parts, or has another file by now. The hash tells.
            (self.offset, length)
        };
        match (self.total, total) {
            (Some(known), Some(told)) if known != told => Err(format!(
                "{} has {told} bytes where {known} are expected",
                open.from
            )),
            (_, total) => Ok((skip, total)),
        }
    }

    /// Something that may pass: at once again when there was fruit, else after a pause.
    fn failed(&mut self, why: String, asked: Option<Duration>) -> Result<(), Hindered> {
        tracing::debug!("artifact {:?}: {why}", self.key.name);
        self.source = None;
        self.mirror += 1;
        self.last = why;
        if std::mem::take(&mut self.fresh) >= FRUIT_BYTES && asked.is_none() {
            return Ok(());
        }
        self.fruitless += 1;
        if self.fruitless >= self.fetching.policy.attempts {
            return Err(Hindered::Never(self.unreachable()));
        }
        let pause = self.backoff.failed(clock::random(), asked);
        Err(Hindered::Pause(pause))
    }

    fn dead_link(&mut self, why: String) -> Result<(), Hindered> {
        let links = self.links();
        let alive: Vec<&Link> = links
            .iter()
            .filter(|link| !self.dead.contains(&link.url))
            .collect();
        match alive.len() {
            0 => self.stale(),
            count => {
                let url = alive[self.mirror % count].url.clone();
                self.dead_now(&url, why)
            }
        }
    }

    fn dead_now(&mut self, url: &str, why: String) -> Result<(), Hindered> {
        tracing::info!("artifact {:?}: {why}", self.key.name);
        self.source = None;
        self.last = why;
        self.dead.insert(url.to_owned());
        Ok(())
    }

    /// All links are dead.
    fn stale(&mut self) -> Result<(), Hindered> {
        self.dead.clear();
        self.stale_rounds += 1;
        if self.stale_rounds > limits::STALE_ROUNDS_MAX {
            return Err(Hindered::Never(self.unreachable()));
        }
        Err(Hindered::Stale)
    }

    fn unreachable(&self) -> Trouble {
        let why = format!("artifact {:?} cannot be fetched", self.key.name);
        Trouble::new(Code::Unreachable, why).with_details([&self.last])
    }

    /// Waits as long as it must after a hindrance. Nothing that cannot wait may be open.
    ///
    /// # Errors
    /// What never passes.
    pub(crate) async fn recover(&mut self, hindered: Hindered) -> Result<(), Trouble> {
        match hindered {
            Hindered::Pause(pause) => tokio::time::sleep(pause).await,
            Hindered::Stale => {
                let before: Vec<String> = self.links().into_iter().map(|link| link.url).collect();
                self.fetching.fresh_links().await;
                let same = self.links().iter().all(|link| before.contains(&link.url));
                if same {
                    // The cloud insists: perhaps the server needs a while.
                    let pause = self.backoff.failed(clock::random(), None);
                    tokio::time::sleep(pause).await;
                }
            }
            Hindered::Never(trouble) => return Err(trouble),
        }
        Ok(())
    }
}

fn number(headers: &HeaderMap, name: &header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `bytes 5-9/100` as (5, 100), `bytes */100` as (none, 100).
#[allow(
    clippy::type_complexity,
    reason = "first byte and length, each may be left out"
)]
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let start = range
        .split_once('-')
        .and_then(|(start, _)| start.trim().parse().ok());
    Some((start, total.trim().parse().ok()))
}

/// The tag as it came; a weak one promises nothing about bytes.
fn tag_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let tag = headers.get(header::ETAG)?;
    (!tag.as_bytes().starts_with(b"W/")).then(|| tag.clone())
}

/// Bytes of a block when several connections fetch one artifact.
pub(crate) const BLOCK_BYTES: u64 = 512 << 10;

/// Blocks that are fetched at the same time, handed out in their order.
struct Blocks {
    key: Key,
    /// First byte of the next block that is not under way.
    next: u64,
    end: u64,
    number: usize,
    /// With the link that each is fetched from.
    under_way: VecDeque<(String, Task)>,
}

/// A task that ends with who waits for it.
struct Task(JoinHandle<Result<Bytes, String>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Blocks {
    fn new(key: Key, offset: u64, end: u64, number: usize) -> Self {
        Self {
            key,
            next: offset,
            end,
            number,
            under_way: VecDeque::new(),
        }
    }

    async fn next(
        &mut self,
        fetching: &Fetching,
        dead: &BTreeSet<String>,
    ) -> Result<Bytes, (String, String)> {
        while self.under_way.len() < fetching.policy.parallel && self.next < self.end {
            let range = (self.next, (self.next + BLOCK_BYTES).min(self.end));
            let links = {
                let offer = fetching.offers.borrow();
                let links = self.key.find(&offer).map(|artifact| artifact.links.iter());
                let alive = links.into_iter().flatten();
                alive
                    .filter(|link| !dead.contains(&link.url))
                    .cloned()
                    .collect::<Vec<Link>>()
            };
            if links.is_empty() {
                return Err((String::new(), "there is no link".to_owned()));
            }
            let link = links[self.number % links.len()].clone();
            let url = link.url.clone();
            let patience = fetching.policy.stall_timeout * 4;
            let task = block(fetching.web.clone(), link, range, self.end, patience);
            self.under_way.push_back((url, Task(tokio::spawn(task))));
            self.next = range.1;
            self.number += 1;
        }
        let Some((url, mut first)) = self.under_way.pop_front() else {
            return Err((String::new(), "all blocks were handed out".to_owned()));
        };
        match (&mut first.0).await {
            Ok(Ok(block)) => Ok(block),
            Ok(Err(why)) => Err((url, why)),
            Err(error) => Err((url, error.to_string())),
        }
    }
}

/// One block, over as many connections as it takes while they bring something.
async fn block(
    web: Web,
    link: Link,
    (from, to): (u64, u64),
    total: u64,
    patience: Duration,
) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    let fetched = tokio::time::timeout(patience, async {
        loop {
            let start = from + bytes.len() as u64;
            let range = HeaderValue::try_from(format!("bytes={start}-{}", to - 1))
                .expect("digits are a header value");
            let address = Address::parse(&link.url).map_err(|error| error.to_string())?;
            let call = Call::new(Method::GET, address)
                .credentials(link.credentials.clone())
                .header(header::RANGE, range);
            let mut open = web.open(&call).await.map_err(|error| error.whole())?;
            if open.status != StatusCode::PARTIAL_CONTENT {
                return Err(format!("{} answers {}", open.from, open.status));
            }
            if content_range(&open.headers) != Some((Some(start), Some(total))) {
                return Err(format!("{} sends another part than asked for", open.from));
            }
            let before = bytes.len();
            let room = usize::try_from(to - from).unwrap_or(usize::MAX);
            let broken = loop {
                match open.next().await {
                    Ok(Some(piece)) if bytes.len() + piece.len() > room => {
                        return Err(format!("{} sends more than asked for", open.from));
                    }
                    Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                    Ok(None) => break None,
                    Err(error) => break Some(error.whole()),
                }
            };
            if bytes.len() == room {
                return Ok(());
            }
            if bytes.len() == before {
                return Err(broken.unwrap_or_else(|| "the answer ended too early".to_owned()));
            }
        }
    })
    .await;
    match fetched {
        Ok(Ok(())) => Ok(bytes.freeze()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no block within {} s", patience.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers() {
        for (text, expected) in [
            ("bytes 5-9/100", Some((Some(5), Some(100)))),
            ("bytes 0-0/*", Some((Some(0), None))),
            ("bytes */100", Some((None, Some(100)))),
            ("items 0-1/2", None),
            ("bytes 5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_static(text));
            assert_eq!(content_range(&headers), expected, "{text}");
        }
    }
}
