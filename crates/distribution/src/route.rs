//! What a call asks of its caller, whichever the protocol.

/// Which bodies a call of a protocol takes, as far as web pages are kept out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// What the protocol has, and nothing that a page can send without asking first.
    Protocol,
    /// Forms too: the call changes nothing.
    Any,
}

/// What a call of the hub's protocol or of OCI distribution asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether it needs the right to write models; else the one to read them.
    pub writes: bool,
    /// What it takes.
    pub bodies: Bodies,
}
