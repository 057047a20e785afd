//! What happens to a revision: boot, update, containers, health, retention. Pure.
