//! GRUB's environment block: `# GRUB Environment Block`, then lines `name=value` (a backslash before a line's end keeps it in the
//! value), filled with `#` to 1024 bytes. Also what the boot loader `file` keeps, so that `grub-editenv` shows both.
//!
//! GRUB writes the block in place, and only to set `pv_tried`. That variable stands first and its value has always one digit, so GRUB
//! changes one byte of one sector. `pv_sum` covers the names of the revisions; without it a trial is not believed. Lines that are
//! not ours are kept byte for byte. Pure.

use model::RevisionId;

use super::Choice;
use super::token::{self, sum, token};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 1024;
const HEADER: &[u8] = b"# GRUB Environment Block\n";
const OURS: [&[u8]; 4] = [b"pv_tried=", b"pv_sum=", b"pv_rev=", b"pv_try="];

/// What is in a block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// Ours; `None` when it is not there or not whole.
    pub choice: Option<Choice>,
    /// Lines that are not ours, each with its end.
    pub others: Vec<Vec<u8>>,
    /// What is wrong with ours.
    pub problem: Option<String>,
}

/// The variables do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the variables need {needed} bytes, and the block has room for {BLOCK_BYTES}; remove some with grub-editenv"
)]
pub struct BlockFull {
    /// Bytes that they need.
    pub needed: usize,
}

/// Reads a block.
///
/// # Errors
/// It is not a whole block, in words.
pub fn parse(bytes: &[u8]) -> Result<Block, String> {
    if bytes.len() != BLOCK_BYTES {
        return Err(format!(
            "it has {} bytes instead of {BLOCK_BYTES}",
            bytes.len()
        ));
    }
    let Some(content) = bytes.strip_prefix(HEADER) else {
        return Err("it does not start with \"# GRUB Environment Block\"".to_owned());
    };
    let mut values: [Option<&[u8]>; 4] = [None; 4];
    let mut others = Vec::new();
    for line in lines(content) {
        match OURS.iter().position(|name| line.starts_with(name)) {
            Some(index) => {
                let value = line.get(OURS[index].len()..line.len() - 1);
                values[index] = value.filter(|value| !value.is_empty());
            }
            None if line.contains(&b'=') => others.push(line.to_vec()),
            None => {}
        }
    }
    let [tried, stored, committed, trial] = values;
    let (choice, problem) = match choice(tried, stored, committed, trial) {
        Ok((choice, problem)) => (choice, problem),
        Err(problem) => (None, Some(problem)),
    };
    Ok(Block {
        choice,
        others,
        problem,
    })
}

/// Lines with their ends, without comments; what no line's end closes is padding.
fn lines(content: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, byte) in content.iter().enumerate() {
        if *byte == b'\n' && !escaped {
            let line = &content[start..=index];
            if !line.starts_with(b"#") {
                lines.push(line);
            }
            start = index + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    lines
}

type Judged = (Option<Choice>, Option<String>);

fn choice(
    tried: Option<&[u8]>,
    stored: Option<&[u8]>,
    committed: Option<&[u8]>,
    trial: Option<&[u8]>,
) -> Result<Judged, String> {
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let (committed, mut trial) = (text(committed), text(trial));
    if committed.is_empty() && trial.is_empty() {
        return Ok((None, None));
    }
    let mut problem = None;
    match stored {
        Some(stored) if stored != sum(&committed, &trial).as_bytes() => {
            return Err("pv_sum does not match pv_rev and pv_try".to_owned());
        }
        None if !trial.is_empty() => {
            problem = Some(format!("pv_try={trial} without pv_sum is not believed"));
            trial.clear();
        }
        Some(_) | None => {}
    }
    let revision = |text: &str| -> Result<Option<RevisionId>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let revision = token::revision(text);
        revision
            .map(Some)
            .ok_or_else(|| format!("{text:?} is no revision"))
    };
    let (committed, trial) = (revision(&committed)?, revision(&trial)?);
    let tried = trial.is_some() && tried != Some(b"0");
    let choice = Choice {
        committed,
        trial,
        tried,
    };
    Ok((Some(choice), problem))
}

/// Writes a block.
///
/// # Errors
/// It does not fit.
pub fn format(choice: &Choice, others: &[Vec<u8>]) -> Result<Vec<u8>, BlockFull> {
    let name = |revision: &Option<RevisionId>| revision.as_ref().map(token).unwrap_or_default();
    let (committed, trial) = (name(&choice.committed), name(&choice.trial));
    let tried = u8::from(choice.tried);
    let sum = sum(&committed, &trial);
    let ours = format!("pv_tried={tried}\npv_sum={sum}\npv_rev={committed}\npv_try={trial}\n");
    let mut block = HEADER.to_vec();
    block.extend_from_slice(ours.as_bytes());
    block.extend(others.iter().flatten());
    if block.len() > BLOCK_BYTES {
        return Err(BlockFull {
            needed: block.len(),
        });
    }
    block.resize(BLOCK_BYTES, b'#');
    Ok(block)
}
