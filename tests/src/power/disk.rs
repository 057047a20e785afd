//! A disk with a volatile write cache that a power cut really empties: served to QEMU over the NBD protocol on a UNIX socket.
//!
//! Writes stay in memory until the guest flushes them (or asks for forced unit access). At a cut each sector that was not flushed is
//! kept or lost by itself, so writes are lost, reordered and torn at sectors of 512 bytes. A cut at a random time hardly ever finds
//! anything in the cache, so a [`Fuse`] cuts just before a flush, when it is full. A flush covers what was answered before it was asked
//! for, and nothing else: what arrives together with it stays in the cache. All of it can be recorded ([`Recorder`]). Not modelled:
//! sectors torn in themselves, flash that loses old data while it writes new data.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use rustix::net::{RecvFlags, recv};

use super::moments::Moments;
use super::record::Recorder;

/// Bytes that a medium takes as a whole or not at all.
pub const SECTOR: usize = 512;
/// A real cache is bounded too, and writes back what it has no room for: here 64 MiB.
const CACHED_SECTORS_MAX: usize = 128 * 1024;
/// Requests that are taken together when they are there together.
const BATCH_MAX: usize = 64;
/// What one request may carry; QEMU's own limit.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// Flags of the export: has flags, takes flush, takes forced unit access.
const EXPORT_FLAGS: u16 = 1 | 4 | 8;
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;

/// What is on the disk for good, and what is only in its cache.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    durable: File,
    bytes: u64,
    cache: BTreeMap<u64, [u8; SECTOR]>,
    flushes: u64,
    recorder: Option<Recorder>,
}

/// Cuts the power at a flush: just before the n-th from now on that would write something.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Arc<AtomicU64>);

impl Fuse {
    /// The machine has `flushes` more, then it is killed instead.
    pub fn arm(&self, flushes: u64) {
        self.0.store(flushes + 1, Ordering::SeqCst);
    }

    fn blows(&self) -> bool {
        // 0 is not armed, 1 is the last one.
        let before = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        before == Ok(1)
    }
}

/// What a cut did to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Sectors that reached the medium although nobody had flushed them.
    pub kept: usize,
    /// Sectors that are gone.
    pub lost: usize,
}

impl Disk {
    /// An empty disk with an ext4 file system.
    pub fn formatted(path: &Path, bytes: u64) -> Self {
        Self::format(path, bytes, &["-E", "lazy_itable_init=1"])
    }

