//! The facade and its halves: every way to be refused, and what may pass.

mod ahead;
mod fixture;
mod hostile;
mod outbound;
mod peers;
