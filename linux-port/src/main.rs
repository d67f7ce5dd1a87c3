//! The `simplevpn` command.
fn main() {}
