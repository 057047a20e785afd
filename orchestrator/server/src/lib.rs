//! The api on UNIX sockets.
