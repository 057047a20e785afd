//! An environment block in a file, for GRUB (`grubenv`) and for the boot loader `file`. Replaced as a whole; how a block that GRUB tore
//! is survived stands at [`super::block_format`].

use std::fmt;
use std::io;

use store::disk::Disk;

use super::area::{Area as _, FileArea};
use super::block_format::{self, Block};
use super::{Choice, Environment, Found};

/// A block in a file.
#[derive(Debug)]
pub struct BlockFile<D> {
    /// Where.
    pub file: FileArea<D>,
}

impl<D: Disk + fmt::Debug> BlockFile<D> {
    fn block(&self) -> Result<Block, String> {
        let bytes = match self.file.read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Block::default()),
            Err(error) => return Err(error.to_string()),
            Ok(bytes) => bytes,
        };
        block_format::parse(&bytes)
    }
}

impl<D: Disk + fmt::Debug> Environment for BlockFile<D> {
    fn read(&self) -> Found {
        let place = self.file.place();
        match self.block() {
            Err(problem) => Found::nothing(format!(
                "the environment block {place} cannot be used: {problem}"
            )),
            Ok(block) => Found {
                choice: block.choice,
                notices: block
                    .problem
                    .map(|problem| format!("environment block {place}: {problem}"))
                    .into_iter()
                    .collect(),
            },
        }
    }

    fn write(&mut self, choice: &Choice) -> Result<(), String> {
        // A block that cannot be read has nothing that could be kept.
        let others = self.block().unwrap_or_default().others;
        let place = self.file.place();
        let bytes = block_format::format(choice, &others)
            .map_err(|error| format!("cannot write the environment block {place}: {error}"))?;
        self.file
            .write(&bytes)
            .map_err(|error| format!("cannot write the environment block {place}: {error}"))
    }
}
