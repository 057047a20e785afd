//! What containers and the machine use, for the server: the run time knows the control groups, the kernel the figures.

use std::collections::BTreeMap;

use containerd::Callers;
use linux::cgroup::Cgroups;
use linux::usage;
use model::ContainerName;
use model::usage::{ContainerUsage, MachineUsage};
use server::Figures;

/// Reads the kernel's figures.
#[derive(Debug)]
pub(crate) struct KernelFigures {
    containers: Callers,
    cgroups: Cgroups,
}

impl KernelFigures {
    /// With the containers that the run time knows.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn find(containers: Callers) -> std::io::Result<Self> {
        Ok(Self {
            containers,
            cgroups: Cgroups::find()?,
        })
    }
}

impl Figures for KernelFigures {
    fn containers(&self) -> BTreeMap<ContainerName, ContainerUsage> {
        let groups = self.containers.groups().into_iter();
        groups
            .map(|(name, group)| (name, usage::of_group(&self.cgroups, &group)))
            .collect()
    }

    fn machine(&self) -> MachineUsage {
        usage::of_machine()
    }
}
