//! Objects: upload, download, look, remove.
//!
//! An upload runs in three steps at once: the socket is read here, bytes are written in one thread and hashed in another, with a few
//! pieces between them. It is answered when the object is durable. Whatever ends it early leaves a part that can be resumed.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use api::messages::ours;
use api::{Code, Problem};
use bytes::{Bytes, BytesMut};
use model::ObjectId;
use store::Hasher;
use tokio::sync::{mpsc, oneshot};

use super::{Asked, body_problem, to_json};
use crate::http1::answer::{Answer, Body, JSON, OCTETS};
use crate::limits;
use crate::refusal;
use crate::storage::{OpenObject, Upload, UploadStart};

pub(super) async fn list(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let text = asked
        .read(|storage| -> Result<String, store::Failed> {
            let mut objects = Vec::new();
            storage.visit_objects(&mut |object, len| {
                objects.push((object, len));
                ControlFlow::Continue(())
            })?;
            objects.sort_unstable();
            let mut text = String::from("[");
            for (object, len) in objects {
                if text.len() > 1 {
                    text.push(',');
                }
                text.push_str(&format!("{{\"sha256\":\"{object}\",\"size\":\"{len}\"}}"));
            }
            text.push(']');
            Ok(text)
        })
        .await?;
    Ok(Answer::json(text))
}

fn missing(object: &ObjectId) -> Problem {
    Problem::new(Code::NoSuchObject, format!("there is no object {object}"))
}

pub(super) async fn get(asked: &Asked<'_, '_>, object: ObjectId) -> Result<Answer, Problem> {
    let place = asked.shared.transfer().await?;
    let (mut open, size) = asked
        .blocking(move |storage| {
            let Some(mut open) = storage
                .open_object(&object)
                .map_err(|error| refusal::disk(&error))?
            else {
                // Pantavisor's status: its clients know no other.
                return Err(missing(&object).status(400));
            };
            let size = open
                .size()
                .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
            Ok((open, size))
        })
        .await??;
    let tag = format!("\"{object}\"");
    if let Some(known) = &asked.head.if_none_match
        && known
            .split(',')
            .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
    {
        return Ok(Answer::new(304, OCTETS, Body::Empty).with("ETag", tag));
    }
    let range = match &asked.head.range {
        Some(range) => parse_range(range, size).ok_or_else(|| bad_range(size))?,
        None => None,
    };
    let (from, to) = range.unwrap_or((0, size));
    let (sender, pieces) = mpsc::channel(limits::PIECES_IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        read_pieces(open.as_mut(), from, to, &sender);
        drop(place);
    });
    // As recorded, a whole object is sent in chunks; a part says how long it is.
    let length = range.map(|(from, to)| to - from);
    let status = if range.is_some() { 206 } else { 200 };
    let mut answer = Answer::new(status, OCTETS, Body::Stream { pieces, length })
        .with("ETag", tag)
        .with("Accept-Ranges", "bytes");
    answer.lower_case = true;
    if let Some((from, to)) = range {
        answer = answer.with("Content-Range", format!("bytes {from}-{}/{size}", to - 1));
    }
    Ok(answer)
}

fn read_pieces(
    open: &mut dyn OpenObject,
    mut from: u64,
    to: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) {
    // Buffers come back when the socket has taken what was in them: fresh ones would cost as much as the copying.
    let mut sent: VecDeque<Bytes> = VecDeque::new();
    while from < to {
        let room = usize::try_from(to - from)
            .map_or(limits::PIECE_BYTES, |left| left.min(limits::PIECE_BYTES));
        let mut piece = match sent.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(piece)) => piece,
            Some(Err(busy)) => {
                sent.push_front(busy);
                BytesMut::new()
            }
            None => BytesMut::new(),
        };
        piece.resize(room, 0);
        let read = match open.read_at(from, &mut piece) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                piece.truncate(read);
                from += read as u64;
                let piece = piece.freeze();
                sent.push_back(piece.clone());
                Ok(piece)
            }
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// One range of bytes as `(from, to)`, `to` excluded. `Ok(None)` for what is not understood or several ranges: the whole is sent,
/// as RFC 9110 allows. `None` when no byte of it exists.
#[allow(clippy::option_option, reason = "three answers, each said above")]
fn parse_range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let Some(spec) = text.strip_prefix("bytes=") else {
        return Some(None);
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Some(None);
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (from, to) = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Some(length) => (size.saturating_sub(length), size),
            None => return Some(None),
        },
        (from, "") => match number(from) {
            Some(from) => (from, size),
            None => return Some(None),
        },
        (from, last) => match (number(from), number(last)) {
            (Some(from), Some(last)) if from <= last => (from, size.min(last.saturating_add(1))),
            _ => return Some(None),
        },
    };
    (from < to).then_some(Some((from, to)))
}

