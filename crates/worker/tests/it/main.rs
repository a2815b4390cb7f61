//! Whole workers through the public API: in process and over real gRPC.

#![allow(clippy::disallowed_methods)]

mod access;
mod generate;
mod harness;
mod lease;
mod lifecycle;
mod tiny_model;
mod watching;
