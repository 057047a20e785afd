//! Rules of the repository, as tests: who may depend on whom, and what every file must have.

mod edges;
mod files;
mod generated;
