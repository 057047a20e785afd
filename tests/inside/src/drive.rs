//! A busy client: keeps a device updating, and writes down on its standard output what it asks for and what it is answered.
//!
//! `inside drive FOLDER SESSION FIRST UPDATES`: FOLDER has `manifest.json` with the places `@PROGRAM@`, `@NUMBER@` and `@BLOB@`, and `objects/`.
//! One thread makes UPDATES updates (0: without an end), numbered from FIRST, most of them good; another meanwhile sets and removes
//! metadata and claims, and uploads objects in one piece or two. No two SESSIONs of a device send the same bytes. Standard output is a terminal that somebody else reads:
//!
//! ```text
//! @a <id> <ms> <what> <words>    asked, so long after the start; the line is through before the request is sent
//! @d <id> <ms> <status> <word>   answered
//! @s <revision> <STATUS>         progress, when it is another one than before
//! @over                          the updates are through
//! ```
//!
//! All bytes are made from a seed and a length ([`content`]), so that the reader can make them too.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::Digest as _;

/// Between two looks at a progress.
const LOOK: Duration = Duration::from_millis(40);
/// Between two small requests: the machine has one processor, and the updates need it.
const PAUSE: Duration = Duration::from_millis(100);
/// Claims that it has at one time.
const CLAIMS: usize = 5;
/// An update that takes longer hangs.
const UPDATE: Duration = Duration::from_secs(90);

struct Client<'a> {
    socket: &'a str,
    folder: PathBuf,
    start: Instant,
    /// Numbers of requests; those of another start are others.
    next: AtomicU64,
    /// One line at a time.
    output: Mutex<io::Stdout>,
    over: AtomicBool,
}

struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Runs until the updates are through.
pub(crate) fn drive(socket: &str, folder: &str, numbers: [&str; 3]) -> io::Result<()> {
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let [session, first, updates] = numbers.map(number);
    let (session, first, updates) = (session?, first?, updates?);
    let client = Client {
        socket,
        folder: PathBuf::from(folder),
        start: Instant::now(),
        next: AtomicU64::new(session * 100_000),
        output: Mutex::new(io::stdout()),
        over: AtomicBool::new(false),
    };
    client.images()?;
    std::thread::scope(|scope| {
        let small = scope.spawn(|| client.small_things(session));
        let end = if updates == 0 {
            u64::MAX
        } else {
            first + updates
        };
        let done = (first..end).try_for_each(|number| client.update(number));
        client.over.store(true, Ordering::SeqCst);
        let small = small
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("panic")));
        done.and(small)
    })?;
    client.say("@over\n")
}