fn bad_range(size: u64) -> Problem {
    Problem::new(
        Code::BadRange,
        format!("the object has {size} bytes; the range names none of them"),
    )
}

/// How far uploads have come: those under way, and those that can be resumed.
pub(super) async fn uploads(asked: &Asked<'_, '_>) -> Result<Answer, Problem> {
    let parts = asked.read(|storage| storage.incoming()).await?;
    let uploads: Vec<_> = parts
        .into_iter()
        .map(|part| ours::Upload {
            sha256: part.object,
            bytes: part.bytes,
            expected_bytes: part.expected,
            active: part.active,
        })
        .collect();
    Ok(to_json(&uploads))
}

/// Size of a whole object, or how far an upload came.
pub(super) async fn head(asked: &Asked<'_, '_>, object: ObjectId) -> Result<Answer, Problem> {
    let (size, offset) = asked
        .read(move |storage| -> Result<_, store::Failed> {
            Ok((
                storage.object_len(&object)?,
                storage.upload_offset(&object)?,
            ))
        })
        .await?;
    if let Some(size) = size {
        return Ok(Answer::new(200, OCTETS, Body::Empty)
            .with("ETag", format!("\"{object}\""))
            .with("Accept-Ranges", "bytes")
            .with("Content-Length", size.to_string())
            .with("Upload-Offset", size.to_string())
            .with("Upload-Complete", "?1"));
    }
    let offset = offset.ok_or_else(|| missing(&object))?;
    Ok(incomplete(offset))
}

fn incomplete(offset: u64) -> Answer {
    Answer::new(204, JSON, Body::Empty)
        .with("Upload-Offset", offset.to_string())
        .with("Upload-Complete", "?0")
}

pub(super) async fn put(asked: &mut Asked<'_, '_>, object: ObjectId) -> Result<Answer, Problem> {
    let expected = asked.body.announced();
    receive(asked, object, None, expected, true).await
}

/// Goes on with an upload. `Upload-Complete: ?0` says that more will follow.
pub(super) async fn patch(asked: &mut Asked<'_, '_>, object: ObjectId) -> Result<Answer, Problem> {
    let bad = |detail: String| {
        Problem::new(Code::BadHeader, detail)
            .remedy("send Upload-Offset with the number that HEAD of the object answers")
    };
    let given = asked.head.upload_offset.as_deref();
    let given = given.ok_or_else(|| bad("there is no header Upload-Offset".to_owned()))?;
    let offset: u64 = given
        .parse()
        .map_err(|_| bad(format!("Upload-Offset {given:?} is not a number")))?;
    let last = match asked.head.upload_complete.as_deref() {
        None | Some("?1") => true,
        Some("?0") => false,
        Some(other) => {
            return Err(bad(format!(
                "Upload-Complete {other:?} is neither ?1 nor ?0"
            )));
        }
    };
    let expected = asked.body.announced().filter(|_| last);
    let expected = expected.map(|bytes| offset.saturating_add(bytes));
    receive(asked, object, Some(offset), expected, last).await
}