    /// A disk whose file system was made with these options of `mkfs.ext4`.
    pub fn format(path: &Path, bytes: u64, options: &[&str]) -> Self {
        let file = File::create_new(path).expect("a file for the disk");
        file.set_len(bytes).expect("a sparse file");
        let output = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .args(options)
            .arg(path)
            .output()
            .expect("Debian's e2fsprogs is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::on(path)
    }

    /// The disk whose content is this file.
    pub fn on(path: &Path) -> Self {
        let durable = OpenOptions::new().read(true).write(true).open(path);
        let durable = durable.expect("the disk's file");
        let bytes = durable.metadata().expect("the disk's file").len();
        Self {
            path: path.to_owned(),
            durable,
            bytes,
            cache: BTreeMap::new(),
            flushes: 0,
            recorder: None,
        }
    }

    /// Everything that happens to it from now on is recorded.
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// The file with what is on the medium.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes that the guest asked for since the disk was made.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// The power goes: what was not flushed is kept or lost, sector by sector.
    pub fn cut(&mut self, moments: &mut Moments) -> Cut {
        // All, none and any share in between: each finds faults of its own.
        let kept_of_eight = moments.below(9);
        let mut cut = Cut { kept: 0, lost: 0 };
        let mut kept = Vec::new();
        for (sector, data) in std::mem::take(&mut self.cache) {
            if moments.below(8) < kept_of_eight {
                self.store(sector, &data).expect("the disk's file takes it");
                kept.push((sector, data));
            } else {
                cut.lost += 1;
            }
        }
        cut.kept = kept.len();
        if let Some(recorder) = &self.recorder {
            recorder.cut(kept);
        }
        cut
    }

    /// A controlled switch-off: the guest has flushed, or the disk does it now, as disks do on a clean power-down.
    pub fn settle(&mut self) {
        self.flush().expect("the disk's file takes it");
        if let Some(recorder) = &self.recorder {
            recorder.flush();
        }
    }

    /// What the file system's own check says of the medium; `None` when nothing is wrong once the journal is replayed.
    pub fn damage(&self) -> Option<String> {
        // On a copy: the journal must be replayed by the guest, as on a device.
        let copy = self.path.with_extension("copy");
        let output = Command::new("cp")
            .arg("--sparse=always")
            .arg(&self.path)
            .arg(&copy)
            .output()
            .expect("cp runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let run = |arguments: &[&str]| {
            let output = Command::new("e2fsck").args(arguments).arg(&copy).output();
            output.expect("Debian's e2fsprogs is installed")
        };
        run(&["-E", "journal_only", "-y"]);
        let judged = run(&["-f", "-n"]);
        std::fs::remove_file(&copy).ok();
        (!judged.status.success()).then(|| String::from_utf8_lossy(&judged.stdout).into_owned())
    }

    fn store(&self, sector: u64, data: &[u8; SECTOR]) -> io::Result<()> {
        self.durable.write_all_at(data, sector * SECTOR as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        for (sector, data) in std::mem::take(&mut self.cache) {
            self.store(sector, &data)?;
        }
        Ok(())
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.durable.read_exact_at(data, offset)?;
        let first = offset / SECTOR as u64;
        for (index, part) in data.chunks_exact_mut(SECTOR).enumerate() {
            if let Some(cached) = self.cache.get(&(first + index as u64)) {
                part.copy_from_slice(cached);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8], durable: bool) -> io::Result<()> {
        let first = offset / SECTOR as u64;
        let (sectors, _) = data.as_chunks::<SECTOR>();
        for (sector, part) in (first..).zip(sectors) {
            if durable {
                self.cache.remove(&sector);
                self.store(sector, part)?;
            } else {
                self.cache.insert(sector, *part);
            }
        }
        if self.cache.len() > CACHED_SECTORS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// One request; the error number of the protocol is the answer to a bad one.
    fn carry_out(&mut self, request: &Request, data: &mut [u8]) -> u32 {
        const IO_ERROR: u32 = 5;
        const INVALID: u32 = 22;
        let end = request.offset.checked_add(u64::from(request.length));
        let aligned = request.offset.is_multiple_of(SECTOR as u64)
            && u64::from(request.length).is_multiple_of(SECTOR as u64);
        if !aligned || end.is_none_or(|end| end > self.bytes) {
            return INVALID;
        }
        let recorder = self.recorder.as_ref();
        let done = match request.kind {
            Kind::Read => self.read(request.offset, data),
            Kind::Write { durable } => {
                if let Some(recorder) = recorder {
                    recorder.write(request.offset, data, durable);
                }
                self.write(request.offset, data, durable)
            }
            Kind::Flush => {
                self.flushes += 1;
                if let Some(recorder) = recorder {
                    recorder.flush();
                }
                self.flush()
            }
            Kind::Disconnect => Ok(()),
            Kind::Unknown => return INVALID,
        };
        if done.is_ok() { 0 } else { IO_ERROR }
    }
}

/// Serves the disk to the QEMU that has connected, and hands it back when that QEMU is gone. `qemu` is killed when the fuse blows; it
/// must not be reaped before the thread has ended.
pub fn serve(stream: UnixStream, mut disk: Disk, qemu: Pid, fuse: Fuse) -> JoinHandle<Disk> {
    std::thread::spawn(move || {
        // It ends when QEMU does, in the middle of anything.
        let cut = || kill_process(qemu, Signal::KILL).expect("our own child can be killed");
        match negotiate(&stream, disk.bytes)
            .and_then(|()| transmit(&stream, &mut disk, &fuse, &cut))
        {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => panic!("the disk's connection to QEMU: {error}"),
        }
        disk
    })
}

/// The fixed newstyle handshake, up to the option GO.
fn negotiate(mut stream: &UnixStream, bytes: u64) -> io::Result<()> {
    const FIXED_NEWSTYLE_NO_ZEROES: u16 = 3;
    stream.write_all(b"NBDMAGIC")?;
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    stream.write_all(&FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes())?;
    let _flags = u32::from_be_bytes(take(stream)?);
    loop {
        if u64::from_be_bytes(take(stream)?) != OPTION_MAGIC {
            return Err(io::Error::other("no option follows"));
        }
        let option = u32::from_be_bytes(take(stream)?);
        let length = u32::from_be_bytes(take(stream)?);
        io::copy(&mut stream.take(u64::from(length)), &mut io::sink())?;
        match option {
            // INFO, GO.
            6 | 7 => {
                let mut info = vec![0, 0];
                info.extend(bytes.to_be_bytes());
                info.extend(EXPORT_FLAGS.to_be_bytes());
                answer_option(stream, option, 3, &info)?;
                answer_option(stream, option, 1, &[])?;
                if option == 7 {
                    return Ok(());
                }
            }
            // Everything else is not supported, and QEMU does without.
            _ => answer_option(stream, option, (1 << 31) | 1, &[])?,
        }
    }
}

fn answer_option(mut stream: &UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut answer = Vec::from(REPLY_MAGIC.to_be_bytes());
    answer.extend(option.to_be_bytes());
    answer.extend(kind.to_be_bytes());
    answer.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    answer.extend(data);
    stream.write_all(&answer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write { durable: bool },
    Flush,
    Disconnect,
    Unknown,
}

#[derive(Debug)]
struct Request {
    kind: Kind,
    cookie: [u8; 8],
    offset: u64,
    length: u32,
    /// What to write, or room for what is read.
    data: Vec<u8>,
}

fn transmit(stream: &UnixStream, disk: &mut Disk, fuse: &Fuse, cut: &dyn Fn()) -> io::Result<()> {
    loop {
        let mut requests = vec![next_request(stream)?];
        while requests.len() < BATCH_MAX && is_waiting(stream) {
            requests.push(next_request(stream)?);
        }
        // Nothing that came with a flush was answered when it was sent, so it promises nothing of that: flushes come first.
        let (flushes, others): (Vec<Request>, _) = requests
            .into_iter()
            .partition(|request| request.kind == Kind::Flush);
        let blows = !flushes.is_empty() && !disk.cache.is_empty() && fuse.blows();
        if !blows {
            for request in flushes {
                answer(stream, disk, request)?;
            }
        }
        for request in others {
            if request.kind == Kind::Disconnect {
                return Ok(());
            }
            answer(stream, disk, request)?;
        }
        if blows {
            cut();
            return Ok(());
        }
    }
}

/// Whether more has come already.
fn is_waiting(stream: &UnixStream) -> bool {
    let mut byte = [0_u8; 1];
    let found = recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    found.is_ok_and(|(_, length)| length > 0)
}

fn answer(mut stream: &UnixStream, disk: &mut Disk, mut request: Request) -> io::Result<()> {
    const SIMPLE_REPLY: u32 = 0x6744_6698;
    let mut data = std::mem::take(&mut request.data);
    let error = disk.carry_out(&request, &mut data);
    let mut answer = Vec::from(SIMPLE_REPLY.to_be_bytes());
    answer.extend(error.to_be_bytes());
    answer.extend(request.cookie);
    if request.kind == Kind::Read && error == 0 {
        answer.extend(&data);
    }
    stream.write_all(&answer)
}

fn next_request(mut stream: &UnixStream) -> io::Result<Request> {
    const REQUEST: u32 = 0x2560_9513;
    if u32::from_be_bytes(take(stream)?) != REQUEST {
        return Err(io::Error::other("no request follows"));
    }
    let flags = u16::from_be_bytes(take(stream)?);
    let kind = match u16::from_be_bytes(take(stream)?) {
        0 => Kind::Read,
        1 => Kind::Write {
            durable: flags & 1 != 0,
        },
        2 => Kind::Disconnect,
        3 => Kind::Flush,
        _ => Kind::Unknown,
    };
    let mut request = Request {
        kind,
        cookie: take(stream)?,
        offset: u64::from_be_bytes(take(stream)?),
        length: u32::from_be_bytes(take(stream)?),
        data: Vec::new(),
    };
    if matches!(kind, Kind::Read | Kind::Write { .. }) {
        if request.length > REQUEST_BYTES_MAX {
            return Err(io::Error::other("a request over the limit"));
        }
        request.data = vec![0; request.length as usize];
    }
    if matches!(kind, Kind::Write { .. }) {
        stream.read_exact(&mut request.data)?;
    }
    Ok(request)
}

fn take<const N: usize>(mut stream: &UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_takes_only_what_was_not_flushed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut disk = Disk::formatted(&folder.path().join("disk"), 8 << 20);
        assert_eq!(disk.damage(), None);
        let mut read = [0; SECTOR];
        disk.write(0, &[1; SECTOR], false).unwrap();
        disk.flush().unwrap();
        let after: Vec<u64> = (1..200).collect();
        let mut moments = Moments::from_seed(7);
        let (mut kept, mut lost) = (0, 0);
        for round in 0..20 {
            for sector in &after {
                disk.write(sector * SECTOR as u64, &[round; SECTOR], false)
                    .unwrap();
            }
            disk.write(300 * SECTOR as u64, &[round; SECTOR], true)
                .unwrap();
            let cut = disk.cut(&mut moments);
            assert_eq!(cut.kept + cut.lost, after.len());
            kept += cut.kept;
            lost += cut.lost;
            disk.read(0, &mut read).unwrap();
            assert_eq!(read, [1; SECTOR], "flushed data stays");
            disk.read(300 * SECTOR as u64, &mut read).unwrap();
            assert_eq!(read, [round; SECTOR], "forced unit access stays");
        }
        assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
    }
}
