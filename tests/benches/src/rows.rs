//! Every row of the table, each in a file of its own, in the order in which they are printed.

use crate::Options;
use crate::figure::Figure;

mod add_container;
mod binary_size;
mod changed_container;
mod get_large;
mod idle_memory;
mod list_containers;
mod manifest;
mod memory_over_time;
mod put_existing;
mod put_large;
mod put_small;
mod rollback;
mod start_full;
mod twenty;
mod update_adds;
mod wait_during_put;

/// Measures one row, or several that come from the same runs.
type Measure = fn(&Options) -> Vec<Figure>;

/// Name and code of every row.
pub(crate) const ALL: &[(&str, Measure)] = &[
    ("put-large", put_large::measure),
    ("put-small", put_small::measure),
    ("put-existing", put_existing::measure),
    ("wait-during-put", wait_during_put::measure),
    ("list-containers", list_containers::measure),
    ("get-large", get_large::measure),
    ("idle-memory", idle_memory::measure),
    ("binary-size", binary_size::measure),
    ("add-container", add_container::measure),
    ("update-adds", update_adds::measure),
    ("changed-container", changed_container::measure),
    ("rollback", rollback::measure),
    ("twenty", twenty::measure),
    ("start-full", start_full::measure),
    ("manifest", manifest::measure),
    ("memory-over-time", memory_over_time::measure),
];
