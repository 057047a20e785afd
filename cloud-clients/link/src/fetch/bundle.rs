//! A bundle, read once from front to back: the manifest becomes the revision, each object goes into the object store as it passes by.
//!
//! Of a plain archive only what the device lacks is fetched: an object that it has is read back from it for the archive's hash, and
//! passed over in the network. A packed one comes whole. The archive's own hash is judged at its end, before anything is run.

use bytes::Bytes;
use client::Found as There;
use model::ObjectId;

use super::object::{Ended, Upload, judge};
use super::reader::{Hindered, Key, Reader};
use super::{Hasher, Stop, Worker};
use crate::deployment::{Code, Trouble};
use crate::device::{Device, Pieces as _};
use crate::limits;
use crate::offer::{Artifact, Offer};
use crate::payload::archive::{ArchiveError, Found, SLICE_BYTES, Scanner, Unpacker};

/// Members that are shorter are not worth a jump.
const JUMP_BYTES_MIN: u64 = 256 << 10;

/// The member that is passing by.
enum Member {
    /// Of no interest.
    Other,
    /// The manifest.
    Manifest(Vec<u8>),
    /// An object that the device has.
    Known(ObjectId),
    /// An object that it lacks, with how much of it has passed, and how much the device has.
    Lacking {
        object: ObjectId,
        bytes: u64,
        passed: u64,
        there: u64,
        upload: Option<Upload>,
    },
}

/// One pass over an archive.
struct Pass {
    reader: Reader,
    scanner: Scanner,
    unpacker: Unpacker,
    hasher: Hasher,
    member: Member,
    /// Bytes of the archive that went into the hash.
    hashed: u64,
}

/// How a pass ended.
enum Outcome {
    Whole,
    /// From the start again: the archive was cut, damaged, or not what the cloud says.
    Again(Trouble),
}

impl<D: Device> Worker<D> {
    /// Has the device hold the revision of a bundle.
    pub(super) async fn bundle(&mut self, offer: &Offer, artifact: &Artifact) -> Result<(), Stop> {
        let mut reader = Reader::new(self.fetching.clone(), Key::of(artifact));
        let mut attempts = 0;
        loop {
            let pass = Pass {
                reader,
                scanner: Scanner::default(),
                unpacker: Unpacker::Unknown,
                hasher: Hasher::new(&artifact.hashes),
                member: Member::Other,
                hashed: 0,
            };
            let (outcome, back) = self.pass(offer, pass).await?;
            match outcome {
                Outcome::Whole if self.manifest.is_some() => return Ok(()),
                Outcome::Whole => {
                    let why = format!(
                        "{:?} is no bundle: it holds no member \"json\" with a manifest",
                        artifact.name
                    );
                    return Err(Trouble::new(Code::BadOffer, why).into());
                }
                Outcome::Again(trouble) => {
                    // An interruption is nobody's fault; the cloud gives up when it likes.
                    attempts += u32::from(trouble.code != Code::Unreachable);
                    if attempts >= limits::BAD_HASHES_MAX {
                        return Err(trouble.into());
                    }
                }
            }
            reader = back;
            reader.distrust();
        }
    }

