//! Typed client of the api, for coxctl and every cloud client.