async fn receive(
    asked: &mut Asked<'_, '_>,
    object: ObjectId,
    offset: Option<u64>,
    expected: Option<u64>,
    last: bool,
) -> Result<Answer, Problem> {
    let _place = asked.shared.transfer().await?;
    let (begun, beginning) = oneshot::channel();
    let (to_writer, pieces) = mpsc::channel(limits::PIECES_IN_FLIGHT);
    let (complete, completed) = oneshot::channel();
    let storage = Arc::clone(&asked.shared.storage);
    let clock = Arc::clone(&asked.shared.clock);
    // One thread for the whole upload: each change of threads would cost as much as a small object.
    let written = tokio::task::spawn_blocking(move || {
        let upload = match storage.upload(object, offset, expected, clock.now())? {
            // Nothing more needs to be read: the bytes are there and were verified.
            UploadStart::Exists => return Ok(None),
            UploadStart::Upload(upload) => upload,
        };
        if begun.send(()).is_err() {
            return upload.keep().map(Some);
        }
        let (upload, digest) = write_pieces(upload, pieces)?;
        // Ending waits for the disk either way: what is told to be there must be there after a power cut.
        if completed.blocking_recv() == Ok(true) {
            upload.finish(digest, clock.now()).map(|()| None)
        } else {
            upload.keep().map(Some)
        }
    });
    let read = async {
        if beginning.await.is_err() {
            // It has ended already, and says how below.
            return Ok(());
        }
        let read = loop {
            match asked.body.piece().await {
                Ok(Some(piece)) => {
                    if to_writer.send(piece).await.is_err() {
                        // The writer has stopped; it says why below.
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(body_problem(&error)),
            }
        };
        drop(to_writer);
        // A writer that has stopped does not ask.
        complete.send(read.is_ok() && last).ok();
        read
    };
    let (written, read) = tokio::join!(written, read);
    let kept = written
        .map_err(|_| Problem::new(Code::Internal, "the work on the storage was cut off"))?
        .map_err(|error| refusal::upload(&error))?;
    read?;
    Ok(kept.map_or_else(Answer::done, incomplete))
}

/// Writes and hashes until the last piece. Pieces go to the disk here and are hashed in a second thread, so that the slower of both
/// decides and not their sum.
fn write_pieces(
    mut upload: Box<dyn Upload>,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(Box<dyn Upload>, ObjectId), store::UploadError> {
    let mut hasher = Hasher::new();
    upload.read_kept(&mut |bytes| hasher.update(bytes))?;
    let Some(first) = pieces.blocking_recv() else {
        return Ok((upload, hasher.finish()));
    };
    // A small object comes in one piece: no second thread for it.
    let Some(second) = pieces.blocking_recv() else {
        upload.append(&first)?;
        hasher.update(&first);
        return Ok((upload, hasher.finish()));
    };
    let (to_hasher, to_hash) = std::sync::mpsc::sync_channel::<Bytes>(limits::PIECES_IN_FLIGHT);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            for piece in to_hash {
                hasher.update(&piece);
            }
            hasher.finish()
        });
        let mut next = Some(first);
        let mut after = Some(second);
        while let Some(piece) = next {
            // The hasher ends only when this channel does.
            to_hasher
                .send(piece.clone())
                .expect("the hasher receives until we stop sending");
            upload.append(&piece)?;
            next = after.take().or_else(|| pieces.blocking_recv());
        }
        drop(to_hasher);
        let digest = hashing.join().expect("hashing does not panic");
        Ok((upload, digest))
    })
}

pub(super) async fn delete(asked: &Asked<'_, '_>, object: ObjectId) -> Result<Answer, Problem> {
    let now = asked.shared.clock.now();
    asked
        .blocking(move |storage| {
            let disk = |error: store::Failed| refusal::disk(&error);
            let name = object.to_string();
            for summary in storage.revisions().map_err(disk)? {
                let manifest = storage.manifest(&summary.revision);
                if manifest
                    .map_err(|error| refusal::read(&error))?
                    .is_some_and(|bytes| contains(&bytes, name.as_bytes()))
                {
                    return Err(Problem::new(
                        Code::ObjectInUse,
                        format!("revision {} names object {object}", summary.revision),
                    )
                    .remedy("remove the revision first"));
                }
            }
            match storage.remove_object(&object, now) {
                Ok(true) => Ok(Answer::done()),
                Ok(false) => Err(missing(&object)),
                Err(store::objects::RemoveError::Disk(error)) => Err(refusal::disk(&error)),
                Err(error @ store::objects::RemoveError::Leased(_)) => {
                    Err(Problem::new(Code::ObjectInUse, error.to_string()))
                }
            }
        })
        .await?
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-0", Some(Some((0, 1)))),
            ("bytes=2-", Some(Some((2, 10)))),
            ("bytes=-3", Some(Some((7, 10)))),
            ("bytes=-30", Some(Some((0, 10)))),
            ("bytes=5-100", Some(Some((5, 10)))),
            ("bytes=10-", None),
            ("bytes=-0", None),
            ("bytes=3-2", Some(None)),
            ("bytes=0-1,3-4", Some(None)),
            ("bytes=x-", Some(None)),
            ("lines=1-2", Some(None)),
            ("bytes=18446744073709551615-18446744073709551615", None),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }
}