/// Waits until a device runs what it is to boot and everything in it is good; prints its status then. Asking from inside, without a
/// new process each time, leaves the machine its time to boot.
pub(crate) fn settle(socket: &str) -> io::Result<()> {
    let end = Instant::now() + UPDATE;
    loop {
        let answer = exchange(socket, "GET /status", b"");
        if let Ok(answer) = &answer
            && answer.good()
            && is_settled(&answer.body)
        {
            println!("{}", answer.body);
            return Ok(());
        }
        if Instant::now() > end {
            let last = answer.map(|answer| answer.body);
            return Err(io::Error::other(format!("it does not settle: {last:?}")));
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_settled(status: &str) -> bool {
    let running = word_after(status, "\"running\":\"");
    let committed = word_after(status, "\"committed\":\"");
    let good = status.matches("\"good\":true").count() > 1;
    let no_trial = !status.contains("\"trial\":{") && !status.contains("\"trial\":\"");
    good && !status.contains("\"good\":false") && no_trial && running == committed
}

impl Client<'_> {
    /// Writes a line and waits until it is through the serial port: a request whose line was lost in a power cut must not have been
    /// sent.
    fn say(&self, line: &str) -> io::Result<()> {
        let mut output = self.output.lock().map_err(|_| io::Error::other("panic"))?;
        output.write_all(line.as_bytes())?;
        output.flush()?;
        // Somebody who tries this by hand has no terminal there.
        rustix::termios::tcdrain(&*output).ok();
        Ok(())
    }

    /// Asks, and writes both down.
    fn ask(&self, told: &str, head: &str, body: &[u8]) -> io::Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        self.say(&format!("@a {id} {} {told}\n", self.millis()))?;
        let answer = self.exchange(head, body)?;
        let word = if answer.good() {
            claim_number(&answer.body)
        } else {
            answer.body.replace(char::is_whitespace, " ")
        };
        let (millis, status) = (self.millis(), answer.status);
        self.say(&format!("@d {id} {millis} {status} {word}\n"))?;
        Ok(answer)
    }

    fn millis(&self) -> u128 {
        self.start.elapsed().as_millis()
    }

    fn exchange(&self, head: &str, body: &[u8]) -> io::Result<Answer> {
        exchange(self.socket, head, body)
    }

    /// The images that every revision names.
    fn images(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join("objects"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = fs::read(entry.path())?;
            self.ask(
                &format!("image {name}"),
                &format!("PUT /objects/{name}"),
                &bytes,
            )?;
        }
        Ok(())
    }

    fn update(&self, number: u64) -> io::Result<()> {
        let mut random = Random::new(number);
        let sick = number % 5 == 3;
        let template = fs::read_to_string(self.folder.join("manifest.json"))?;
        let length = random.between(1_000, 60_000);
        let blob = self.object(number, length, random.below(2) == 0)?;
        let manifest = template
            .replace(
                "@PROGRAM@",
                if sick { "/bin/false" } else { "/bin/service" },
            )
            .replace("@NUMBER@", &(100_000 + number).to_string())
            .replace("@BLOB@", &blob);
        let name = format!("locals/u{number}");
        let kind = if sick { "sick" } else { "good" };
        let put = self.ask(
            &format!("step {name} {number} {blob} {kind}"),
            &format!("PUT /steps/{name}"),
            manifest.as_bytes(),
        )?;
        let message = format!("message of {name}");
        self.ask(
            &format!("message {name}"),
            &format!("PUT /steps/{name}/commitmsg"),
            message.as_bytes(),
        )?;
        let body = format!("{{\"op\":\"LOCAL_RUN\",\"payload\":\"{name}\"}}");
        let run = self.ask(&format!("run {name}"), "POST /commands", body.as_bytes())?;
        if put.good() && run.good() {
            self.watch(&name)?;
        }
        if number.is_multiple_of(3) {
            self.ask("gc", "POST /storage/gc", b"")?;
        }
        if number % 10 == 4 {
            let name = format!("locals/u{}", number - 1);
            self.ask(
                &format!("drop {name}"),
                &format!("DELETE /steps/{name}"),
                b"",
            )?;
        }
        Ok(())
    }

    /// Tells each progress until the last one.
    fn watch(&self, name: &str) -> io::Result<()> {
        let end = Instant::now() + UPDATE;
        let mut last = String::new();
        while Instant::now() < end {
            let answer = self.exchange(&format!("GET /steps/{name}/progress"), b"")?;
            let status = word_after(&answer.body, "\"status\":\"");
            if !status.is_empty() && status != last {
                self.say(&format!("@s {name} {status}\n"))?;
                last = status;
            }
            if matches!(last.as_str(), "DONE" | "ERROR" | "WONTGO") {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        Err(io::Error::other(format!("{name} stays {last}")))
    }

    /// Uploads an object that nobody has, in one piece or in two.
    fn object(&self, seed: u64, length: u64, whole: bool) -> io::Result<String> {
        let bytes = content(seed, length);
        let name = sha256(&bytes);
        let told = format!("object {name} {seed} {length}");
        if whole {
            self.ask(&told, &format!("PUT /objects/{name}"), &bytes)?;
            return Ok(name);
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let head = format!("PATCH /objects/{name}\nUpload-Offset: 0\nUpload-Complete: ?0");
        self.ask(&format!("part {name}"), &head, first)?;
        let head = format!(
            "PATCH /objects/{name}\nUpload-Offset: {}\nUpload-Complete: ?1",
            first.len()
        );
        self.ask(&told, &head, second)?;
        Ok(name)
    }

    fn small_things(&self, session: u64) -> io::Result<()> {
        let mut random = Random::new(session ^ 0x5eed);
        let mut seed = (session + 1) * 1_000_000;
        // Those of an earlier start are ended too.
        let answer = self.exchange("GET /claims", b"")?;
        let mut claims: Vec<String> = answer
            .body
            .split("\"id\":")
            .skip(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
            .collect();
        while !self.over.load(Ordering::SeqCst) {
            seed += 1;
            let kind = ["user", "device"][usize::from(random.below(2) == 0)];
            let key = format!("key{}", random.below(6));
            match random.below(20) {
                0..=9 => {
                    let length = random.between(1, 3_000);
                    self.ask(
                        &format!("meta {kind}/{key} {seed} {length}"),
                        &format!("PUT /{kind}-meta/{key}"),
                        &content(seed, length),
                    )?;
                }
                10..=12 => {
                    self.ask(
                        &format!("unmeta {kind}/{key}"),
                        &format!("DELETE /{kind}-meta/{key}"),
                        b"",
                    )?;
                }
                13..=16 => {
                    if claims.len() < CLAIMS {
                        let body =
                            format!("{{\"parts\":[\"container:part{seed}\"],\"lease_s\":86400}}");
                        let answer = self.ask("claim", "POST /claims", body.as_bytes())?;
                        claims.push(claim_number(&answer.body));
                    } else {
                        let id = claims.remove(0);
                        let told = format!("unclaim {id}");
                        self.ask(&told, &format!("DELETE /claims/{id}"), b"")?;
                    }
                }
                _ => {
                    let length = random.between(10, 9_000);
                    let whole = random.below(3) > 0;
                    self.object(seed, length, whole)?;
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn exchange(socket: &str, head: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(UPDATE))?;
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for header in headers.lines() {
        write!(request, "{header}\r\n").map_err(io::Error::other)?;
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    // A refusal may come before all was read.
    let sent = stream.write_all(&bytes);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(sent.err().unwrap_or(error));
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| io::Error::other(format!("no answer: {text}")))?,
        body: body.to_owned(),
    })
}

/// Lines that differ, so that no two sectors are alike.
fn content(seed: u64, length: u64) -> Vec<u8> {
    let length = usize::try_from(length).unwrap_or_default();
    let mut bytes = Vec::with_capacity(length + 32);
    for line in 0_u64.. {
        if bytes.len() >= length {
            break;
        }
        bytes.extend_from_slice(format!("{seed:016x} {line:08}\n").as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        // A string takes every text.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// The number of the claim that an answer tells; empty when it tells none.
fn claim_number(body: &str) -> String {
    let rest = body.split_once("\"id\":").map_or("", |(_, rest)| rest);
    let digits = rest.trim_start().chars().take_while(char::is_ascii_digit);
    digits.collect()
}

fn word_after(text: &str, mark: &str) -> String {
    let rest = text.split_once(mark).map_or("", |(_, rest)| rest);
    rest.chars().take_while(|letter| *letter != '"').collect()
}

/// xorshift64*: choices that are the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed | 1 << 63).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }
}
