//! Runtime over containerd.
