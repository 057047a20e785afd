//! A hawkBit server updates the device: DDI on one side, `link` with the control socket on the other.
//!
//! [`ddi`] is the protocol as types; [`Hawkbit`] asks and tells; [`offer`] turns what a server offers into what `link` carries out;
//! [`attributes`] is what a server is told of the device. What a deployment is and how it ends is `link`'s and the device's
//! business: nothing here decides about it.

#![forbid(unsafe_code)]

pub mod attributes;
mod cloud;
pub mod ddi;
pub mod offer;
pub mod settings;

pub use cloud::Hawkbit;
