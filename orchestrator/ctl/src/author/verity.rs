//! `coxctl revision verity`: gives the root image of a container a tree of hashes, so that devices check each block when it is read.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use model::ObjectId;
use model::verity::{BLOCK, Builder};
use serde_json::{Value, json};

use super::AuthorError;
use super::working::Working;

/// Makes the tree and its descriptor (`_dm/<image>.json`), and lets `run.json` ask for it.
pub(super) fn add(dir: &Path, name: &str) -> Result<Vec<String>, AuthorError> {
    let mut working = Working::open(dir)?;
    let run_key = format!("{name}/run.json");
    let run = working
        .text(&run_key)
        .ok_or_else(|| AuthorError::NoContainer {
            name: name.to_owned(),
        })?;
    let mut run: Value = serde_json::from_str(run).map_err(|source| AuthorError::BadJson {
        path: run_key.clone().into(),
        source,
    })?;
    let volume = run["root-volume"].as_str().unwrap_or("root.squashfs");
    let image = volume
        .split_once(':')
        .map_or(volume, |(_, image)| image)
        .to_owned();
    let key = format!("{name}/{image}");
    let object: Option<ObjectId> = working
        .text(&key)
        .and_then(|text| text.trim_matches('"').parse().ok());
    let object = object.ok_or(AuthorError::NoKey { key: key.clone() })?;
    let objects = working.objects();
    let object = filled_up(&objects, object)?;
    let path = objects.join(object.to_string());
    let unreadable = |source| AuthorError::Read {
        path: path.clone(),
        source,
    };
    let mut builder = Builder::new(&object);
    let mut file = io::BufReader::with_capacity(1 << 20, File::open(&path).map_err(unreadable)?);
    let mut block = [0; BLOCK];
    let blocks = fs::metadata(&path).map_err(unreadable)?.len() / BLOCK as u64;
    for _ in 0..blocks {
        file.read_exact(&mut block).map_err(unreadable)?;
        builder.push(&block);
    }
    let tree = builder.finish();
    let hashes = ObjectId::of(&tree.bytes);
    write(&objects.join(hashes.to_string()), &tree.bytes)?;
    working.set_object(key, object);
    working.set_object(format!("{name}/{image}.hash"), hashes);
    let descriptor = json!({
        "type": "dm-verity",
        "data_device": image,
        "hash_device": format!("{image}.hash"),
        "root_hash": tree.root_hash(),
    });
    working.set_inline(format!("{name}/_dm/{image}.json"), &descriptor);
    run["root-volume"] = json!(format!("dm:{image}"));
    working.set_inline(run_key, &run);
    working.save()?;
    Ok(vec![format!(
        "{name}: {image} is read through dm-verity, root hash {}",
        tree.root_hash()
    )])
}

/// The image, filled up with zeros to whole blocks, which no file system in it looks at.
fn filled_up(objects: &Path, object: ObjectId) -> Result<ObjectId, AuthorError> {
    let path = objects.join(object.to_string());
    let unreadable = |source| AuthorError::Read {
        path: path.clone(),
        source,
    };
    let len = fs::metadata(&path).map_err(unreadable)?.len();
    let short = len.next_multiple_of(BLOCK as u64).max(BLOCK as u64) - len;
    if short == 0 {
        return Ok(object);
    }
    let mut bytes = fs::read(&path).map_err(unreadable)?;
    bytes.resize(
        bytes.len() + usize::try_from(short).expect("less than a block"),
        0,
    );
    let filled = ObjectId::of(&bytes);
    write(&objects.join(filled.to_string()), &bytes)?;
    Ok(filled)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), AuthorError> {
    let result = File::create(path).and_then(|mut file| file.write_all(bytes));
    result.map_err(|source| AuthorError::Write {
        path: path.to_owned(),
        source,
    })
}