    async fn pass(&mut self, offer: &Offer, mut pass: Pass) -> Result<(Outcome, Reader), Stop> {
        self.manifest = None;
        loop {
            let piece = match pass.reader.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(hindered) => {
                    if let Some(trouble) = self.hindered(&mut pass, hindered).await? {
                        return Ok((Outcome::Again(trouble), pass.reader));
                    }
                    continue;
                }
            };
            let from = pass.reader.offset() - piece.len() as u64;
            // After a step back some bytes come twice; they are hashed once.
            let new = pass.hashed.saturating_sub(from).min(piece.len() as u64);
            let new = usize::try_from(new).unwrap_or(piece.len());
            pass.hasher.update(&piece[new..]);
            pass.hashed = pass.hashed.max(pass.reader.offset());
            pass.unpacker.begin(&piece);
            for slice in piece.chunks(if pass.unpacker.is_plain() {
                usize::MAX
            } else {
                SLICE_BYTES
            }) {
                let plain = match pass.unpacker.is_plain() {
                    true => piece.slice_ref(slice),
                    false => match pass.unpacker.unpack(slice) {
                        Ok(plain) => plain.into(),
                        Err(error) => return Ok((Outcome::Again(damaged(&error)), pass.reader)),
                    },
                };
                let again = match self.scan(offer, &mut pass, &plain).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => damaged(&error),
                    // On its way or at this mirror it became something else: the next one may have it.
                    Err(Stop::Trouble(trouble)) if trouble.code == Code::BadHash => trouble,
                    Err(stop) => return Err(stop),
                };
                return Ok((Outcome::Again(again), pass.reader));
            }
            self.jump(&mut pass).await?;
        }
        let whole = pass.scanner.is_between_members();
        let fits = pass.hasher.fits();
        let outcome = if !fits {
            let why = "the bundle has another hash than the cloud says";
            Outcome::Again(Trouble::new(Code::BadHash, why))
        } else if whole {
            Outcome::Whole
        } else {
            Outcome::Again(Trouble::new(Code::BadOffer, "the bundle is cut short"))
        };
        Ok((outcome, pass.reader))
    }

    /// Takes plain bytes of the archive apart.
    async fn scan(
        &mut self,
        offer: &Offer,
        pass: &mut Pass,
        plain: &Bytes,
    ) -> Result<Result<(), ArchiveError>, Stop> {
        let mut input = &plain[..];
        loop {
            let found = match pass.scanner.next(&mut input) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            match found {
                Found::Member { name, bytes } => {
                    pass.member = self.begin(&name, bytes).await?;
                }
                Found::Data(data) => {
                    let data = plain.slice_ref(data);
                    self.data(&mut pass.member, data).await?;
                }
                Found::End => {
                    let member = std::mem::replace(&mut pass.member, Member::Other);
                    self.finish(offer, member).await?;
                }
                Found::Finished => return Ok(Ok(())),
            }
        }
    }

    async fn begin(&mut self, name: &str, bytes: u64) -> Result<Member, Stop> {
        if name == "json" {
            if bytes > model::limits::MANIFEST_BYTES_MAX as u64 {
                let why = format!("the bundle's manifest has {bytes} bytes");
                return Err(Trouble::new(Code::BadManifest, why).into());
            }
            return Ok(Member::Manifest(Vec::new()));
        }
        let Some(Ok(object)) = name.strip_prefix("objects/").map(str::parse::<ObjectId>) else {
            return Ok(Member::Other);
        };
        // A bundle may hold more than the revision needs.
        let needed = self
            .manifest
            .as_ref()
            .is_none_or(|manifest| manifest.objects().contains_key(&object));
        if !needed {
            return Ok(Member::Other);
        }
        self.lacking(object, bytes, 0).await.map_err(Stop::from)
    }

    /// Looks at what the device has of an object of which so much has passed.
    async fn lacking(
        &mut self,
        object: ObjectId,
        bytes: u64,
        passed: u64,
    ) -> Result<Member, Trouble> {
        let there = match self.insist(|| self.device.find_object(&object)).await? {
            There::Whole => return Ok(Member::Known(object)),
            There::Part { bytes: there } if there <= bytes => there,
            There::Part { .. } | There::Nothing => 0,
        };
        Ok(Member::Lacking {
            object,
            bytes,
            passed,
            there,
            upload: None,
        })
    }

    async fn data(&mut self, member: &mut Member, mut data: Bytes) -> Result<(), Stop> {
        match member {
            Member::Other | Member::Known(_) => Ok(()),
            Member::Manifest(manifest) => {
                manifest.extend_from_slice(&data);
                Ok(())
            }
            Member::Lacking {
                object,
                bytes,
                passed,
                there,
                upload,
            } => {
                let known = there.saturating_sub(*passed).min(data.len() as u64);
                *passed += data.len() as u64;
                let known = usize::try_from(known).unwrap_or(data.len());
                drop(data.split_to(known));
                if data.is_empty() {
                    return Ok(());
                }
                if upload.is_none() {
                    *upload = Some(Upload::start(&self.device, *object, *there, *bytes));
                }
                if let Some(upload) = upload {
                    self.fetched.bytes += data.len() as u64;
                    // When the device wants no more, the end of the member says why.
                    upload.send(data).await;
                }
                self.tell_progress();
                Ok(())
            }
        }
    }

    async fn finish(&mut self, offer: &Offer, member: Member) -> Result<(), Stop> {
        match member {
            Member::Other | Member::Known(_) => Ok(()),
            Member::Manifest(bytes) => self.prepare(offer, bytes, None).await,
            Member::Lacking {
                object,
                bytes,
                there,
                upload,
                ..
            } => {
                let upload =
                    upload.unwrap_or_else(|| Upload::start(&self.device, object, there, bytes));
                match judge(upload.end().await)? {
                    // A part that could not be finished is found by the last look, and the bundle is read again.
                    Ended::Look | Ended::Wait => {
                        self.fetched.objects += 1;
                        self.tell_progress();
                        Ok(())
                    }
                    Ended::WrongBytes => {
                        let why = format!(
                            "the bundle's member objects/{object} has another SHA-256 than its name"
                        );
                        Err(Trouble::new(Code::BadHash, why).into())
                    }
                }
            }
        }
    }

    /// Passes over what the device has, when the archive is plain.
    async fn jump(&mut self, pass: &mut Pass) -> Result<(), Stop> {
        let left = pass.scanner.left();
        let Member::Known(object) = &pass.member else {
            return Ok(());
        };
        if !pass.unpacker.is_plain() || left < JUMP_BYTES_MIN {
            return Ok(());
        }
        // Its bytes count for the hash of the archive: they are read from the device.
        if !pass.hasher.is_none() {
            let object = *object;
            let size = self.object_size(pass, left);
            let Some(from) = size else { return Ok(()) };
            let Ok(mut pieces) = self.device.download(&object, from).await else {
                return Ok(());
            };
            let mut copied = 0;
            while copied < left {
                match pieces.next().await {
                    Ok(Some(mut piece)) => {
                        // The archive may call it shorter than it is.
                        let rest = usize::try_from(left - copied).unwrap_or(usize::MAX);
                        piece.truncate(rest);
                        pass.hasher.update(&piece);
                        copied += piece.len() as u64;
                    }
                    // Half of it is in the hash: the other half comes over the network.
                    Ok(None) | Err(_) => break,
                }
            }
            pass.hashed += copied;
            pass.scanner.skip(copied);
            pass.reader.seek(pass.reader.offset() + copied);
            return Ok(());
        }
        pass.hashed += left;
        pass.scanner.skip(left);
        pass.reader.seek(pass.reader.offset() + left);
        Ok(())
    }

    /// How much of the known object has passed already.
    fn object_size(&self, pass: &Pass, left: u64) -> Option<u64> {
        pass.scanner.member_bytes().checked_sub(left)
    }

    /// Waits; an upload that cannot wait so long is closed, and the archive is read from where the device's part ends.
    async fn hindered(
        &mut self,
        pass: &mut Pass,
        hindered: Hindered,
    ) -> Result<Option<Trouble>, Stop> {
        let short = matches!(&hindered, Hindered::Pause(pause) if *pause <= limits::UPLOAD_WAITS);
        let open = match &mut pass.member {
            Member::Lacking { upload, .. } if !short => upload.take(),
            Member::Lacking { .. } | Member::Other | Member::Manifest(_) | Member::Known(_) => None,
        };
        let Some(upload) = open else {
            pass.reader.recover(hindered).await?;
            return Ok(None);
        };
        judge(upload.end().await)?;
        pass.reader.recover(hindered).await?;
        let Member::Lacking {
            object,
            bytes,
            passed,
            ..
        } = pass.member
        else {
            return Ok(None);
        };
        pass.member = self.lacking(object, bytes, passed).await?;
        if let Member::Lacking { there, passed, .. } = &mut pass.member
            && *there < *passed
        {
            if !pass.unpacker.is_plain() {
                // Packed bytes cannot be had again from the middle.
                let why = "the download of the packed bundle was interrupted for too long";
                return Ok(Some(Trouble::new(Code::Unreachable, why)));
            }
            let back = *passed - *there;
            *passed = *there;
            pass.scanner.step_back(back);
            pass.reader.seek(pass.reader.offset() - back);
        }
        Ok(None)
    }
}

fn damaged(error: &ArchiveError) -> Trouble {
    Trouble::new(
        Code::BadOffer,
        format!("the bundle cannot be read: {error}"),
    )
}
