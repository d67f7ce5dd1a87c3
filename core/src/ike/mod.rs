//! IKEv2 (RFC 7296): who the peer is, and which keys ESP uses.
//!
//! Here are the parts that exchanges are made of. The exchanges themselves, with their timers and
//! retransmissions, are not here yet.
//!
//! | module | what it is |
//! |---|---|
//! | [`suite`] | which algorithms: what is offered, what is chosen |
//! | [`keymat`] | the keys that a key exchange leads to |
//! | [`identity`] | what an end calls itself |
//! | [`auth`] | the proof that it is who it says |
//! | [`wire`] | messages as bytes |

pub mod auth;
pub mod identity;
pub mod keymat;
pub mod suite;
pub mod wire;
