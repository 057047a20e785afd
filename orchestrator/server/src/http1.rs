//! HTTP/1.x as Pantavisor's clients speak it, over any byte stream.
//!
//! Own code and not hyper's server, for the reasons in decision 0020: the answers recorded from libevent are the contract, down
//! to the order of headers, HTTP/1.0's close-delimited bodies and `Transfer-Encoding: identity`. [`head`] is pure; [`wire`] reads
//! and writes; nothing here knows a route.

pub mod answer;
pub mod head;
pub mod wire;
